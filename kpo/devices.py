"""CUDA devices of this machine, and leases that keep two jobs off the same one.

Snakemake's `gpu` resource only counts. A lease hands out device ids: a lock file for each device, held with flock by
the process that uses it, so that the kernel frees it when that process ends, however it ends. `kpo lease --devices 2 --
command` takes two devices, puts them into CUDA_VISIBLE_DEVICES and becomes the command, which so holds the locks.

Devices are asked for at nvidia-smi, not through torch, which takes seconds to import and opens every device.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS_BETWEEN_TRIES = 0.5
_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]


class DeviceError(RuntimeError):
    """Too few devices, or none free in time; the message says what to do."""


@dataclass(frozen=True)
class Device:
    """A device: what CUDA_VISIBLE_DEVICES calls it, its name, and its memory in bytes (None where it is not known)."""

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
    """Devices held until `release` or the end of every process that has `files` open."""

    devices: list[Device]
    files: list[int] = field(repr=False)

    def release(self) -> None:
        """Give the devices back."""
        while self.files:
            os.close(self.files.pop())


def visible_devices() -> list[Device]:
    """The devices that this process may use: those nvidia-smi lists, as far as CUDA_VISIBLE_DEVICES names them.

    An entry that nvidia-smi does not list (a part of a device, MIG) is a device of unknown memory. Without nvidia-smi,
    or where it fails, there is none.
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
    return found if chosen is None or not found else _chosen(found, chosen)


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
    """Where the locks of this machine's devices lie: $KPO_LEASE_FOLDER, or the user's folder among temporary files.

    It must be on this machine, not shared with others, whose devices have locks of their own.
    """
    given = os.environ.get("KPO_LEASE_FOLDER")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"kpo-devices-{os.getuid()}"


def acquire(
    count: int,
    devices: Sequence[Device] | None = None,
    *,
    folder: Path | None = None,
    timeout: float | None = None,
    inheritable: bool = False,
) -> Lease:
    """Lock `count` of `devices` (default: all visible ones), waiting until so many are free at once.

    All are taken together or none, so that two jobs with half of their devices each cannot wait for one another.
    timeout: seconds to wait at most, None for ever. inheritable: whether the locks survive into an exec'ed command.

    Raises DeviceError where the machine has fewer devices, or where the time is up, naming who holds them.
    """
    devices = visible_devices() if devices is None else list(devices)
    if count < 1:
        raise DeviceError(f"--devices must be at least 1, found {count}")
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


@contextlib.contextmanager
def leased(count: int, devices: Sequence[Device] | None = None, **options) -> Iterator[list[Device]]:
    """`acquire` for the length of a with block."""
    lease = acquire(count, devices, **options)
    try:
        yield lease.devices
    finally:
        lease.release()


def run_with_lease(count: int, command: Sequence[str], timeout: float | None = None) -> None:
    """Lease `count` devices and become `command`, which sees those devices alone; never returns.

    count 0 leases nothing and shows the command no device. Raises DeviceError as `acquire` does, or where the command
    cannot be started.
    """
    if not command:
        raise DeviceError("no command to run was given; write it after --")
    devices = acquire(count, timeout=timeout, inheritable=True).devices if count else []
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid or device.id for device in devices)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        raise DeviceError(f"{command[0]}: cannot be run ({error.strerror})") from None


def _try_all(devices: list[Device], count: int, folder: Path) -> Lease | None:
    # One job at a time looks, so that none takes what another is about to count.
    with _opened(folder / "all.lock") as all_devices:
        fcntl.flock(all_devices, fcntl.LOCK_EX)
        lease = Lease([], [])
        for device in devices:
            file = os.open(folder / device.lock_name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            lease.devices.append(device)
            lease.files.append(file)
            if len(lease.devices) == count:
                for held in lease.files:
                    os.truncate(held, 0)
                    os.pwrite(held, f"process {os.getpid()}".encode(), 0)
                return lease
        lease.release()
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _holders(devices: list[Device], folder: Path) -> str:
    said = {(folder / device.lock_name).read_text() for device in devices if (folder / device.lock_name).exists()}
    return ", ".join(sorted(said - {""})) or "processes unknown"
