"""Effects with intervals and p-values from one number for each seed, and what so many seeds could have seen.

Seeds are the unit of chance: a seed decides base model, prompts and sampling, and is shared by the methods compared,
so that differences are paired. Intervals are Student's over seeds. Where a difference is one of accuracies, the
interval is the hull of that one and of the bootstrap over seeds and problems, the wider counting on each side. Shares
of runs that say yes or no have exact tests of their own (`reproduction.claims.shares`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reproduction.claims.declare import ABOVE, EQUAL, Rule
from reproduction.evaluation.aggregates import minimum_detectable_effect

MEASURED = "measured"
COMPUTED = "computed"
SHARES = "shares"
KINDS = (MEASURED, COMPUTED, SHARES)
POWER = 0.8
# Differences of seeds that agree to so many parts of their size differ by rounding alone.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Effect:
    """An estimated effect. low, high: its interval, None where there is none.

    p_for, p_against: two-sided p-values against "not so" and against "so", in the sense of the rule; None as above.
    deviation: standard deviation over seeds.
    kind: "measured", a mean over seeds; "computed", the same of a quantity that follows exactly from its input, so that
    equal seeds are no accident; "shares", of runs that say yes or no, where the exact p-values alone decide.
    """

    value: float
    low: float | None
    high: float | None
    p_for: float | None
    p_against: float | None
    deviation: float | None
    num_seeds: int
    kind: str = MEASURED

    def widened(self, low: float, high: float) -> "Effect":
        """The same with the hull of its interval and another one."""
        own_low, own_high = (low if self.low is None else self.low), (high if self.high is None else self.high)
        return dataclasses.replace(self, low=min(own_low, low), high=max(own_high, high))

    def detectable(self, rule: Rule, num_claims: int) -> float | None:
        """The smallest true effect that so many seeds would show with probability 0.8; None where it means nothing.

        That is the effect which a t test at the corrected level finds so often, and no less than what lets the estimate
        reach the margin so often. The spread is that of the wider of the intervals. It says something of the rule
        "above" alone: the others ask for an interval that is narrow enough, not for an effect.
        """
        if rule.kind != ABOVE or self.kind == SHARES or not self.deviation or self.low is None or self.high is None:
            return None
        error = self.deviation / math.sqrt(self.num_seeds)
        half = float(stats.t.ppf((1 + rule.confidence) / 2, self.num_seeds - 1)) * error
        spread = self.deviation * max(1.0, (self.value - self.low) / half)
        found = minimum_detectable_effect(
            spread, self.num_seeds, significance=(1.0 - rule.confidence) / num_claims, power=POWER
        )
        return max(found, rule.margin + float(stats.norm.ppf(POWER)) * spread / math.sqrt(self.num_seeds))


def effect_of_means(per_seed: Mapping[int, float], rule: Rule, kind: str = MEASURED) -> Effect:
    """Mean over seeds with Student's interval.

    Seeds that all give the same measured number leave no spread, hence neither an interval nor a p-value: that they
    agree may be a matter of the measure's steps. Of a computed quantity they mean certainty.
    """
    values = np.array(list(per_seed.values()), dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("per_seed must hold at least one number, all finite")
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Effect(mean, None, None, None, None, None, count, kind)
    deviation = float(values.std(ddof=1))
    # What is measured is a difference of numbers around 1, and cancels to their rounding; what is computed may be tiny.
    if deviation <= _ROUNDING * max(float(np.abs(values).max()), 0.0 if kind == COMPUTED else 1.0):
        deviation = 0.0
        if kind != COMPUTED:
            return Effect(mean, None, None, None, None, deviation, count, kind)
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

    p_for, p_against = two_sided(rule, p_greater, p_less)
    return Effect(mean, mean - half, mean + half, p_for, p_against, deviation, count, kind)


def two_sided(rule: Rule, p_greater: Callable[[float], float], p_less: Callable[[float], float]) -> tuple[float, float]:
    """p-values for and against from one-sided ones: an interval's end on a threshold means p = 1 - confidence."""
    if rule.kind == ABOVE:
        p_for, p_against = p_greater(0.0), p_less(rule.margin)
    elif rule.kind == EQUAL:
        below, above = rule.target - rule.margin, rule.target + rule.margin
        p_for = max(p_greater(below), p_less(above))
        p_against = min(p_greater(above), p_less(below))
    else:
        p_for, p_against = p_less(rule.margin), p_greater(rule.margin)
    return min(1.0, 2 * p_for), min(1.0, 2 * p_against)
