"""The locks pin every package once, name no address, agree with each other, and hold all that the packages ask for."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
LOCKS = ["cpu", "gpu", "vllm-cpu", "verl-cpu"]
OLDER_FOR_VERL = {"transformers", "tokenizers", "antlr4-python3-runtime"}


def requirement_lines(name: str) -> list[str]:
    """The lines of a lock or of an input file, without comments; the lines of the files it includes come first."""
    lines = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line.startswith("-r "):
            lines += requirement_lines(line.removeprefix("-r ").strip())
        elif line:
            lines.append(line)
    return lines


def pins(name: str) -> dict[str, Version]:
    """Package -> pinned version."""
    result = {}
    for line in requirement_lines(name):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        result[canonicalize_name(requirement.name)] = Version(specifier.version)
    return result


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_one_exact_pin(lock):
    lines = requirement_lines(f"{lock}.txt")
    assert len(lines) > 100
    for line in lines:
        requirement = Requirement(line)  # refuses options such as --hash and --index-url
        assert requirement.url is None and not requirement.extras, line
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        assert Version(specifier.version).local is None, f"{line}: a local version names one machine's build"
    names = [canonicalize_name(Requirement(line).name) for line in lines]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted(FOLDER.parent.glob("environment*.yml")) + sorted(FOLDER.glob("*.*")), ids=str)
def test_no_address(path):
    assert "://" not in path.read_text(encoding="utf-8")


def test_locks_agree_on_shared_packages():
    versions: dict[str, set[Version]] = {}
    for lock in LOCKS:
        for name, version in pins(f"{lock}.txt").items():
            versions.setdefault(name, set()).add(version)
    assert {name for name, found in versions.items() if len(found) > 1} == OLDER_FOR_VERL


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_the_direct_pins(lock):
    locked = pins(f"{lock}.txt")
    for name, version in pins(f"{lock}.in").items():
        assert locked.get(name) == version, f"{name}: {lock}.in says {version}; run requirements/lock.py"


def test_gpu_lock_has_all_of_the_cpu_lock():
    only_macos = {"appnope"}
    assert pins("cpu.txt").keys() - pins("gpu.txt").keys() == only_macos


def test_vllm_only_where_it_runs():
    assert "vllm" in pins("gpu.txt") and "vllm-cpu" in pins("vllm-cpu.txt")
    assert not {"vllm", "vllm-cpu"} & pins("cpu.txt").keys()
    for lock in ("cpu", "vllm-cpu", "verl-cpu"):
        assert [name for name in pins(f"{lock}.txt") if name.startswith(("nvidia-", "cuda-"))] == []


def test_cpu_lock_is_closed():
    """Whatever an installed package asks for is in the lock, at a version it accepts (as `pip check` would find)."""
    locked = pins("cpu.txt")
    problems, checked = [], 0
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if locked.get(name) != Version(Version(distribution.version).public):
            continue  # not what the lock would install here
        checked += 1
        for text in distribution.requires or []:
            requirement = Requirement(text)
            # torch's CUDA build brings libraries that the CPU lock leaves to it.
            if canonicalize_name(requirement.name).startswith(("nvidia-", "cuda-")):
                continue
            if requirement.marker and not requirement.marker.evaluate({**default_environment(), "extra": ""}):
                continue
            version = locked.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                problems.append(f"{name} asks for {text}; the lock has {version}")
    assert problems == []
    assert checked > 100
