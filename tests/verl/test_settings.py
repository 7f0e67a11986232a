"""verl's configuration, composed as on its command line: every setting arrives, and a wrong one stops the driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from batches import checked, composed, methods_of
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

import kpo.verl
from kpo.advantages import ADVANTAGE_KINDS, advantage_kind
from kpo.methods import METHODS, get_method
from kpo.verl_settings import (
    ACTOR,
    VERL_ESTIMATORS,
    VERL_LOSSES,
    estimator_names,
    loss_method,
    loss_names,
    overrides,
)

pytestmark = pytest.mark.verl
BASE = [
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.name=vllm",
    "critic.enable=false",
]

LOSS = [f"{ACTOR}.policy_loss._target_=kpo.verl.PolicyLoss", f"{ACTOR}.policy_loss.loss_mode=kpo-clipped"]
KRPO = ["algorithm.adv_estimator=krpo"]


def validated(*lines):
    return checked(composed(*BASE, *lines))


def test_names_that_verl_has():
    """verl's own names are those that get a prefix, and every method and kind is registered."""
    kpo.verl.register()
    of_kpo = set(loss_names()), set(estimator_names())
    registries = core_algos.POLICY_LOSS_REGISTRY, core_algos.ADV_ESTIMATOR_REGISTRY
    for names, registry, verls in zip(of_kpo, registries, (VERL_LOSSES, VERL_ESTIMATORS), strict=True):
        assert set(registry) - names == verls and names <= set(registry)
        for name, function in registry.items():
            assert function.__module__ == ("kpo.verl" if name in names else core_algos.__name__)
    assert {"kpo-gspo", "kpo-clipped", "krpo"} <= of_kpo[0] and {"kpo-grpo", "kpo-opo", "krpo"} <= of_kpo[1]


@pytest.mark.parametrize("name", METHODS)
def test_printed_overrides_arrive(name, capsys):
    """What `python -m kpo.verl` prints gives the same method back, through verl's command line and its check."""
    kpo.verl.main([name, name])
    lines = [line.removesuffix(" \\") for line in capsys.readouterr().out.splitlines()]
    assert lines == overrides(METHODS[name], METHODS[name])
    loss, advantage, seed = methods_of(validated(*lines))
    declared = METHODS[name]
    for field in ("ratio", "ratio_parameters", "clip", "aggregation", "aggregation_length", "kl_weight"):
        assert getattr(loss, field) == getattr(declared, field), field
    assert advantage.advantage == declared.advantage and seed == 0
    assert advantage.advantage_parameters.items() >= declared.advantage_parameters.items() - {("seed", 0)}


def test_own_values_arrive():
    """Every row of the table in docs/verl.md, with values that are nobody's default."""
    loss, advantage, seed = methods_of(
        validated(
            f"{ACTOR}.policy_loss._target_=kpo.verl.PolicyLoss",
            f"{ACTOR}.policy_loss.loss_mode=kpo-clipped",
            f"{ACTOR}.clip_ratio_low=0.01",
            f"{ACTOR}.clip_ratio_high=0.02",
            f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm",
            f"{ACTOR}.loss_scale_factor=77",
            f"{ACTOR}.use_kl_loss=true",
            f"{ACTOR}.kl_loss_coef=0.03",
            f"+{ACTOR}.policy_loss.kpo.process_variance=3e-6",
            f"+{ACTOR}.policy_loss.kpo.observation_variance=2",
            f"+{ACTOR}.policy_loss.kpo.initial_variance=0.5",
            "algorithm.adv_estimator=krpo",
            "+algorithm.kpo.process_variance=2e-5",
            "+algorithm.kpo.observation_variance=0.02",
            "+algorithm.kpo.initial_mean=0.4",
            "+algorithm.kpo.initial_variance=3",
            "+algorithm.kpo.seed=9",
        )
    )
    changed = {"clip_low": 0.01, "clip_high": 0.02, "aggregation": "seq-mean-token-sum-norm", "kl_weight": 0.03}
    filters = {"process_variance": 3e-6, "observation_variance": 2, "initial_variance": 0.5}
    assert loss == get_method("kpo-clipped", aggregation_length=77, **changed, **filters)
    rewards = {"process_variance": 2e-5, "observation_variance": 0.02, "initial_mean": 0.4, "initial_variance": 3}
    assert advantage.advantage_parameters == rewards and seed == 9


@pytest.mark.parametrize(
    ("loss_mode", "line", "field", "value"),
    [
        ("kpo-ema", "kpo.gain=0.25", "ratio_parameters", {"gain": 0.25}),
        ("kpo-clipped", "kpo.clip=false", "clip", None),
        ("kpo-unclipped", "kpo.clip=true", "clip", (0.2, 0.2)),
    ],
)
def test_field_of_the_loss(loss_mode, line, field, value):
    target = f"{ACTOR}.policy_loss._target_=kpo.verl.PolicyLoss"
    mode = f"{ACTOR}.policy_loss.loss_mode={loss_mode}"
    config = validated(
        target, mode, f"+{ACTOR}.policy_loss.{line}", "algorithm.adv_estimator=krpo", "+algorithm.kpo={}"
    )
    assert getattr(methods_of(config)[0], field) == value


def test_clip_falls_back_as_in_verl():
    lines = [f"{ACTOR}.clip_ratio=0.07", f"{ACTOR}.clip_ratio_low=null", f"{ACTOR}.policy_loss.loss_mode=kpo-clipped"]
    actor = validated(*lines).actor_rollout_ref.actor
    assert loss_method("kpo-clipped", {}, actor).clip == (0.07, 0.2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LOSS[0], f"{ACTOR}.policy_loss.loss_mode=kpo-cliped"], "did you mean 'kpo-clipped'"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.proces_variance=1e-6"], "did you mean 'process_variance'"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.process_variance=-1"], "process_variance must be at least 0"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.process_variance=fast"], "process_variance must be a number"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.clip=0.1"], "clip must be true or false"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.clip_low=0.1"], f"use {ACTOR}.clip_ratio_low"),
        ([*LOSS, f"+{ACTOR}.policy_loss.kpo.kl_weight=0.1"], f"use {ACTOR}.kl_loss_coef"),
        (
            [*LOSS, f"{ACTOR}.clip_ratio_low=2"],
            f"clip_low must be at least 0 and at most 1, found 2.*{ACTOR}.clip_ratio",
        ),
        ([*LOSS, f"{ACTOR}.loss_agg_mode=token-sum"], f"unknown aggregation 'token-sum'.*{ACTOR}.loss_agg_mode"),
        ([*LOSS, f"{ACTOR}.loss_agg_mode=seq-mean-token-sum"], "unknown aggregation 'seq-mean-token-sum'"),
        ([*LOSS, f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm"], f"{ACTOR}.loss_scale_factor"),
        ([f"{ACTOR}.policy_loss.loss_mode=krpo"], f"set {ACTOR}.use_kl_loss=true {ACTOR}.kl_loss_coef=0.01"),
        ([*LOSS, "algorithm.adv_estimator=krpoo"], "did you mean 'krpo'"),
        ([*KRPO, f"{ACTOR}.policy_loss.loss_mode=vanila"], "did you mean 'vanilla'"),
        (["algorithm.adv_estimator=grpo", "+algorithm.kpo.seed=1"], "unknown algorithm.adv_estimator 'grpo'.*kpo-grpo"),
        ([*KRPO, "+algorithm.kpo.observation_varience=1"], "did you mean 'observation_variance'"),
        ([*KRPO, "+algorithm.kpo.observation_variance=-1"], "observation_variance must be"),
        ([*KRPO, "+algorithm.kpo.seed=-1"], "algorithm.kpo.seed must be at least 0"),
        ([*KRPO, "+algorithm.kpo.state_is_lost=true"], "krpo keeps no state"),
        (["algorithm.adv_estimator=krpo-adaptive"], r"set \+algorithm.kpo.state_is_lost=true"),
    ],
)
def test_wrong_settings_stop_the_driver(lines, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        validated(*lines)
    assert "\n" not in str(caught.value)


def test_section_checks_itself():
    """Without the check of the whole configuration, building verl's actor section still refuses what it can see."""
    config = composed(*BASE, *LOSS, f"+{ACTOR}.policy_loss.kpo.proces_variance=1e-6")
    with pytest.raises(Exception, match="did you mean 'process_variance'"):
        validate_config.without_kpo(config, need_reference_policy(config), need_critic(config))


def test_kind_that_verl_cannot_feed():
    """Rewards by component are summed before they reach an estimator."""

    @advantage_kind("by-component")
    def by_component(rewards_PG, graded_PG, *, components):
        return rewards_PG

    kpo.verl.register()
    try:
        with pytest.raises(ValueError, match="by-component needs the components of each reward"):
            validated("algorithm.adv_estimator=by-component")
    finally:
        del ADVANTAGE_KINDS["by-component"], core_algos.ADV_ESTIMATOR_REGISTRY["by-component"]


def test_stock_verl_is_left_alone():
    """A configuration without kpo gets verl's check only."""
    validated()
    validated(f"{ACTOR}.policy_loss.loss_mode=of-another-plugin", "algorithm.adv_estimator=of-another-plugin")


def test_example_script(tmp_path):
    """The arguments that examples/verl_gsm8k.sh gives to verl, through verl's configuration and its check."""
    stub = tmp_path / "python3"
    stub.write_text(
        f'#!/bin/sh\ncase "$2" in verl*) shift 2; printf "%s\\n" "$@";; *) exec {sys.executable} "$@";; esac\n'
    )
    stub.chmod(0o755)
    script = Path(__file__).resolve().parents[2] / "examples" / "verl_gsm8k.sh"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(script), "trainer.nnodes=2"], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert set(overrides(METHODS["kpo-clipped"], METHODS["krpo"])) <= set(lines) and lines[-1] == "trainer.nnodes=2"
    config = composed(*lines)
    validate_config(config, need_reference_policy(config), need_critic(config))
    loss, advantage, _ = methods_of(config)
    assert loss == METHODS["kpo-clipped"] and advantage.advantage == "krpo"
    written = [line.removeprefix("#").split() for line in script.read_text().splitlines() if line.startswith("#   ")]
    assert {line[0] for line in written if "=" in line[0]} == set(overrides(METHODS["kpo-clipped"], METHODS["krpo"]))


def test_command_of_the_reproduction(tmp_path):
    """What the workflow gives to verl for a run of config/paper.yaml, through verl's configuration and its check."""
    # Imported here, because the reproduction adds its own advantage kinds to the library's.
    from reproduction.settings.configuration import load
    from reproduction.settings.run import get_run
    from reproduction.training.through_verl import launch_command

    settings = {"training": {"gradient_clip": 0.7, "weight_decay": 0.02, "epochs": 2}}
    run = get_run(load({"scale": "paper", "experiments": {"kpo": settings}}), "kpo", "kpo-clipped", 42)
    command = launch_command(run, tmp_path, tmp_path, 8)
    config = composed(*command[3:])
    validate_config(config, need_reference_policy(config), need_critic(config))
    loss, advantage, seed = methods_of(config)
    assert loss.ratio_parameters == run.method.ratio_parameters and loss.clip == run.method.clip
    assert advantage.advantage == run.method.advantage and seed == 42
    actor = config.actor_rollout_ref.actor
    assert (actor.optim.clip_grad, actor.optim.weight_decay, actor.ppo_epochs) == (0.7, 0.02, 2)
