"""A run through verl: its command says all that the configuration says, and verl's log becomes metrics.jsonl."""

import dataclasses
import importlib
import json
import math
import os
import sys
from types import ModuleType

import pytest

import reproduction.training.through_verl as through_verl
from kpo.verl_settings import overrides
from reproduction.jobs.devices import Device
from reproduction.jobs.plan import plan_text
from reproduction.jobs.sizing import planned_count
from reproduction.settings.configuration import ConfigurationError, load
from reproduction.settings.run import get_run

VERL = {"experiments": {"kpo": {"pretrained": {"trainer": "verl"}}}}


@pytest.fixture
def run():
    return get_run(load({"scale": "paper"} | VERL), "kpo", "kpo-clipped", 42)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"training": {"minibatches": 64}}, "32 prompts do not divide into 64 minibatches"),
        ({"reward_noise": {"flips": 0.1}}, "no noise"),
        ({"methods": {"grpo": {}, "mine": {"method": "raft"}}}, "no method 'mine'"),
        ({"pretrained": {"lora": {"rank": 8, "alpha": 16}, "devices": {"count": 1}}}, "lora: null"),
        ({"pretrained": {"train_prompt": {"template": "plain", "thinking": None}}}, "template: chat"),
    ],
)
def test_what_verl_cannot_do_is_refused_with_the_configuration(settings, reason):
    pretrained = {"trainer": "verl"} | settings.get("pretrained", {})
    with pytest.raises(ConfigurationError) as caught:
        load({"scale": "paper", "experiments": {"kpo": settings | {"pretrained": pretrained}}})
    said = str(caught.value)
    assert "verl" in said and reason in said and "trainer: trl" in said and "\n" not in said
    del pretrained["trainer"]
    load({"scale": "paper", "experiments": {"kpo": settings | {"pretrained": pretrained}}})


def test_command(run, tmp_path):
    command = through_verl.launch_command(run, "/models/qwen", tmp_path, 8)
    assert command[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    assert set(overrides(run.method, run.method)) - {"+algorithm.kpo.seed=0"} <= set(command)
    expected = {
        "data.train_batch_size=32",
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.optim.lr=1e-06",
        "actor_rollout_ref.model.path=/models/qwen",
        "trainer.total_training_steps=1087",
        "trainer.n_gpus_per_node=8",
        "+algorithm.kpo.seed=42",
    }
    assert expected <= set(command)
    names = [line.lstrip("+").partition("=")[0] for line in command[3:]]
    assert len(names) == len(set(names))


def test_plan_shows_it():
    text = plan_text(load({"scale": "paper"} | VERL), 8, [])
    assert "kpo trains through verl" in text and "verl/launch.sh" in text
    assert "through verl" not in plan_text(load({"scale": "paper"}), 8, [])


def test_log_becomes_metrics(run, tmp_path):
    data = {name: 0.5 for name in through_verl.COLUMNS.values()} | {"actor/kl_loss": math.nan, "perf/mfu": 1.0}
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": step, "data": data}).replace("NaN", "null") + "\n" for step in (1, 2)))
    rows = through_verl.metrics_rows(log, run.settings.training)
    assert [(row["update"], row["rollout_batch"]) for row in rows] == [(4, 1), (8, 2)]
    assert rows[0]["clip_share"] == 0.5 and rows[0]["kl"] is None and "perf/mfu" not in rows[0]


@pytest.fixture
def three_prompts(run, tmp_path, monkeypatch):
    """The run with three prompts and a folder of its own."""
    from tests.byte_tokenizer import byte_tokenizer

    monkeypatch.delenv(through_verl.PYTHON, raising=False)
    monkeypatch.setattr("reproduction.training.saving.load_model", lambda folder: (None, byte_tokenizer()))
    prompts = [{"prompt": [{"role": "user", "content": f"1+{i}"}], "answer": str(1 + i)} for i in range(3)]
    monkeypatch.setattr("reproduction.training.prompts.chosen_prompts", lambda *_: prompts)
    return dataclasses.replace(run, folder=tmp_path / "my run")


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("echo broken; exit 3", "verl ended with status 3; see .*output.txt"),
        ('echo \'{"step": 1, "data": {}}\' > "$VERL_FILE_LOGGER_PATH"', "1 of 1087 rollout batches and no model"),
        ("true", "0 of 1087 rollout batches and no model"),
    ],
)
def test_verl_that_stops_early_leaves_no_run(does, message, three_prompts, tmp_path, monkeypatch):
    run, python = three_prompts, tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *main_ppo*) {does};; *) echo 0.9.1;; esac\n')
    python.chmod(0o755)
    monkeypatch.setenv(through_verl.PYTHON, str(python))
    monkeypatch.setattr("reproduction.jobs.devices.visible_devices", lambda: [Device("0", "made up", None)])
    # Left by an attempt that was killed after its training.
    stale = run.folder / "verl" / "checkpoint" / "global_step_9" / "config.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    (run.folder / "verl" / "log.jsonl").write_text('{"step": 1, "data": {}}\n' * 1087)
    with pytest.raises(RuntimeError, match=message) as caught:
        through_verl.train_through_verl(run, tmp_path, [], open(os.devnull, "w"))
    assert [path.name for path in run.folder.iterdir()] == ["verl"] and "\n" not in str(caught.value)


def test_without_verl_the_command_is_left(three_prompts, tmp_path, monkeypatch):
    """One line that says what is missing, and files that can be taken to a cluster; nothing that looks finished."""
    run = three_prompts
    monkeypatch.setattr("reproduction.jobs.devices.visible_devices", list)
    with pytest.raises(ValueError, match="KPO_VERL_PYTHON is not set.*launch.sh"):
        through_verl.train_through_verl(run, tmp_path, [], open(os.devnull, "w"))
    assert sorted(path.name for path in run.folder.iterdir()) == ["verl"]
    import pandas

    table = pandas.read_parquet(run.folder / "verl" / "prompts.parquet")
    assert table.prompt[2][0]["content"] == "1+2" and table.reward_model[2]["ground_truth"] == "3"
    command = (run.folder / "verl" / "launch.sh").read_text()
    assert table.extra_info[0]["rule"] == "math" and "verl.trainer.main_ppo" in command
    # No device here: the number is that of the plan for a cluster.
    assert f"trainer.n_gpus_per_node={planned_count(run.settings, [])} " in command


def refused(run, tmp_path, monkeypatch, *, devices, python=None):
    """The one line that stops a run before its model is read or a file is written."""
    monkeypatch.setattr("reproduction.jobs.devices.visible_devices", lambda: [Device("0", "made up", None)] * devices)
    monkeypatch.delenv(through_verl.PYTHON, raising=False)
    if python:
        monkeypatch.setenv(through_verl.PYTHON, str(python))
    run = dataclasses.replace(run, folder=tmp_path / "run")
    with pytest.raises(ValueError) as caught:
        through_verl.train_through_verl(run, tmp_path / "no model", [], open(os.devnull, "w"))
    assert not run.folder.exists() and "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_device(run, tmp_path, monkeypatch):
    said = refused(run, tmp_path, monkeypatch, devices=0, python=sys.executable)
    assert "verl trains on CUDA devices and there is none to use here" in said and "unset KPO_VERL_PYTHON" in said
    settings = {"pretrained": {"trainer": "verl", "devices": {"count": 0}}}
    on_the_cpu = get_run(load({"scale": "paper", "experiments": {"kpo": settings}}), "kpo", "kpo-clipped", 42)
    assert "set pretrained.devices.count above 0" in refused(on_the_cpu, tmp_path, monkeypatch, devices=0)


@pytest.mark.parametrize(("python", "reason"), [("/nowhere/python", "cannot be run"), (sys.executable, "needs verl")])
def test_a_python_without_verl(python, reason, run, tmp_path, monkeypatch):
    """This environment has no verl: the other Python's own sentence is passed on."""
    said = refused(run, tmp_path, monkeypatch, devices=1, python=python)
    assert f"KPO_VERL_PYTHON={python} " in said and reason in said


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r"kpo.verl needs verl, which cannot be imported \(.*\): pip install 'verl\[verl-core\]>=0.9,<0.10'"),
        ("0.8.0", "kpo.verl is written for verl 0.9, and this is 0.8.0: pip install"),
        ("0.10.0", "kpo.verl is written for verl 0.9, and this is 0.10.0: pip install"),
        ("1.0.9", "kpo.verl is written for verl 0.9, and this is 1.0.9: pip install"),
        # A supported one gets further: this stand-in has no more than a version.
        ("0.9.1", "No module named 'verl.trainer'"),
    ],
)
def test_verl_missing_or_of_another_version(version, message, monkeypatch):
    """Importing kpo.verl, which verl's driver does before Ray starts, fails with one sentence and registers nothing."""
    stand_in = None if version is None else ModuleType("verl")
    if stand_in is not None:
        stand_in.__version__, stand_in.__path__ = version, []
    monkeypatch.setitem(sys.modules, "verl", stand_in)
    monkeypatch.delitem(sys.modules, "kpo.verl", raising=False)
    with pytest.warns(UserWarning, match=f"kpo is not registered with verl: {message}"):
        with pytest.raises(ImportError, match=f"^{message}") as caught:
            importlib.import_module("kpo.verl")
    assert "\n" not in str(caught.value) and "kpo.verl" not in sys.modules


@pytest.mark.parametrize(("response", "reward"), [(r"so \boxed{7}", 1.0), (r"so \boxed{8}", 0.0)])
def test_reward(response, reward):
    from reproduction.training.verl_reward import compute_score

    assert compute_score("math", response, "7", {"rule": "math", "markers": ["boxed"]}) == reward
