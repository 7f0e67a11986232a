"""Checkpoints: an interrupted run ends with the same bytes as one that was not, and no other run is continued."""

import errno
import json
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import reproduction.training.train as train_module
from reproduction.data import make_splits
from reproduction.data.splits import levels
from reproduction.data.tokenizer import build_tokenizer
from reproduction.evaluation.evaluate import evaluate
from reproduction.jobs.files import read_jsonl
from reproduction.sampling.shards import ShardFolder
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training.base_model import build_model, pretrain
from reproduction.training.checkpoint import (
    TRAINER_STATE,
    CheckpointFolder,
    load_state,
    random_states,
    save_state,
    set_random_states,
)
from reproduction.training.recorder import Recorder
from reproduction.training.saving import save_model
from reproduction.training.train import run_identity
from reproduction.training.train import train as train_run

# Two rollout batches of four updates each, from two minibatches taken twice; the noise makes every gradient non-zero.
CONFIGURATION = load(
    {
        "scale": "smoke",
        "safety": {"checkpoint_every": 1},
        "experiments": {
            "kpo": {
                "methods": {
                    "kpo-clipped": {"clip_low": 0.005, "clip_high": 0.005},
                    "krpo-adaptive": {"kl_weight": 0.0},
                    "krpo-random-order": {"kl_weight": 0.0},
                    "grpo": {"kl_weight": 0.05},
                },
                "reward_noise": {"gaussian": 0.3, "flips": 0.1},
                "training": {
                    "learning_rate": 0.003,
                    "rollout_batches": 2,
                    "minibatches": 2,
                    "epochs": 2,
                    "max_completion_length": 8,
                },
            }
        },
    }
)
UPDATES = 8
FILES = ("config.yaml", "structure.safetensors", "model/model.safetensors")


class Interrupted(BaseException):
    """Ends a run as a kill does: nothing of it is caught."""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The base model's folder and the problems."""
    settings = CONFIGURATION.problems
    problems, _ = make_splits(levels(CONFIGURATION.problems), settings.train_per_level, 5, 0, settings.one_digit_share)
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    save_model(build_model(CONFIGURATION.base_model, build_tokenizer()), build_tokenizer(), folder)
    return folder, problems


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """A function that trains a method once without interruption and gives its folder."""
    made = {}

    def train(label):
        if label not in made:
            made[label] = tmp_path_factory.mktemp(label)
            train_run(get_run(CONFIGURATION, "kpo", label, 1, made[label]), *start)
        return made[label]

    return train


def interrupt(monkeypatch, start, folder, label, update, configuration=CONFIGURATION, seed=1):
    """Train until the metrics of `update` are taken down, before its checkpoint is."""

    def stop(recorder, row, go_on=Recorder.update):
        go_on(recorder, row)
        if row["update"] == update:
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Recorder, "update", stop)
        train_run(get_run(configuration, "kpo", label, seed, folder), *start)


def numbers(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[(name, value) for name, value in row.items() if not name.endswith("_seconds")] for row in rows]


def assert_same(folder, other):
    assert [dict(row)["update"] for row in numbers(folder)] == list(range(1, UPDATES + 1))
    assert numbers(folder) == numbers(other)
    for name in FILES:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("label", CONFIGURATION.experiments["kpo"].methods)
def test_interrupted_run_ends_with_the_same_bytes(monkeypatch, start, undisturbed, tmp_path, label):
    """Interrupted within a rollout batch (after update 2) and at its border (after update 4)."""
    reference = undisturbed(label)
    assert all(dict(row)["gradient_norm"] > 0 for row in numbers(reference)), "every update must move the weights"
    for done in (2, 4):
        interrupt(monkeypatch, start, tmp_path, label, done + 1)
        kept = [path.name for path in (tmp_path / "checkpoint").iterdir() if path.is_dir()]
        assert kept == [f"update-{done:05d}"]
        names = {path.name for path in (tmp_path / "checkpoint" / kept[0]).iterdir()}
        assert names == {"checkpoint.json", "state.json", "state.safetensors", "model.safetensors", TRAINER_STATE}
    train_run(get_run(CONFIGURATION, "kpo", label, 1, tmp_path), *start)
    assert_same(tmp_path, reference)
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert [event["continued_after_update"] for event in provenance["interruptions"]] == [2, 4]
    assert not (tmp_path / "checkpoint").exists()


def test_run_killed_after_its_last_update_leaves_its_results(monkeypatch, start, undisturbed, tmp_path):
    reference = undisturbed("kpo-clipped")

    def stop(*arguments):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(train_module, "save_model", stop)
        train_run(get_run(CONFIGURATION, "kpo", "kpo-clipped", 1, tmp_path), *start)
    train_run(get_run(CONFIGURATION, "kpo", "kpo-clipped", 1, tmp_path), *start)
    assert_same(tmp_path, reference)


def test_checkpoint_of_another_run_is_not_continued(monkeypatch, start, undisturbed, tmp_path, capfd):
    """One of other settings, and one that is damaged: each removed with a line that says so."""
    reference = undisturbed("kpo-clipped")
    faster = CONFIGURATION.model_dump()
    faster["experiments"]["kpo"]["training"]["learning_rate"] = 0.004
    interrupt(monkeypatch, start, tmp_path, "kpo-clipped", 3, type(CONFIGURATION).model_validate(faster))
    interrupt(monkeypatch, start, tmp_path, "kpo-clipped", 3)
    assert "update-00002: made with another settings (training); removed" in capfd.readouterr().err
    (tmp_path / "checkpoint/update-00002/state.safetensors").write_bytes(b"cut")
    train_run(get_run(CONFIGURATION, "kpo", "kpo-clipped", 1, tmp_path), *start)
    assert "update-00002: not a whole checkpoint" in capfd.readouterr().err
    assert_same(tmp_path, reference)


def test_all_that_decides_a_run_is_in_its_identity(monkeypatch, start, tmp_path):
    model, problems = start
    run = get_run(CONFIGURATION, "kpo", "grpo", 1, tmp_path)
    prompts = [{"prompt": problem.question, "answer": problem.answer} for problem in problems]
    identity = run_identity(run, model, prompts)

    def changed(changes=None, model=model, prompts=prompts):
        other = run_identity(replace(run, resolved={**run.resolved, **(changes or {})}), model, prompts)
        assert identity.keys() == other.keys()
        return [name for name in identity if identity[name] != other[name]]

    assert changed() == []
    assert changed({"seed": 6}) == ["settings (seed)"]
    assert changed({"training": {"learning_rate": 0.2}}) == ["settings (training)"]
    assert changed(prompts=prompts[::-1]) == ["prompts"]
    # The base model counts by its weights.
    assert changed({"base_model": {"layers": 3}}) == []
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"other")
    assert changed(model=tmp_path / "model") == ["base model"]
    monkeypatch.setattr(train_module, "source_hash", lambda: "another")
    assert changed() == ["code"]
    monkeypatch.setattr(train_module, "versions", lambda: {"torch": "0"})
    assert changed() == ["code", "versions"]


def test_the_interval_does_not_change_a_run(start, undisturbed, tmp_path):
    rarely = CONFIGURATION.model_copy(
        update={"safety": CONFIGURATION.safety.model_copy(update={"checkpoint_every": None})}
    )
    train_run(get_run(rarely, "kpo", "kpo-clipped", 1, tmp_path), *start)
    assert_same(tmp_path, undisturbed("kpo-clipped"))
    assert not (tmp_path / "checkpoint").exists()


def test_state_comes_back_as_it_was(tmp_path):
    tensor = torch.arange(6.0).view(2, 3)
    state = {
        "z": [1, 0.1, None, "text", True],
        "a": {"b": tensor.t(), "part": tensor[1:], "empty": torch.zeros(0, 2)},
        "limits": [float("inf"), float("-inf"), 5e-324],
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
    }
    save_state(tmp_path, state)
    found = load_state(tmp_path)
    assert list(found) == list(state) and found["z"] == state["z"] and found["limits"] == state["limits"]
    for name in ("b", "part", "empty"):
        assert torch.equal(found["a"][name], state["a"][name])
    assert found["bytes"].dtype == torch.uint8
    save_state(tmp_path, {"nothing": float("nan")})
    assert np.isnan(load_state(tmp_path)["nothing"])
    with pytest.raises(TypeError, match="/a/1 is a set"):
        save_state(tmp_path, {"a": [0, {1}]})
    with pytest.raises(TypeError, match="key 3"):
        save_state(tmp_path, {3: 1})


def test_random_states_come_back(tmp_path):
    def draw():
        return random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()

    random.gauss(0, 1), np.random.standard_normal(1)  # half a pair is kept for the next call
    save_state(tmp_path, {"random": random_states()})
    first = draw()
    set_random_states(load_state(tmp_path)["random"])
    assert draw() == first


def test_checkpoint_folder_keeps_the_last_whole_one(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoint", {"seed": 1})

    def fill(value, fail=False):
        def into(path):
            save_state(path, {"value": value})
            (path / "model.safetensors").write_bytes((path / "state.safetensors").read_bytes())
            if fail:
                raise OSError(errno.ENOSPC, "No space left on device")

        return into

    folder.write(9, fill(9))
    folder.write(10, fill(10))
    with pytest.raises(OSError, match="checkpoint of update 11 was not written.*No space left"):
        folder.write(11, fill(11, fail=True))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["update-00010"]
    assert folder.latest()[1] == {"value": 10}
    # What a kill leaves: a temporary folder, and an older checkpoint that was to be removed.
    shutil.copytree(tmp_path / "checkpoint/update-00010", tmp_path / "checkpoint/.update-00011.abc")
    shutil.copytree(tmp_path / "checkpoint/update-00010", tmp_path / "checkpoint/update-00002")
    assert folder.latest()[0].name == "update-00010"
    folder.write(12, fill(12))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["update-00012"]
    folder.note({"event": 1})
    assert folder.history() == [{"event": 1}]
    other = CheckpointFolder(tmp_path / "checkpoint", {"seed": 2})
    assert other.history() == []
    folder.remove()
    assert folder.latest() is None and not (tmp_path / "checkpoint").exists()


def test_interrupted_pretraining_ends_with_the_same_bytes(tmp_path):
    """Interrupted between checkpoints twice, the second time on from the first one's."""
    settings = CONFIGURATION.base_model.model_copy(update={"steps": 20, "batch_size": 4})
    questions = {"easy": ["12+34=", "56+-21="], "normal": ["11+22+33=", "90+-45+6="], "hard": ["1+2+3+4="]}
    tokenizer = build_tokenizer()

    def train(folder, stop_at=None):
        rows, continued = [], []

        def report(row):
            if row["step"] == stop_at:
                raise Interrupted
            rows.append(row)

        def go_on(earlier):
            continued.append(len(earlier))
            rows.extend(earlier)

        checkpoints = None if folder is None else CheckpointFolder(folder, {"seed": 7})
        try:
            model = pretrain(questions, settings, tokenizer, 7, report, checkpoints, on_continue=go_on)
        except Interrupted:
            return continued
        return model.state_dict(), rows, continued, torch.rand(3).tolist()

    weights, rows, _, drawn = train(None)
    assert train(tmp_path, stop_at=8) == []
    assert train(tmp_path, stop_at=16) == [6]
    again, same_rows, continued, same_draw = train(tmp_path)
    assert continued == [14] and same_rows == rows and same_draw == drawn and len(rows) == 20
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_checkpoint_of_pretraining_that_cannot_be_written(tmp_path, monkeypatch):
    settings = CONFIGURATION.base_model.model_copy(update={"steps": 4, "batch_size": 2})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reproduction.training.base_model.save_state", full)
    for go_on in (False, True):
        said, rows = [], []
        arguments = (
            {"easy": ["1+2="]},
            settings,
            build_tokenizer(),
            1,
            rows.append,
            CheckpointFolder(tmp_path / "c", {}),
        )

        def answer(error, go_on=go_on, said=said):
            said.append(str(error))
            return go_on

        if go_on:
            pretrain(*arguments, on_failed_checkpoint=answer)
        else:
            with pytest.raises(OSError, match="checkpoint of update 1 was not written.*No space left"):
                pretrain(*arguments, on_failed_checkpoint=answer)
        assert (len(said), len(rows)) == ((3, 4) if go_on else (1, 1))


@pytest.fixture(scope="module")
def evaluated(start, tmp_path_factory):
    """A configuration whose evaluation takes eleven batches, its problems, and the folder of an undisturbed one."""
    evaluation = {"batch_size": 7, "max_completion_length": 6, "bootstrap_resamples": 100}
    configuration = load({"scale": "smoke", "evaluation": evaluation})
    splits = {level: [p for p in start[1] if p.level == level][:count] for level, count in (("easy", 12), ("hard", 9))}
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate(get_run(configuration, "base", "base", 1, folder), start[0], splits)
    return configuration, splits, folder


def interrupt_evaluation(monkeypatch, evaluated, model, folder, batches):
    """Evaluate until `batches` more batches are kept."""
    kept = []

    def write(shards, name, content, go_on=ShardFolder.write):
        if len(kept) == batches:
            raise Interrupted
        kept.append(name)
        go_on(shards, name, content)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(ShardFolder, "write", write)
        evaluate(get_run(evaluated[0], "base", "base", 1, folder), model, evaluated[1])
    return kept


def test_interrupted_evaluation_ends_with_the_same_bytes(monkeypatch, start, evaluated, tmp_path, capfd):
    """Interrupted within a split twice; a batch in between that is lost is made again with the same draws."""
    reference = evaluated[2]
    first = interrupt_evaluation(monkeypatch, evaluated, start[0], tmp_path, 3)
    second = interrupt_evaluation(monkeypatch, evaluated, start[0], tmp_path, 5)
    assert (first, second[0]) == ([f"easy.sampled.{number:05d}" for number in range(3)], "easy.sampled.00003")
    assert second[-1].startswith("hard.sampled") and not (tmp_path / "samples.jsonl").exists()
    (tmp_path / "shards/easy.sampled.00001.json").unlink()
    (tmp_path / "shards/easy.greedy.00000.json").write_text('{"settings": 1}')
    evaluate(get_run(evaluated[0], "base", "base", 1, tmp_path), start[0], evaluated[1])
    assert "easy.greedy.00000.json: not a whole shard" in capfd.readouterr().err
    for name in ("samples.jsonl", "evaluation.json"):
        assert (tmp_path / name).read_bytes() == (reference / name).read_bytes()
    assert not (tmp_path / "shards").exists() and not (reference / "shards").exists()
    drawn = {record["response"] for record in read_jsonl(reference / "samples.jsonl") if not record["greedy"]}
    assert len(drawn) > 10, "the responses must differ, or their order could not be told"


def test_shards_of_another_model_are_not_used(monkeypatch, start, evaluated, tmp_path, capfd):
    torch.manual_seed(1)
    other = tmp_path / "model"
    save_model(build_model(CONFIGURATION.base_model, build_tokenizer()), build_tokenizer(), other)
    interrupt_evaluation(monkeypatch, evaluated, other, tmp_path, 2)
    evaluate(get_run(evaluated[0], "base", "base", 1, tmp_path), start[0], evaluated[1])
    assert "easy.sampled.00001.json: made with another weights; removed" in capfd.readouterr().err
    assert (tmp_path / "samples.jsonl").read_bytes() == (evaluated[2] / "samples.jsonl").read_bytes()
