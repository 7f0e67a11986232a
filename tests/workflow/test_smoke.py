"""The whole workflow at smoke scale, in a copy of the repository: every file appears, a second call does nothing, a
change repeats what depends on it and no more, and what is wrong is refused before any job."""

import json
import re
import sys

import pytest

from paper_figures import figures_for
from reproduction.claims import CLAIMS
from reproduction.notebook import NOTEBOOKS
from reproduction.settings.configuration import dump, load
from reproduction.verify.folder import verify
from tests.forker import Forker
from tests.running import Command, copy_checkout
from tests.running import snakemake as run_snakemake

CONFIGURATION = load({"scale": "smoke"})
RUNS = [*CONFIGURATION.untrained(), *CONFIGURATION.runs()]
SEED_RUNS = [run for run in RUNS if run[2] == CONFIGURATION.seeds[0]]
FIGURES = figures_for({name: settings.methods for name, settings in CONFIGURATION.experiments.items()})

pytestmark = pytest.mark.slow


def with_problems(checkout):
    (checkout / "problems.jsonl").write_text(
        '{"id": "a", "question": "What is 3 + -4?", "answer": "-1", "num_terms": 2, "num_digits": 1}\n'
        '{"id": "b", "question": "Solve   12 - 7 + 1", "answer": "6", "num_terms": 3, "num_digits": 2}\n'
        '{"id": "c", "question": "2 * 3 =", "answer": "6", "num_terms": 2, "num_digits": 1}\n'
    )
    return checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return with_problems(copy_checkout(tmp_path_factory.mktemp("a check out") / "kpo"))


def snakemake(checkout, *arguments, config=("scale=smoke", "arithmetic_file=problems.jsonl")):
    return run_snakemake(checkout, *arguments, config=config)


def made_step_by_step(folder):
    """Make the runs of one seed in another folder, without Snakemake and one step after the other.

    Each evaluation samples its answers itself, which in the workflow the training does.
    """
    config, log = "results/smoke/config.yaml", folder / "log"
    (folder / config).parent.mkdir(parents=True)
    (folder / config).write_text(dump(load({"scale": "smoke", "arithmetic_file": "problems.jsonl"})))
    forker = Forker(folder)
    for step, *arguments in [("problems",), *(step for run in SEED_RUNS for step in steps_of(*run))]:
        assert forker.run(step, "--config", config, "--log", log, *arguments) == "0", log.read_text()[-4000:]
    forker.close()


def steps_of(experiment, method, seed):
    """What makes a run, or the base model, and evaluates it."""
    if experiment == "base":
        return [("pretrain", "--seed", seed), ("evaluate", "--seed", seed)]
    run = ("--experiment", experiment, "--method", method, "--seed", seed)
    return [("train", *run), ("evaluate", *run)]


@pytest.fixture(scope="module")
def both(checkout, tmp_path_factory):
    """The whole workflow with two jobs at once, and at the same time the runs of one seed, one step after the other, in
    another folder. (What is made from runs is compared in tests of its own, so it is not made there.)
    """
    other = with_problems(tmp_path_factory.mktemp("other"))
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    workflow = Command([*command, "--config", "scale=smoke", "arithmetic_file=problems.jsonl"], cwd=checkout)
    try:
        made_step_by_step(other)
    finally:
        result = workflow.finish()
    assert result.returncode == 0, result.stderr[-4000:]
    return result, other


@pytest.fixture(scope="module")
def finished(both):
    return both[0]


def run_folders(checkout):
    return [checkout / CONFIGURATION.run_folder(*run) for run in CONFIGURATION.runs()]


def test_everything_is_made(checkout, finished):
    for folder in run_folders(checkout):
        settings = CONFIGURATION.experiments[folder.parts[-3]].training
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == settings.updates
        for name in (
            "config.yaml",
            "provenance.json",
            "structure.safetensors",
            "model/model.safetensors",
            "model/tokenizer.json",
        ):
            assert (folder / name).stat().st_size > 0, folder / name
    results = checkout / "results/smoke"
    for figure in FIGURES:
        assert (results / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
    claims = json.loads((results / "claims.json").read_text())["claims"]
    assert [claim["id"] for claim in claims] == [claim.id for claim in CLAIMS]
    # Two seeds of a model that learns nothing show nothing.
    assert "reproduced" not in {claim["verdict"] for claim in claims if claim["measures"].keys() & {"accuracy.normal"}}
    page = (results / "report.html").read_text()
    for claim in claims:
        assert claim["id"] in page
    assert json.loads((results / "tables.json").read_text())["tables"]
    for name in ("claims.md", "tables.md", "summary.md"):
        assert (results / name).stat().st_size > 0
    for name in NOTEBOOKS:
        cells = json.loads((results / f"notebooks/{name}.ipynb").read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert code and all(cell["execution_count"] for cell in code), name
    left = [path for path in results.rglob(".*") if path.is_file() and path.name != ".snakemake_timestamp"]
    assert not left, "temporary files stay behind"


def test_evaluation_agrees_with_the_kept_records(checkout, finished):
    for folder in [
        checkout / CONFIGURATION.run_folder("base", "base", seed) for seed in CONFIGURATION.seeds
    ] + run_folders(checkout):
        summary = json.loads((folder / "evaluation.json").read_text())["splits"]
        records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        assert list(summary) and set(summary) == {"easy", "normal", "hard", "file"}
        # Of the file's three rows one multiplies, which the model was never taught to read.
        assert summary["file"]["num_problems"] == 2
        for split, found in summary.items():
            drawn = [record["correct"] for record in records if record["split"] == split and not record["greedy"]]
            assert len(drawn) == found["num_problems"] * found["samples_per_problem"]
            assert sum(drawn) / len(drawn) == pytest.approx(found["avg_at_k"])
            assert sum(found["correct"]) == sum(drawn)


def test_verification_finds_nothing_wrong(checkout, finished):
    found = verify(checkout / "results/smoke")
    assert found.problems == [] and found.runs == len(CONFIGURATION.runs())


# What two runs need not have in common, and why. Everything else is compared byte for byte.
NOT_COMPARED = {
    "logs/": "progress with times",
    "benchmarks/": "time and memory of each job",
    "/provenance.json": "when, how long, how much memory, which folder",
    "/checksums/train.json": "digests of files with times",
    "/checksums/pretrain.json": "digests of files with times",
}


def contents(results):
    """What is compared of each file, by its name below the results folder."""
    found = {}
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        name = path.relative_to(results).as_posix()
        if name.endswith(".snakemake_timestamp") or any(part in f"/{name}" for part in NOT_COMPARED):
            continue
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows]
        else:
            found[name] = path.read_bytes()
    return found


def test_two_fresh_runs_with_and_without_the_workflow_leave_the_same(checkout, both):
    other = both[1]
    found, again = contents(checkout / "results/smoke"), contents(other / "results/smoke")
    assert [name for name in again if found.get(name) != again[name]] == []
    # All that one seed leaves was made in both, and something of every kind was compared.
    names = [CONFIGURATION.run_folder(*run).relative_to("results/smoke").as_posix() for run in SEED_RUNS]
    assert {name for name in found if name.startswith(tuple(f"{folder}/" for folder in names))} <= again.keys()
    for name in ("config.yaml", "problems/train.jsonl", "problems/held_out.jsonl"):
        assert name in again
    for kind in ("evaluation.json", "samples.jsonl", "checksums/evaluate.json", "model/model.safetensors"):
        assert all(f"{folder}/{kind}" in again for folder in names), kind
    trained = [folder for folder in names if not folder.startswith("base/")]
    assert len(trained) == len(CONFIGURATION.runs()) // len(CONFIGURATION.seeds)
    assert all(f"{folder}/{kind}" in again for folder in trained for kind in ("metrics.jsonl", "structure.safetensors"))


def test_plan_progress_and_result_are_said(finished):
    said = finished.stderr
    assert said.index("kpo, scale smoke") < said.index("base model seed")
    for words in ("no CUDA device", "16 runs", "expected", "report.html", "claims.md", "summary.md"):
        if words == "16 runs":
            words = f"{len(CONFIGURATION.experiments['kpo'].methods) * len(CONFIGURATION.seeds)} runs"
        assert words in said, words
    assert re.search(r"kpo/kpo-clipped seed 1 +6/6 +reward [\d.e-]+ .*done in", said)


def test_second_call_does_nothing(checkout, finished):
    before = {path: path.stat().st_mtime_ns for path in (checkout / "results").rglob("*") if path.is_file()}
    result = snakemake(checkout)
    assert result.returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in (checkout / "results").rglob("*") if path.is_file()}


def planned_jobs(result) -> dict[str, int]:
    """Jobs by rule of a dry run."""
    return {
        name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, re.MULTILINE)
    }


def dry_run(checkout, *arguments, **keywords):
    return snakemake(checkout, *arguments, "-n", "--quiet", "rules", **keywords)


def test_figures_alone_train_nothing(checkout, finished):
    (checkout / "results/smoke/figures/training_curves.png").unlink()
    jobs = planned_jobs(dry_run(checkout, "figures"))
    assert jobs.pop("total", None) is not None
    assert jobs == {"figure": 1, "figures": 1}
    assert snakemake(checkout, "figures").returncode == 0
    assert (checkout / "results/smoke/figures/training_curves.png").exists()


def test_jobs_of_small_models_see_no_device(checkout):
    result = snakemake(checkout, "-n", "-p", "--quiet", "host", config=("scale=smoke", "results=elsewhere"))
    commands = re.findall(r"^.* -m reproduction (?:pretrain|train|evaluate) .*$", result.stdout, re.MULTILINE)
    runs, seeds = len(CONFIGURATION.runs()), len(CONFIGURATION.seeds)
    assert len(commands) == 2 * runs + 2 * seeds
    assert all("CUDA_VISIBLE_DEVICES= " in command.split(" -m ")[0] for command in commands)


def test_a_changed_setting_repeats_what_depends_on_it(checkout, finished):
    mine = checkout / "mine.yaml"
    mine.write_text("experiments: {krpo: {training: {learning_rate: 0.001}}}\n")
    jobs = planned_jobs(dry_run(checkout, "--configfile", "mine.yaml"))
    runs = len(CONFIGURATION.experiments["krpo"].methods) * len(CONFIGURATION.seeds)
    assert jobs["train"] == jobs["evaluate"] == runs
    assert "pretrain" not in jobs and "problems" not in jobs


def test_changed_code_repeats_what_depends_on_it_and_no_training(checkout, finished):
    """A statistic is mended; then only a comment is written."""
    path = checkout / "reproduction/evaluation/aggregates.py"
    text = path.read_text()
    try:
        path.write_text(f"{text}\nMENDED = True\n")
        jobs = planned_jobs(dry_run(checkout))
        path.write_text(f"# A comment.\n{text}")
        assert "Nothing to be done" in (again := dry_run(checkout)).stdout + again.stderr
    finally:
        path.write_text(text)
    assert {"claims", "tables", "report", "summarise"} <= jobs.keys()
    assert not {"problems", "pretrain", "train", "evaluate"} & jobs.keys()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (("scale=huge",), ["unknown scale 'huge'", "smoke, laptop"]),
        (("scale=smoke", "experiments={kpo: {training: {minibatches: 1}}}"), ["every ratio is exactly 1"]),
        (("scale=smoke", "arithmetic_file=Snakefile"), ["arithmetic_file", "Snakefile, line 1"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_before_any_job(checkout, config, words):
    """tests/unit/test_config.py has many more, without Snakemake."""
    result = snakemake(checkout, config=config)
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Traceback" not in said
    assert "pretrain" not in said
    for word in words:
        assert word in said, said
