"""A rollout engine for verl without an engine: random letters, in verl's registries as `fake`."""

import math
import os
import random

import ray
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput


@ray.remote
class Server:
    """Answers each request with up to twelve letters, which depend on the request only."""

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        draw = random.Random(f"{request_id} {prompt_ids}")
        length = draw.randint(2, 12)
        tokens = [draw.randint(4, 29) for _ in range(length)] + [1]
        if os.environ["KPO_TEST_ROLLOUT"] == "answers" and draw.random() < 0.5:
            tokens[:-1] = [49, draw.randint(30, 39), 50]  # a digit in the tags of tests/verl/conftest.py
        log_probs = [-math.log(26)] * (len(tokens) - 1) + [0.0]
        extra = {"global_steps": 0}
        return TokenOutput(token_ids=tokens, log_probs=log_probs, stop_reason="completed", extra_fields=extra)

    async def nothing(self, *_, **__):
        return None

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = set_global_steps = nothing


class Replica(RolloutReplica):
    async def launch_servers(self):
        self.servers = [Server.remote()]
        self._server_handle, self._server_address = self.servers[0], f"fake-{self.replica_rank}"


class Adapter(base.BaseRollout):
    async def resume(self, tags):
        pass

    async def release(self):
        pass

    async def update_weights(self, weights, wire_format="named_tensors", **_):
        for _ in weights:
            pass


RolloutReplicaRegistry.register("fake", lambda: Replica)
base._ROLLOUT_REGISTRY[("fake", "async")] = "fake_rollout.Adapter"
