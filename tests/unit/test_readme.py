"""The README keeps its word: its code runs, its files exist, its commands are targets."""

import json
import re
from pathlib import Path

import pytest

from paper_figures import figures_for
from reproduction.publish.pages import readme_block, results_page
from reproduction.publish.publish import END, START
from reproduction.workflow import is_published, prepare

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = REPOSITORY / "results_published/laptop"
TEXT = (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_code_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (REPOSITORY / target).exists(), f"README links to {target}, which is not there"


def test_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z]+)", TEXT, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_results_are_those_published():
    """What the README and the published page show is what the published files give, so that no number was typed."""
    assert TEXT.split(START)[1].split(END)[0] == "\n" + readme_block(PUBLISHED)
    page = (PUBLISHED / "README.md").read_text()
    assert page == results_page(PUBLISHED)
    accuracies, verdicts = page.split("## Verdicts")
    rows = [line for line in accuracies.splitlines() if line.startswith("|")]
    assert len(rows) > 10 and set(rows) <= set((PUBLISHED / "summary.md").read_text().splitlines())
    shown = dict(re.findall(r"^\| \[([a-z0-9-]+)\].*\| \*\*([^*]+)\*\*[^|]*\|$", verdicts, re.MULTILINE))
    claims = json.loads((PUBLISHED / "claims.json").read_text())["claims"]
    undecided = ("inconclusive", "not tested at this scale")
    decided = {claim["id"]: claim["verdict"] for claim in claims if claim["verdict"] not in undecided}
    assert shown == decided
    for name in decided:
        assert f"`{name}`" in TEXT


def test_short_enough_to_read():
    assert len(TEXT.encode()) <= 8192


def test_published_results_can_be_worked_from():
    configuration = prepare({"results": "published", "scale": "laptop"})
    assert is_published(configuration) and configuration.scale == "laptop"
    for name in figures_for(configuration.methods_run()):
        assert (PUBLISHED / "figures" / f"{name}.png").is_file(), f"{name} was not published"
