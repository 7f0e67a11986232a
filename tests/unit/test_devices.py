"""Leases of CUDA devices: ids handed out once, freed when the holder dies. nvidia-smi is a script here."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduction.cli import main
from reproduction.jobs import devices
from reproduction.jobs.devices import LEASE_VARIABLE, Device, DeviceError, acquire, hold_lease, visible_devices
from reproduction.settings.configuration import dump, load
from tests.running import QUIET

REPOSITORY = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def leased(*arguments, **options):
    lease = acquire(*arguments, **options)
    try:
        yield lease.devices
    finally:
        lease.release()


THREE = [Device(str(index), "Test", 24 * 10**9, f"GPU-{index}") for index in range(3)]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with three devices and its own lock folder; returns the environment of its processes."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script = tools / "nvidia-smi"
    lines = "".join(f"echo '{index}, GPU-{index}, NVIDIA H100 80GB HBM3, 81559'\n" for index in range(3))
    script.write_text(f"#!/bin/sh\n{lines}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("KPO_LEASE_FOLDER", str(tmp_path / "locks"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "SECONDS_BETWEEN_TRIES", 0.02)
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


# What `python -m reproduction lease` does, without the two seconds that importing the whole command line takes.
LEASE = """
import json, sys
from reproduction.jobs import devices
count, timeout, command = json.loads(sys.argv[1])
try:
    devices.run_with_lease(count, command, timeout)
except devices.DeviceError as error:
    sys.exit(str(error))
"""


def job(environment, count, command, timeout=None):
    """A job that leases in its own process."""
    arguments = [sys.executable, "-c", LEASE, json.dumps([count, timeout, command])]
    return start(environment, arguments)


def start(environment, arguments):
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SHOW_AND_SLEEP = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES; exec sleep 100000"]


def test_visible_devices_are_those_that_cuda_would_see(machine, monkeypatch):
    found = visible_devices()
    assert [device.id for device in found] == ["0", "1", "2"]
    assert found[0].name == "NVIDIA H100 80GB HBM3" and found[0].memory_bytes == 81559 * 2**20
    for value, ids in (
        ("2,0", ["2", "0"]),
        ("GPU-1", ["1"]),
        ("", []),
        ("1,7,2", ["1"]),
        ("-1", []),
        ("0,-1,2", ["0"]),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert [device.id for device in visible_devices()] == ids, value
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-abc")
    assert [(device.id, device.memory_bytes) for device in visible_devices()] == [("MIG-abc", None)]


def test_no_tool_and_a_broken_tool_mean_no_device(machine, tmp_path, monkeypatch):
    (tmp_path / "tools" / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert visible_devices() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert visible_devices() == []


def test_no_two_leases_share_a_device(tmp_path):
    with leased(2, THREE, folder=tmp_path) as first, leased(1, THREE, folder=tmp_path) as second:
        assert [device.id for device in (*first, *second)] == ["0", "1", "2"]
        with pytest.raises(DeviceError, match=rf"not free within 0 s; held by process {os.getpid()}"):
            acquire(1, THREE, folder=tmp_path, timeout=0)
    # All or none: a lease of three was refused one of them and must not keep the others.
    with leased(1, THREE[2:], folder=tmp_path):
        with pytest.raises(DeviceError):
            acquire(3, THREE, folder=tmp_path, timeout=0)
        acquire(2, THREE, folder=tmp_path, timeout=0).release()
    acquire(3, THREE, folder=tmp_path, timeout=0).release()


def test_more_than_the_machine_has_is_refused_at_once(tmp_path):
    with pytest.raises(DeviceError, match=r"needs 4 CUDA devices and this machine has 3 .*0 \(Test\)"):
        acquire(4, THREE, folder=tmp_path)
    with pytest.raises(DeviceError, match="has 0 to use: none"):
        acquire(1, [], folder=tmp_path)
    with pytest.raises(DeviceError, match="at least 1"):
        acquire(0, THREE, folder=tmp_path)


def test_a_killed_holder_frees_its_devices(machine):
    """The command itself holds the locks, so nothing is freed while it runs and all is when it is killed."""
    holder = job(machine, 2, SHOW_AND_SLEEP)
    waiter = None
    try:
        assert holder.stdout.readline() == "GPU-0,GPU-1\n"
        refused = job(machine, 2, ["true"], 0.1)
        _, error = refused.communicate(timeout=QUIET)
        assert refused.returncode == 1 and f"process {holder.pid}" in error and error.count("\n") == 1
        third = job(machine, 1, ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"])
        assert third.communicate(timeout=QUIET)[0] == "GPU-2\n"
        waiter = job(machine, 2, SHOW_AND_SLEEP)
        time.sleep(0.5)
        assert waiter.poll() is None
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=QUIET)
        assert waiter.stdout.readline() == "GPU-0,GPU-1\n"
    finally:
        for process in (holder, waiter):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(timeout=QUIET)


# A launcher like accelerate's: its worker begins its own session and inherits no open file. The worker takes its
# share once it may begin, and says its process id.
LAUNCHER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
print(worker.pid, flush=True)
if sys.argv[2] == "now":
    worker.stdin.write(b"begin\\n")
    worker.stdin.flush()
worker.wait()
"""
WORKER = """
import sys, time
from reproduction.jobs.devices import DeviceError, hold_lease
sys.stdin.readline()
try:
    hold_lease()
except DeviceError as error:
    print(error, flush=True)
    sys.exit(2)
print("holds", flush=True)
time.sleep(120)
"""


def kill(*processes):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_workers_of_a_killed_launcher_keep_their_devices(machine):
    launcher = job(machine, 2, [sys.executable, "-c", LAUNCHER, WORKER, "now"])
    worker = int(launcher.stdout.readline())
    try:
        assert launcher.stdout.readline() == "holds\n"
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.wait(timeout=QUIET)
        # Of three devices one is free; the two of the worker are not, and the worker is named, not the dead launcher.
        acquire(1, timeout=0).release()
        with pytest.raises(DeviceError, match=rf"held by process {worker}$"):
            acquire(2, timeout=0)
        os.kill(worker, signal.SIGKILL)
        acquire(3, timeout=QUIET).release()
    finally:
        kill(launcher.pid, worker)
        launcher.wait(timeout=QUIET)


def test_a_worker_whose_launcher_died_first_does_not_share_with_the_next_job(machine):
    """Until the worker has come to its share nothing holds the device, so it has to see that another took it."""
    launcher = job(machine, 3, [sys.executable, "-c", LAUNCHER, WORKER, "later"])
    worker = int(launcher.stdout.readline())
    try:
        os.kill(launcher.pid, signal.SIGKILL)  # the worker's input ends with it, and so the worker begins
        with leased(3, timeout=QUIET):
            assert "is lost" in launcher.stdout.readline()
    finally:
        kill(launcher.pid, worker)
        launcher.wait(timeout=QUIET)


def test_steps_take_their_share(machine, tmp_path, monkeypatch, capfd):
    """Training and evaluation on a lease that another holds by now end with one line; so does a bad lease."""
    config = tmp_path / "config.yaml"
    config.write_text(dump(load({"scale": "smoke", "results": str(tmp_path / "results")})))
    run = ["--config", str(config), "--experiment", "kpo", "--method", "grpo", "--seed", "1"]
    with leased(1) as (device,):
        lost = {"folder": str(devices.lease_folder()), "locks": [device.lock_name], "token": "another"}
        for text, words in ((json.dumps(lost), "lease of this job's devices is lost"), ("here", "is no lease")):
            monkeypatch.setenv(LEASE_VARIABLE, text)
            for step in ("train", "evaluate"):
                assert main([step, *run]) == 2
                error = capfd.readouterr().err
                assert words in error and error.count("\n") == 1
    monkeypatch.delenv(LEASE_VARIABLE)
    hold_lease()


def test_who_ended_is_not_named_as_holder(machine, tmp_path):
    ended = job(machine, 1, ["true"])
    assert ended.wait(timeout=QUIET) == 0
    (lock,) = (tmp_path / "locks").glob("GPU-0.lock")
    assert f"process {ended.pid}" in lock.read_text()
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # by one that wrote nothing
        with pytest.raises(DeviceError, match="held by processes unknown"):
            acquire(3, timeout=0)


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o700, 0o600), (0o770, 0o660), (0o1777, 0o666)])
def test_locks_are_as_open_as_their_folder(tmp_path, folder_mode, file_mode):
    folder = tmp_path / "locks"
    folder.mkdir()
    folder.chmod(folder_mode)
    with leased(1, THREE, folder=folder):
        found = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert found == {"all.lock": file_mode, "GPU-0.lock": file_mode}


def test_numbers_are_refused_where_they_may_mean_another_device(machine, tmp_path, monkeypatch):
    """CUDA counts the fastest first; nvidia-smi, and with it a lease, by bus."""
    script = "echo '0, GPU-0, NVIDIA RTX A2000, 12288'\necho '1, GPU-1, NVIDIA H100 80GB HBM3, 81559'\n"
    (tmp_path / "tools" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(DeviceError, match="RTX A2000 and NVIDIA H100.*CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        acquire(1)
    assert [device.id for device in visible_devices()] == ["0"]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    acquire(1).release()
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    for unambiguous in ("GPU-1", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", unambiguous)
        assert len(visible_devices(certain=True)) == bool(unambiguous)


def test_command_line(machine):
    """Exit status of the command, and one line if there is no command or it cannot run."""

    def lease(*arguments):
        process = start(machine, [sys.executable, "-m", "reproduction", "lease", *arguments])
        return process.communicate(timeout=QUIET)[1], process.returncode

    assert lease("--devices", "1", "--wait", "5", "--", "sh", "-c", "exit 7")[1] == 7
    error, status = lease("--devices", "1", "--", "no-such-command")
    assert status == 2 and "no-such-command: cannot be run" in error and error.count("\n") == 1
    error, status = lease("--devices", "4", "--", "true")
    assert status == 2 and "needs 4 CUDA devices" in error


def test_many_jobs_at_once_never_hold_the_same_device(machine, tmp_path):
    """Each of six jobs makes a file named after its device, which must not be there yet, and removes it again."""
    work = (
        "for d in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir \"$0/$d\" || exit 3; done; sleep 0.2; "
        "for d in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir \"$0/$d\" || exit 4; done"
    )
    jobs = [job(machine, 1 + number % 2, ["sh", "-c", work, str(tmp_path)]) for number in range(6)]
    assert [process.wait(timeout=QUIET) for process in jobs] == [0] * 6
