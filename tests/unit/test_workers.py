"""Evaluation on several devices: a process for each, ended together; and the devices that such a job leases."""

import psutil
import pytest

from reproduction.evaluation.workers import own_devices, run_workers
from reproduction.jobs import launch as launching
from reproduction.jobs.devices import Device
from reproduction.settings.configuration import load
from reproduction.workflow import job_devices, machine_devices


def worker(script):
    """A command whose words after it are --share and its number of the number of workers."""
    return ["sh", "-c", script, "worker"]


def test_each_process_sees_its_own_device(tmp_path):
    looked = []
    run_workers(
        worker(f'echo "$1 $2" > "{tmp_path}/$CUDA_VISIBLE_DEVICES"; sleep 0.1'), ["0", "7"], lambda: looked.append(1)
    )
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "--share 0/2\n", "7": "--share 1/2\n"}
    assert looked


def test_one_that_fails_ends_the_others(tmp_path):
    sleeper = f'if [ "$2" = 0/2 ]; then echo $$ > "{tmp_path}/id"; exec sleep 100000; fi'
    with pytest.raises(RuntimeError, match="process on device b ended with status 3; .* same command goes on"):
        run_workers(worker(f'{sleeper}; while ! [ -s "{tmp_path}/id" ]; do sleep 0.1; done; exit 3'), ["a", "b"], int)
    assert not psutil.pid_exists(int((tmp_path / "id").read_text()))


@pytest.mark.parametrize(
    ("value", "expected"), [(None, []), ("", []), ("3", ["3"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_devices_of_a_lease(monkeypatch, value, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert own_devices() == expected


def test_an_evaluation_leases_what_training_does_and_starts_as_one_process(monkeypatch):
    experiments = {"kpo": {"pretrained": {"devices": {"count": 2}}}}
    configuration = load({"scale": "paper", "experiments": experiments})
    devices = [Device(str(number), "a device", 80 * 10**9) for number in range(4)]
    asked = []
    monkeypatch.setattr(launching, "visible_devices", lambda: devices)
    monkeypatch.setattr(launching, "run_with_lease", lambda count, command, wait: asked.append((count, command)))
    for step in ("train", "evaluate"):
        launching.launch(configuration, step, "kpo", ["--seed", "42"], None)
    (train_count, train), (count, evaluate) = asked
    assert (train_count, count) == (2, 2) and "--num_processes" in train
    assert evaluate[1:] == ["-m", "reproduction", "evaluate", "--seed", "42"]
    monkeypatch.setattr("reproduction.workflow.visible_devices", lambda: devices)
    machine_devices.cache_clear()
    assert job_devices(configuration, "kpo") == 2
    machine_devices.cache_clear()
