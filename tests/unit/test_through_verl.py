"""A run through verl: its command says all that the configuration says, and verl's log becomes metrics.jsonl."""

import json
import math
import os

import pytest

import reproduction.training.through_verl as through_verl
from kpo.verl_settings import overrides
from reproduction.jobs.plan import plan_text
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run

VERL = {"experiments": {"kpo": {"pretrained": {"trainer": "verl"}}}}


@pytest.fixture
def run():
    return get_run(load({"scale": "paper"} | VERL), "kpo", "kpo-clipped", 42)


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


def test_without_verl_the_command_is_left(run, tmp_path, monkeypatch):
    """One line that says what is missing, and files that can be taken to a cluster; nothing that looks finished."""
    import dataclasses

    from tests.byte_tokenizer import byte_tokenizer

    monkeypatch.delenv(through_verl.PYTHON, raising=False)
    monkeypatch.setattr("reproduction.training.saving.load_model", lambda folder: (None, byte_tokenizer()))
    prompts = [{"prompt": [{"role": "user", "content": f"1+{i}"}], "answer": str(1 + i)} for i in range(3)]
    monkeypatch.setattr("reproduction.training.prompts.chosen_prompts", lambda *_: prompts)
    run = dataclasses.replace(run, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="KPO_VERL_PYTHON is not set.*launch.sh"):
        through_verl.train_through_verl(run, tmp_path, [], open(os.devnull, "w"))
    assert sorted(path.name for path in run.folder.iterdir()) == ["verl"]
    import pandas

    table = pandas.read_parquet(run.folder / "verl" / "prompts.parquet")
    assert table.prompt[2][0]["content"] == "1+2" and table.reward_model[2]["ground_truth"] == "3"
    assert table.extra_info[0]["rule"] == "math" and "main_ppo" in (run.folder / "verl" / "launch.sh").read_text()


@pytest.mark.parametrize(("response", "reward"), [(r"so \boxed{7}", 1.0), (r"so \boxed{8}", 0.0)])
def test_reward(response, reward):
    from reproduction.training.verl_reward import compute_score

    assert compute_score("math", response, "7", {"rule": "math", "markers": ["boxed"]}) == reward
