"""One process that trains and then samples: the evaluation is the same as one that samples itself."""

import json
import shutil

import pytest

from reproduction.cli import main
from reproduction.sampling import engine
from reproduction.sampling.shards import ShardFolder
from reproduction.settings.configuration import dump, load
from tests.tiny_hub import tiny_configuration

RUN = ["--experiment", "kpo", "--method", "kpo-clipped", "--seed", "1"]
TRAINED = ("metrics.jsonl", "structure.safetensors", "config.yaml", "provenance.json", "model")
SAME = ("structure.safetensors", "config.yaml", "model/model.safetensors", "samples.jsonl", "evaluation.json")


class Interrupted(BaseException):
    """Ends a step as a kill does: nothing of it is caught."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The configuration file and folder of a run whose base model is there, and those of the same run, whole."""

    def made(name):
        overrides = {"base_model": {"steps": 8}, "evaluation": {"bootstrap_resamples": 100, "batch_size": 8}}
        folder = tmp_path_factory.mktemp(name)
        configuration = load({"scale": "smoke", "results": str(folder), "seeds": [1], **overrides})
        path = folder / "config.yaml"
        path.write_text(dump(configuration))
        step(path, "problems")
        step(path, "pretrain", "--seed", "1")
        return path, configuration.run_folder("kpo", "kpo-clipped", 1)

    ahead, reference = made("ahead"), made("reference")
    step(reference[0], "train", *RUN)
    assert not (reference[1] / "shards").exists()
    step(reference[0], "evaluate", *RUN)
    return *ahead, reference[1]


def step(path, name, *arguments):
    assert main([name, "--config", str(path), *arguments]) == 0


def assert_same(folder, reference):
    for name in SAME:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert not (folder / "shards").exists() and not (folder / "checkpoint").exists()


def test_an_evaluation_after_it_needs_no_model(study, monkeypatch):
    path, folder, reference = study
    step(path, "train", *RUN, "--sample")
    assert len(list((folder / "shards").iterdir())) > 6 and not (folder / "evaluation.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "make_engine", None)
        step(path, "evaluate", *RUN)
    assert_same(folder, reference)
    # Asked again without shards, it samples itself.
    step(path, "evaluate", *RUN)
    assert_same(folder, reference)


def test_interrupted_while_it_samples_neither_trains_nor_samples_all_again(study, monkeypatch):
    path, folder, reference = study
    shutil.rmtree(folder)
    written = []

    def write(shards, name, content, go_on=ShardFolder.write):
        if len(written) == 3:
            raise Interrupted
        written.append(name)
        go_on(shards, name, content)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(ShardFolder, "write", write)
        step(path, "train", *RUN, "--sample")
    # What Snakemake removes before it repeats a job.
    shutil.rmtree(folder / "model")
    for name in TRAINED[:-1]:
        (folder / name).unlink()
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "write", lambda *a, go_on=ShardFolder.write: (again.append(a[1]), go_on(*a)))
        step(path, "train", *RUN, "--sample")
    interruptions = json.loads((folder / "provenance.json").read_text())["interruptions"]
    assert [event["continued_after_update"] for event in interruptions] == [6]
    assert again and not set(again) & set(written)
    step(path, "evaluate", *RUN)
    assert_same(folder, reference)


def test_a_hugging_face_model_is_evaluated_in_a_job_of_its_own(tmp_path, capfd):
    configuration, path = tiny_configuration(tmp_path / "mirror", tmp_path / "results")
    for name in ("problems", "mathematics", "model"):
        more = {"mathematics": ["--set", "dapo"], "model": ["--experiment", "kpo"]}
        step(path, name, *more.get(name, []))
    run = ["--experiment", "kpo", "--method", "kpo-clipped", "--seed", "42", "--sample"]
    assert main(["train", "--config", str(path), *run]) == 2
    assert "--sample is for the small models" in capfd.readouterr().err
