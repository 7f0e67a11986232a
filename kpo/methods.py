"""Every method and control as one declaration: advantage, ratio, clip, aggregation, with the paper's values.

`get_method(name, **overrides)` gives one with other values; CONTRIBUTING.md shows how to declare another.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from kpo.adaptive import RewardNoiseEstimator
from kpo.advantages import ADVANTAGE_KINDS, group_advantages
from kpo.checks import Registry, check_integer, check_parameters, check_real, known, plain_number, unknown_name
from kpo.ratios import RATIO_KINDS

__all__ = ["AGGREGATIONS", "METHODS", "Method", "declare", "get_method"]

AGGREGATIONS = ("seq-mean-token-mean", "token-mean", "seq-mean-token-sum-norm")
"""How token losses become one number: see `kpo.losses`."""

_OWN_PARAMETERS = ("clip_low", "clip_high", "aggregation", "aggregation_length", "kl_weight")


@dataclass(frozen=True)
class Method:
    """A method: what it computes and with which values.

    clip_low, clip_high: distances from ratio 1; for a ratio kind that clips itself (geometric-mean) bounds in log
        space. Both None: no clipping.
    aggregation_length: tokens by which `seq-mean-token-sum-norm` divides; other aggregations do not use it.
    advantage_parameters, ratio_parameters: filled with the defaults of the kind, so they show every value in use.
    measured: whether this repository's published study trained with it (results_published/).

    Raises ValueError or TypeError naming the field. Ranges that only a kind knows are checked by `try_once`.
    """

    name: str
    paper: str
    section: str
    description: str
    advantage: str = "grpo"
    ratio: str = "token"
    clip_low: float | None = None
    clip_high: float | None = None
    aggregation: str = "seq-mean-token-mean"
    aggregation_length: int | None = None
    kl_weight: float = 0.0
    advantage_parameters: Mapping[str, Any] = field(default_factory=dict)
    ratio_parameters: Mapping[str, Any] = field(default_factory=dict)
    measured: bool = False

    PARTS: ClassVar[tuple[str, ...]] = ("ratio", "advantage")  # each has its parameters; a subclass may add one

    def __post_init__(self):
        kinds = {"advantage": ADVANTAGE_KINDS.find(self.advantage), "ratio": RATIO_KINDS.find(self.ratio)}
        for part, kind in kinds.items():
            given = getattr(self, f"{part}_parameters")
            filled = check_parameters(f"{self.name}, {part} {kind.name!r}", kind.defaults, given)
            for name, value in filled.items():
                # None if the kind finds the value itself, as krpo-adaptive does.
                if value is not None or kind.defaults[name] is not None:
                    check_real(f"{self.name}, {name}", value)
            object.__setattr__(self, f"{part}_parameters", {key: plain_number(value) for key, value in filled.items()})
        if (self.clip_low is None) != (self.clip_high is None):
            raise ValueError(f"{self.name}: clip_low and clip_high belong together; give two numbers, or None twice")
        if self.clip_low is not None:
            in_log_space = kinds["ratio"].clips_itself
            check_real("clip_low", self.clip_low, minimum=0.0, **({} if in_log_space else {"maximum": 1.0}))
            check_real("clip_high", self.clip_high, minimum=0.0)
        check_real("kl_weight", self.kl_weight, minimum=0.0)
        known("aggregation", self.aggregation, AGGREGATIONS)
        if self.aggregation == "seq-mean-token-sum-norm" and self.aggregation_length is None:
            raise ValueError(f"{self.name}: {self.aggregation} needs aggregation_length; give the longest response")
        if self.aggregation_length is not None:
            check_integer("aggregation_length", self.aggregation_length, minimum=1)
        # Numbers of NumPy and PyTorch as Python's, so that a method's text and its JSON are the same for equal values.
        for name in _OWN_PARAMETERS:
            object.__setattr__(self, name, plain_number(getattr(self, name)))

    def try_once(self) -> None:
        """Run both parts on one masked token, which needs no compiler, and one group, so that bad values fail early."""
        one, rewards = torch.zeros(1, 1), torch.zeros(1, 2)
        ratio, advantage = RATIO_KINDS.find(self.ratio), ADVANTAGE_KINDS.find(self.advantage)
        tokens = {"advantages": one, "old_log_probs": one, "clip": self.clip}
        group = {"lengths": rewards + 1, "components": rewards[..., None], "component_weights": torch.ones(1)}
        try:
            ratio(one, one != 0, **self.ratio_parameters, **{key: tokens[key] for key in ratio.runtime})
            runtime = {key: group[key] for key in advantage.runtime & group.keys()}
            group_advantages(self.advantage, rewards, **self.advantage_parameters, **runtime)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None

    @property
    def clip(self) -> tuple[float, float] | None:
        """(clip_low, clip_high), or None without a clip."""
        return None if self.clip_low is None or self.clip_high is None else (self.clip_low, self.clip_high)

    @property
    def uses_ratio(self) -> bool:
        """Whether the loss depends on how far the policy has moved since it sampled."""
        return RATIO_KINDS.find(self.ratio).depends_on_ratio

    @property
    def parameters(self) -> dict[str, Any]:
        """Every value that `get_method` can override, under the shortest name that says which is meant."""
        values = {name: getattr(self, name) for name in _OWN_PARAMETERS}
        names = [name for part in self.PARTS for name in getattr(self, f"{part}_parameters")] + [*values]
        for part in self.PARTS:
            for name, value in getattr(self, f"{part}_parameters").items():
                values[f"{part}_{name}" if names.count(name) > 1 else name] = value
        return values

    def advantages(
        self,
        rewards_PG: Tensor,
        *,
        lengths_PG: Tensor | None = None,
        components_PGK: Tensor | None = None,
        component_weights_K: Tensor | None = None,
        generator: torch.Generator | None = None,
        estimator: RewardNoiseEstimator | None = None,
    ) -> Tensor:
        """Advantages (P, G) of one rollout batch's rewards (P, G), NaN if ungraded; see `kpo.advantages`.

        lengths_PG: counted tokens of each response. components_PGK: the rewards whose sum, weighted by
        component_weights_K, rewards_PG are. All are used if the kind asks for them. generator: for random orders;
        without one they are the same in every batch.
        estimator: from `make_estimator`; it takes the rewards in afterwards, so that no reward sets its own scale.
        """
        runtime = {"lengths": lengths_PG, "components": components_PGK, "component_weights": component_weights_K}
        runtime["generator"] = generator
        asked = ADVANTAGE_KINDS.find(self.advantage).runtime
        parameters = dict(self.advantage_parameters)
        parameters |= {key: value for key, value in runtime.items() if key in asked and value is not None}
        if not self._estimates_noise:
            return group_advantages(self.advantage, rewards_PG, **parameters)
        if estimator is None:
            raise ValueError(f"estimator is missing: {self.name} estimates its variances; pass make_estimator()'s")
        parameters |= {name: getattr(estimator, name) for name in ("process_variance", "observation_variance")}
        advantages_PG = group_advantages(self.advantage, rewards_PG, **parameters)
        estimator.update(rewards_PG)
        return advantages_PG

    def make_estimator(self) -> RewardNoiseEstimator | None:
        """A fresh estimator of the reward noise for a run, or None if the method has fixed variances."""
        if not self._estimates_noise:
            return None
        start = {name: self.advantage_parameters[name] for name in ("initial_mean", "initial_variance")}
        return RewardNoiseEstimator(**start)

    @property
    def _estimates_noise(self) -> bool:
        return self.advantage_parameters.get("process_variance", 0.0) is None


METHODS = Registry("method")


def declare(method: Method) -> Method:
    """Add a method to `METHODS`; ValueError if its name is taken."""
    return METHODS.add(method.name, method)


def get_method(name: str | Method, **overrides: Any) -> Method:
    """The method `name`, or a method of one's own, with other values for any of its `parameters`.

    A prefix says which part is meant (`ratio_process_variance`, `advantage_process_variance`) and is required if both
    have the parameter. Raises ValueError or TypeError naming the override.
    """
    if not isinstance(name, (str, Method)):
        raise TypeError(f"method must be a name or a Method, found {type(name).__name__}")
    method = name if isinstance(name, Method) else METHODS.find(name)
    parts = method.PARTS
    changes: dict[str, Any] = {f"{part}_parameters": dict(getattr(method, f"{part}_parameters")) for part in parts}
    for key, value in overrides.items():
        holders = [part for part in parts if key in changes[f"{part}_parameters"]]
        part, _, rest = key.partition("_")
        if key in _OWN_PARAMETERS:
            changes[key] = value
        elif len(holders) == 1:
            changes[f"{holders[0]}_parameters"][key] = value
        elif part in parts and rest in changes[f"{part}_parameters"]:
            changes[f"{part}_parameters"][rest] = value
        elif holders:
            where, remedy = " and its ".join(holders), " or ".join(f"{part}_{key}" for part in holders)
            raise ValueError(f"{method.name} has {key} in its {where}; write {remedy}")
        else:
            raise ValueError(f"{method.name}: {unknown_name('override', key, method.parameters)}")
    method = dataclasses.replace(method, **changes)
    if overrides:
        method.try_once()
    return method


_CONTROL = "control; not in the paper"
_GSPO_CLIP = {"clip_low": 3e-4, "clip_high": 4e-4}
_KPO_FILTER = {"process_variance": 1e-6, "observation_variance": 1.0}
_WEAK_FILTER = {"process_variance": 1e-4, "observation_variance": 1.0}

# KPO's comparison: methods differ in ratio and clip only, and controls replace one thing in kpo-clipped. Then grpo with
# another advantage, and KRPO's comparison: token ratio, clip 0.2, KL weight 0.01; methods differ in the advantage only.
_TABLE: tuple[tuple[str, str, bool, str, str, str, dict[str, Any]], ...] = (
    # Name, the method it varies, whether measured, paper, section, description, values of its own.
    ("grpo", "", True, "arXiv 2402.03300", "4.1; clip as in KPO's comparison",
     "Token ratio, clip 0.2. KRPO's own GRPO baseline adds kl_weight=0.01.", {"clip_low": 0.2, "clip_high": 0.2}),
    ("gspo", "", True, "arXiv 2507.18071", "4.3, GSPO-token; values 5.1",
     "Length-normalised sequence ratio, in the stop-gradient token form that public frameworks train.",
     {"ratio": "sequence-token", **_GSPO_CLIP}),
    ("gspo-sequence", "gspo", False, "", "4.1; values 5.1",
     "As gspo, with the gradient through the sequence ratio itself.", {"ratio": "sequence"}),
    ("gmpo", "", True, "arXiv 2507.20673", "method; clip as in KPO's comparison",
     "Geometric mean of token ratios clipped one-sidedly to exp(-0.4) .. exp(0.4) before averaging.",
     {"ratio": "geometric-mean", "clip_low": 0.4, "clip_high": 0.4}),
    ("kpo-clipped", "", True, "arXiv 2602.10609", "method; values of the experiments and the released script",
     "Causally Kalman-filtered token log-ratio, with GSPO's narrow clip.",
     {"ratio": "kalman", "ratio_parameters": _KPO_FILTER, **_GSPO_CLIP}),
    ("kpo-unclipped", "kpo-clipped", True, "", "method; values of the experiments",
     "As kpo-clipped, with less smoothing and no clip.",
     {"ratio_parameters": _WEAK_FILTER, "clip_low": None, "clip_high": None}),
    ("kpo-unit", "kpo-clipped", True, "", _CONTROL,
     "Ratio exactly 1: is the gain that of any importance correction at all?",
     {"ratio": "unit", "ratio_parameters": {}}),
    ("kpo-ema", "kpo-clipped", True, "", _CONTROL,
     "Constant gain, the steady one of Q/V = 1e-6: does the filter's start matter?",
     {"ratio": "ema", "ratio_parameters": {"gain": 1e-3}}),
    ("kpo-ema-scheduled", "kpo-clipped", False, "", _CONTROL, "Gain K_t; must equal kpo-clipped.",
     {"ratio": "ema-scheduled", "ratio_parameters": _KPO_FILTER}),
    ("dr-grpo", "grpo", False, "arXiv 2503.20783", "3.2",
     "No division by the group's standard deviation, nor by each response's length.",
     {"advantage": "mean", "aggregation": "seq-mean-token-sum-norm", "aggregation_length": 4096}),
    ("rloo", "grpo", False, "arXiv 2402.14740", "RLOO estimator; loss as grpo", "Leave-one-out baseline, no scale.",
     {"advantage": "leave-one-out"}),
    ("opo", "grpo", False, "arXiv 2505.23585", "length-weighted optimal baseline; loss as grpo",
     "Length-weighted baseline, no scale. The paper trains strictly on-policy, so no clip fires there.",
     {"advantage": "opo"}),
    ("krpo", "grpo", True, "arXiv 2505.07527", "method, Eq. 6; values of the released script",
     "Kalman posterior mean and variance of the group's rewards, in sampled order.",
     {"advantage": "krpo", "kl_weight": 0.01}),
    *((name, "krpo", measured, "", _CONTROL, description, {"advantage": name, "advantage_parameters": {}})
      for name, measured, description in (
        ("krpo-mean", True, "Kalman baseline with the group's standard deviation."),
        ("krpo-scale", True, "Group mean with the Kalman scale."),
        ("krpo-prior", False, "Prior (innovation) form: a reward does not enter its own baseline."),
        ("krpo-running-mean", False, "Q = 0: no dynamics."),
        ("krpo-random-order", True, "Filter over the group in random order."),
        ("krpo-sorted", True, "Filter over the group from the lowest reward to the highest."),
        ("krpo-reversed", True, "Filter over the group from the highest reward to the lowest."),
        ("krpo-adaptive", True, "Q and R by maximum likelihood from the rewards of earlier rollout batches."),
        ("grpo-rescaled", True, "GRPO's advantages at KRPO's root mean square: only a larger step and a weaker KL?"),
      )),
)  # fmt: skip

for _name, _base, _measured, _paper, _section, _description, _values in _TABLE:
    _values = {**_values, "section": _section, "description": _description, "measured": _measured}
    if _paper:
        _values["paper"] = _paper
    declare(dataclasses.replace(METHODS[_base], name=_name, **_values) if _base else Method(_name, **_values))
