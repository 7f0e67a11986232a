"""`python -m reproduction pretrain` and `evaluate` killed with SIGKILL at random moments: the next call goes on with
what is there, and what it leaves in the end is the same; also if several processes share an evaluation."""

import os
import random
import shutil
import sys
import time
from dataclasses import dataclass

import psutil
import pytest

from reproduction.cli import main
from reproduction.settings.configuration import dump, load
from tests.forker import Forker
from tests.running import QUIET, Command
from tests.tiny_hub import tiny_configuration

pytestmark = pytest.mark.slow

KILLS = 8
EVALUATION = ("evaluation.json", "samples.jsonl", "checksums/evaluate.json")


@dataclass(frozen=True)
class Step:
    """A step to kill: its arguments, its run's folder, what it leaves (compared), and where it keeps its parts."""

    arguments: tuple
    folder: str
    files: tuple
    parts: str


def small_steps():
    base = ("metrics.jsonl", "model/config.json", "model/model.safetensors", "model/tokenizer.json")
    return [
        Step(("pretrain", "--seed", 1), "base/seed1", base, "checkpoint/update-*"),
        Step(("evaluate", "--seed", 1), "base/seed1", EVALUATION, "shards/*.json"),
    ]


def small_study(folder, results):
    """The file of a configuration whose pretraining and evaluation write often, with its problems."""
    configuration = load(
        {
            "scale": "smoke",
            "results": str(folder / results),
            "seeds": [1],
            "base_model": {"steps": 60},
            # Sampling takes longer than loading, so that most kills leave parts.
            "evaluation": {"batch_size": 8, "samples_per_problem": 24, "bootstrap_resamples": 100},
        }
    )
    path = folder / f"{results}.yaml"
    path.write_text(dump(configuration))
    assert main(["problems", "--config", str(path)]) == 0
    return path, configuration.folder


def undisturbed(forker, config, results, step):
    """Run a step once; the seconds that it took."""
    started = time.monotonic()
    assert forker.run(*step.arguments, "--config", config) == "0"
    assert not list((results / step.folder).glob(step.parts))
    return time.monotonic() - started


def kill_until(kills, forker, config, results, step, took, moments):
    """Run a step to its end again and again with `kills` kills in all; how many of them left parts to go on with."""
    folder, done, with_parts = results / step.folder, 0, 0
    while done < kills:
        # What Snakemake removes before it repeats a job.
        for name in step.files:
            (folder / name).unlink(missing_ok=True)
        status = None
        while status != "0":
            seconds = moments.uniform(0, 0.9 * took) if done < kills else None
            status = forker.run(
                *step.arguments, "--config", config, "--log", folder.parent / "killed.log", seconds=seconds
            )
            assert status in ("0", "killed"), (folder.parent / "killed.log").read_text()[-3000:]
            done += status == "killed"
            with_parts += status == "killed" and any(folder.glob(step.parts))
    return with_parts


def assert_same(step, results, reference):
    for name in step.files:
        found, expected = ((place / step.folder / name).read_bytes() for place in (results, reference))
        assert found == expected, f"{step.arguments[0]}: {name}"
    assert not (results / step.folder / "shards").exists()
    assert not (results / step.folder / "checkpoint").exists()


def test_killed_at_random_moments(tmp_path):
    seed = int.from_bytes(os.urandom(4))
    print(f"random moments of seed {seed}")
    moments = random.Random(seed)
    (calm_config, calm), (config, killed) = small_study(tmp_path, "calm"), small_study(tmp_path, "killed")
    forker = Forker()
    for step in small_steps():
        took = undisturbed(forker, calm_config, calm, step)
        kept = kill_until(KILLS, forker, config, killed, step, took, moments)
        assert_same(step, killed, calm)
        assert kept >= KILLS // 4
        print(f"{step.arguments[0]}: {KILLS} kills, {kept} with parts to go on with, seed {seed}")
    forker.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The configuration of a tiny Hugging Face model with one problem per shard, its file, and an evaluation."""
    import datasets

    folder = tmp_path_factory.mktemp("hub")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    configuration, path = tiny_configuration(folder / "mirror", folder / "results")
    path.write_text(path.read_text().replace("shard_problems: 3", "shard_problems: 1"))
    for arguments in (["mathematics", "--set", "dapo"], ["mathematics", "--set", "math500"]):
        assert main([*arguments, "--config", str(path)]) == 0
    assert main(["model", "--config", str(path), "--experiment", "kpo"]) == 0
    step = Step(
        ("evaluate", "--experiment", "kpo", "--method", "base", "--seed", 42), "kpo/base/seed42", EVALUATION,
        "shards/*.json",
    )  # fmt: skip
    forker = Forker()
    took = undisturbed(forker, path, configuration.folder, step)
    forker.close()
    calm = shutil.copytree(configuration.folder, folder / "calm")
    return configuration.folder, path, step, took, calm


def test_an_evaluation_of_a_model_of_the_hub_killed_at_random_moments(hub):
    results, path, step, took, calm = hub
    forker = Forker()
    kept = kill_until(3, forker, path, results, step, took, random.Random(0))
    forker.close()
    assert_same(step, results, calm)
    print(f"3 kills, {kept} with shards to go on with")


def test_two_processes_share_an_evaluation_and_end_with_the_one_that_started_them(hub):
    """On two devices that do not exist, so that each process computes on the CPU; first killed, then to its end."""
    results, path, step, _, calm = hub
    shutil.rmtree(results / step.folder)
    command = [sys.executable, "-m", "reproduction", *map(str, step.arguments), "--config", str(path)]

    def start():
        return Command(command, CUDA_VISIBLE_DEVICES="no-device-0,no-device-1", OMP_NUM_THREADS="1")

    def workers_of(command):
        return [one for one in psutil.Process(command.process.pid).children() if "--share" in one.cmdline()]

    process = start()
    assert process.until(lambda: len(workers_of(process)) == 2, every=0.05), process.said()
    workers = workers_of(process)
    assert [one.environ()["CUDA_VISIBLE_DEVICES"] for one in workers] == ["no-device-0", "no-device-1"]
    process.process.kill()
    process.process.wait()
    # They see its end at their next shard, however long that takes.
    gone, alive = psutil.wait_procs(workers, timeout=QUIET)
    assert len(gone) == 2 and not alive

    process = start()
    assert process.finish().returncode == 0, process.said()[-3000:]
    assert_same(step, results, calm)
