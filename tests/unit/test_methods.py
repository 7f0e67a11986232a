"""kpo.methods: every default against its source, overrides, refusals, and the worked example of CONTRIBUTING.md."""

import copy
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from kpo.advantages import ADVANTAGE_KINDS
from kpo.losses import policy_loss
from kpo.methods import METHODS, Method, declare, get_method
from kpo.ratios import RATIO_KINDS

ROOT = Path(__file__).resolve().parents[2]

KRPO_FILTER = {"process_variance": 1e-5, "observation_variance": 1e-2, "initial_mean": 0.0, "initial_variance": 1.0}
KPO_FILTER = {"process_variance": 1e-6, "observation_variance": 1.0, "initial_variance": 0.0}
SEQUENCE = "seq-mean-token-mean"

# name: (advantage, its parameters, ratio, its parameters, clip, aggregation, KL weight). One row for each source.
DEFAULTS = {
    # KPO's comparison (arXiv 2602.10609, experimental settings): GRPO advantage, per-sequence token mean, no KL;
    # clip 0.2 for GRPO, 0.4 in log space for GMPO, 3e-4 / 4e-4 for GSPO and KPO; Q 1e-6 clipped, 1e-4 unclipped, V 1.
    "grpo": ("grpo", {}, "token", {}, (0.2, 0.2), SEQUENCE, 0.0),
    "gmpo": ("grpo", {}, "geometric-mean", {}, (0.4, 0.4), SEQUENCE, 0.0),
    # GSPO (arXiv 2507.18071, 5.1): 3e-4 / 4e-4, no KL.
    "gspo": ("grpo", {}, "sequence-token", {}, (3e-4, 4e-4), SEQUENCE, 0.0),
    "gspo-sequence": ("grpo", {}, "sequence", {}, (3e-4, 4e-4), SEQUENCE, 0.0),
    "kpo-clipped": ("grpo", {}, "kalman", KPO_FILTER, (3e-4, 4e-4), SEQUENCE, 0.0),
    "kpo-unclipped": ("grpo", {}, "kalman", {**KPO_FILTER, "process_variance": 1e-4}, None, SEQUENCE, 0.0),
    # Controls of KPO; the constant gain is the steady one at Q / V = 1e-6, rounded as its proposers do.
    "kpo-unit": ("grpo", {}, "unit", {}, (3e-4, 4e-4), SEQUENCE, 0.0),
    "kpo-ema": ("grpo", {}, "ema", {"gain": 1e-3}, (3e-4, 4e-4), SEQUENCE, 0.0),
    "kpo-ema-scheduled": ("grpo", {}, "ema-scheduled", KPO_FILTER, (3e-4, 4e-4), SEQUENCE, 0.0),
    # Other baselines: Dr. GRPO (arXiv 2503.20783), RLOO (arXiv 2402.14740), OPO (arXiv 2505.23585).
    "dr-grpo": ("mean", {}, "token", {}, (0.2, 0.2), "seq-mean-token-sum-norm", 0.0),
    "rloo": ("leave-one-out", {}, "token", {}, (0.2, 0.2), SEQUENCE, 0.0),
    "opo": ("opo", {}, "token", {}, (0.2, 0.2), SEQUENCE, 0.0),
    # KRPO (arXiv 2505.07527, released script): x0 = 0, P0 = 1, Q = 1e-5, R = 1e-2; clip 0.2, KL 0.01, masked mean per
    # sequence.
    "krpo": ("krpo", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-mean": ("krpo-mean", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-scale": ("krpo-scale", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-prior": ("krpo-prior", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-running-mean": (
        "krpo-running-mean",
        {**KRPO_FILTER, "process_variance": 0.0},
        "token",
        {},
        (0.2, 0.2),
        SEQUENCE,
        0.01,
    ),
    "krpo-random-order": ("krpo-random-order", {**KRPO_FILTER, "seed": 0}, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-sorted": ("krpo-sorted", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-reversed": ("krpo-reversed", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
    "krpo-adaptive": (
        "krpo-adaptive",
        {**KRPO_FILTER, "process_variance": None, "observation_variance": None},
        "token",
        {},
        (0.2, 0.2),
        SEQUENCE,
        0.01,
    ),
    "grpo-rescaled": ("grpo-rescaled", KRPO_FILTER, "token", {}, (0.2, 0.2), SEQUENCE, 0.01),
}


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_those_of_the_source(name):
    method = METHODS[name]
    clip = None if method.clip_low is None else (method.clip_low, method.clip_high)
    declared = (
        method.advantage,
        method.advantage_parameters,
        method.ratio,
        method.ratio_parameters,
        clip,
        method.aggregation,
        method.kl_weight,
    )
    assert declared == DEFAULTS[name]
    assert method.name == name and method.paper and method.section and method.description
    assert method.paper.startswith("arXiv ")
    assert method.aggregation_length == (4096 if name == "dr-grpo" else None)
    assert method.uses_ratio == (name != "kpo-unit")
    assert (method.make_estimator() is not None) == (name == "krpo-adaptive")


def test_measured_methods_are_those_of_the_published_runs():
    published = ROOT / "results_published/laptop"
    experiments = yaml.safe_load((published / "config.yaml").read_text(encoding="utf-8"))["experiments"]
    runs = json.loads((published / "measures.json").read_text(encoding="utf-8"))["runs"]
    used = {experiments[run["experiment"]]["methods"][run["label"]].get("method", run["label"]) for run in runs}
    assert {name for name, method in METHODS.items() if method.measured} == used & METHODS.keys()
    assert len(used) >= 15


def test_every_row_of_the_table_and_every_kind_is_used():
    assert set(METHODS) == set(DEFAULTS)
    for part, kinds in (("ratio", RATIO_KINDS), ("advantage", ADVANTAGE_KINDS)):
        own = {name for name, kind in kinds.items() if kind.function.__module__.startswith("kpo.")}
        assert {getattr(method, part) for method in METHODS.values()} == own


def test_every_parameter_can_be_overridden_by_its_name():
    for name, method in METHODS.items():
        for key, value in method.parameters.items():
            if value is not None and not isinstance(value, str):
                changed = get_method(name, **{key: 1 if isinstance(value, int) else 0.5})
                assert changed.parameters[key] in (1, 0.5)
                assert {k: v for k, v in changed.parameters.items() if k != key} == {
                    k: v for k, v in method.parameters.items() if k != key
                }
                assert METHODS[name] is method and method.parameters[key] == value


def test_overrides_say_which_part_is_meant_where_both_have_the_parameter():
    both = Method(
        name="both",
        paper="-",
        section="-",
        description="-",
        advantage="krpo",
        ratio="kalman",
        ratio_parameters={"process_variance": 1e-6, "observation_variance": 1.0},
    )
    assert "process_variance" not in both.parameters
    assert both.parameters["ratio_process_variance"] == 1e-6
    assert both.parameters["advantage_process_variance"] == 1e-5
    METHODS["both"] = both
    try:
        changed = get_method("both", ratio_process_variance=1e-4, advantage_observation_variance=0.1, initial_mean=0.5)
        assert changed.ratio_parameters["process_variance"] == 1e-4
        assert changed.advantage_parameters == {**KRPO_FILTER, "observation_variance": 0.1, "initial_mean": 0.5}
        with pytest.raises(ValueError, match="ratio_process_variance or advantage_process_variance"):
            get_method("both", process_variance=1e-4)
    finally:
        del METHODS["both"]
    assert get_method("krpo", advantage_process_variance=0.5) == get_method("krpo", process_variance=0.5)


def test_clip_can_be_taken_away_and_given():
    assert get_method("kpo-clipped", clip_low=None, clip_high=None, process_variance=1e-4).ratio_parameters == (
        METHODS["kpo-unclipped"].ratio_parameters
    )
    assert get_method("kpo-unclipped", clip_low=0.1, clip_high=0.2).clip_high == 0.2


def test_advantages_of_each_method():
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    lengths = torch.tensor([[1, 2, 3], [3, 2, 1]])
    for name, method in METHODS.items():
        result = method.advantages(rewards, lengths_PG=lengths, estimator=method.make_estimator())
        assert result.shape == (2, 3) and result.abs().max() > 0, name
    with pytest.raises(ValueError, match="lengths"):
        METHODS["opo"].advantages(rewards)
    generator = torch.Generator().manual_seed(0)
    drawn = [METHODS["krpo-random-order"].advantages(rewards.repeat(8, 1), generator=generator) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_methods_compare_copy_and_pickle():
    method = get_method("krpo-adaptive", clip_low=0.1)
    assert copy.deepcopy(method) == method == pickle.loads(pickle.dumps(method)) != METHODS["krpo-adaptive"]
    with pytest.raises(AttributeError):
        method.clip_low = 0.3


REFUSED = {
    "name": ("kpo", {}, ValueError, "unknown method 'kpo', did you mean 'kpo-clipped'. Known are: grpo, "),
    "misspelt name": ("kpo-cliped", {}, ValueError, "did you mean 'kpo-clipped'"),
    "override": ("grpo", {"clip": 0.1}, ValueError, "clip_low"),
    "override of another method": ("grpo", {"process_variance": 0.1}, ValueError, "process_variance"),
    "misspelt override": ("kpo-clipped", {"proces_variance": 0.1}, ValueError, "did you mean 'process_variance'"),
    "one clip bound": ("grpo", {"clip_low": None}, ValueError, "clip_low and clip_high"),
    "negative clip": ("grpo", {"clip_high": -0.1}, ValueError, "clip_high"),
    "clip above 1": ("grpo", {"clip_low": 1.5}, ValueError, "clip_low"),
    "negative KL": ("krpo", {"kl_weight": -1}, ValueError, "kl_weight"),
    "text of YAML": ("kpo-clipped", {"process_variance": "1e-6"}, TypeError, "1.0e-6"),
    "truth value": ("grpo", {"kl_weight": True}, TypeError, "kl_weight"),
    "NaN": ("kpo-clipped", {"process_variance": float("nan")}, ValueError, "process_variance"),
    "negative variance": ("kpo-clipped", {"process_variance": -1e-6}, ValueError, "process_variance"),
    "no variance at all": (
        "krpo",
        {"process_variance": 0.0, "observation_variance": 0.0},
        ValueError,
        "krpo: .*variance",
    ),
    "variance left out": ("krpo", {"process_variance": None}, TypeError, "process_variance"),
    "half an estimate": ("krpo-adaptive", {"process_variance": 0.1}, ValueError, "both or neither"),
    "gain": ("kpo-ema", {"gain": 2.0}, ValueError, "gain"),
    "seed": ("krpo-random-order", {"seed": 1.5}, TypeError, "seed"),
    "aggregation": ("grpo", {"aggregation": "token-meen"}, ValueError, "did you mean 'token-mean'"),
    "no length": ("grpo", {"aggregation": "seq-mean-token-sum-norm"}, ValueError, "aggregation_length"),
    "length": ("dr-grpo", {"aggregation_length": 0}, ValueError, "aggregation_length"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_override(case):
    name, overrides, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        get_method(name, **overrides)


def test_declaring_a_taken_name_and_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="exists already"):
        declare(METHODS["grpo"])
    for field in ("advantage", "ratio"):
        with pytest.raises(ValueError, match=f"unknown {field} kind"):
            Method(name="new", paper="-", section="-", description="-", **{field: "nonsense"})
    with pytest.raises(ValueError, match="needs process_variance and observation_variance"):
        Method(name="new", paper="-", section="-", description="-", ratio="kalman")


def test_the_worked_example_of_contributing_runs():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Adding a method")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == 5 and "assert" in blocks[2] and "assert" in blocks[4]
    registries = (METHODS, RATIO_KINDS, ADVANTAGE_KINDS)
    known = [set(registry) for registry in registries]
    try:
        exec(compile("\n".join(blocks), "CONTRIBUTING.md", "exec"), {})
        assert set(METHODS) - known[0] == {"krpo-gspo", "kpo-running-mean", "two-rewards"}
        method = get_method("two-rewards", largest_move=0.1)
        with pytest.raises(ValueError, match="components are missing"):
            method.advantages(torch.ones(1, 2))
        ones = torch.ones(1, 3)
        assert policy_loss("krpo-gspo", -ones, -ones, ones[:, 0], ones).loss.item() == pytest.approx(-1.0)
    finally:
        for registry, names in zip(registries, known, strict=True):
            for name in set(registry) - names:
                del registry[name]


def test_the_mathematics_imports_no_trainer_and_no_file_format():
    code = "import sys, kpo.losses; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "'torch'" in loaded
    for name in ("trl", "transformers", "accelerate", "datasets", "vllm", "snakemake", "yaml", "pydantic"):
        assert f"'{name}'" not in loaded, name
