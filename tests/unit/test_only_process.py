"""Folders held by one process, also on file systems that lock otherwise than a local disk, or not at all."""

import errno
import fcntl
import multiprocessing
import os
import time

import pytest

from reproduction.jobs import devices
from reproduction.jobs.devices import Device, DeviceError, acquire
from reproduction.jobs.files import LOCK, NoLocks, lock, only_process

WITHOUT_LOCKS = [errno.ENOSYS, errno.EBADF, 524, errno.ENOLCK, errno.EOPNOTSUPP]


def count_up(folder, times, waited):
    for _ in range(times):
        with only_process(folder, lambda: waited.put(1)):
            value = int((folder / "number").read_text())
            time.sleep(0.001)
            (folder / "number").write_text(str(value + 1))


def test_only_one_process_at_a_time_and_nothing_is_left(tmp_path):
    """Four processes read, wait and write: any two at once would lose a count. The lock file comes and goes."""
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    waited = context.Queue()
    processes = [context.Process(target=count_up, args=(tmp_path, 25, waited)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "100" and not waited.empty()
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_what_is_locked_is_a_file_open_for_writing(tmp_path, monkeypatch):
    """NFS locks those only: flock on a folder, or on a file open for reading, is local to one machine there."""
    seen = []

    def flock(descriptor, operation):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        seen.append((os.path.isdir(f"/proc/self/fd/{descriptor}"), flags & os.O_ACCMODE))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_process(tmp_path):
        pass
    devices_ = [Device("0", "a", None)]
    acquire(1, devices_, folder=tmp_path / "leases").release()
    assert len(seen) >= 3 and set(seen) == {(False, os.O_RDWR)}


@pytest.mark.parametrize("number", WITHOUT_LOCKS)
def test_without_locks_a_run_goes_on_and_a_lease_says_which_folder(tmp_path, monkeypatch, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_process(tmp_path / "run", lambda: pytest.fail("nobody holds it")):
        assert (tmp_path / "run" / LOCK).exists()
    folder = tmp_path / "leases"
    with pytest.raises(DeviceError) as error:
        acquire(1, [Device("0", "a", None)], folder=folder, timeout=0)
    said = str(error.value)
    assert str(folder) in said and "KPO_LEASE_FOLDER" in said and "\n" not in said
    monkeypatch.setenv(devices.LEASE_VARIABLE, f'{{"folder": "{folder}", "locks": ["0.lock"], "token": "x"}}')
    with pytest.raises(DeviceError, match="KPO_LEASE_FOLDER"):
        devices.hold_lease()


def test_other_errors_of_locks_are_not_taken_for_it(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="input/output error") as error:
        lock(0, fcntl.LOCK_EX)
    assert not isinstance(error.value, NoLocks)
