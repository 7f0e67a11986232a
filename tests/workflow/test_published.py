"""The workflow on published results, in a copy of the repository that holds no run: it draws and judges what was
published, trains nothing, and says in one line if that is impossible."""

import re

import pytest

from paper_figures import figures_for
from reproduction.publish.publish import publish
from tests.finished_results import finished_results, make_the_rest
from tests.running import copy_checkout
from tests.running import snakemake as run_snakemake

METHODS = {"kpo": ("grpo", "kpo-clipped", "kpo-ema"), "krpo": ("grpo", "krpo")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = copy_checkout(tmp_path_factory.mktemp("a check out") / "kpo")
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
    return run_snakemake(checkout, *arguments, config=config)


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


def listing(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files if path.suffix != ".pyc" and ".snakemake" not in path.parts}


def test_started_anywhere_with_other_packages_on_the_path(checkout, published, tmp_path):
    """From another folder, of a checkout in which nothing is written, with a cluster's modules in PYTHONPATH."""
    folder, _ = published
    foreign, elsewhere = tmp_path / "modules", tmp_path / "else where"
    for place in (foreign, elsewhere):
        for name in ("kpo", "reproduction", "paper_figures", "sympy", "math_verify", "torch"):
            (place / name).mkdir(parents=True)
            (place / name / "__init__.py").write_text(f"raise SystemExit('the foreign {name} was imported')\n")
    before = listing(checkout)
    targets = ["figures/training_curves.png", "claims.md", "notebooks/01_kalman_filter_over_ratios.ipynb"]
    result = run_snakemake(
        elsewhere, "-s", checkout / "Snakefile", *(f"results/published/smoke/{name}" for name in targets),
        config=("scale=smoke", "results=published"), PYTHONPATH=str(foreign),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    back = elsewhere / "results/published/smoke"
    for name in ("figures/training_curves.png", "claims.json"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()
    assert listing(checkout) == before
    whole = run_snakemake(
        elsewhere, "-s", checkout / "Snakefile", "-n", "--quiet", "rules", config=("scale=smoke",),
        PYTHONPATH=str(foreign),
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert re.search(r"^report +1$", whole.stdout + whole.stderr, re.MULTILINE)


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
