"""A run that another process has just finished is not trained again; one that it left unfinished is."""

import contextlib
import shutil

import pytest
import yaml

from reproduction.data.arithmetic import Problem
from reproduction.jobs.checksums import checksums_path, is_made, write_checksums
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.settings.configuration import load
from reproduction.training import run as training

FILES = ("metrics.jsonl", "config.yaml", "provenance.json")
PROBLEMS = [Problem(0, "1+2=", "3", 2, 1, level) for level in ("easy", "normal", "hard")]


class Trained(Exception):
    """Raised in place of training."""


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """`train_run` as it finds a folder that another process holds and ends with `leave(folder)`."""
    configuration = load({"scale": "smoke", "results": str(tmp_path)})
    base, output, lines = tmp_path / "base", configuration.run_folder("kpo", "grpo", 1), []
    atomic_write(base / "model.safetensors", b"weights")

    class Progress:
        def __init__(self, *_):
            self.say = lines.append

    def trained(**_):
        raise Trained

    monkeypatch.setattr(training, "load_model", lambda folder: (None, None))
    monkeypatch.setattr(training, "MethodTrainer", trained)
    monkeypatch.setattr(training, "Progress", Progress)

    def run(leave, *, held=True):
        @contextlib.contextmanager
        def after_the_other(folder, wait):
            if held:
                wait()
            leave(folder, base)
            yield

        monkeypatch.setattr(training, "only_process", after_the_other)
        training.train_run(configuration, "kpo", "grpo", 1, base, PROBLEMS, output)
        return lines

    run.settings = training.resolved_run(configuration, "kpo", "grpo", 1)
    return run


def finished(settings):
    def leave(folder, base):
        for name in FILES:
            atomic_write(folder / name, settings if name == "config.yaml" else f"{name}\n")
        write_checksums(folder, "train", FILES, [base / "model.safetensors"])

    return leave


def test_what_the_other_process_finished_is_kept(waiting):
    lines = waiting(finished(waiting.settings))
    assert lines == [
        "another process trains this run; waiting for its end",
        "the other process has finished this run; nothing is left to do",
    ]


@pytest.mark.parametrize("case", ["nothing", "half", "other settings", "other code", "other base model", "not held"])
def test_what_it_did_not_finish_is_trained(waiting, case):
    whole = finished(waiting.settings)

    def leave(folder, base):
        if case == "nothing":
            return
        settings = yaml.safe_load(waiting.settings)
        settings["training"]["learning_rate"] = 1.0
        (finished(yaml.safe_dump(settings, sort_keys=False)) if case == "other settings" else whole)(folder, base)
        if case == "half":
            (folder / "metrics.jsonl").unlink()
        if case == "other code":
            path = checksums_path(folder, "train")
            write_json(path, read_json(path) | {"source_hash": "another"})
        if case == "other base model":
            atomic_write(base / "model.safetensors", b"other weights")

    # What stands in for training makes the run end with its one line.
    with pytest.raises(RuntimeError, match="ended after update 0") as error:
        waiting(leave, held=case != "not held")
    assert isinstance(error.value.__cause__, Trained)


def test_made_files_are_told_from_changed_ones(tmp_path):
    atomic_write(tmp_path / "run" / "a.txt", "a")
    assert not is_made(tmp_path / "run", "step")
    write_checksums(tmp_path / "run", "step", ["a.txt"])
    assert is_made(tmp_path / "run", "step")
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert is_made(tmp_path / "moved", "step")
    atomic_write(tmp_path / "moved" / "a.txt", "b")
    assert not is_made(tmp_path / "moved", "step")
