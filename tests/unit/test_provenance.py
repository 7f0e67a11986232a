"""The record of where a result comes from: complete, and never clean if that is not known."""

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest

from reproduction.jobs import provenance
from reproduction.jobs.code import REPOSITORY
from reproduction.jobs.provenance import NOT_DECIDING, said_commit, source_state, versions


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for command in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "kpo").mkdir()
    (tmp_path / "kpo" / "a.py").write_text("a = 1\n")
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "commit", "-qm", "one"], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    return tmp_path


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_clean_changed_and_new_files(checkout):
    found = source_state("train")
    assert (found["dirty"], found["diff"], found["untracked"]) == (False, "", [])
    (checkout / "kpo" / "with space ü.py").write_text("")
    found = source_state("train")
    assert (found["dirty"], found["untracked"]) == (True, ["kpo/with space ü.py"])
    assert said_commit(found) == f"{found['commit'][:10]} with changes"


def test_a_changed_file_that_is_not_utf8(checkout):
    (checkout / "kpo" / "a.py").write_bytes("# Größe\na = 2\n".encode("latin-1"))
    found = source_state("train")
    assert found["dirty"] is True and r"# Gr\xf6\xdfe" in found["diff"]


def test_a_diff_that_takes_too_long_is_unknown_and_not_clean(checkout, monkeypatch):
    run = subprocess.run

    def slow(command, **keywords):
        if command[1] == "diff":
            raise subprocess.TimeoutExpired(command, 20)
        return run(command, **keywords)

    monkeypatch.setattr(subprocess, "run", slow)
    found = source_state("train")
    assert (found["dirty"], found["diff"]) == (None, None) and found["commit"]
    assert said_commit(found) == f"{found['commit'][:10]} (changes unknown)"


def test_outside_a_checkout_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    found = source_state("train")
    assert (found["commit"], found["dirty"]) == (None, None)
    assert said_commit(found) == "not recorded (made outside a git checkout)"


def test_every_package_that_a_result_depends_on_is_named():
    found = versions()
    text = (REPOSITORY / "requirements/cpu.txt").read_text()
    lock = {normalised(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;+]+)", text, re.MULTILINE)}
    names = (
        "sympy latex2sympy2_extended math-verify mpmath tokenizers safetensors regex torch transformers trl accelerate"
    )
    for name in (*names.split(), "numpy", "scipy", "numba", "llvmlite", "jinja2", "triton"):
        assert found[normalised(name)].partition("+")[0] == lock[normalised(name)], name


def test_what_training_and_grading_load_is_named_or_said_to_decide_nothing():
    """Independent of what packages declare: whatever distribution's module is in memory after the imports."""
    script = """
import importlib.metadata, json, sys
import reproduction.evaluation.evaluate, reproduction.rewards.comparison, reproduction.training.train
owners = importlib.metadata.packages_distributions()
names = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({owner for name in names for owner in owners.get(name, ())})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    loaded = {normalised(name) for name in json.loads(done.stdout)}
    # What only the packages that decide nothing need: downloads and terminals.
    below = {"kpo"}
    for name in NOT_DECIDING:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        below |= {normalised(re.match(r"[\w.-]+", text)[0]) for text in needed}
    assert {"torch", "trl", "math-verify", "sympy"} <= loaded
    unnamed = loaded - versions().keys() - NOT_DECIDING - below
    assert unnamed <= {"certifi", "h11", "httpcore", "idna", "anyio", "click", "mdurl", "six"}, unnamed
