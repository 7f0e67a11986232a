"""From the rewards of a group to advantages, one kind for each method and each control.

A group is the G responses to one prompt, in the order they were sampled; r_i is the reward of response i. With mean m
and sample standard deviation s (divisor n - 1) over the group, and the scalar Kalman filter of KRPO (arXiv 2505.07527)
over the group, x_i = x_{i-1} + N(0, Q), r_i = x_i + N(0, R), restarted at (x0, P0) for every group:

    grpo                (r - m) / (s + 1e-6)                               arXiv 2402.03300
    mean                r - m                                              Dr. GRPO, arXiv 2503.20783
    leave-one-out       r - mean of the others = (r - m) n / (n - 1)       RLOO, arXiv 2402.14740
    opo                 r - sum_j l_j r_j / sum_j l_j, l response lengths  OPO, arXiv 2505.23585
    krpo                (r_i - x_{i|i}) / (sqrt(P_{i|i}) + 1e-8)           as KRPO's authors released it
    krpo-mean           (r_i - x_{i|i}) / (s + 1e-8)                       Kalman baseline only
    krpo-scale          (r_i - m) / (sqrt(P_{i|i}) + 1e-8)                 Kalman scale only
    krpo-prior          (r_i - x_{i|i-1}) / sqrt(P_{i|i-1} + R)            standardised innovation
    krpo-running-mean   krpo with Q = 0
    krpo-random-order   krpo over the group in random order
    krpo-adaptive       krpo with Q and R estimated from rewards           `kpo.adaptive`
    grpo-rescaled       grpo times one factor, so that its root mean square over the batch is krpo's

Defined for every kind:
- NaN is an ungraded response: left out of the group (the filter passes it by), advantage 0. Infinities are refused.
- A group with one graded response, or whose rewards are all equal, gives exactly 0, except in the kinds that compare
  with the prior x0 (krpo, krpo-prior, krpo-running-mean, krpo-random-order, krpo-sorted, krpo-reversed, krpo-adaptive).
  Those give what their equation gives: krpo as released 0.10, 0.07, .. 0.03 for twelve rewards of 1.
- Equal means up to rounding: rewards of a group that differ by at most 1e-6 of the largest one's size, and by 1e-7 if
  that is below 0.1, count as one value in every kind. Float32 sums of components differ in their last digits although
  their values are equal: 0.1 + 0.6 and 0.7 by 6e-8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kpo.adaptive import RewardNoiseEstimator
from kpo.checks import Kind, Registry, check_integer, check_parameters, check_rewards, check_rows
from kpo.kalman import kalman_filter_group

__all__ = [
    "ADVANTAGE_KINDS", "AdvantageKind", "RewardFilter", "advantage_kind", "group_advantages", "informative_groups",
]  # fmt: skip

GRPO_EPSILON = 1e-6
KRPO_EPSILON = 1e-8
EQUAL_REWARDS = 1e-6

# Keywords that a function may ask for in addition to its parameters.
RUNTIME = ("component_weights", "components", "generator", "lengths")


class RewardFilter(NamedTuple):
    """The scalar filter over a group's rewards; the defaults are those of KRPO's release."""

    process_variance: float | None = 1e-5
    observation_variance: float | None = 1e-2
    initial_mean: float = 0.0
    initial_variance: float = 1.0

    def run(self, rewards_PG: Tensor, graded_PG: Tensor):
        """The filter's states, see `kpo.kalman.kalman_filter_group`."""
        return kalman_filter_group(rewards_PG, graded_PG, **self._asdict())


KRPO_FILTER = RewardFilter()
RUNNING_MEAN = KRPO_FILTER._replace(process_variance=0.0)
UNKNOWN_NOISE = KRPO_FILTER._replace(process_variance=None, observation_variance=None)


@dataclass(frozen=True)
class AdvantageKind(Kind):
    takes_filter: bool = False  # if its function asks for a `reward_filter`, whose fields are then parameters


ADVANTAGE_KINDS = Registry("advantage kind")


def advantage_kind(name: str) -> Callable:
    """Register a function `f(rewards_PG, graded_PG, **parameters) -> (P, G)` as the advantage kind `name`.

    `rewards_PG` is float64 and 0 where ungraded, `graded_PG` is bool; the result is set to 0 where ungraded. Its
    keyword-only parameters, numbers, are those a method may set; `reward_filter` is short for the four fields of
    `RewardFilter`. Four come at run time if the function asks for them: `lengths` (P, G), `generator`, `components`
    (P, G, K), the K rewards whose weighted sum the rewards are, float64 and NaN where one was not given, and
    `component_weights` (K,).
    Raises ValueError if the name is taken.
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind = AdvantageKind.of(name, function, RUNTIME)
        defaults = dict(kind.defaults)
        if reward_filter := defaults.pop("reward_filter", None):
            kind = replace(kind, defaults=defaults | reward_filter._asdict(), takes_filter=True)
        ADVANTAGE_KINDS.add(name, kind)
        return function

    return register


@torch.no_grad()
def group_advantages(kind: str, rewards: Tensor, **parameters: Any) -> Tensor:
    """Advantages (P, G) of `kind` for rewards (P, G), in the rewards' dtype, computed in float64.

    rewards: floating, each row the group of one prompt in sampled order; NaN if a response could not be graded.
    parameters: `process_variance`, `observation_variance`, `initial_mean`, `initial_variance` (kinds that use the
        filter; defaults as released: 1e-5, 1e-2, 0, 1); `lengths` (opo: tokens of each response, (P, G)); `generator`
        or `seed` (krpo-random-order); `components` (P, G, K) for kinds that ask for them.

    Raises ValueError or TypeError naming the argument.
    """
    chosen = ADVANTAGE_KINDS.find(kind)
    graded_PG = check_rewards(rewards)
    allowed = set(chosen.defaults) | chosen.runtime
    values = check_parameters(f"advantage kind {kind!r}", chosen.defaults, parameters, allowed)
    if chosen.takes_filter:
        values["reward_filter"] = RewardFilter(*(values.pop(name) for name in RewardFilter._fields))
    if "components" in chosen.runtime:
        values["components"] = _check_components(values.get("components"), rewards)
    rewards_PG = _without_rounding(torch.where(graded_PG, rewards, 0.0), graded_PG)
    advantages_PG = chosen.function(rewards_PG, graded_PG, **values)
    return torch.where(graded_PG, advantages_PG, 0.0).to(rewards.dtype)


@torch.no_grad()
def informative_groups(rewards: Tensor) -> Tensor:
    """(P,) bool: groups with at least two graded rewards that differ; the others carry no signal for GRPO."""
    graded_PG = check_rewards(rewards)
    return _spread(_without_rounding(torch.where(graded_PG, rewards, 0.0), graded_PG), graded_PG)[:, 0] > 0


@advantage_kind("grpo")
def grpo(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """(r - m) / (s + 1e-6): GRPO (arXiv 2402.03300), sample standard deviation and epsilon as in KPO's release."""
    return centred(rewards_PG, graded_PG) / (group_std(rewards_PG, graded_PG) + GRPO_EPSILON)


@advantage_kind("mean")
def mean(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """r - m: Dr. GRPO (arXiv 2503.20783, section 3)."""
    return centred(rewards_PG, graded_PG)


@advantage_kind("leave-one-out")
def leave_one_out(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """r minus the mean of the others: RLOO (arXiv 2402.14740). Equal to (r - m) n / (n - 1)."""
    count_P1 = graded_PG.sum(dim=1, keepdim=True)
    return centred(rewards_PG, graded_PG) * count_P1 / (count_P1 - 1).clamp(min=1)


@advantage_kind("opo")
def opo(rewards_PG: Tensor, graded_PG: Tensor, *, lengths: Tensor | None = None) -> Tensor:
    """r - sum_j l_j r_j / sum_j l_j: OPO's baseline (arXiv 2505.23585); 0 for a group without any token."""
    if lengths is None:
        raise ValueError("lengths are missing: the baseline weighs rewards by response length; pass tokens as (P, G)")
    weights_PG = torch.where(graded_PG, _check_lengths(lengths, rewards_PG), 0.0)
    total_P1 = weights_PG.sum(dim=1, keepdim=True)
    baseline_P1 = (weights_PG * rewards_PG).sum(dim=1, keepdim=True) / torch.where(total_P1 > 0, total_P1, 1.0)
    defined_P1 = (total_P1 > 0) & (_spread(rewards_PG, graded_PG) > 0)
    return torch.where(defined_P1, rewards_PG - baseline_P1, 0.0)


@advantage_kind("krpo")
def krpo(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """(r_i - x_{i|i}) / (sqrt(P_{i|i}) + 1e-8), posterior mean and variance: KRPO (arXiv 2505.07527, Eq. 6)."""
    states = reward_filter.run(rewards_PG, graded_PG)
    return (rewards_PG - states.means) / (states.variances.sqrt() + KRPO_EPSILON)


@advantage_kind("krpo-mean")
def krpo_mean(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """(r_i - x_{i|i}) / (s + 1e-8): KRPO's baseline with the group's own scale; 0 if s = 0."""
    residuals_PG = rewards_PG - reward_filter.run(rewards_PG, graded_PG).means
    scaled_PG = residuals_PG / (group_std(rewards_PG, graded_PG) + KRPO_EPSILON)
    return torch.where(_spread(rewards_PG, graded_PG) > 0, scaled_PG, 0.0)


@advantage_kind("krpo-scale")
def krpo_scale(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """(r_i - m) / (sqrt(P_{i|i}) + 1e-8): the group's mean with KRPO's scale, which does not depend on the rewards."""
    variances_PG = reward_filter.run(rewards_PG, graded_PG).variances
    return centred(rewards_PG, graded_PG) / (variances_PG.sqrt() + KRPO_EPSILON)


@advantage_kind("krpo-prior")
def krpo_prior(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """(r_i - x_{i|i-1}) / sqrt(P_{i|i-1} + R): the innovation over its own standard deviation.

    The baseline is predicted from earlier rewards only, so r_i does not enter its own baseline.
    """
    states = reward_filter.run(rewards_PG, graded_PG)
    return (rewards_PG - states.prior_means) / (states.prior_variances + reward_filter.observation_variance).sqrt()


@advantage_kind("krpo-running-mean")
def krpo_running_mean(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = RUNNING_MEAN) -> Tensor:
    """KRPO with Q = 0: a running mean in which the prior x0 counts as R / P0 of a sample. No dynamics are left."""
    return krpo(rewards_PG, graded_PG, reward_filter=reward_filter)


@advantage_kind("krpo-random-order")
def krpo_random_order(
    rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER, seed: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """KRPO over each group in a random order, from `generator` (on the CPU), or from a new one seeded with `seed`."""
    if generator is None:
        generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    order_PG = torch.rand(rewards_PG.shape, generator=generator).argsort(dim=1).to(rewards_PG.device)
    return _krpo_in_order(order_PG, rewards_PG, graded_PG, reward_filter)


@advantage_kind("krpo-sorted")
def krpo_sorted(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """KRPO over each group from the lowest reward to the highest: an order that no random draw resembles."""
    return _krpo_in_order(rewards_PG.argsort(dim=1, stable=True), rewards_PG, graded_PG, reward_filter)


@advantage_kind("krpo-reversed")
def krpo_reversed(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """KRPO over each group from the highest reward to the lowest."""
    return _krpo_in_order(rewards_PG.argsort(dim=1, descending=True, stable=True), rewards_PG, graded_PG, reward_filter)


def _krpo_in_order(order_PG: Tensor, rewards_PG: Tensor, graded_PG: Tensor, reward_filter: RewardFilter) -> Tensor:
    """KRPO over each group's members in the given order, each advantage put back in its member's place."""
    advantages_PG = krpo(rewards_PG.gather(1, order_PG), graded_PG.gather(1, order_PG), reward_filter=reward_filter)
    return torch.zeros_like(advantages_PG).scatter(1, order_PG, advantages_PG)


@advantage_kind("krpo-adaptive")
def krpo_adaptive(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = UNKNOWN_NOISE) -> Tensor:
    """KRPO with Q and R as passed by `Method.advantages`, or estimated from these rewards (see `kpo.adaptive`)."""
    unknown = [value is None for value in (reward_filter.process_variance, reward_filter.observation_variance)]
    if any(unknown) and not all(unknown):
        raise ValueError("process_variance and observation_variance are estimated together; pass both or neither")
    if any(unknown):
        start = {"initial_mean": reward_filter.initial_mean, "initial_variance": reward_filter.initial_variance}
        estimator = RewardNoiseEstimator(**start)
        estimator.update(torch.where(graded_PG, rewards_PG, torch.nan))
        reward_filter = RewardFilter(estimator.process_variance, estimator.observation_variance, **start)
    return krpo(rewards_PG, graded_PG, reward_filter=reward_filter)


@advantage_kind("grpo-rescaled")
def grpo_rescaled(rewards_PG: Tensor, graded_PG: Tensor, *, reward_filter: RewardFilter = KRPO_FILTER) -> Tensor:
    """GRPO times c = rms(krpo) / rms(grpo) over the graded rewards of the batch: KRPO's size without its filter."""
    krpo_PG = torch.where(graded_PG, krpo(rewards_PG, graded_PG, reward_filter=reward_filter), 0.0)
    grpo_PG = torch.where(graded_PG, grpo(rewards_PG, graded_PG), 0.0)
    size = grpo_PG.square().sum().sqrt()
    return grpo_PG * (krpo_PG.square().sum().sqrt() / torch.where(size > 0, size, 1.0))


def centred(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """r - m over the graded members; exactly 0 if all are equal, whatever the rounding of m."""
    count_P1 = graded_PG.sum(dim=1, keepdim=True).clamp(min=1)
    mean_P1 = torch.where(graded_PG, rewards_PG, 0.0).sum(dim=1, keepdim=True) / count_P1
    return torch.where(graded_PG & (_spread(rewards_PG, graded_PG) > 0), rewards_PG - mean_P1, 0.0)


def group_std(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """Sample standard deviation (divisor n - 1) of the graded members, (P, 1); 0 if fewer than two are graded."""
    divisor_P1 = (graded_PG.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    return (centred(rewards_PG, graded_PG).square().sum(dim=1, keepdim=True) / divisor_P1).sqrt()


def _spread(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """Largest minus smallest graded reward, (P, 1); not positive if fewer than two are graded or all are equal."""
    largest_P1 = torch.where(graded_PG, rewards_PG, -torch.inf).amax(dim=1, keepdim=True)
    return largest_P1 - torch.where(graded_PG, rewards_PG, torch.inf).amin(dim=1, keepdim=True)


def _without_rounding(rewards_PG: Tensor, graded_PG: Tensor) -> Tensor:
    """The rewards in float64; in a group whose graded rewards are equal up to rounding, the largest one for all."""
    rewards_PG = rewards_PG.to(torch.float64)
    size_P1 = torch.where(graded_PG, rewards_PG.abs(), 0.0).amax(dim=1, keepdim=True).clamp(min=0.1)
    equal_P1 = _spread(rewards_PG, graded_PG) <= EQUAL_REWARDS * size_P1
    largest_P1 = torch.where(graded_PG, rewards_PG, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(graded_PG & equal_P1, largest_P1, rewards_PG)


def _check_components(components: Tensor | None, rewards: Tensor) -> Tensor:
    """The components (P, G, K) in float64, equal ones made exactly equal; NaN where not given or ungraded."""
    if components is None:
        raise ValueError("components are missing: this kind sees each reward by itself; pass them as (P, G, K)")
    if not isinstance(components, Tensor) or not components.is_floating_point():
        raise TypeError("components must be a floating tensor of rewards, (P, G, K)")
    shape = tuple(components.shape)
    if components.dim() != 3 or shape[:2] != tuple(rewards.shape) or shape[2] == 0:
        raise ValueError(f"components have shape {shape}, rewards {tuple(rewards.shape)}; expected (P, G, K)")
    if bool(torch.isinf(components).any()):
        raise ValueError("components hold an infinity; a reward that was not given is NaN")
    result = []
    for values_PG in components.unbind(dim=2):
        given_PG = ~(torch.isnan(values_PG) | torch.isnan(rewards))
        values_PG = _without_rounding(torch.where(given_PG, values_PG, 0.0), given_PG)
        result.append(torch.where(given_PG, values_PG, torch.nan))
    return torch.stack(result, dim=2)


def _check_lengths(lengths: Tensor, rewards: Tensor) -> Tensor:
    check_rows("lengths", lengths, shape="(P, G)", floating=False)
    if lengths.dtype == torch.bool:
        raise TypeError("lengths must be token counts, found truth values")
    if lengths.shape != rewards.shape:
        raise ValueError(f"lengths have shape {tuple(lengths.shape)}, rewards {tuple(rewards.shape)}; make them equal")
    lengths = lengths.to(rewards)
    if not bool((torch.isfinite(lengths) & (lengths >= 0)).all()):
        raise ValueError("lengths must be finite and not negative; pass the number of tokens of each response")
    return lengths
