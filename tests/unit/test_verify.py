"""`python -m reproduction verify`: a folder as the steps left it has nothing wrong, and what is done to it is named.

Each way of tampering is tried on a copy. If the checksums are made to fit what was changed, only what must agree
with it can give it away.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from reproduction.cli import main
from reproduction.jobs.checksums import sha256
from reproduction.jobs.files import read_json, read_jsonl, write_json, write_jsonl
from reproduction.settings.configuration import dump, load
from reproduction.verify.derived import differences

RUN = "kpo/kpo-clipped/seed1"
OTHER_SEED = "kpo/kpo-clipped/seed2"
EVALUATION, SAMPLES = f"{RUN}/evaluation.json", f"{RUN}/samples.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """results/smoke of a finished tiny study, made by the command line."""
    folder = tmp_path_factory.mktemp("verify")
    training = {"rollout_batches": 2, "max_completion_length": 8, "learning_rate": 0.003}
    configuration = load(
        {
            "scale": "smoke",
            "results": str(folder / "results"),
            "problems": {"held_out_per_level": 4},
            "base_model": {"steps": 2},
            "experiments": {
                "kpo": {"methods": {"kpo-clipped": {}}, "training": training, "reward_noise": {"gaussian": 0.3}},
                "krpo": {"methods": {"krpo": {"kl_weight": 0.0}}, "training": training},
            },
            "evaluation": {"max_completion_length": 8},
        }
    )
    path = configuration.folder / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(dump(configuration))

    def step(*arguments):
        assert main([*map(str, arguments), "--config", str(path)]) == 0

    step("problems")
    for seed in configuration.seeds:
        step("pretrain", "--seed", seed)
        step("evaluate", "--seed", seed)
    for experiment, method, seed in configuration.runs():
        run = ["--experiment", experiment, "--method", method, "--seed", seed]
        step("train", *run)
        step("evaluate", *run)
    step("summarise")
    return configuration.folder


@pytest.fixture(scope="module")
def judged(finished, tmp_path_factory):
    """The same with measures, verdicts and tables."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("judged") / "smoke")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace(str(finished.parent), str(folder.parent)))
    judge(folder)
    return folder


def judge(folder, *steps):
    for step in steps or ("measure", "claims", "tables"):
        assert main([step, "--config", str(folder / "config.yaml")]) == 0


@pytest.fixture
def results(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "smoke")
    return tmp_path / "smoke"


def verify(folder, capfd) -> tuple[int, list[str]]:
    capfd.readouterr()
    status = main(["verify", str(folder)])
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    return status, [line for line in (said.out + said.err).splitlines() if not line.startswith("note: ")]


def make_checksums_agree(folder):
    for path in folder.rglob("checksums/*.json"):
        recorded = read_json(path)
        for part in ("files", "inputs"):
            for name in list(recorded[part]):
                file = (path.parent.parent / name).resolve()
                recorded[part].pop(name) if not file.is_file() else recorded[part].update({name: sha256(file)})
        write_json(path, recorded)


def edit(name, change):
    """A way of tampering: change what a JSON file (or each row of a JSONL file, as a list) holds."""

    def tamper(folder):
        path = folder / name
        value = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
        changed = change(value)
        value = value if changed is None else changed
        write_jsonl(path, value) if path.suffix == ".jsonl" else write_json(path, value)

    return tamper


def replace(name, old, new):
    def tamper(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return tamper


def remove(name):
    return lambda folder: (folder / name).unlink()


def tensors(name, change):
    def tamper(folder):
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name)

    return tamper


def first_greedy_wrong(records):
    record = next(record for record in records if not record["greedy"])
    record["correct"] = 1 - record["correct"]


def copy_run(folder):
    for name in ("metrics.jsonl", "model/model.safetensors"):
        shutil.copy(folder / RUN / name, folder / OTHER_SEED / name)


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def swap_rows(rows):
    rows[0], rows[1] = rows[1], rows[0]


def update_split(split, **values):
    return lambda found: found["splits"][split].update(values)


def bump(tensor):
    tensor += 1e-3


# how it is tampered with, whether the checksums are made to agree, words of the line that says so
TAMPERED = {
    # Only the checksums show these.
    "a weight": (tensors(f"{RUN}/model/model.safetensors", lambda t: bump(next(iter(t.values())))), False,
                 [f"{RUN}/model/model.safetensors", "not as it was written"]),
    "a log entry": (edit(f"{RUN}/metrics.jsonl", lambda rows: rows[0].update(entropy=1.0)), False,
                    [f"{RUN}/metrics.jsonl", "not as it was written"]),
    "a tokenizer": (replace(f"{RUN}/model/tokenizer.json", "{", "{ "), False, [f"{RUN}/model/tokenizer.json"]),
    "the base model's weights": (tensors("base/seed1/model/model.safetensors", lambda t: bump(next(iter(t.values())))),
                                 False, ["base/seed1/model/model.safetensors", "has changed since the step train"]),
    "provenance": (edit(f"{RUN}/provenance.json", lambda p: p.update(wall_seconds=1.0)), False,
                   [f"{RUN}/provenance.json", "not as it was written"]),
    "no checksums": (remove(f"{RUN}/checksums/train.json"), False, [f"{RUN}/checksums/train.json", "is missing"]),
    "checksums cut": (write(f"{RUN}/checksums/train.json", b'{"files":'), False, ["checksums/train.json", "not JSON"]),
    "checksums of another form": (write(f"{RUN}/checksums/train.json", b"[]"), False, ["is not what the step wrote"]),
    "an entry left out": (edit(f"{RUN}/checksums/train.json", lambda c: c["files"].pop("metrics.jsonl") and None),
                          False, [f"{RUN}/metrics.jsonl", "not among the checksums"]),
    # Missing and half-written files.
    "no metrics": (remove(f"{RUN}/metrics.jsonl"), True, [f"{RUN}/metrics.jsonl"]),
    "no weights": (remove(f"{RUN}/model/model.safetensors"), True, ["model.safetensors", "is missing"]),
    "no evaluation": (remove(EVALUATION), True, [EVALUATION, "is missing"]),
    "no samples": (remove(SAMPLES), True, [SAMPLES, "is missing"]),
    "no summary": (remove("summary.json"), True, ["summary.json", "is missing"]),
    "no problems": (remove("problems/held_out.jsonl"), True, ["problems/held_out.jsonl"]),
    "a run removed": (lambda folder: shutil.rmtree(folder / RUN), True, [f"{RUN}/provenance.json", "is missing"]),
    "weights cut": (write(f"{RUN}/structure.safetensors", b"cut"), True, ["structure.safetensors", "cannot be read"]),
    "binary metrics": (write(f"{RUN}/metrics.jsonl", b"\xff\x00"), True, [f"{RUN}/metrics.jsonl", "not UTF-8"]),
    "empty evaluation": (write(EVALUATION, b""), True, [EVALUATION, "not JSON"]),
    "a temporary file": (write(f"{RUN}/.metrics.jsonl.x1", b""), True, [".metrics.jsonl.x1", "half-written"]),
    "a run under way": (lambda folder: (folder / RUN / "checkpoint").mkdir(), True,
                        ["checkpoint: the training has not ended"]),
    "a base model under way": (lambda folder: (folder / "base/seed1/checkpoint").mkdir(), True,
                               ["base/seed1/checkpoint: the training has not ended"]),
    "an evaluation under way": (lambda folder: (folder / RUN / "shards").mkdir(), True,
                                ["shards: the evaluation has not ended"]),
    # Consistent checksums, but something else does not fit.
    "another seed": (edit(f"{RUN}/provenance.json", lambda p: p.update(seed=7)), True, ["provenance.json", "seed 7"]),
    "another base seed": (edit("base/seed1/provenance.json", lambda p: p.update(seed=7)), True, ["made with seed 7"]),
    "another learning rate": (replace(f"{RUN}/config.yaml", "learning_rate: 0.003", "learning_rate: 0.004"), True,
                              [f"{RUN}/config.yaml", "training.learning_rate 0.004"]),
    "another method": (replace(f"{RUN}/config.yaml", "clip_low: 0.0003", "clip_low: 0.2"), True,
                       [f"{RUN}/config.yaml", "method.clip_low"]),
    "the configuration": (replace("config.yaml", "minibatches: 2", "minibatches: 4"), True, ["minibatches"]),
    "a row less": (edit(f"{RUN}/metrics.jsonl", lambda rows: rows[:-1]), True, ["metrics.jsonl", "3 updates of the 4"]),
    "a row twice": (edit(f"{RUN}/metrics.jsonl", lambda rows: [rows[0], *rows]), True, ["row 2: is update 1"]),
    "rows swapped": (edit(f"{RUN}/metrics.jsonl", swap_rows), True, ["metrics.jsonl, row 1: is update 2"]),
    "base rows": (edit("base/seed1/metrics.jsonl", lambda rows: rows[:-1]), True, ["base/seed1/metrics.jsonl: 1 rows"]),
    "a reward": (edit(f"{RUN}/metrics.jsonl", lambda rows: [{**row, "reward": 0.9} for row in rows]), True,
                 ["structure.safetensors: rewards of rollout batch 1"]),
    "a spread": (edit(f"{RUN}/metrics.jsonl", lambda rows: [{**row, "log_ratio_std": 0.5} for row in rows]), True,
                 ["structure.safetensors: log_ratio of update 1"]),
    "kept log-ratios": (tensors(f"{RUN}/structure.safetensors", lambda t: t.__delitem__("00002.log_ratio")), True,
                        ["structure.safetensors: keeps 3 updates"]),
    "an accuracy": (edit(EVALUATION, update_split("easy", avg_at_k=0.9)), True,
                    [f"{EVALUATION}: split 'easy': avg_at_k is 0.9"]),
    "greedy accuracy": (edit(EVALUATION, update_split("hard", greedy=0.9)), True, ["greedy is 0.9"]),
    "pass@k": (edit(EVALUATION, update_split("easy", pass_at={"1": 0.9, "2": 0.9})), True, ["pass_at.1"]),
    "counts": (edit(EVALUATION, update_split("easy", correct=[2, 2, 2, 2])), True,
               ["split 'easy': correct."]),
    "number of problems": (edit(EVALUATION, update_split("easy", num_problems=9)), True, ["num_problems"]),
    "an interval": (edit(EVALUATION, update_split("easy", avg_at_k_interval=[0.125, 0.5])), True,
                    ["split 'easy': avg_at_k_interval.", "as samples.jsonl gives it"]),
    "greedy's interval": (edit(EVALUATION, update_split("hard", greedy_interval=[0.125, 0.5])), True,
                          ["split 'hard': greedy_interval."]),
    "the confidence": (edit(EVALUATION, lambda e: e.update(confidence=0.5)), True, ["has confidence 0.5"]),
    "a split less": (edit(EVALUATION, lambda e: e["splits"].pop("easy") and None), True,
                     ["evaluation.json: has the splits hard, normal"]),
    "sampling": (edit(EVALUATION, lambda e: e["sampling"].update(seed=9)), True, ["sampled with seed 9"]),
    "a grade": (edit(SAMPLES, first_greedy_wrong), True, ["recorded as 1, graded again it is 0"]),
    "an answer less": (edit(SAMPLES, lambda rows: rows[1:]), True, ["1 answers of 8 are missing"]),
    "an answer twice": (edit(SAMPLES, lambda rows: [rows[0], *rows]), True, ["occurs twice"]),
    "another problem's answer": (edit(SAMPLES, lambda rows: rows[0].update(id="x")), True, ["problem 'x'"]),
    "an unknown split": (edit(SAMPLES, lambda rows: rows[0].update(split="x")), True, ["split 'x' has no"]),
    "a copied seed": (copy_run, True, [OTHER_SEED, "same weights as"]),
    "the summary": (edit("summary.json", lambda s: s["rows"][0].update(greedy=0.99)), True,
                    ["summary.json: is not what the evaluations give"]),
    "the table": (replace("summary.md", "0.0", "9.9"), True, ["summary.md: is not what the evaluations give"]),
    "other code": (edit(f"{RUN}/provenance.json", lambda p: p.update(source_hash="abc")), True,
                   [f"{RUN}/provenance.json: made by other code"]),
    "other versions": (edit(f"{RUN}/provenance.json", lambda p: p["versions"].update(torch="1.0")), True,
                       ["made by other package versions"]),
    "evaluated by other code": (edit(f"{RUN}/checksums/evaluate.json", lambda c: c.update(source_hash="abc")), False,
                                ["checksums/evaluate.json: made by other code"]),
    "a problem of training held out": (
        lambda folder: shutil.copy(folder / "problems/train.jsonl", folder / "problems/held_out.jsonl"), True,
        ["held_out.jsonl", "occur in train.jsonl"]),
    "a problem's answer": (edit("problems/held_out.jsonl", lambda rows: rows[0].update(answer="0")), True,
                           ["held_out.jsonl, line 1", "correct the row"]),
}  # fmt: skip


def test_a_finished_study_has_nothing_wrong(results, capfd):
    status, lines = verify(results, capfd)
    assert (status, lines) == (0, [f"{results}: 4 runs, nothing wrong"])


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_named(results, capfd, how):
    tamper, checksums_agree, words = TAMPERED[how]
    tamper(results)
    if checksums_agree:
        make_checksums_agree(results)
    status, lines = verify(results, capfd)
    assert status == 1 and lines[-1].endswith("problems")
    assert any(all(word in line for word in words) for line in lines), lines


def change_value(name, change):
    """Change a measure of the first run in measures.json."""

    def changed(measures):
        values = measures["runs"][0]["values"]
        values[name] = change(values[name])

    return changed


def judge_what_was_changed(folder):
    """Verdicts and tables that agree with measures.json, which does not agree with the runs."""
    edit("measures.json", change_value("reward_late", lambda value: value + 0.5))(folder)
    path = folder / "config.yaml"
    original = path.read_text()
    lines = [f"results: {folder.parent}" if line.startswith("results:") else line for line in original.splitlines()]
    path.write_text("\n".join(lines) + "\n")
    judge(folder, "claims", "tables")
    path.write_text(original)


DERIVED = {
    "a measure": (edit("measures.json", change_value("reward_late", lambda value: value + 0.01)),
                  ["measures.json: does not follow from the runs, runs.0.values.reward_late is"]),
    "a count": (edit("measures.json", lambda m: m["runs"][0]["correct"].update(easy="2 2 2 2")),
                ["measures.json: does not follow from the runs, runs.0.correct.easy is"]),
    "a run less": (edit("measures.json", lambda m: m["runs"].pop() and None),
                   ["measures.json: does not follow from the runs, runs is"]),
    "a verdict": (edit("claims.json", lambda c: c["claims"][0].update(verdict="reproduced!")),
                  ["claims.json: does not follow from measures.json and results_published/, claims.0.verdict is"]),
    "a margin": (edit("claims.json", lambda c: c["claims"][0]["rule"].update(margin=0.5)),
                 ["claims.json: does not follow from measures.json and results_published/, claims.0.rule.margin is"]),
    "the page": (replace("claims.md", "laim", "lame"), ["claims.md: does not follow from measures.json"]),
    "a table": (edit("tables.json", lambda t: t["tables"][0]["rows"][0].__setitem__(0, "x")),
                ["tables.json: does not follow from claims.json and summary.json, tables.0.rows.0.0 is"]),
    "all that follows from a measure": (judge_what_was_changed, ["measures.json: does not follow from the runs"]),
}  # fmt: skip


def test_measures_verdicts_and_tables_have_nothing_wrong(judged, capfd):
    assert verify(judged, capfd) == (0, [f"{judged}: 4 runs, nothing wrong"])


@pytest.mark.parametrize("how", DERIVED)
def test_what_is_derived_is_computed_anew(judged, tmp_path, capfd, how):
    folder = shutil.copytree(judged, tmp_path / "smoke")
    tamper, words = DERIVED[how]
    tamper(folder)
    make_checksums_agree(folder)
    status, lines = verify(folder, capfd)
    assert status == 1 and any(all(word in line for word in words) for line in lines), lines


def test_differences_of_values():
    expected = {"a": [1, 2.0, {"b": "x"}], "c": None, "d": True}
    assert list(differences({"a": [1, 2.0 + 1e-9, {"b": "x"}], "c": None, "d": True}, expected)) == []
    assert list(differences({"a": [1, 2.1, {"b": "y"}], "c": 0, "e": 1}, expected)) == [
        "a.1 is 2.1 instead of 2", 'a.2.b is "y" instead of "x"', "c is 0 instead of null", "d is missing",
        "e is too much",
    ]  # fmt: skip
    assert list(differences({**expected, "a": [1]}, expected)) == ['a is [1] instead of [1, 2.0, {"b": "x"}]']
    assert list(differences({**expected, "d": 1}, expected)) == ["d is 1 instead of true"]


def test_what_cannot_be_judged_at_all_is_one_line(results, tmp_path, capfd):
    for folder, words in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "config.yaml: no such file"),
        (shutil.copytree(results, tmp_path / "huge"), "rename the folder to smoke"),
    ):
        status, lines = verify(folder, capfd)
        assert status == 2 and len(lines) == 1 and words in lines[0]


def test_notes_say_what_is_no_error(results, capfd):
    edit(f"{RUN}/provenance.json", lambda p: p.update(dirty=True))(results)
    for path in [*results.rglob("provenance.json"), *results.rglob("checksums/*.json")]:
        write_json(path, {**json.loads(path.read_text()), "source_hash": "0" * 64})
    make_checksums_agree(results)
    capfd.readouterr()
    assert main(["verify", str(results)]) == 0
    said = capfd.readouterr().out
    assert (
        "note: step train: made by other code (000000000000) than the present" in said and "uncommitted changes" in said
    )


def test_kept_tensors_agree_where_nothing_was_changed(results):
    """The tampering above is seen against files that are as torch wrote them."""
    assert all(torch.isfinite(t.float()).all() for t in load_file(results / RUN / "structure.safetensors").values())
