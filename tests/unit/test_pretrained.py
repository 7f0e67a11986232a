"""Hugging Face models from mirror to summary, step by step on the command line, with a tiny model on the CPU."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from paper_figures import ENTRIES
from reproduction.cli import main
from reproduction.data.experiment_data import split_held_out, training_problems
from reproduction.data.mathematics import DataError, MathProblem
from reproduction.data.model_source import check_model, model_folder
from reproduction.data.prompts import prompt_tokens
from reproduction.evaluation.summary import write_summary
from reproduction.sampling import engine as engines
from reproduction.sampling.answers import Shard
from reproduction.settings.configuration import ConfigurationError
from reproduction.settings.hub import LoraSettings
from reproduction.settings.run import get_run
from reproduction.training.arguments import trainer_arguments
from reproduction.training.prompts import chosen_prompts
from reproduction.training.train import train
from reproduction.training.trainer import MethodTrainer
from reproduction.workflow import run_files
from tests.byte_tokenizer import byte_tokenizer
from tests.tiny_hub import tiny_configuration


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_configuration(folder / "mirror", folder / "results")


def step(name, path, *arguments):
    """One step, in this process, with its output where the test can see it."""
    return main([name, "--config", str(path), *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tiny):
    """Both experiments trained and evaluated, before and after."""
    import datasets

    configuration, path = tiny
    datasets.config.HF_DATASETS_CACHE = configuration.folder / "cache"
    for name in ("dapo", "math500"):
        assert step("mathematics", path, "--set", name) == 0
    assert step("problems", path) == 0
    for experiment, label in (("kpo", "kpo-clipped"), ("krpo-normal", "krpo")):
        assert step("model", path, "--experiment", experiment) == 0
        run = ["--experiment", experiment, "--seed", 42, "--method"]
        assert step("train", path, *run, label) == 0
        assert step("evaluate", path, *run, label) == 0
        assert step("evaluate", path, *run, "base") == 0
    assert step("summarise", path) == 0
    return configuration


def test_every_file_appears_and_agrees(finished):
    for experiment, label in (("kpo", "kpo-clipped"), ("krpo-normal", "krpo")):
        folder = finished.run_folder(experiment, label, 42)
        training = finished.experiments[experiment].training
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == training.updates == 4
        assert all(row["gradient_norm"] is not None and row["response_length"] <= 8 for row in rows)
        tensors = load_file(folder / "structure.safetensors")
        # Two micro-batches of two responses make each minibatch of four, in every rollout batch.
        assert tensors["rollout1.rewards"].shape == (2, 4)
        assert tensors["00003.log_ratio"].shape[0] == tensors["00003.advantage"].shape[0] == 4
        resolved = yaml.safe_load((folder / "config.yaml").read_text())
        assert resolved["pretrained"]["model"]["name"] == "tiny/model" and resolved["base_model"] is None
        untrained = model_folder(finished.experiments[experiment].pretrained.model, finished.data.mirror)
        before, after = (load_file(path / "model.safetensors") for path in (untrained, folder / "model"))
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_checksums_are_those_of_the_files_and_verify_says_that_it_does_not_know_such_runs(finished, capsys):
    folder = finished.run_folder("kpo", "kpo-clipped", 42)
    for step_name, expected in (("train", "model/model.safetensors"), ("evaluate", "samples.jsonl")):
        found = json.loads((folder / "checksums" / f"{step_name}.json").read_text())["files"]
        assert found[expected] == hashlib.sha256((folder / expected).read_bytes()).hexdigest()
    assert main(["verify", str(finished.folder)]) == 2
    assert "'kpo' has a Hugging Face model" in capsys.readouterr().err


def test_a_summary_with_missing_runs_has_the_hugging_face_models(finished, tmp_path):
    """Each experiment's own untrained model is there; a run without an evaluation is named."""
    shutil.copytree(finished.folder, tmp_path / finished.scale)
    moved = finished.model_copy(update={"results": str(tmp_path)})
    (moved.run_folder("kpo", "kpo-clipped", 42) / "evaluation.json").unlink()
    write_summary(moved, allow_missing=True)
    rows = json.loads((moved.folder / "summary.json").read_text())["rows"]
    found = {(row["experiment"], row["method"]) for row in rows}
    assert found == {("kpo", "base"), ("krpo-normal", "base"), ("krpo-normal", "krpo")}
    assert "kpo/kpo-clipped: no seed" in (moved.folder / "summary.md").read_text()


def test_figures_read_each_experiments_own_untrained_model(finished):
    files = run_files(finished, [ENTRIES["final_accuracy"]])
    folders = [finished.run_folder("kpo", method, 42) for method in ("base", "kpo-clipped")]
    assert sorted(files) == sorted(f"{folder.as_posix()}/evaluation.json" for folder in folders)
    assert all(Path(path).is_file() for path in files)


def test_a_fault_is_answered(finished, tmp_path):
    """A rollout batch without reward is a collapse here; `stop` ends the run there and leaves its results."""
    settings = finished.experiments["kpo"]
    settings = settings.model_copy(update={"reward_noise": {}})
    safety = finished.safety.model_copy(update={"checkpoint_every": 1, "collapse": "stop", "collapse_after": 1})
    changed = finished.model_copy(update={"experiments": {"kpo": settings}, "safety": safety})
    model = model_folder(settings.pretrained.model, finished.data.mirror)
    problems = [MathProblem(str(number), "What is 1?", "123456") for number in range(4)]
    train(get_run(changed, "kpo", "kpo-clipped", 42, tmp_path / "run"), model, problems)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert "no response earned a reward" in provenance["stopped"]
    assert [fault["kind"] for fault in provenance["faults"]] == ["collapse"]
    assert not (tmp_path / "run" / "checkpoint").exists() and (tmp_path / "run" / "model").is_dir()


def test_evaluations_hold_every_sample_and_both_graders(finished):
    expected = {
        ("kpo", "kpo-clipped"): {"math500": 3, "dapo": 4},
        ("kpo", "base"): {"math500": 3, "dapo": 4},
        ("krpo-normal", "base"): {"easy": 3, "normal": 3, "hard": 3},
    }
    for (experiment, label), splits in expected.items():
        folder = finished.run_folder(experiment, label, 42)
        found = json.loads((folder / "evaluation.json").read_text())
        assert {name: summary["num_problems"] for name, summary in found["splits"].items()} == splits
        records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        for split, problems in splits.items():
            drawn = [record for record in records if record["split"] == split and not record["greedy"]]
            assert len(drawn) == 2 * problems and sorted({record["sample"] for record in drawn}) == [0, 1]
            graded_twice = found["grading"][split]["graded_twice"]
            assert graded_twice == (3 * problems if experiment == "kpo" else 0)
        assert found["sampling"]["engine"] == "transformers" and found["sampling"]["top_p"] == 1.0
    summary = json.loads((finished.folder / "summary.json").read_text())["rows"]
    assert {(row["experiment"], row["method"]) for row in summary} == {
        ("kpo", "base"), ("kpo", "kpo-clipped"), ("krpo-normal", "base"), ("krpo-normal", "krpo"),
    }  # fmt: skip
    assert "| base (before training) |" in (finished.folder / "summary.md").read_text()


def test_held_out_problems_are_not_trained_on(finished):
    problems = training_problems(finished, finished.experiments["kpo"])
    records = (finished.run_folder("kpo", "base", 42) / "samples.jsonl").read_text().splitlines()
    held_out = {json.loads(line)["id"] for line in records if json.loads(line)["split"] == "dapo"}
    assert len(problems) == 8 and len(held_out) == 4 and not held_out & {problem.id for problem in problems}


def test_an_interrupted_evaluation_goes_on_with_the_shards_that_are_missing(finished, tiny, monkeypatch, capfd):
    """Three problems of one set make a shard, four of the other two; each is sampled and answered greedily."""
    folder = finished.run_folder("kpo", "kpo-clipped", 42)
    before = {name: (folder / name).read_bytes() for name in ("samples.jsonl", "evaluation.json")}
    assert not (folder / "shards").exists()
    asked, ends_after = [], 3
    real = engines.make_engine

    def counting(*arguments):
        engine = real(*arguments)
        sample = engine.sample

        def counted(prompts, *rest, **more):
            if len(asked) == ends_after:
                raise RuntimeError("interrupted")
            asked.append(len(prompts))
            return sample(prompts, *rest, **more)

        engine.sample = counted
        return engine

    monkeypatch.setattr(engines, "make_engine", counting)
    run = ["--experiment", "kpo", "--seed", 42, "--method", "kpo-clipped"]
    assert step("evaluate", tiny[1], *run) == 2
    assert sorted(path.name for path in (folder / "shards").iterdir()) == [
        "dapo.sampled.00000.json", "math500.greedy.00000.json", "math500.sampled.00000.json",
    ]  # fmt: skip
    (folder / "shards/math500.greedy.00000.json").write_text("{")
    other = json.loads((folder / "shards/math500.sampled.00000.json").read_text())
    other["settings"]["seed"] = 99
    (folder / "shards/math500.sampled.00000.json").write_text(json.dumps(other))
    ends_after = 100
    assert step("evaluate", tiny[1], *run) == 0
    said = capfd.readouterr().err
    assert "greedy.00000.json: not a whole shard" in said and "sampled.00000.json: made with another seed" in said
    assert asked == [3, 3, 3] + [3, 3] + [1, 3, 1]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not (folder / "shards").exists()


def test_shares_make_every_shard_once_and_each_shard_draws_for_itself(finished, tiny):
    run = ["--experiment", "kpo", "--seed", 42, "--method", "base"]
    folder = finished.run_folder("kpo", "base", 42)
    before = (folder / "samples.jsonl").read_bytes()
    made = []
    for number in range(2):
        assert step("evaluate", tiny[1], *run, "--share", f"{number}/2") == 0
        made.append({path.name for path in (folder / "shards").iterdir()})
    assert (len(made[0]), len(made[1])) == (3, 6)
    (folder / "samples.jsonl").unlink()
    assert step("evaluate", tiny[1], *run) == 0
    assert (folder / "samples.jsonl").read_bytes() == before and not (folder / "shards").exists()
    names = [Shard("a", greedy, number, 0, 1, 1) for greedy in (False, True) for number in range(50)]
    assert len({shard.seed(0) for shard in names} | {shard.seed(1) for shard in names}) == 200


def test_prompts_depend_on_the_seed_alone(tiny):
    settings = tiny[0].experiments["kpo"]
    problems = [MathProblem(str(number), f"{number}?", str(number)) for number in range(3)]
    chosen = chosen_prompts(settings, problems, byte_tokenizer(), 7)
    assert chosen == chosen_prompts(settings, problems, byte_tokenizer(), 7)
    assert len(chosen) == 4 and {row["answer"] for row in chosen[:3]} == {"0", "1", "2"}
    assert chosen[0]["prompt"][-1]["role"] == "user"
    long = [MathProblem("a", "?" * 500, "1")]
    with pytest.raises(ValueError, match="max_prompt_length"):
        chosen_prompts(settings, long, byte_tokenizer(), 7)


def test_training_gives_the_model_the_tokens_that_evaluation_would(finished, tmp_path, monkeypatch):
    """TRL applies the chat template itself: the same tokens, with one begin-of-text token."""
    seen = []
    real = MethodTrainer._compute_loss

    def looking(trainer, model, inputs):
        for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True):
            seen.append(tuple(ids[mask.bool()].tolist()))
        return real(trainer, model, inputs)

    monkeypatch.setattr(MethodTrainer, "_compute_loss", looking)
    settings = finished.experiments["kpo"]
    problems = training_problems(finished, settings)
    folder = model_folder(settings.pretrained.model, finished.data.mirror)
    train(get_run(finished, "kpo", "kpo-clipped", 42, tmp_path), folder, problems)
    tokenizer, style = byte_tokenizer(), settings.pretrained.train_prompt.style
    expected = {tuple(prompt_tokens(tokenizer, problem.question, style)) for problem in problems}
    assert len(set(seen)) == 4 and set(seen) <= expected


def test_the_minibatch_does_not_change_with_the_processes(tiny, tmp_path):
    settings = tiny[0].experiments["kpo"]

    def arguments_of(hub, processes):
        return trainer_arguments(settings.training, 0.0, 1, str(tmp_path), hub=hub, processes=processes)

    for processes, accumulation in ((1, 2), (2, 1)):
        arguments = arguments_of(settings.pretrained, processes)
        together = arguments.per_device_train_batch_size * processes * arguments.gradient_accumulation_steps
        assert together == 4 and arguments.gradient_accumulation_steps == accumulation
        assert arguments.steps_per_generation // accumulation == settings.training.minibatches
        assert arguments.chat_template_kwargs == {"enable_thinking": False}
    with pytest.raises(ValueError, match="4 processes .* cannot share a minibatch of 4"):
        arguments_of(settings.pretrained, 4)
    adapted = settings.pretrained.model_copy(update={"lora": LoraSettings(rank=2, alpha=4)})
    with pytest.raises(ValueError, match="pretrained.lora trains in one process, found 2"):
        arguments_of(adapted, 2)


def test_held_out_split_by_hand():
    problems = [MathProblem(str(number), "?", "1") for number in range(6)]
    train, held_out = split_held_out(problems, 2, 0)
    assert len(held_out) == 2 and sorted([*train, *held_out], key=lambda p: p.id) == problems
    assert (train, held_out) == split_held_out(problems, 2, 0) and split_held_out(problems, 0, 0) == (problems, [])
    with pytest.raises(ConfigurationError, match="held_out is 6"):
        split_held_out(problems, 6, 0)


def test_models_that_cannot_be_used_are_refused(tiny, tmp_path):
    model = tiny[0].experiments["kpo"].pretrained.model
    with pytest.raises(DataError, match="mirror has no .*python -m reproduction mirror"):
        model_folder(model, tmp_path)
    folder = model_folder(model, tiny[0].data.mirror)
    with pytest.raises(DataError, match="holds 1,024 tokens, .* 1,025 together"):
        check_model(folder, model.name, 1025)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (copy / name).write_text((folder / name).read_text())
    with pytest.raises(DataError, match="no model.safetensors"):
        check_model(copy, model.name, 0)
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(DataError, match="no model-00001-of-00002.safetensors"):
        check_model(copy, model.name, 0)
    for text in ("{}", "[]", '{"weight_map": 3}'):
        (copy / "model.safetensors.index.json").write_text(text)
        with pytest.raises(DataError, match="model.safetensors.index.json .*fetch this file again"):
            check_model(copy, model.name, 0)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
DAMAGE = {
    "a Git LFS pointer": lambda whole: POINTER,
    "half": lambda whole: whole[: len(whole) // 2],
    "all but the last byte": lambda whole: whole.rstrip()[:-1],
    "empty": lambda whole: b"",
    "a web page": lambda whole: b"<!DOCTYPE html><html>not found</html>",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_files_that_were_not_fetched_whole_are_refused_by_name(tiny, tmp_path, file, damage):
    """By the step that fetches the model, before anything waits for a device."""
    configuration, _ = tiny
    model = configuration.experiments["kpo"].pretrained.model
    mirror = tmp_path / "mirror"
    folder = shutil.copytree(model_folder(model, configuration.data.mirror), mirror / model.name / model.revision)
    (folder / file).write_bytes(DAMAGE[damage]((folder / file).read_bytes()))
    with pytest.raises(DataError) as error:
        model_folder(model, mirror)
    said = str(error.value)
    assert said.startswith(f"{model.name}: {folder / file} ") and "fetch this file again" in said and "\n" not in said


def test_a_model_without_a_tokenizer_is_refused(tiny, tmp_path):
    model = tiny[0].experiments["kpo"].pretrained.model
    folder = shutil.copytree(model_folder(model, tiny[0].data.mirror), tmp_path / model.name / model.revision)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="has no tokenizer"):
        model_folder(model, tmp_path)


def test_steps_in_the_wrong_order_say_what_to_do(tmp_path, capfd):
    configuration, path = tiny_configuration(tmp_path / "mirror", tmp_path / "results")
    run = ["--experiment", "kpo", "--method", "kpo-clipped", "--seed", 42]
    assert step("train", path, *run) == 2
    assert "reproduction model --experiment kpo" in capfd.readouterr().err
    assert step("model", path, "--experiment", "kpo") == 0
    assert step("train", path, *run) == 2
    assert "reproduction mathematics --set dapo" in capfd.readouterr().err
