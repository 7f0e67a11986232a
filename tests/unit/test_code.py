"""The code that results depend on: all that a step imports and no more, whatever is written about it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from reproduction import cli
from reproduction.jobs import code
from reproduction.jobs.code import (
    REPOSITORY,
    code_files,
    code_hash,
    notebook_hash,
    notebook_names,
    step_hash,
    step_modules,
)
from reproduction.notebook import NOTEBOOKS

STEPS = ("problems", "pretrain", "train", "evaluate", "summarise", "measure", "claims", "tables", "report")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the packages, in which files can be changed."""
    for package in code.PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "REPOSITORY", tmp_path)
    code._file.cache_clear()
    yield tmp_path
    code._file.cache_clear()


def hashes():
    code._read.cache_clear()
    return {step: step_hash(step) for step in STEPS}


def changed(copy, name, before, after):
    """The steps whose digest differs when `before` is replaced by `after` in a file."""
    path, first = copy / name, hashes()
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    second = hashes()
    path.write_text(text)
    return {step for step in STEPS if first[step] != second[step]}


def names(*modules):
    return {path.relative_to(code.REPOSITORY).as_posix() for path in code_files(*modules)}


def test_what_a_step_really_imports_is_in_its_closure():
    """Independent of the reading of files: Python's own record of what importing the step's modules has loaded.

    Each step in a fork of one process, which has loaded the large libraries.
    """
    script = f"""
import importlib, json, os, sys
import math_verify, scipy.stats, torch, trl
for step, names in { ({step: step_modules(step) for step in STEPS})!r}.items():
    if os.fork() == 0:
        for name in names:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:  # a name in a module, not a module
                pass
        own = [m for n, m in sys.modules.items() if n.split(".")[0] in {code.PACKAGES!r}]
        print(json.dumps([step, [m.__file__ for m in own if m.__file__]]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    loaded = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(loaded) == set(STEPS)
    for step, files in loaded.items():
        found = {os.path.relpath(path, REPOSITORY) for path in files}
        assert len(found) > 5 and found <= names(*step_modules(step)), step


def test_every_step_of_the_rules_is_known():
    parser = cli._parser()
    steps = next(action.choices for action in parser._actions if action.choices)
    for step in STEPS:
        assert steps[step].get_default("step").__name__ == f"_{step}"
    with pytest.raises(ValueError, match="no function _nothing"):
        step_modules("nothing")


def test_imports_of_every_kind_are_followed(copy):
    for name, text in {
        "kpo/one.py": "def late():\n    if True:\n        import kpo.two as x\n",
        "kpo/two.py": "from .room import three as other\nSCRIPT = 'import sys; from kpo.six import main; main()'\n",
        "kpo/room/__init__.py": "from . import four\n",
        "kpo/room/three.py": "from ..five import VALUE\nimport numpy, kpo_other\n",
        "kpo/room/four.py": "",
        "kpo/room/unused.py": "",
        "kpo/five.py": "import kpo.one\nVALUE = 1\n",
        "kpo/six.py": "",
    }.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    own = {name for name in names("kpo.one") if not (REPOSITORY / name).exists()}
    assert own == {
        f"kpo/{name}.py" for name in ("one", "two", "room/__init__", "room/three", "room/four", "five", "six")
    }
    assert "kpo/__init__.py" in names("kpo.one")


def test_comments_docstrings_and_layout_are_no_code(copy):
    path = "reproduction/evaluation/aggregates.py"
    function = next(line for line in (copy / path).read_text().splitlines() if line.startswith("def "))
    assert changed(copy, path, function, f"# a comment\n\n\n{function}") == set()
    assert changed(copy, path, '"""', '"""Other words. ') == set()
    # The first line of a figure's docstring is its caption.
    before = code_hash("paper_figures.structure")
    text = (copy / "paper_figures/structure.py").read_text()
    (copy / "paper_figures/structure.py").write_text(text.replace('"""', '"""Other words. ', 1))
    code._read.cache_clear()
    assert code_hash("paper_figures.structure") != before


def test_a_mended_statistic_makes_the_verdicts_again_and_no_training(copy):
    """Holm's correction replaced by nothing, as a statistic with a mistake in it would be mended."""
    path = "reproduction/evaluation/aggregates.py"
    found = changed(copy, path, "def holm(", "def holm_of_old(")
    assert {"claims", "tables", "report"} <= found and not {"problems", "pretrain", "train"} & found


@pytest.mark.parametrize(
    ("path", "yes", "no"),
    [
        ("kpo/losses.py", {"train"}, {"problems", "pretrain", "evaluate"}),
        ("kpo/structure.py", {"measure"}, {"train", "evaluate"}),
        ("reproduction/claims/judge.py", {"claims"}, {"train", "evaluate", "measure"}),
        ("reproduction/publish/publish.py", set(), set(STEPS)),
        ("reproduction/jobs/plan.py", set(), set(STEPS)),
        ("reproduction/verify/folder.py", set(), set(STEPS)),
    ],
)
def test_what_a_change_makes_again(copy, path, yes, no):
    last = (copy / path).read_text()
    found = changed(copy, path, last, f"{last}\nCHANGED = 1\n")
    assert yes <= found and not no & found


def test_a_notebook_depends_on_what_it_imports_and_draws(copy):
    notebook = REPOSITORY / "notebooks/03_stability_under_off_policy_updates.ipynb"
    before = notebook_hash(notebook)

    def differs(path):
        text = (copy / path).read_text()
        (copy / path).write_text(f"{text}\nCHANGED = 1\n")
        code._read.cache_clear()
        found = notebook_hash(notebook) != before
        (copy / path).write_text(text)
        code._read.cache_clear()
        return found

    cells = json.loads(notebook.read_text())["cells"]
    drawn = [name for name in ("entropy_gradient_norm", "stress_curves") if name in json.dumps(cells)]
    assert drawn and all(differs(f"paper_figures/{name}.py") for name in drawn)
    assert differs("reproduction/claims/measures.py") and differs("reproduction/notebook.py")
    assert not differs("paper_figures/krpo_order.py")


def test_the_figures_that_a_notebook_shows_are_among_its_names():
    """Each is asked for by a text, so that the workflow can see which figures it has to wait for."""
    shown = {}
    for name in NOTEBOOKS:
        path = REPOSITORY / f"notebooks/{name}.ipynb"
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        shown[name] = re.findall(r"^ *paper_figure\((.*?)[,)]", text, re.MULTILINE)
        assert {figure.strip('"') for figure in shown[name]} <= notebook_names(path), name
    assert shown[NOTEBOOKS[0]] == ['"response_log_ratio"'] and sum(map(len, shown.values())) >= 4


def test_outputs_of_a_notebook_are_no_part_of_its_source(tmp_path):
    def digest(name, *cells):
        (tmp_path / name).write_text(json.dumps({"cells": list(cells)}))
        return notebook_hash(tmp_path / name)

    plain = {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": [], "metadata": {}}
    executed = plain | {"source": "a = 1\na", "outputs": [{"text": "1"}], "execution_count": 3}
    injected = {"cell_type": "code", "source": "results = 'x'", "metadata": {"tags": ["injected-parameters"]}}
    assert digest("one", plain) == digest("two", injected, executed)
    assert digest("one", plain) != digest("three", plain | {"source": "a = 2\na"})
    assert digest("one", plain) != digest("four", plain | {"cell_type": "markdown"})


def test_no_rule_names_its_code_by_hand():
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        assert ".py" not in path.read_text(), path
