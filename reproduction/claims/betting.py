"""Differences of shares of runs that say yes or no, such as collapses, tested by betting (arXiv 2010.09686).

A seed gives one number d in [-1, 1], the difference of its two shares. For a true mean e the e-values after n seeds,

    E_n(e <= m) = mean over c of  prod_i [1 + c (d_i - m) / (1 + m)]
    E_n(e >= m) = mean over c of  prod_i [1 + c (m - d_i) / (1 - m)]        c in STAKES

have an expectation of at most 1 at every n, if the named statement is true, whatever the distribution of d. So
p = 1 / max_n E_n is a p-value that may be read after every seed (Ville), and needs no share of looks.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from reproduction.claims.declare import EQUAL, Rule
from reproduction.claims.estimate import SHARES, Effect, statements

STAKES = np.array([0.1, 0.25, 0.5, 0.75, 0.95])
_EDGE = 1 - 1e-9


def effect_of_shares(per_seed: Mapping[int, float], rule: Rule) -> Effect:
    """Mean over seeds of a difference of two shares, with p-values and the interval that follow from betting.

    per_seed: differences in [-1, 1], in the order in which the seeds were to be read.
    Raises ValueError for other numbers, and for the rule "equal", which no such claim has.
    """
    values = np.array(list(per_seed.values()), dtype=float)
    if values.size == 0 or not (np.abs(values) <= 1).all():
        raise ValueError("per_seed must hold differences of shares, from -1 to 1")
    if rule.kind == EQUAL:
        raise ValueError(f"a difference of shares cannot be judged by the rule {EQUAL!r}")

    def p_greater(threshold: float) -> float:
        return p_at_most(values, threshold)

    def p_less(threshold: float) -> float:
        return p_at_most(-values, -threshold)

    p_for, p_against, p_size = statements(rule, p_greater, p_less)
    low, high = _bound(values, rule.significance), -_bound(-values, rule.significance)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return Effect(float(values.mean()), low, high, p_for, p_against, deviation, len(values), SHARES, p_size)


def p_at_most(values: np.ndarray, threshold: float) -> float:
    """The p-value of "the mean is at most the threshold", for values in [-1, 1] and a threshold in (-1, 1)."""
    return min(1.0, math.exp(-_log_e_value(values, threshold)))


def _log_e_value(values: np.ndarray, threshold: float) -> float:
    """The logarithm of the largest e-value so far; E itself overflows near the ends."""
    bets = np.log1p(STAKES[:, None] * (values - threshold)[None, :] / (1 + threshold))
    return float((logsumexp(np.cumsum(bets, axis=1), axis=0) - math.log(len(STAKES))).max())


def _bound(values: np.ndarray, significance: float) -> float:
    """The threshold up to which "the mean is at most the threshold" is refused."""

    def excess(threshold: float) -> float:
        return _log_e_value(values, threshold) + math.log(significance)

    # Bets against a small threshold win more: the e-value falls with it.
    return float(optimize.brentq(excess, -_EDGE, _EDGE, xtol=1e-12)) if excess(-_EDGE) > 0 else -1.0
