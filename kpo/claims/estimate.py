"""Effects with intervals and p-values, from one number for each seed or from counts of yes and no.

Seeds are the unit of chance: a seed decides base model, prompts and sampling, and is shared by the methods compared,
so that differences are paired. Intervals are Student's over seeds. Where a difference is one of accuracies, the
interval is the hull of that one and of the bootstrap over seeds and problems, the wider counting on each side.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from kpo.claims.declare import ABOVE, EQUAL, Rule
from kpo.evaluation.aggregates import minimum_detectable_effect


@dataclass(frozen=True)
class Effect:
    """An estimated effect. low, high: its interval, None with fewer than two seeds.

    p_for, p_against: two-sided p-values against "not so" and against "so", in the sense of the rule; None as above.
    deviation: standard deviation of one unit; units are seeds, or runs where each run is a yes or no.
    """

    value: float
    low: float | None
    high: float | None
    p_for: float | None
    p_against: float | None
    deviation: float | None
    num_units: int
    num_seeds: int

    def widened(self, low: float, high: float) -> "Effect":
        """The same with the hull of its interval and another one."""
        if self.low is None or self.high is None:
            return self
        return dataclasses.replace(self, low=min(self.low, low), high=max(self.high, high))

    def detectable(self, rule: Rule, num_claims: int) -> float | None:
        """The smallest true effect that this many seeds would have found with probability 0.8.

        None with one seed, and where all seeds agree, which leaves nothing to tell it from.
        """
        if not self.deviation:
            return None
        significance = (1.0 - rule.confidence) / num_claims
        return minimum_detectable_effect(self.deviation, self.num_units, significance=significance)


def effect_of_means(per_seed: Mapping[int, float], rule: Rule) -> Effect:
    """Mean over seeds with Student's interval."""
    values = np.array(list(per_seed.values()), dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("per_seed must hold at least one number, all finite")
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Effect(mean, None, None, None, None, None, count, count)
    deviation = float(values.std(ddof=1))
    error = deviation / math.sqrt(count)
    half = float(stats.t.ppf((1 + rule.confidence) / 2, count - 1)) * error

    def p_greater(threshold: float) -> float:
        if error == 0.0:
            return 0.0 if mean > threshold else 1.0
        return float(stats.t.sf((mean - threshold) / error, count - 1))

    def p_less(threshold: float) -> float:
        if error == 0.0:
            return 0.0 if mean < threshold else 1.0
        return float(stats.t.cdf((mean - threshold) / error, count - 1))

    p_for, p_against = _p_values(rule, p_greater, p_less)
    return Effect(mean, mean - half, mean + half, p_for, p_against, deviation, count, count)


def effect_of_shares(first: tuple[int, int], second: tuple[int, int], num_seeds: int, rule: Rule) -> Effect:
    """Difference of two shares, each (yes, of how many runs), with Newcombe's interval from Wilson's (1998, method 10).

    Unlike Student's it keeps its width where no run, or every run, says yes. p-values invert it.
    """
    for yes, of in (first, second):
        if not 0 <= yes <= of or of == 0:
            raise ValueError(f"a share needs 0 <= yes <= runs and at least one run, got {yes} of {of}")
    difference = first[0] / first[1] - second[0] / second[1]

    def bounds(z: float) -> tuple[float, float]:
        (low_1, high_1), (low_2, high_2) = _wilson(*first, z), _wilson(*second, z)
        share_1, share_2 = first[0] / first[1], second[0] / second[1]
        return (
            difference - math.hypot(share_1 - low_1, high_2 - share_2),
            difference + math.hypot(high_1 - share_1, share_2 - low_2),
        )

    def p_greater(threshold: float) -> float:
        return 1.0 if difference <= threshold else _invert(lambda z: bounds(z)[0] - threshold)

    def p_less(threshold: float) -> float:
        return 1.0 if difference >= threshold else _invert(lambda z: threshold - bounds(z)[1])

    low, high = bounds(float(stats.norm.ppf((1 + rule.confidence) / 2)))
    p_for, p_against = _p_values(rule, p_greater, p_less)
    # One added to each count: with none of ten the deviation of the next run is not 0.
    pooled = (first[0] + second[0] + 1) / (first[1] + second[1] + 2)
    units = min(first[1], second[1])
    deviation = math.sqrt(2 * pooled * (1 - pooled)) if units > 1 else None
    return Effect(difference, low, high, p_for, p_against, deviation, units, num_seeds)


def _p_values(rule: Rule, p_greater: Callable, p_less: Callable) -> tuple[float, float]:
    """Two-sided p-values for and against, so that an interval's end on a threshold means p = 1 - confidence."""
    if rule.kind == ABOVE:
        p_for, p_against = p_greater(0.0), p_less(rule.margin)
    elif rule.kind == EQUAL:
        below, above = rule.target - rule.margin, rule.target + rule.margin
        p_for = max(p_greater(below), p_less(above))
        p_against = min(p_greater(above), p_less(below))
    else:
        p_for, p_against = p_less(rule.margin), p_greater(rule.margin)
    return min(1.0, 2 * p_for), min(1.0, 2 * p_against)


def _wilson(yes: int, of: int, z: float) -> tuple[float, float]:
    share = yes / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def _invert(excess: Callable[[float], float], largest: float = 40.0) -> float:
    """The one-sided p-value at whose quantile z a bound meets the threshold; excess falls from above 0 at z = 0."""
    if excess(largest) > 0:
        return 0.0
    return float(stats.norm.sf(optimize.brentq(excess, 0.0, largest)))
