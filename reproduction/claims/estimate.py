"""Effects with intervals and p-values from one number for each seed.

Seeds are the unit of chance: a seed decides base model, prompts, held-out problems and sampling, and is shared by the
methods compared, so that differences are paired. p-values and intervals are Student's over seeds. Shares of runs that
say yes or no have their own tests (`reproduction.claims.betting`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reproduction.claims.declare import ABOVE, EQUAL, Rule

MEASURED = "measured"
COMPUTED = "computed"
SHARES = "shares"
KINDS = (MEASURED, COMPUTED, SHARES)
# Differences of seeds that agree to this share of their size differ only by rounding.
_ROUNDING = 1e-12
_FLIPS = 9_999


@dataclass(frozen=True)
class Effect:
    """An estimated effect. low, high: its interval, whose ends each have the rule's significance; None without one.

    p_for, p_against, p_size: one-sided p-values against "not so", against "so", and against "as large as the paper
    says", in the sense of the rule; None as above (p_size also for rules without the paper's size).
    deviation: standard deviation over seeds. raised: whether it was below the noise known to be in it, which then took
    its place. p_flip: one-sided p-value of flipping the signs of the seeds' values, for mean 0; it decides nothing.
    kind: "measured", a mean over seeds; "computed", the same of a quantity that follows exactly from its input, so that
    equal seeds are no accident; "shares", of runs that say yes or no.
    """

    value: float
    low: float | None
    high: float | None
    p_for: float | None
    p_against: float | None
    deviation: float | None
    num_seeds: int
    kind: str = MEASURED
    p_size: float | None = None
    raised: bool = False
    p_flip: float | None = None


def effect_of_means(
    per_seed: Mapping[int, float], rule: Rule, kind: str = MEASURED, *, weight: float = 1.0, floor: float = 0.0
) -> Effect:
    """Mean over seeds with Student's interval.

    weight: the share of the rule's significance that this look may spend; the p-values are divided by it.
    floor: the standard deviation that known noise gives a seed's value; a smaller one is raised to it.
    Seeds that all give the same measured number leave no spread, hence neither an interval nor a p-value, unless a
    floor is known. Of a computed quantity they mean certainty.
    """
    from scipy import stats  # half a second, and Snakemake reads this module for its names only

    values = np.array(list(per_seed.values()), dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("per_seed must hold at least one number, all finite")
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Effect(mean, None, None, None, None, None, count, kind)
    own = float(values.std(ddof=1))
    # What is measured is a difference of numbers around 1, and cancels to their rounding; what is computed may be tiny.
    if own <= _ROUNDING * max(float(np.abs(values).max()), 0.0 if kind == COMPUTED else 1.0):
        own = 0.0
    deviation = own if kind == COMPUTED else max(own, floor)
    if deviation == 0.0 and kind != COMPUTED:
        return Effect(mean, None, None, None, None, 0.0, count, kind)
    error = deviation / math.sqrt(count)
    half = float(stats.t.ppf(1 - rule.significance * weight, count - 1)) * error

    def p_greater(threshold: float) -> float:
        if error == 0.0:
            return 0.0 if mean > threshold else 1.0
        return min(1.0, float(stats.t.sf((mean - threshold) / error, count - 1)) / weight)

    def p_less(threshold: float) -> float:
        if error == 0.0:
            return 0.0 if mean < threshold else 1.0
        return min(1.0, float(stats.t.cdf((mean - threshold) / error, count - 1)) / weight)

    p_for, p_against, p_size = statements(rule, p_greater, p_less)
    return Effect(mean, mean - half, mean + half, p_for, p_against, deviation, count, kind, p_size, deviation > own)


def statements(
    rule: Rule, p_greater: Callable[[float], float], p_less: Callable[[float], float]
) -> tuple[float, float, float | None]:
    """The one-sided p-values for, against, and against the paper's size, of a rule.

    p_greater(threshold): the p-value of "the effect is at most the threshold"; p_less of "at least".
    """
    if rule.kind == ABOVE:
        return p_greater(0.0), p_less(rule.margin), None if rule.paper is None else p_less(rule.paper)
    if rule.kind == EQUAL:
        below, above = rule.target - rule.margin, rule.target + rule.margin
        # For: two one-sided tests (Schuirmann 1987). Against: either side may show it, hence twice the smaller.
        return max(p_greater(below), p_less(above)), min(1.0, 2 * min(p_greater(above), p_less(below))), None
    return p_less(rule.margin), p_greater(rule.margin), None


def sign_flip(values: Sequence[float]) -> float | None:
    """The one-sided p-value, on the mean's own side of 0, of flipping the signs of the seeds' values.

    Exact for 13 seeds or fewer, else from 9,999 random patterns; None for fewer than two seeds.
    """
    from scipy import stats

    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return None
    found = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=_FLIPS,
        alternative="greater" if values.mean() >= 0 else "less", rng=0,
    )  # fmt: skip
    return float(found.pvalue)


def combined(looks: list[Effect]) -> Effect:
    """One effect from the looks so far, each with its share of the significance in its p-values and interval.

    The smallest p-value and the intersection of the intervals (Bonferroni over looks); all else is of the last look.
    Looks that contradict one another leave no interval.
    """
    last = looks[-1]

    def smallest(name: str) -> float | None:
        found = [getattr(look, name) for look in looks if getattr(look, name) is not None]
        return min(found) if found else None

    lows = [look.low for look in looks if look.low is not None]
    highs = [look.high for look in looks if look.high is not None]
    low, high = (max(lows), min(highs)) if lows else (None, None)
    if low is not None and low > high:
        low = high = None
    return Effect(
        last.value, low, high, smallest("p_for"), smallest("p_against"), last.deviation, last.num_seeds, last.kind,
        smallest("p_size"), last.raised, last.p_flip,
    )  # fmt: skip
