"""What surrounds the code agrees with it: metadata, commands, environments, citation, continuous integration."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kpo

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
MAKE_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SCALE", "CONFIG", "ARGS", "TESTS", "CORES", "LOCK", "WORKERS"}
}


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, env=MAKE_ENVIRONMENT, capture_output=True, text=True)


def requirement_names(lines) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def of_lock(name: str) -> set[str]:
    """The direct packages of `requirements/<name>`."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return requirement_names(line.split("#")[0].strip() for line in lines if re.match(r"\w", line))


def declared(*extras: str) -> set[str]:
    return requirement_names(
        [*PYPROJECT["project"]["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    )


def imported_distributions(folder: str) -> dict[str, str]:
    """Distribution -> a file of `folder` that imports it, anywhere in the file."""
    owners = metadata.packages_distributions()
    result = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for top in {module.split(".")[0] for module in modules}:
                if top in sys.stdlib_module_names or top in {"kpo", "reproduction", "paper_figures", "benchmarks"}:
                    continue
                for owner in owners.get(top, [top]):
                    result[canonicalize_name(owner)] = str(path.relative_to(ROOT))
    return result


def test_library_declares_what_it_imports():
    imported = imported_distributions("kpo")
    # torch brings Triton with its CUDA builds, and the filter does without it.
    assert set(imported) - declared(*EXTRAS) - {"triton"} == set()
    assert declared(*EXTRAS) <= set(imported) | {"trl"}


@pytest.mark.parametrize("folder", ["reproduction", "paper_figures", "benchmarks"])
def test_every_import_is_a_direct_requirement(folder):
    imported = imported_distributions(folder)
    known = of_lock("cpu.in") | of_lock("gpu.in")
    assert {name: path for name, path in imported.items() if name not in known} == {}


def test_ranges_allow_the_locked_versions():
    locks = [(ROOT / f"requirements/{name}.txt").read_text("utf-8") for name in ("verl-cpu", "cpu")]
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", "\n".join(locks), re.M))
    for line in [*PYPROJECT["project"]["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]:
        requirement = Requirement(line)
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"pyproject.toml's {line} leaves out the locked {version}"


def test_steps_have_a_command_line():
    assert "scripts" not in PYPROJECT["project"], "an installed command cannot work outside the repository"
    done = subprocess.run([sys.executable, "-m", "reproduction", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "python -m reproduction" in done.stdout


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("kpo", {"reproduction", "paper_figures", "snakemake"}), ("reproduction", {"paper_figures"})],
)
def test_packages_import_nothing_of_those_that_build_on_them(package, forbidden):
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            tops = {name.split(".")[0] for name in names}
            assert not tops & forbidden, path


@pytest.mark.parametrize(
    "module", ["kpo", "kpo.kalman", "kpo.methods", "kpo.losses", "kpo.structure", "reproduction.cli"]
)
def test_imports_stay_light(module):
    heavy = {"transformers", "trl", "datasets", "accelerate", "vllm", "snakemake", "matplotlib"}
    program = f"import sys, {module}; print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name, lock", [("environment.yml", "gpu"), ("environment-cpu.yml", "cpu")])
def test_conda_environment_reads_the_lock(name, lock):
    environment = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert environment.keys() == {"name", "channels", "dependencies"}
    assert "python=3.11" in environment["dependencies"] and "pip" in environment["dependencies"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [f"-r requirements/{lock}.txt", "-e ."]
    assert (ROOT / "requirements" / f"{lock}.txt").is_file()


def test_citation_names_software_and_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "references"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == kpo.__version__ == changes[0]
    assert citation["license"] == PYPROJECT["project"]["license"]
    papers = {paper["abbreviation"]: paper for paper in citation["references"]}
    assert papers.keys() == {"KPO", "KRPO"}
    assert "2602.10609" in papers["KPO"]["doi"] and len(papers["KPO"]["authors"]) == 5
    assert "2505.07527" in papers["KRPO"]["doi"] and len(papers["KRPO"]["authors"]) == 4


def test_continuous_integration_runs_the_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if re.match(r"(exec )?make\b", line)]
    assert commands == ["exec make test"]
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_make_alone_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M).group(1).split()
    done = make()
    assert done.returncode == 0
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")} == set(phony)


def test_make_passes_settings_on():
    done = make("-n", "reproduce", "SCALE=smoke", "CONFIG=arithmetic_file=a.json", "CORES=3", "ARGS=--dry-run")
    assert done.returncode == 0
    assert "--cores 3 --dry-run --config scale=smoke arithmetic_file=a.json" in re.sub(" +", " ", done.stdout)
    assert "--config" not in make("-n", "reproduce").stdout


@pytest.mark.parametrize("interpreter", ["no-such-python", "false"])
def test_make_names_the_python_it_needs(interpreter):
    done = make("setup", f"PYTHON={interpreter}")
    assert done.returncode != 0
    assert "Python 3.11 is needed" in done.stderr and interpreter in done.stderr and "PYTHON=" in done.stderr
