"""The command line: each wrong call exits with 2 and one line that says what to do."""

import subprocess
import sys

import pytest

from reproduction.cli import main
from reproduction.settings.configuration import dump, load


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump(load({"scale": "smoke", "results": str(tmp_path / "results")})))
    return path


def said(capfd, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    output = capfd.readouterr()
    lines = [line for line in (output.out + output.err).splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


def test_missing_configuration(capfd, tmp_path):
    assert "none.yaml: no such file" in said(capfd, "problems", "--config", tmp_path / "none.yaml")


def test_configuration_that_is_not_valid(capfd, config):
    config.write_text(config.read_text().replace("scale: smoke", "scale: smoke\nsedes: [1]"))
    line = said(capfd, "problems", "--config", config)
    assert str(config) in line and "sedes: unknown key" in line


def test_unknown_experiment_and_method(capfd, config):
    line = said(capfd, "train", "--config", config, "--experiment", "kpoo", "--method", "grpo", "--seed", 1)
    assert "unknown experiment 'kpoo'; known are kpo, krpo" in line
    line = said(capfd, "train", "--config", config, "--experiment", "krpo", "--method", "gspo", "--seed", 1)
    assert "experiment 'krpo' has no method 'gspo'; it has grpo, krpo" in line


def test_steps_out_of_order_name_the_missing_file(capfd, config):
    assert "train.jsonl" in said(capfd, "pretrain", "--config", config, "--seed", 1)
    assert main(["problems", "--config", str(config)]) == 0
    capfd.readouterr()
    line = said(capfd, "train", "--config", config, "--experiment", "krpo", "--method", "grpo", "--seed", 1)
    assert "base/seed1/model" in line and "python -m reproduction pretrain" in line
    line = said(capfd, "evaluate", "--config", config, "--seed", 1)
    assert "base/seed1/model" in line
    assert "evaluation.json is missing" in said(capfd, "summarise", "--config", config)
    assert "missing" in said(capfd, "publish", "--config", config)


def test_steps_after_the_runs_name_what_they_lack(capfd, config):
    """Copied only from a folder of published results; made from files that earlier steps leave."""
    assert "holds no published results; name the config.yaml" in said(capfd, "unpack", "--config", config)
    assert "measures.json is missing; measure the runs first" in said(capfd, "claims", "--config", config)
    for step in ("tables", "report"):
        assert ".json is missing" in said(capfd, step, "--config", config)
    assert "evaluation.json" in said(capfd, "summarise", "--allow-missing", "--config", config)


def test_problems_are_the_same_twice(config, tmp_path):
    folder = tmp_path / "results/smoke/problems"
    assert main(["problems", "--config", str(config)]) == 0
    first = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert main(["problems", "--config", str(config)]) == 0
    assert first == {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert set(first) == {"train.jsonl", "held_out.jsonl"}


def test_plan(capfd):
    assert main(["plan", "--scale", "smoke", "--cores", "3"]) == 0
    assert "scale smoke" in capfd.readouterr().out
    assert "unknown scale 'huge'" in said(capfd, "plan", "--scale", "huge")


def test_threads_must_be_a_positive_number(capfd, config):
    assert "--threads must be at least 1" in said(capfd, "problems", "--config", config, "--threads", 0)


def test_a_listing_whose_reader_has_gone_ends_without_a_word():
    command = [sys.executable, "-m", "reproduction", "methods"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1
