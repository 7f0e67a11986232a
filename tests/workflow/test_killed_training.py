"""`python -m reproduction train` killed with SIGKILL at random moments: the next call goes on and leaves the same."""

import json
import os
import random
import signal
import sys
import time

import pytest

from reproduction.cli import main
from reproduction.jobs.files import read_jsonl
from reproduction.settings.configuration import dump, load
from tests.forker import Forker
from tests.running import Command

pytestmark = pytest.mark.slow

KILLS = 20
METHODS = ["kpo-clipped", "krpo-adaptive", "grpo"]
FILES = ("config.yaml", "structure.safetensors", "model/model.safetensors", "model/tokenizer.json")


def configure(folder, results):
    training = {"learning_rate": 0.003, "rollout_batches": 3, "minibatches": 2, "epochs": 2, "max_completion_length": 8}
    configuration = load(
        {
            "scale": "smoke",
            "results": str(folder / results),
            "seeds": [1],
            "base_model": {"steps": 2},
            "safety": {"checkpoint_every": 1},
            "experiments": {
                "kpo": {
                    "methods": {
                        "kpo-clipped": {"clip_low": 0.005, "clip_high": 0.005},
                        "krpo-adaptive": {"kl_weight": 0.0},
                        "grpo": {"kl_weight": 0.05},
                    },
                    "reward_noise": {"gaussian": 0.3},
                    "training": training,
                }
            },
        }
    )
    path = folder / f"{results}.yaml"
    path.write_text(dump(configuration))
    return path, configuration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("killed")


def train(forker, config, label, seconds=None):
    arguments = ["--experiment", "kpo", "--method", label, "--seed", 1, "--log", f"{config}.{label}.log"]
    return forker.run("train", "--config", config, *arguments, seconds=seconds)


def rows(folder):
    return [
        {name: value for name, value in row.items() if not name.endswith("_seconds")}
        for row in read_jsonl(folder / "metrics.jsonl")
    ]


def test_killed_at_random_moments(folder, capfd):
    seed = int.from_bytes(os.urandom(4))
    print(f"random moments of seed {seed}")
    moments = random.Random(seed)
    calm_config, calm = configure(folder, "calm")
    config, killed = configure(folder, "killed")
    for path in (calm_config, config):
        assert main(["problems", "--config", str(path)]) == 0
        assert main(["pretrain", "--config", str(path), "--seed", "1"]) == 0
    forker, took = Forker(), {}
    for label in METHODS:
        started = time.monotonic()
        assert train(forker, calm_config, label) == "0"
        took[label] = time.monotonic() - started
    kills, continued = 0, 0
    for label in METHODS * KILLS:
        run = killed.run_folder("kpo", label, 1)
        # Snakemake removes what a killed job declares; a run that has ended is made once more from its beginning.
        (run / "provenance.json").unlink(missing_ok=True)
        status = None
        while status != "0":
            # More of the later moments: the first part of so short a run is start-up, before any checkpoint.
            seconds = 0.95 * took[label] * moments.random() ** 0.5 if kills < KILLS else None
            started = time.monotonic()
            status = train(forker, config, label, seconds)
            # How long a run takes changes with what else the machine does: follow it, so that kills fall into training.
            if status == "0" and kills < KILLS:
                took[label] = min(took[label], time.monotonic() - started)
            elif status == "killed" and not any((run / "checkpoint").glob("*")):
                took[label] *= 1.1
            assert status in ("0", "killed"), (config.parent / f"{config.name}.{label}.log").read_text()[-3000:]
            kills += status == "killed"
        reference = calm.run_folder("kpo", label, 1)
        assert rows(run) == rows(reference)
        for name in FILES:
            assert (run / name).read_bytes() == (reference / name).read_bytes(), f"{label}: {name}"
        assert not (run / "checkpoint").exists()
        interruptions = json.loads((run / "provenance.json").read_text())["interruptions"]
        continued += len(interruptions)
        if kills >= KILLS:
            break
    forker.close()
    assert kills >= KILLS and continued >= KILLS // 10
    capfd.readouterr()
    print(f"{kills} kills, {continued} continuations from a checkpoint, seed {seed}")


def test_the_command_itself_killed_in_training(folder, tmp_path):
    """`python -m reproduction train` in its own interpreter, killed once its first checkpoint is there."""
    config, configuration = configure(tmp_path, "results")
    assert main(["problems", "--config", str(config)]) == 0
    assert main(["pretrain", "--config", str(config), "--seed", "1"]) == 0
    run = configuration.run_folder("kpo", "kpo-clipped", 1)
    command = [sys.executable, "-m", "reproduction", "train", "--config", str(config), "--experiment", "kpo"]
    command += ["--method", "kpo-clipped", "--seed", "1"]
    process = Command(command)
    assert process.until(lambda: list(run.glob("checkpoint/update-*")), every=0.01), process.said()
    assert process.kill() == -signal.SIGKILL
    assert not (run / "provenance.json").exists()
    again = Command(command).finish()
    assert again.returncode == 0 and "continues after update" in again.stderr
    assert [row["update"] for row in rows(run)] == list(range(1, configuration.experiments["kpo"].training.updates + 1))
