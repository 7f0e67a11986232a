"""What another process has just finished is not trained or evaluated again; what it left unfinished is."""

import contextlib
import dataclasses
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import torch.distributed
import yaml

from reproduction.data.arithmetic import Problem
from reproduction.data.problems import write_problems
from reproduction.evaluation import evaluate as evaluation
from reproduction.jobs.checksums import checksums_path, is_made, write_checksums
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.sampling import answers
from reproduction.sampling.answers import Answers
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training import pretrain_base, processes
from reproduction.training import train as training
from tests.tiny_hub import tiny_configuration

FILES = ("metrics.jsonl", "config.yaml", "provenance.json")
NO_WEIGHTS = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
PROBLEMS = [Problem(0, "1+2=", "3", 2, 1, level) for level in ("easy", "normal", "hard")]


class Worked(Exception):
    """Raised in place of training or sampling."""


def worked(*_, **__):
    raise Worked


class Progress:
    """Keeps the lines."""

    lines: list = []

    def __init__(self, *_):
        pass

    def say(self, line):
        Progress.lines.append(line)

    update = say


@pytest.fixture(params=["small", "hub"])
def run(request, tmp_path):
    """A run of a small model and one of a Hugging Face model."""
    if request.param == "small":
        return get_run(load({"scale": "smoke", "results": str(tmp_path)}), "kpo", "grpo", 1)
    configuration, _ = tiny_configuration(tmp_path / "mirror", tmp_path / "results")
    return get_run(configuration, "kpo", "kpo-clipped", 42)


def after_another(leave, held=True):
    """`only_process` as it finds a folder that another process holds and ends with `leave()`."""

    @contextlib.contextmanager
    def only_process(folder, wait):
        if held:
            wait()
        leave()
        yield held

    return only_process


def trained_after(monkeypatch, run, base, leave, held=True):
    """The lines of `train` after another process."""
    atomic_write(base / "model.safetensors", b"weights")
    monkeypatch.setattr(training, "load_model", lambda folder: (NO_WEIGHTS, None))
    monkeypatch.setattr(training, "chosen_prompts", lambda *_: [])
    monkeypatch.setattr(training, "MethodTrainer", worked)
    monkeypatch.setattr(training, "DecodingTrainer", worked)
    monkeypatch.setattr(Progress, "lines", [])
    monkeypatch.setattr(training, "Progress", Progress)
    monkeypatch.setattr(training, "only_process", after_another(lambda: leave(run, base), held))
    training.train(run, base, PROBLEMS)
    return Progress.lines


def finish(run, base, settings=None):
    for name in FILES:
        atomic_write(run.folder / name, (settings or run.resolved_text) if name == "config.yaml" else f"{name}\n")
    write_checksums(run.folder, "train", FILES, [base / "model.safetensors"])


def test_a_training_that_the_other_process_finished_is_kept(monkeypatch, run, tmp_path):
    assert trained_after(monkeypatch, run, tmp_path / "base", finish) == [
        "another process trains this run; waiting for its end",
        "the other process has finished this run; nothing is left to do",
    ]


@pytest.mark.parametrize("case", ["nothing", "half", "other settings", "other code", "other base model", "not held"])
def test_a_training_that_it_did_not_finish_is_made(monkeypatch, run, tmp_path, case):
    def leave(run, base):
        if case == "nothing":
            return
        settings = yaml.safe_load(run.resolved_text)
        settings["training"]["learning_rate"] = 1.0
        finish(run, base, yaml.safe_dump(settings, sort_keys=False) if case == "other settings" else None)
        if case == "half":
            (run.folder / "metrics.jsonl").unlink()
        if case == "other code":
            path = checksums_path(run.folder, "train")
            write_json(path, read_json(path) | {"source_hash": "another"})
        if case == "other base model":
            atomic_write(base / "model.safetensors", b"other weights")

    # The stand-in for training makes the run end with its one line.
    with pytest.raises(RuntimeError, match="ended after update 0") as error:
        trained_after(monkeypatch, run, tmp_path / "base", leave, held=case != "not held")
    assert isinstance(error.value.__cause__, Worked)


def evaluated_after(monkeypatch, run, model, case):
    """The lines of `evaluate` after another process that left what `case` says."""
    atomic_write(model / "model.safetensors", b"weights")
    problems = {"easy": PROBLEMS[:1]}

    def leave():
        if case == "nothing":
            return
        asked = {"easy": PROBLEMS} if case == "other problems" else problems
        decided = Answers(run, model, asked, None).decided
        write_json(run.folder / "evaluation.json", {**decided, "splits": {}})
        atomic_write(run.folder / "samples.jsonl", "")
        write_checksums(run.folder, "evaluate", ["evaluation.json", "samples.jsonl"])
        if case == "half":
            (run.folder / "samples.jsonl").unlink()
        if case == "other code":
            path = checksums_path(run.folder, "evaluate")
            write_json(path, read_json(path) | {"source_hash": "another"})

    monkeypatch.setattr(Progress, "lines", [])
    monkeypatch.setattr(answers, "Progress", Progress)
    monkeypatch.setattr(evaluation, "only_process", after_another(leave, held=case != "not held"))
    monkeypatch.setattr(Answers, "make", worked)
    evaluation.evaluate(run, model, problems)
    return Progress.lines


def test_an_evaluation_that_the_other_process_finished_is_kept(monkeypatch, run, tmp_path):
    lines = evaluated_after(monkeypatch, run, tmp_path / "model", "finished")
    assert lines[-1] == "the other process has finished this evaluation; nothing is left to do"


@pytest.mark.parametrize("case", ["nothing", "half", "other code", "other problems", "not held"])
def test_an_evaluation_that_it_did_not_finish_is_made(monkeypatch, run, tmp_path, case):
    with pytest.raises(Worked):
        evaluated_after(monkeypatch, run, tmp_path / "model", case)


def pretrained_after(monkeypatch, results, case):
    """The lines of `pretrain_base` after another process that left what `case` says."""
    configuration = load({"scale": "smoke", "results": str(results)})
    problems, folder = results / "smoke/problems/train.jsonl", configuration.run_folder("base", "base", 1)
    write_problems(problems, (dataclasses.replace(one, id=f"{n}") for n, one in enumerate(PROBLEMS)))

    def leave():
        if case == "nothing":
            return
        settings = configuration.base_model.model_dump(exclude={"expected_seconds"})
        settings["steps"] += case == "other settings"
        write_json(folder / "provenance.json", {"settings": settings})
        write_checksums(folder, "pretrain", ["provenance.json"], [problems])

    monkeypatch.setattr(Progress, "lines", [])
    monkeypatch.setattr(pretrain_base, "Progress", Progress)
    monkeypatch.setattr(pretrain_base, "only_process", after_another(leave, held=case != "not held"))
    monkeypatch.setattr(pretrain_base, "pretrain", worked)
    pretrain_base.pretrain_base(configuration, 1)
    return Progress.lines


def test_a_base_model_that_the_other_process_made_is_kept(monkeypatch, tmp_path):
    lines = pretrained_after(monkeypatch, tmp_path, "made")
    assert lines[-1] == "the other process has made this model; nothing is left to do"


@pytest.mark.parametrize("case", ["other settings", "nothing", "not held"])
def test_a_base_model_that_it_did_not_make_is_made(monkeypatch, tmp_path, case):
    with pytest.raises(Worked):
        pretrained_after(monkeypatch, tmp_path, case)


def test_the_others_wait_in_short_turns_for_the_first(monkeypatch):
    """No collective call lasts as long as the first process's wait: two threads act as two processes."""
    meeting, place, box, calls = threading.Barrier(2), threading.local(), {}, []

    def broadcast(values, src):
        if place.rank == src:
            box["value"] = list(values)
        started = time.monotonic()
        meeting.wait(30)
        values[:] = box["value"]
        meeting.wait(30)
        calls.append(time.monotonic() - started)

    monkeypatch.setattr(processes, "_connected", lambda: True)
    monkeypatch.setattr(processes, "process_index", lambda: place.rank)
    monkeypatch.setattr(processes, "SECONDS_BETWEEN_TALKS", 0.05)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    release, found = threading.Event(), {}

    def long_wait():
        release.wait(30)
        return "done"

    def process(rank):
        place.rank = rank
        found[rank] = processes.in_first_while_others_wait(long_wait)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    while len(calls) < 6:
        time.sleep(0.01)
    release.set()
    for thread in threads:
        thread.join(30)
    assert found == {0: "done", 1: "done"}


def test_made_files_are_told_from_changed_ones(tmp_path):
    atomic_write(tmp_path / "run" / "a.txt", "a")
    assert not is_made(tmp_path / "run", "train")
    write_checksums(tmp_path / "run", "train", ["a.txt"])
    assert is_made(tmp_path / "run", "train")
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert is_made(tmp_path / "moved", "train")
    atomic_write(tmp_path / "moved" / "a.txt", "b")
    assert not is_made(tmp_path / "moved", "train")
