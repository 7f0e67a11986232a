"""The README keeps its word: its code runs, its files exist, its commands are targets."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
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


def test_table_is_that_of_the_published_results():
    """Every line of the published table stands in the README as it is, so that no number was typed."""
    published = REPOSITORY / "results_published/laptop/summary.md"
    lines = [line for line in published.read_text().splitlines() if line.startswith("|")]
    assert len(lines) > 10
    for line in lines:
        assert line in TEXT
