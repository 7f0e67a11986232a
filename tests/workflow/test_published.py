"""The workflow on published results, in a copy of the repository that holds no run: it draws and judges what was
published, trains nothing, and says in one line where that cannot be."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paper_figures import figures_for
from reproduction.publish.publish import publish
from tests.finished_results import finished_results, make_the_rest

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config", "kpo", "notebooks", "paper_figures", "profiles", "reproduction", "workflow")
METHODS = {"kpo": ("grpo", "kpo-clipped", "kpo-ema"), "krpo": ("grpo", "krpo")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a check out") / "kpo"
    folder.mkdir()
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    (folder / "README.md").write_text("<!-- results:start -->\n<!-- results:end -->\n")
    return folder


@pytest.fixture(scope="module")
def published(checkout, tmp_path_factory):
    """The published folder, and the folder that it was published from."""
    configuration = finished_results(tmp_path_factory.mktemp("made up"), scale="smoke", methods=METHODS)
    make_the_rest(configuration, ["training_curves", "final_accuracy"])
    sources = {path.name: path.read_bytes() for path in (checkout / "notebooks").iterdir()}
    publish(configuration, checkout)
    for name, content in sources.items():
        (checkout / "notebooks" / name).write_bytes(content)
    return checkout / "results_published/smoke", configuration.folder


def snakemake(checkout, *arguments, config=("scale=smoke", "results=published")):
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *arguments, "--config", *config]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=1200)


def test_figures_and_verdicts_are_those_that_were_published(checkout, published):
    folder, original = published
    targets = ["results/published/smoke/figures/training_curves.png", "results/published/smoke/claims.md"]
    result = snakemake(checkout, *targets)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "works from results_published/smoke/" in result.stderr and "nothing is trained" in result.stderr
    back = checkout / "results/published/smoke"
    for name in ("figures/training_curves.png", "claims.json", "claims.md"):
        assert (back / name).read_bytes() == (folder / name).read_bytes() == (original / name).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in back.rglob("*") if path.is_file()}
    again = snakemake(checkout, *targets)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout + again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in back.rglob("*") if path.is_file()}


def test_the_whole_plan_has_no_job_that_makes_runs(checkout, published):
    result = snakemake(checkout, "-n", "--quiet", "rules", "--forceall")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, re.MULTILINE))
    assert set(jobs) == {"all", "unpack", "claims", "tables", "figure", "notebook", "report", "total"}
    drawn = figures_for({name: dict.fromkeys(methods, {}) for name, methods in METHODS.items()})
    assert int(jobs["figure"]) == len(drawn) > 5


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (("results=published",), "results_published/laptop does not exist; published are the scales smoke"),
        (("results=published", "scale=smoke", "seeds=[1]"), "made with another 'seeds' than [1]"),
    ],
)
def test_what_was_not_published_is_refused_with_one_line(checkout, published, config, words):
    result = snakemake(checkout, "figures", config=config)
    assert result.returncode != 0 and words in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
