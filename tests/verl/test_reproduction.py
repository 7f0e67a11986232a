"""`trainer: verl` of the reproduction: its command and its rewards as verl takes them, and a whole run on the CPU."""

import asyncio
import dataclasses
import json
import math
import os
import shlex
import stat
import sys
from pathlib import Path

import numpy
import pytest
import torch
from batches import ON_THE_CPU, checked, composed, methods_of
from byte_tokenizer import byte_tokenizer
from safetensors.torch import load_file
from verl import DataProto
from verl.trainer.ppo.reward import load_reward_manager

import reproduction.training.through_verl as through_verl
from reproduction.data import LEVELS, generate_problems
from reproduction.jobs.devices import Device
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run

pytestmark = pytest.mark.verl
HERE = Path(__file__).parent
SMALL = {
    "training": {
        "minibatches": 2, "prompts_per_rollout": 4, "group_size": 4, "rollout_batches": 3, "max_completion_length": 16,
        "learning_rate": 1e-3,
    },
    "pretrained": {
        "max_prompt_length": 48, "micro_batch": 4, "precision": "float32", "activation_checkpointing": False,
        "train_prompt": {"system": "none"}, "devices": {"count": 2},
    },
}  # fmt: skip


def paper_run(experiment, method, **settings):
    """A run of the paper's scale, through verl."""
    pretrained = {"trainer": "verl"} | settings.get("pretrained", {})
    return get_run(
        load({"scale": "paper", "experiments": {experiment: settings | {"pretrained": pretrained}}}),
        experiment, method, 42,
    )  # fmt: skip


RUNS = {
    "KPO": ("kpo", "kpo-clipped", {}),
    "KPO without a clip": ("kpo", "kpo-unclipped", {}),
    "KRPO": ("krpo-easy", "krpo", {"training": {"minibatches": 16}}),
    "another model": ("krpo-qwen-1.5b", "grpo", {"training": {"minibatches": 16}}),
}


@pytest.mark.parametrize("name", RUNS)
def test_verl_reads_the_command_as_it_was_meant(name, tmp_path):
    """Composed by verl's own Hydra and checked by verl; paths may have any name."""
    experiment, label, settings = RUNS[name]
    run, folder = paper_run(experiment, label, **settings), tmp_path / "results, [1] = {my} 'own'"
    config = checked(composed(*through_verl.launch_command(run, folder / "a model", folder, 2)[3:]))
    loss, advantage, seed = methods_of(config)
    for field in ("ratio", "ratio_parameters", "clip", "aggregation", "aggregation_length", "kl_weight"):
        assert getattr(loss, field) == getattr(run.method, field), field
    assert advantage.advantage == run.method.advantage and seed == 42
    training, hub, actor = run.settings.training, run.hub, config.actor_rollout_ref.actor
    responses = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    assert responses == training.sequences_per_rollout
    assert actor.ppo_mini_batch_size * training.minibatches == training.prompts_per_rollout
    assert (actor.optim.lr, actor.optim.weight_decay) == (training.learning_rate, training.weight_decay)
    assert config.trainer.total_training_steps == training.rollout_batches == config.trainer.save_freq
    assert config.data.max_prompt_length == hub.max_prompt_length
    thinking = {} if hub.train_prompt.thinking is None else {"enable_thinking": hub.train_prompt.thinking}
    assert dict(config.data.get("apply_chat_template_kwargs") or {}) == thinking
    assert config.data.train_files == str(folder / "prompts.parquet")
    assert config.actor_rollout_ref.model.path == str(folder / "a model")
    assert config.trainer.default_local_dir == str(folder / "checkpoint")


def test_verl_calls_the_reward_of_the_run(tmp_path):
    """verl's reward manager loads the file that the command names and gives it tokens; KRPO's rewards by hand."""
    run, tokenizer = paper_run(*RUNS["KRPO"][:2], **RUNS["KRPO"][2]), byte_tokenizer()
    config = composed(*through_verl.launch_command(run, "model", tmp_path, 2)[3:])
    (row,) = through_verl.prompt_rows(run, [{"prompt": [{"role": "user", "content": "3 + 4"}], "answer": "7"}])

    async def rewards(*responses):
        manager, found = load_reward_manager(config, tokenizer), []
        for text in responses:
            ids = tokenizer(text + tokenizer.eos_token, return_tensors="pt").input_ids[:, 1:]
            padded = torch.nn.functional.pad(ids, (0, 5), value=tokenizer.pad_token_id)
            attention = torch.ones(1, 3 + ids.shape[1], dtype=torch.long)
            tensors = {"responses": padded, "attention_mask": torch.nn.functional.pad(attention, (0, 5))}
            others = {name: numpy.array([row[name]], dtype=object) for name in row.keys() - {"prompt"}}
            data = DataProto.from_dict(tensors=tensors, non_tensors=others)
            found.append((await manager.run_single(data))["reward_score"])
        return found

    responses = ["<answer>7</answer>", "<answer> 7 </answer>", "so <answer>8</answer>", "7"]
    assert asyncio.run(rewards(*responses)) == [1.0, 0.5, 0.01, 0.0]


def test_what_grades_is_looked_for_before_the_run():
    """This environment has no math-verify: rewards that need it would fail after the first rollout batch."""
    version = through_verl._version_of_verl(sys.executable, dict(os.environ), "krpo")
    assert version.startswith("0.9.")
    with pytest.raises(ValueError, match="KPO_VERL_PYTHON=.* cannot train through verl: .*math_verify"):
        through_verl._version_of_verl(sys.executable, dict(os.environ), "math")


@pytest.mark.slow
def test_a_whole_run(tiny_model, tmp_path, monkeypatch):
    """KRPO from problems to the files of a run. `KPO_VERL_PYTHON` is a script that tells verl to stay on the CPU."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexport PYTHONPATH=$PYTHONPATH:{shlex.quote(str(HERE))}\n"
        f'case "$*" in *main_ppo*) set -- "$@" {shlex.join(ON_THE_CPU)};; esac\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(through_verl.PYTHON, str(python))
    monkeypatch.setenv("KPO_TEST_ROLLOUT", "answers")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("reproduction.jobs.devices.visible_devices", lambda: [Device("0", "made up", None)] * 2)
    run = dataclasses.replace(paper_run("krpo-easy", "krpo", **SMALL), folder=tmp_path / "my results")
    problems = generate_problems(LEVELS["easy"], 20, seed=0)
    with open(os.devnull, "w") as progress:
        through_verl.train_through_verl(run, tiny_model, problems, progress)
    said = (run.folder / "verl" / "output.txt").read_text()
    assert "each group in a random order (seed 42)" in said
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["update"], row["rollout_batch"]) for row in rows] == [(2, 1), (4, 2), (6, 3)]
    for row in rows:
        assert all(value is not None and math.isfinite(value) for value in row.values()), row
        # 0 without a pair of tags, 0.01 for a wrong number, 0.5 for the right one next to spaces.
        assert 0 < row["reward"] < 0.5 and row["gradient_norm"] > 0 and row["kl"] >= 0
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance["verl"].startswith("0.9.") and provenance["processes"] == 2 and provenance["seed"] == 42
    before, after = (load_file(place / "model.safetensors") for place in (tiny_model, run.folder / "model"))
    assert before.keys() == after.keys() and not (run.folder / "verl" / "checkpoint").exists()
    assert max((after[name] - before[name]).abs().max() for name in before) > 1e-4
