"""`python -m reproduction train` of a Hugging Face model in two processes under torch's launcher, killed with SIGKILL
and called again."""

import json
import signal
import sys

import pytest
import yaml

from reproduction.cli import main
from tests.running import Command
from tests.tiny_hub import tiny_configuration

pytestmark = pytest.mark.slow


def launched(path, kill_when=None):
    """Run the training; kill launcher and processes as soon as `kill_when` says so. Exit status, and what was said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "reproduction", "train", "--config", str(path)]
    job = Command([*command, "--experiment", "kpo", "--method", "kpo-clipped", "--seed", "42"])
    if kill_when is not None and job.until(kill_when):
        return job.kill(), job.said()
    return job.finish().returncode, job.said()


def test_two_processes_killed_and_called_again_leave_the_same_bytes(tmp_path):
    folders = []
    for name in ("whole", "killed"):
        configuration, path = tiny_configuration(tmp_path / name / "mirror", tmp_path / name / "results")
        settings = yaml.safe_load(path.read_text())
        settings["safety"]["checkpoint_every"] = 1
        settings["experiments"]["kpo"]["training"]["rollout_batches"] = 6
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        assert main(["mathematics", "--config", str(path), "--set", "dapo"]) == 0
        assert main(["model", "--config", str(path), "--experiment", "kpo"]) == 0
        folder = configuration.run_folder("kpo", "kpo-clipped", 42)
        folders.append(folder)
        if name == "killed":
            begun = lambda folder=folder: any((folder / "checkpoint").glob("update-0000[3-9]"))  # noqa: E731
            assert launched(path, kill_when=begun)[0] == -signal.SIGKILL
            assert not (folder / "model").exists()
        status, said = launched(path)
        assert status == 0, said
    whole, killed = folders
    provenance = json.loads((killed / "provenance.json").read_text())
    assert provenance["processes"] == 2 and len(provenance["interruptions"]) == 1
    assert provenance["interruptions"][0]["continued_after_update"] >= 3
    for name in ("structure.safetensors", "model/model.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    rows = [
        [
            {name: value for name, value in json.loads(line).items() if not name.endswith("_seconds")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in folders
    ]
    assert rows[0] == rows[1] and [row["update"] for row in rows[0]] == list(range(1, 13))
