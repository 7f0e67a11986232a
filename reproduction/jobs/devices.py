"""CUDA devices of this machine, and leases that keep two jobs off the same one.

Snakemake's `gpu` resource only counts. A lease hands out device ids: a lock file for each device, held with flock, so
that the kernel frees it when its holders end, however they end. `python -m reproduction lease --devices 2 -- command`
takes two devices, puts them into CUDA_VISIBLE_DEVICES and becomes the command, which so holds the locks.

A command may be a launcher whose workers do the work and inherit nothing but its environment. So a lock is shared: who
leases takes it exclusively and then keeps a share, each worker takes its own share (`hold_lease`, as KPO_LEASE tells
it), and nobody else can take it before all are gone. If a launcher was killed before its worker took a share, and
another has the device, the worker finds another lease's token in the lock file and ends.

nvidia-smi lists the devices, not torch, which takes seconds to import and opens every device.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from reproduction.jobs.files import NoLocks, lock

SECONDS_BETWEEN_TRIES = 0.5
LEASE_VARIABLE = "KPO_LEASE"
"""The environment variable that names a lease to the processes of its command: JSON with folder, locks and token."""
_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]


class DeviceError(RuntimeError):
    """Too few devices, or none free in time; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """A device: what CUDA_VISIBLE_DEVICES calls it, its name, and its memory in bytes (None if it is not known)."""

    id: str
    name: str
    memory_bytes: int | None
    uuid: str | None = None

    @property
    def lock_name(self) -> str:
        """The name of its lock: by its uuid, since its number depends on who asks."""
        return (
            "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in self.uuid or self.id) + ".lock"
        )


@dataclass
class Lease:
    """Devices held until `release` or the end of every process that has `files` open or its own share."""

    devices: list[Device]
    files: list[int] = field(repr=False)
    token: str = ""

    def release(self) -> None:
        """Give the devices back."""
        while self.files:
            os.close(self.files.pop())


def visible_devices(*, certain: bool = False) -> list[Device]:
    """The devices that this process may use: those nvidia-smi lists, as far as CUDA_VISIBLE_DEVICES names them.

    An entry that nvidia-smi does not list (a part of a device, MIG) is a device of unknown memory. Without nvidia-smi,
    or if it fails, there is none.

    certain: raise DeviceError if numbers in CUDA_VISIBLE_DEVICES may mean other devices to CUDA than to nvidia-smi,
    which counts by bus while CUDA puts the fastest first unless CUDA_DEVICE_ORDER says PCI_BUS_ID.
    """
    try:
        output = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in output.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdigit():
            memory = int(float(parts[3]) * 2**20) if parts[3].replace(".", "").isdigit() else None
            found.append(Device(parts[0], parts[2], memory, parts[1] or None))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if certain and chosen is not None:
        _check_numbers(found, chosen)
    return found if chosen is None or not found else _chosen(found, chosen)


def _check_numbers(found: list[Device], names: str) -> None:
    kinds = dict.fromkeys(device.name for device in found)
    numbered = any(part.strip().isdigit() for part in names.split(","))
    if numbered and len(kinds) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise DeviceError(
            f"CUDA_VISIBLE_DEVICES={names} is ambiguous on a machine with {' and '.join(kinds)}: CUDA counts the "
            "fastest first, nvidia-smi by bus; set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name devices by uuid (nvidia-smi "
            "-L)"
        )


def _chosen(found: list[Device], names: str) -> list[Device]:
    devices = []
    for name in (part.strip() for part in names.split(",")):
        if not name or name == "-1":
            break  # CUDA, too, ignores what follows an entry that is no device
        known = [device for device in found if name == device.id or (device.uuid or "").startswith(name)]
        if name.isdigit() and not known:
            break
        devices.append(known[0] if known else Device(name, "unknown device", None, name))
    return devices


def lease_folder() -> Path:
    """The folder of the locks of this machine's devices: $KPO_LEASE_FOLDER, or the user's folder among temporary files.

    It must be on this machine, not shared with others, whose devices have their own locks. Only jobs that look in the
    same folder keep off each other: if several users share devices, all of them name one folder in which all
    may write (lock files are as open as their folder).
    """
    given = os.environ.get("KPO_LEASE_FOLDER")
    return Path(given).expanduser() if given else Path(tempfile.gettempdir()) / f"kpo-devices-{os.getuid()}"


def acquire(
    count: int,
    devices: Sequence[Device] | None = None,
    *,
    folder: Path | None = None,
    timeout: float | None = None,
    inheritable: bool = False,
) -> Lease:
    """Lock `count` of `devices` (default: all visible ones), waiting until that many are free at once.

    All are taken together or none, so that two jobs with half of their devices each cannot wait for one another.
    timeout: seconds to wait at most, None for no limit. inheritable: whether the locks survive into an exec'ed command.

    Raises DeviceError if the machine has fewer devices, it is not certain which are meant, or the time is up, naming
    who holds them.
    """
    devices = visible_devices(certain=True) if devices is None else list(devices)
    if count < 1:
        raise DeviceError(f"--devices must be at least 1, found {count}")
    if timeout is not None and not timeout >= 0:  # nan, too, which would wait for ever
        raise DeviceError(f"--wait must be 0 or more seconds, found {timeout:g}")
    if len(devices) < count:
        names = ", ".join(f"{device.id} ({device.name})" for device in devices) or "none"
        raise DeviceError(
            f"the job needs {count} CUDA devices and this machine has {len(devices)} to use: {names}; run it where "
            "there are enough, or set pretrained.devices.count lower if one device's memory allows it"
        )
    folder = lease_folder() if folder is None else folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        with _needing_locks(folder):
            lease = _try_all(devices, count, folder)
        if lease is not None:
            for file in lease.files:
                os.set_inheritable(file, inheritable)
            return lease
        if deadline is not None and time.monotonic() >= deadline:
            raise DeviceError(
                f"{count} of the devices {', '.join(device.id for device in devices)} were not free within "
                f"{timeout:g} s; held by {_holders(devices, folder)}"
            )
        time.sleep(SECONDS_BETWEEN_TRIES)


def run_with_lease(count: int, command: Sequence[str], timeout: float | None = None) -> None:
    """Lease `count` devices and become `command`, which sees only those devices; never returns.

    count 0 leases nothing and shows the command no device. Raises DeviceError as `acquire` does, or if the command
    cannot be started.
    """
    if not command:
        raise DeviceError("no command to run was given; write it after --")
    os.environ.pop(LEASE_VARIABLE, None)
    lease = acquire(count, timeout=timeout, inheritable=True) if count else Lease([], [])
    if lease.devices:
        locks = [device.lock_name for device in lease.devices]
        named = {"folder": str(lease_folder().resolve()), "locks": locks, "token": lease.token}
        os.environ[LEASE_VARIABLE] = json.dumps(named)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid or device.id for device in lease.devices)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise DeviceError(f"{command[0]}: cannot be run ({error.strerror})") from None


def hold_lease() -> None:
    """Take a share in the lease that this process runs under, until it ends; nothing if it runs under none.

    Raises DeviceError if the lease is lost: all who held it ended, and another job may have the devices.
    """
    text = os.environ.get(LEASE_VARIABLE)
    if not text:
        return
    try:
        named = json.loads(text)
        folder, locks, token = Path(named["folder"]), list(named["locks"]), str(named["token"])
        with _needing_locks(folder), _opened(folder / "all.lock") as all_devices:
            lock(all_devices, fcntl.LOCK_EX)
            for name in locks:
                _take_share(folder / name, token)
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"{LEASE_VARIABLE}={text} is no lease ({error!r}); unset it, or start the job with "
            "python -m reproduction lease"
        ) from None


def _take_share(path: Path, token: str) -> None:
    file = _open(path)
    try:
        lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.pread(file, len(token), 0).decode(errors="replace") != token:
            raise BlockingIOError
        os.pwrite(file, f"process {os.getpid()}\n".encode(), os.fstat(file).st_size)
    except BlockingIOError:
        os.close(file)
        raise DeviceError(
            "the lease of this job's devices is lost: who took it ended before this process began; start the job again"
        ) from None
    # The file stays open, so that the share ends with the process.


def _try_all(devices: list[Device], count: int, folder: Path) -> Lease | None:
    # One job at a time looks, so that none takes what another is about to count, or about to share.
    with _opened(folder / "all.lock") as all_devices:
        lock(all_devices, fcntl.LOCK_EX)
        lease = Lease([], [], secrets.token_hex(8))
        for device in devices:
            file = _open(folder / device.lock_name)
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            lease.devices.append(device)
            lease.files.append(file)
            if len(lease.devices) == count:
                for held in lease.files:
                    os.truncate(held, 0)
                    os.pwrite(held, f"{lease.token}\nprocess {os.getpid()}\n".encode(), 0)
                    lock(held, fcntl.LOCK_SH)
                return lease
        lease.release()
        return None


@contextlib.contextmanager
def _needing_locks(folder: Path) -> Iterator[None]:
    try:
        yield
    except NoLocks as error:
        raise DeviceError(
            f"{folder}: its file system has no locks ({error.strerror}), so two jobs could take one device; set "
            "KPO_LEASE_FOLDER to a folder on a disk of this machine"
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = _open(path)
    try:
        yield file
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """Open a lock file; a new one gets the permissions to write that its folder gives."""
    # An existing file is opened without O_CREAT, which Linux refuses for files of others in folders like /tmp.
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    writers = stat.S_IMODE(path.parent.stat().st_mode) & 0o022
    mask = os.umask(0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600 | writers | writers << 1)
    finally:
        os.umask(mask)


def _holders(devices: list[Device], folder: Path) -> str:
    """The processes that said in the lock files of held devices that they hold them, as far as they still run."""
    found: set[int] = set()
    with _opened(folder / "all.lock") as all_devices:
        lock(all_devices, fcntl.LOCK_EX)
        for device in devices:
            with _opened(folder / device.lock_name) as file:
                try:
                    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = os.pread(file, 2**16, 0).decode(errors="replace")
                    found |= {int(number) for number in re.findall(r"^process (\d+)$", text, re.MULTILINE)}
    there = filter(psutil.pid_exists, sorted(found))
    return ", ".join(f"process {number}" for number in there) or "processes unknown"
