"""Shares of runs that say yes or no, such as collapses: exact tests over seeds.

Runs of one seed share base model and prompts, so that a seed gives one number: the difference of its two shares, each
over the experiments compared. Nothing is assumed of how these differences are distributed.

- *More, or less, often* is tested by flipping signs: if the methods were exchangeable, each seed's difference would be
  as likely to have the other sign. All 2^n patterns of signs are counted.
- A margin other than 0 cannot be tested so, since shares move in steps. With d a seed's difference, at most 1 in size
  and if positive at least the step s:

        s P(d > 0) - (1 - P(d > 0))  <=  E d  <=  P(d > 0)        and the same with -d,

  and the binomial distribution bounds P(d > 0) from the number of seeds (Clopper and Pearson 1934).
- The interval comes from the same inequalities, each bound at a quarter of the error, so that it covers E d whatever
  the distribution. It is wider than the sign-flip test is strict; the p-values decide, the interval shows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from reproduction.claims.declare import ABOVE, EQUAL, Rule
from reproduction.claims.estimate import SHARES, Effect, two_sided

_MOST_SEEDS = 200
"""Seeds up to which the number that a claim needs is looked for."""


def effect_of_shares(per_seed: Mapping[int, float], rule: Rule, step: float = 1.0) -> Effect:
    """Mean over seeds of a difference of two shares, with exact p-values.

    per_seed: differences in [-1, 1]. step: the smallest one apart from 0, 1 / (experiments compared).
    Raises ValueError for differences that are not whole steps, and for the rule "equal", which no such claim has.
    """
    values = np.array(list(per_seed.values()), dtype=float)
    if values.size == 0 or not 0 < step <= 1 or not (np.abs(values) <= 1).all():
        raise ValueError(
            "per_seed must hold differences of shares, from -1 to 1, and step lie above 0 and at most at 1"
        )
    steps = np.round(values / step).astype(int)
    if np.abs(values / step - steps).max() > 1e-6:
        raise ValueError(f"per_seed must hold whole multiples of the step {step:g}, got {values.tolist()}")
    if rule.kind == EQUAL:
        raise ValueError(f"a difference of shares cannot be judged by the rule {EQUAL!r}")
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Effect(mean, None, None, None, None, None, count, SHARES)
    more, less = int((steps > 0).sum()), int((steps < 0).sum())
    flipped_more, flipped_less = sign_flip(steps)

    def p_greater(threshold: float) -> float:
        if threshold == 0:
            return flipped_more
        # E d <= threshold limits how often d > 0 can be.
        return float(stats.binom.sf(more - 1, count, min(1.0, (1 + threshold) / (1 + step))))

    def p_less(threshold: float) -> float:
        if threshold == 0:
            return flipped_less
        # Two tests speak against E d >= threshold > 0: the signs, and too few seeds with d > 0. Twice the smaller p.
        return min(1.0, 2 * min(flipped_less, float(stats.binom.cdf(more, count, threshold))))

    p_for, p_against = two_sided(rule, p_greater, p_less)
    quarter = (1 - rule.confidence) / 4
    (low_more, high_more), (low_less, high_less) = (_share(number, count, quarter) for number in (more, less))
    low = max(-high_less, step * low_more - (1 - low_more))
    high = min(high_more, (1 - low_less) - step * low_less)
    return Effect(mean, low, high, p_for, p_against, float(values.std(ddof=1)), count, SHARES)


def sign_flip(steps: Sequence[int] | np.ndarray) -> tuple[float, float]:
    """One-sided p-values of a mean above 0 and of one below 0: the share of sign patterns with a sum as extreme.

    steps: whole numbers. The distribution of the sum over all patterns is built up one number at a time.
    """
    shares, reach = np.ones(1), 0
    for size in np.abs(np.asarray(steps, dtype=int)):
        longer = np.zeros(len(shares) + 2 * size)
        longer[: len(shares)] += 0.5 * shares
        longer[2 * size :] += 0.5 * shares
        shares, reach = longer, reach + int(size)
    place = int(np.sum(steps)) + reach
    return float(shares[place:].sum()), float(shares[: place + 1].sum())


def smallest_p_for(rule: Rule, num_seeds: int, step: float = 1.0) -> float:
    """The smallest p-value for a claim that any outcome of so many seeds can give."""
    best = (1.0,) if rule.kind == ABOVE else (-1.0, 0.0)
    found = [effect_of_shares(dict.fromkeys(range(num_seeds), outcome), rule, step).p_for for outcome in best]
    return min(1.0 if p_for is None else p_for for p_for in found)


def can_be_shown(rule: Rule, effect: Effect) -> bool:
    """Whether an outcome exists that would show the claim with so many seeds; only exact tests can lack one."""
    return effect.kind != SHARES or smallest_p_for(rule, effect.num_seeds) <= 1 - rule.confidence


def needed_seeds(rule: Rule, num_claims: int = 1) -> int | None:
    """With how many seeds the clearest outcome would show the claim, corrected for so many; None above 200 seeds."""
    level = (1 - rule.confidence) / num_claims
    return next((n for n in range(2, _MOST_SEEDS + 1) if smallest_p_for(rule, n) <= level), None)


def _share(number: int, count: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds on a probability, each with so much error."""
    found = stats.binomtest(number, count).proportion_ci(1 - 2 * error, method="exact")
    return float(found.low), float(found.high)
