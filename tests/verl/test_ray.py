"""kpo's loss in verl's Ray workers: one worker and two make the same update, by each way of importing kpo.verl."""

import os
import subprocess
import sys

import pytest
import ray
import torch
from batches import ROWS, Rollout, composed
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker

from kpo.losses import policy_loss
from kpo.methods import get_method
from kpo.verl_settings import ACTOR, overrides

pytestmark = pytest.mark.verl
VARIABLES = ("VERL_USE_EXTERNAL_MODULES", "VERL_USE_EXTERNAL_PLUGINS")


@pytest.fixture
def cluster():
    """Starts a local Ray with the environment of that moment, and stops it afterwards."""
    before = {name: os.environ.get(name) for name in VARIABLES}

    def start(**environment):
        os.environ.update(environment)
        ray.init(num_cpus=64, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)

    yield start
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def worker_group(config, workers):
    cls = RayClassWithInitArgs(cls=ray.remote(ActorRolloutRefWorker), config=config.actor_rollout_ref, role="actor")
    pool = RayResourcePool([workers], use_gpu=False)
    group = RayWorkerGroup(resource_pool=pool, ray_cls_with_init=cls, device_name="cpu")
    group.init_model()
    return group


def actor_lines(folder, method):
    return [
        *overrides(method, method),
        f"actor_rollout_ref.model.path={folder}",
        "actor_rollout_ref.model.use_remove_padding=false",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"{ACTOR}.strategy=fsdp2",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
        f"{ACTOR}.ppo_mini_batch_size={ROWS}",
        f"{ACTOR}.use_torch_compile=false",
        f"{ACTOR}.optim.lr=1e-3",
        f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp32",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    ]


def update(group, rollout):
    """Metrics of one update, and the log-probabilities before and after it."""
    extra = {"mini_batch_size": ROWS, "epochs": 1, "seed": 1, "dataloader_kwargs": {"shuffle": False}}
    before = group.compute_log_prob(rollout.data(compute_loss=False))["log_probs"]
    metrics = tu.get(group.update_actor(rollout.data(**extra)), "metrics")
    after = group.compute_log_prob(rollout.data(compute_loss=False))["log_probs"]
    return metrics, before.values(), after.values()


def test_one_and_two_workers(cluster, tiny_model):
    rollout = Rollout(tiny_model)
    method = get_method("kpo-clipped")
    expected = policy_loss(method, rollout.log_probs(), rollout.old, rollout.advantages, rollout.mask)
    config = composed(*actor_lines(tiny_model, method))
    cluster()
    results = [update(worker_group(config, workers), rollout) for workers in (1, 2)]
    (one, *log_probs_one), (two, *log_probs_two) = results
    for metrics in (one, two):
        assert sum(metrics["loss"]) == pytest.approx(expected.loss.item(), rel=1e-4, abs=1e-7)
        assert {"actor/pg_clipfrac", "actor/ppo_kl"} <= metrics.keys()
    assert one.keys() == two.keys()
    assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
    torch.testing.assert_close(log_probs_one, log_probs_two, rtol=0, atol=1e-5)
    assert (log_probs_one[1] - log_probs_one[0]).abs().max() > 1e-3


@ray.remote
def knows_kpo(folder, library):
    """Whether a worker's verl knows a loss of kpo before and after it built the model's configuration."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.workers.config import HFModelConfig

    before = "kpo-clipped" in POLICY_LOSS_REGISTRY
    HFModelConfig(path=folder, external_lib=library)
    return before, "kpo-clipped" in POLICY_LOSS_REGISTRY and "krpo" in ADV_ESTIMATOR_REGISTRY


def test_cluster_started_before_the_variable(cluster, tiny_model, caplog):
    """The variable does not reach such a cluster: the driver says what to do, and doing it works."""
    from verl.utils.config import validate_config

    cluster(VERL_USE_EXTERNAL_PLUGINS="none")
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "cpu_platform,kpo.verl"
    lines = [f"{ACTOR}.policy_loss.loss_mode=kpo-clipped", f"{ACTOR}.ppo_micro_batch_size_per_gpu=1"]
    lines += ["actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1", "critic.enable=false"]
    remedy = "actor_rollout_ref.model.external_lib=kpo.verl"
    validate_config(composed(*lines, "actor_rollout_ref.rollout.name=vllm"), False, False)
    assert [record.message.endswith(f"add {remedy}") for record in caplog.records if record.name == "kpo.verl"] == [
        True
    ]
    caplog.clear()
    validate_config(composed(*lines, "actor_rollout_ref.rollout.name=vllm", remedy), False, False)
    assert [record for record in caplog.records if record.name == "kpo.verl"] == []
    assert ray.get(knows_kpo.remote(str(tiny_model), None)) == (False, False)
    assert ray.get(knows_kpo.remote(str(tiny_model), "kpo.verl")) == (False, True)


WAYS = {
    "entry point": ("", "auto", "pass"),
    "variable": (",kpo.verl", "none", "pass"),
    "external_lib": ("", "none", "HFModelConfig(path=sys.argv[1], external_lib='kpo.verl')"),
    "_target_": ("", "none", "instantiate({'_target_': 'kpo.verl.PolicyLoss', 'loss_mode': 'kpo-clipped'})"),
}


def in_new_process(code, *arguments, modules="", plugins="auto"):
    """A process that imports verl as a user's would, and then runs the code."""
    environment = os.environ | {"VERL_USE_EXTERNAL_MODULES": "cpu_platform" + modules}
    environment["VERL_USE_EXTERNAL_PLUGINS"] = plugins
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_importing(way, tiny_model):
    modules, plugins, action = WAYS[way]
    code = f"""
import sys
from hydra.utils import instantiate
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl.workers.config import HFModelConfig
{action}
print("kpo-clipped" in POLICY_LOSS_REGISTRY, "krpo" in ADV_ESTIMATOR_REGISTRY)
"""
    done = in_new_process(code, tiny_model, modules=modules, plugins=plugins)
    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr
    assert "not registered" not in done.stderr


def test_broken_entry_point_warns():
    """verl goes on without kpo, as it would for any plugin, but not in silence; told to import kpo, it stops."""
    code = "import sys; sys.modules['kpo.verl_settings'] = None; import verl; print('went on')"
    done = in_new_process(code)
    assert done.stdout.split("\n")[-2] == "went on"
    assert "kpo is not registered with verl: import of kpo.verl_settings halted" in done.stderr
    done = in_new_process(code, modules=",kpo.verl", plugins="none")
    assert done.returncode == 1 and "went on" not in done.stdout
    assert "kpo is not registered with verl" in done.stderr and "ModuleNotFoundError" in done.stderr
