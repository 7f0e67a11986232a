"""Snakemake with a job killed, and killed itself: the same command goes on from the checkpoint, unlocked by nobody."""

import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from reproduction.cli import main
from reproduction.jobs.files import read_jsonl
from tests.running import Command, copy_checkout

RUN = Path("results/smoke/kpo/kpo-clipped/seed1")
TRAINING = {"rollout_batches": 12, "max_completion_length": 8, "learning_rate": 0.003}

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path_factory):
    tmp_path = copy_checkout(tmp_path_factory.mktemp("killed") / "kpo")
    experiment = {"methods": {"kpo-clipped": {}}, "training": TRAINING, "reward_noise": {"gaussian": 0.3}}
    mine = {"scale": "smoke", "seeds": [1], "safety": {"checkpoint_every": 1}, "experiments": {"kpo": experiment}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    return tmp_path


def start(checkout):
    command = [sys.executable, "-m", "snakemake", str(RUN / "metrics.jsonl"), "--cores", "1"]
    command += ["--configfile", "mine.yaml"]
    return Command(command, cwd=checkout)


def newest(checkout) -> int:
    """The update of the newest checkpoint, 0 if there is none."""
    found = (checkout / RUN / "checkpoint").glob("update-*")
    return max((int(path.name.removeprefix("update-")) for path in found), default=0)


def wait_for_checkpoint(checkout, command, after):
    assert command.until(lambda: newest(checkout) > after), command.said()[-3000:]
    return newest(checkout)


def jobs_of(command):
    """Snakemake's jobs: the processes that run `python -m reproduction train`."""
    return [job for job in psutil.Process(command.process.pid).children(recursive=True) if "train" in job.cmdline()]


def test_killed_job_and_killed_snakemake(checkout, tmp_path_factory):
    process = start(checkout)
    reached = wait_for_checkpoint(checkout, process, 0)
    for job in jobs_of(process):
        job.send_signal(signal.SIGKILL)
    ended = process.finish()
    said = process.said()
    assert ended.returncode != 0 and "The same command continues" in said
    assert not (checkout / RUN / "metrics.jsonl").exists() and newest(checkout) >= reached

    # Only Snakemake dies; its job goes on, and the next call never trains at the same time: it waits for that job, or
    # makes the run again if the job has ended before it (test_waiting_run has the waiting itself).
    process = start(checkout)
    reached = wait_for_checkpoint(checkout, process, newest(checkout))
    process.process.kill()
    process.process.wait()

    process = start(checkout)
    ended = process.finish()
    said = process.said()
    assert ended.returncode == 0, said[-3000:]
    rows = read_jsonl(checkout / RUN / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, 25))
    assert not (checkout / RUN / "checkpoint").exists()

    # Undisturbed, from the same problems and base model.
    calm = tmp_path_factory.mktemp("calm")
    for part in ("problems", "base"):
        shutil.copytree(checkout / "results/smoke" / part, calm / "smoke" / part)
    config = (checkout / "results/smoke/config.yaml").read_text()
    (calm / "config.yaml").write_text(config.replace("results: results", f"results: {calm}"))
    run = ["--experiment", "kpo", "--method", "kpo-clipped", "--seed", "1"]
    assert main(["train", "--config", str(calm / "config.yaml"), *run]) == 0
    for name in ("structure.safetensors", "model/model.safetensors", "config.yaml"):
        assert (calm / RUN.relative_to("results") / name).read_bytes() == (checkout / RUN / name).read_bytes(), name
