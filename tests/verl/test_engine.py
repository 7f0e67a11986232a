"""kpo's loss in verl's own FSDP engine on the CPU: micro-batches and workers change neither loss nor gradient."""

import copy
import os
import socket
from functools import partial

import pytest
import torch
from batches import Rollout, actor_config
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss

from kpo.losses import policy_loss
from kpo.methods import METHODS, get_method

pytestmark = pytest.mark.verl


@pytest.fixture(scope="module")
def rollout(tiny_model):
    return Rollout(tiny_model)


@pytest.fixture(scope="module")
def one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    os.environ.update(address | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    yield
    torch.distributed.destroy_process_group()
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        del os.environ[name]


def engine_settings(size):
    return {
        "strategy": "fsdp2",
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": size,
        "use_torch_compile": False,
        "mixed_precision": {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
    }


def expected(rollout, name):
    rollout.model.zero_grad()
    method = get_method(name, kl_weight=0.0)
    result = policy_loss(method, rollout.log_probs(), rollout.old, rollout.advantages, rollout.mask)
    result.loss.backward()
    return result, {key: parameter.grad.clone() for key, parameter in rollout.model.named_parameters()}


@pytest.mark.parametrize("name", ["kpo-clipped", "kpo-unclipped", "gmpo", "grpo"])
def test_micro_batches_in_the_engine(rollout, tiny_model, one_process, name):
    """1, 2 and 4 micro-batches against plain autograd over the whole minibatch."""
    result, gradients = expected(rollout, name)
    method = METHODS[name]
    clip = {} if method.clip is None else {"clip_ratio_low": method.clip_low, "clip_ratio_high": method.clip_high}
    config = actor_config(name, **clip)
    for size in (8, 4, 2):
        worker = TrainingWorker(
            TrainingWorkerConfig(
                model_type="language_model",
                model_config=HFModelConfig(
                    path=str(tiny_model), use_remove_padding=False, override_config={"attn_implementation": "sdpa"}
                ),
                engine_config=FSDPEngineConfig(**engine_settings(size)),
                optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=1),
                checkpoint_config=CheckpointConfig(),
            )
        )
        worker.reset()
        worker.set_loss_fn(partial(ppo_loss, config=config))
        seen = {}
        step = worker.engine.optimizer_step

        def keep(worker=worker, seen=seen, step=step):
            for key, parameter in worker.engine.module.named_parameters():
                seen[key] = parameter.grad.full_tensor().clone()
            return step()

        worker.engine.optimizer_step = keep
        output = worker.train_batch(copy.deepcopy(rollout.data()))
        metrics = tu.get(output, "metrics")
        assert metrics["loss"] == pytest.approx(result.loss.item(), rel=1e-4, abs=1e-7)
        assert seen.keys() == gradients.keys()
        for key in seen:
            torch.testing.assert_close(seen[key], gradients[key], rtol=1e-3, atol=1e-7)
