"""The scales for GPUs through Snakemake: every run of both papers is listed, a tiny model goes through the real jobs on
the CPU, and the SLURM profile submits what it should to an `sbatch` that only writes down what it is asked."""

import importlib.util
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from reproduction.settings.configuration import load
from tests.running import Command, copy_checkout
from tests.tiny_hub import tiny_overrides

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("scales") / "kpo")


def snakemake(checkout, *arguments, **environment):
    return Command([sys.executable, "-m", "snakemake", *arguments], cwd=checkout, **environment).finish()


@pytest.mark.parametrize("scale", ["desktop", "gpu"])
def test_a_dry_run_lists_every_run(checkout, scale):
    """Of the scale `paper` too, by SLURM's profile below."""
    assert_lists_every_run(snakemake(checkout, "-n", "--config", f"scale={scale}"), scale)


def assert_lists_every_run(result, scale):
    assert result.returncode == 0, result.stderr[-3000:]
    counts = dict(re.findall(r"^(\w+)\s+(\d+)$", result.stdout + result.stderr, re.MULTILINE))
    configuration = load({"scale": scale})
    assert int(counts["train_pretrained"]) == len(configuration.runs())
    assert int(counts["evaluate_pretrained"]) == len(configuration.runs()) + len(configuration.experiments)
    models = {settings.pretrained.model.name for settings in configuration.experiments.values()}
    assert int(counts["model"]) == len(models)
    assert "train" not in counts and "pretrain" not in counts


def test_an_unpinned_set_stops_the_workflow_before_any_job(checkout):
    value = "experiments={kpo: {pretrained: {evaluation_sets: [amc23-release]}}}"
    listed = snakemake(checkout, "-n", "--config", "scale=gpu", value)
    assert listed.returncode == 0, listed.stderr[-3000:]
    result = snakemake(checkout, "--cores", "1", "--config", "scale=gpu", value)
    assert result.returncode != 0 and "data.pins.amc23-release.revision" in result.stderr
    assert not (checkout / "results/gpu").exists()


def test_a_tiny_model_goes_through_the_real_jobs(checkout, tmp_path):
    overrides = tiny_overrides(tmp_path / "mirror", Path("results"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overrides))
    runs = [
        f"results/paper/{experiment}/{method}/seed42"
        for experiment, method in (("kpo", "kpo-clipped"), ("kpo", "base"))
    ]
    targets = [f"{run}/evaluation.json" for run in runs]
    arguments = ["--cores", "1", "--configfile", str(tmp_path / "tiny.yaml"), "--", *targets]
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    result = snakemake(checkout, *arguments, **cache)
    assert result.returncode == 0, result.stderr[-4000:]
    found = json.loads((checkout / targets[0]).read_text())
    assert set(found["splits"]) == {"math500", "dapo"}
    again = snakemake(checkout, "-n", *arguments, **cache)
    assert "Nothing to be done" in again.stdout + again.stderr


# What a cluster's tools would say; all but sbatch only to be asked.
SBATCH = """#!{python}
import json, os, sys
with open(os.environ["SBATCH_RECORD"], "a") as record:
    record.write(json.dumps(sys.argv[1:]) + "\\n")
print("4711")
"""


@pytest.fixture
def cluster(tmp_path):
    """The environment of a machine with SLURM's tools, and the file in which sbatch writes down its arguments."""
    tools, record = tmp_path / "tools", tmp_path / "record.jsonl"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH.format(python=sys.executable))
    answers = {"sacct": "4711|FAILED", "sacctmgr": "a"}
    for name in ("sacct", "sacctmgr", "squeue", "scancel", "sinfo", "scontrol"):
        (tools / name).write_text(f"#!/bin/sh\necho '{answers.get(name, '')}'\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return {"PATH": f"{tools}:{os.environ['PATH']}", "SBATCH_RECORD": str(record)}, record


def instruction(checkout) -> list[str]:
    """What the profile tells its readers to call, word for word."""
    text = (checkout / "profiles/slurm/config.yaml").read_text()
    found = re.findall(r"^# +(snakemake .*slurm_account=.*)$", text, re.MULTILINE)
    assert len(found) == 1
    return shlex.split(found[0])[1:]


def test_account_and_partition_given_as_told_take_no_resource_away(checkout):
    """Every key of the profile is read by Snakemake itself; the executor is a plugin that need not be installed."""
    profile = yaml.safe_load((checkout / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm" and not {"default-resources", "set-resources"} & profile.keys()
    changed = ["--set-resources", "train_pretrained:mem_mb=256000"]
    result = snakemake(checkout, "-n", "--quiet", "host", "--executor", "local", *instruction(checkout), *changed)
    assert_lists_every_run(result, "paper")
    asked = {}
    for rule, resources in re.findall(
        r"^(?:local)?rule (\w+):$.*?^    resources: (.*?)$", result.stdout, re.MULTILINE | re.DOTALL
    ):
        asked.setdefault(rule, dict(part.split("=", 1) for part in resources.split(", ")))
    rules = ("problems", "summarise", "measure", "claims", "tables", "figure", "notebook", "report")
    expected = dict.fromkeys(rules, ("120", "16000"))
    expected |= {"train_pretrained": ("4320", "256000"), "evaluate_pretrained": ("720", "64000")}
    for rule, (runtime, memory) in expected.items():
        assert (asked[rule]["runtime"], asked[rule]["mem_mb"]) == (runtime, memory), rule
        assert (asked[rule]["slurm_account"], asked[rule]["slurm_partition"]) == ("A", "P"), rule
    assert int(asked["train_pretrained"]["gpu"]) > 0


@pytest.mark.skipif(
    importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
    reason="Snakemake's SLURM executor is not installed (requirements/slurm.in)",
)
def test_jobs_are_submitted_with_their_devices(checkout, cluster, tmp_path):
    environment, record = cluster
    overrides = tiny_overrides(tmp_path / "mirror", Path("slurm_results"))
    overrides["experiments"]["kpo"]["pretrained"]["devices"] = {"count": 2, "memory_gb": 80.0}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overrides))
    target = "slurm_results/paper/kpo/kpo-clipped/seed42/metrics.jsonl"
    command = [
        sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm",
        "--configfile", str(tmp_path / "tiny.yaml"),
        "--default-resources", "slurm_account=a", "slurm_partition=p", "--", target,
    ]  # fmt: skip
    command = Command(command, cwd=checkout, **environment, HF_DATASETS_CACHE=str(tmp_path / "cache"))
    # No job will ever end here: once it has been submitted, what was asked for is known.
    command.until(lambda: record.exists() and record.read_text().endswith("\n"))
    command.kill()
    assert record.exists(), command.said()[-4000:]
    submitted = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(submitted) == 1
    asked = " ".join(submitted[0])
    # Data and model were fetched here; only the training was submitted, with what its rule declares.
    assert "--gpus=2" in asked and "-t 4320" in asked and "--mem 128000" in asked and "train_pretrained" in asked
    assert (checkout / "slurm_results/paper/models").is_dir()
