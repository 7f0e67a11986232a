"""What users of the library rely on: public names, the wheel by itself, light imports, and old import paths."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import kpo
from kpo.checks import check_integer, check_real

ROOT = Path(__file__).resolve().parents[2]

VARIANCES = "process_variance, observation_variance, initial_mean=0.0"
# Name: its arguments without annotations; None if it is not a function.
PUBLIC = {
    "kalman.kalman_gains": "num_steps, process_variance, observation_variance, initial_variance=0.0",
    "kalman.kalman_filter": f"observations, mask=None, *, {VARIANCES}, initial_variance=0.0",
    "kalman.kalman_filter_group": f"rewards_PG, mask=None, *, {VARIANCES}, initial_variance=1.0",
    "kalman.linear_filter": "observations, gains, mask=None, initial_mean=0.0",
    "kalman.log_likelihood": f"observations, mask=None, *, {VARIANCES}, initial_variance=0.0",
    "kalman.fit_variances": "observations, mask=None, ...",
    "ratios.log_importance_ratio": "kind, log_probs, old_log_probs, mask, **parameters",
    "ratios.ratio_kind": "name, *, depends_on_ratio=True, clips_itself=False",
    "ratios.straight_through": "value, log_ratio_BT",
    "advantages.group_advantages": "kind, rewards, **parameters",
    "advantages.advantage_kind": "name",
    "advantages.informative_groups": "rewards",
    "losses.policy_loss": "method, log_probs, old_log_probs, advantages, mask, ref_log_probs=None, *, "
    "sampler_weights=None, num_sequences=None, num_tokens=None",
    "losses.merge_metrics": "parts",
    "losses.aggregate": "kind, values, mask, *, num_sequences=None, num_tokens=None, length=None",
    "methods.METHODS": None,
    "methods.Method": None,
    "methods.declare": "method",
    "methods.get_method": "name, **overrides",
    "structure.switch_frequency": "log_ratio, mask, ...",
    "structure.run_lengths": "log_ratio, mask, ...",
    "structure.low_frequency_energy": "log_ratio, mask, fraction=0.1, ...",
    "adaptive.RewardNoiseEstimator": None,
    "checks.NonFiniteError": None,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_and_their_arguments(name):
    module = importlib.import_module(f"kpo.{name.split('.')[0]}")
    value = getattr(module, name.split(".")[1])
    assert name.split(".")[1] in module.__all__ and value.__doc__
    expected = PUBLIC[name]
    if expected is None:
        return
    signature = inspect.signature(value)
    bare = [item.replace(annotation=inspect.Parameter.empty) for item in signature.parameters.values()]
    found = str(inspect.Signature(bare))[1:-1].replace("'", "")
    # Three dots: further arguments have defaults and go by name.
    assert found.startswith(expected[:-5]) if expected.endswith(", ...") else found == expected
    for item in bare[expected.count(",") :] if expected.endswith("...") else ():
        assert item.kind is item.KEYWORD_ONLY and item.default is not item.empty


@pytest.mark.parametrize("module", sorted({name.split(".")[0] for name in PUBLIC} | {"likelihood"}))
def test_all_names_exist(module):
    module = importlib.import_module(f"kpo.{module}")
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_package_offers_the_main_names_itself():
    for name in kpo.__all__:
        owners = {entry for entry in PUBLIC if entry.endswith(f".{name}")}
        assert owners, name
        module, attribute = owners.pop().split(".")
        assert getattr(kpo, name) is getattr(getattr(kpo, module), attribute)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kpo.nothing  # noqa: B018
    assert (ROOT / "kpo/py.typed").is_file()


NUMBERS = {
    "np.float32": np.float32(0.5),
    "np.float64": np.float64(0.5),
    "array": np.array(0.5),
    "tensor": torch.tensor(0.5),
    "fraction": Fraction(1, 2),
}
INTEGERS = {"np.int64": np.int64(3), "np.uint8": np.uint8(3), "tensor": torch.tensor(3), "array": np.array(3)}
REFUSED = {
    "bool": True,
    "np.bool": np.True_,
    "bool tensor": torch.tensor(True),
    "text": "0.5",
    "complex": 1j,
    "list": [1],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_other_libraries_are_numbers(name):
    found = check_real("x", NUMBERS[name])
    assert found == 0.5 and type(found) is float
    gains, _ = kpo.kalman_gains(torch.tensor(4), NUMBERS[name], NUMBERS[name])
    assert torch.equal(gains, kpo.kalman_gains(4, 0.5, 0.5)[0])
    values = torch.ones(1, 4)
    filtered = kpo.kalman_filter(values, process_variance=NUMBERS[name], observation_variance=NUMBERS[name])
    assert torch.equal(filtered, kpo.kalman_filter(values, process_variance=0.5, observation_variance=0.5))
    # A method's text and JSON are those of plain numbers: checkpoints and verl's overrides hold them.
    given = dict.fromkeys(("kl_weight", "clip_low", "process_variance"), NUMBERS[name])
    plain = dict.fromkeys(given, float(NUMBERS[name]) if name != "fraction" else NUMBERS[name])
    assert repr(kpo.get_method("krpo", **given)) == repr(kpo.get_method("krpo", **plain))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_of_other_libraries_are_integers(name):
    found = check_integer("n", INTEGERS[name], minimum=1)
    assert found == 3 and type(found) is int and check_real("x", INTEGERS[name]) == 3.0


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_number_is_refused_by_name(name):
    for check in (lambda value: check_real("x", value), lambda value: check_integer("x", value, minimum=0)):
        with pytest.raises(TypeError, match="^x must be a"):
            check(REFUSED[name])
    for value in (np.float32("nan"), torch.tensor(float("inf"))):
        with pytest.raises(ValueError, match="^x must be finite"):
            check_real("x", value)
    with pytest.raises(TypeError, match="^x must be an integer"):
        check_integer("x", np.float64(3.0), minimum=0)
    with pytest.raises(ValueError, match="^x requires a gradient"):
        check_real("x", torch.tensor(1.0, requires_grad=True))


@pytest.mark.parametrize(
    ("module", "absent"),
    [("kpo", ("torch", "numpy", "numba", "scipy")), ("kpo.losses", ("numba", "scipy", "triton"))],
)
def test_imports_load_no_more_than_they_need(module, absent):
    assert loaded(f"import {module}", absent) == []


def test_a_configuration_is_read_without_a_compiler():
    """Every step of a workflow reads one, and tries its methods: compiling the filter there took 1 s of each."""
    program = "from reproduction.settings.configuration import load; load({'scale': 'smoke'})"
    program += "; import kpo; kpo.get_method('kpo-clipped', process_variance=1e-4); kpo.get_method('kpo-ema', gain=0.1)"
    assert loaded(program, ("numba", "transformers")) == []


def test_help_and_leases_load_no_pytorch():
    """Reading a configuration does, which takes 1.5 s."""
    program = "from reproduction.cli import main\ntry: main(['lease', '--help'])\nexcept SystemExit: print(end='')"
    assert not {"torch", "numpy"} & set(loaded(program, ("torch", "numpy")))


def loaded(program, modules):
    """Which of the modules a program has loaded at its end."""
    program = f"import sys\n{program}\nprint(*sorted(set({modules!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Every module that was in `kpo` before the split, by folder ("" is `kpo` itself).
OLD = {
    "": "allocator checksums cli config config_files devices files hub launch masked_rows notebook plan pretrained "
    "progress provenance publish published reward_noise sizing steps study tasks verify verify_derived verify_run "
    "workflow",
    "claims": "declare judge report verdict",
    "data": "arithmetic prompts",
    "evaluation": "run sampling summary",
    "report": "write",
    "rewards": "math noise",
    "training": "trainer run shards",
}


@pytest.mark.parametrize("folder", OLD)
def test_an_old_import_names_the_new_place_in_one_line(folder):
    for name in OLD[folder].split():
        old = ".".join(filter(None, ("kpo", folder, name)))
        with pytest.raises(ImportError) as caught:
            importlib.import_module(old)
        message = str(caught.value)
        assert "\n" not in message and re.match(rf"kpo\.{folder or name} moved to ", message), message
        for place in re.findall(r"(?:reproduction|kpo)(?:\.\w+)+", message.split(" moved to ")[1]):
            if place != "kpo.trl":
                path = ROOT / place.replace(".", "/")
                assert path.is_dir() or path.with_suffix(".py").is_file(), message
    assert "kpo.trl" in message or folder != "training"


def test_a_folder_that_an_old_version_left_behind_is_no_package(tmp_path):
    (tmp_path / "kpo/training/__pycache__").mkdir(parents=True)
    (tmp_path / "kpo/__init__.py").write_bytes((ROOT / "kpo/__init__.py").read_bytes())
    done = subprocess.run([sys.executable, "-c", "import kpo.training"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "kpo.training moved to reproduction.training" in done.stderr


def test_the_old_command_names_the_new_one():
    done = subprocess.run([sys.executable, "-m", "kpo", "train"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "python -m reproduction" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built with the tools of the environment; nothing is written into the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in [*(ROOT / "kpo").glob("*.py"), ROOT / "kpo/py.typed", ROOT / "pyproject.toml"]:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in ("README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("reproduction", "paper_figures", "tests"):
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    run_pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def run_pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_library_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"kpo"}
    expected = {f"kpo/{path.name}" for path in (ROOT / "kpo").glob("*.py")} | {"kpo/py.typed"}
    assert expected <= set(names)
    entries = [zipfile.ZipFile(wheel).read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert not any("_scripts]" in text for text in entries), "a command cannot work outside the repository"


ALONE = """
import importlib, importlib.abc, importlib.util, pathlib, sys

target, packages, readme = sys.argv[1:]
sys.path.insert(0, target)
# The environment's packages, without the `.pth` files that lead to this repository.
sys.path.append(packages)
BLOCKED = {"transformers", "trl", "scipy", "pydantic", "verl", "accelerate", "datasets", "pandas", "matplotlib"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import kpo

assert pathlib.Path(kpo.__file__).parent.parent == pathlib.Path(target)
for name in ("reproduction", "paper_figures", "tests", "benchmarks"):
    assert importlib.util.find_spec(name) is None, name
present = {name for name in ("triton",) if importlib.util.find_spec(name)}
for path in sorted(pathlib.Path(kpo.__file__).parent.glob("*.py")):
    if path.stem.startswith(("trl", "verl", "__main__")) or (path.stem == "kalman_triton" and "triton" not in present):
        continue
    importlib.import_module(f"kpo.{path.stem}")
for code in pathlib.Path(readme).read_text(encoding="utf-8").split("```python\\n")[1:]:
    exec(code.split("```")[0], {})
import torch
from kpo.methods import METHODS

for name, method in METHODS.items():
    rewards, lengths = torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)
    try:
        method.advantages(rewards, lengths_PG=lengths, estimator=method.make_estimator())
        assert name != "krpo-adaptive"
    except ImportError as error:
        assert name == "krpo-adaptive" and "needs SciPy" in str(error), (name, error)
print("done")
"""


def test_the_wheel_works_by_itself(wheel, tmp_path):
    """In its own folder, with the dependencies of the library and nothing else to be imported."""
    target = tmp_path / "target"
    run_pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    arguments = [str(target), sysconfig.get_paths()["purelib"], str(ROOT / "README.md")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr
