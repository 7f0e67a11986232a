"""Many methods on the same seeds: differences from a control and places in a ranking, with their uncertainty.

With m comparisons of methods that share S seeds, d_s the difference of two methods on seed s:

    mean(d) +- t(1 - a / (2 m); S - 1) sd(d) / sqrt(S)                  all m hold at once with probability >= 1 - a

Bonferroni's inequality over paired Student intervals: any correlation between the comparisons (all share the control)
and a variance of each method's own are allowed, normal differences are assumed. A pooled variance (Dunnett) would
halve the intervals at 6 seeds, but fails for a method that is less steady than the others, and 2^6 sign flips cannot
give a smaller p-value than 1/32.

Places (Mogstad, Romano, Shaikh and Wilhelm 2024): the M - 1 differences of one method from the others say which of them
are better and which are worse; its place is between 1 + the number of better ones and M - the number of worse ones.
Each method's range of places holds with probability >= 1 - a; not all ranges at once, which would take all pairs.

Shape suffixes: S seeds, M methods, C comparisons.
"""

import numpy as np
from scipy import stats


def simultaneous_intervals(differences_SC: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends (C,) of intervals for C means that hold together.

    Infinite for one seed, and for seeds that all give the same difference, whose spread is not known.
    """
    values = np.asarray(differences_SC, dtype=float)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers (seeds, comparisons), found shape {values.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}")
    seeds, comparisons = values.shape
    mean = values.mean(axis=0)
    if seeds < 2:
        return np.full(comparisons, -np.inf), np.full(comparisons, np.inf)
    deviation = values.std(axis=0, ddof=1)
    quantile = stats.t.ppf(1 - (1 - confidence) / (2 * comparisons), seeds - 1)
    # Values are of order 1: a smaller spread is rounding.
    half = np.where(deviation > 1e-12, quantile * deviation / np.sqrt(seeds), np.inf)
    return mean - half, mean + half


def places(values_SM: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The best and the worst place (M,) that each method may have among all M; place 1 has the highest mean."""
    values = np.asarray(values_SM, dtype=float)
    count = values.shape[1]
    best, worst = np.ones(count, dtype=int), np.full(count, count)
    for method in range(count if count > 1 else 0):
        others = np.delete(values, method, axis=1)
        low, high = simultaneous_intervals(others - values[:, [method]], confidence)
        best[method] += (low > 0).sum()
        worst[method] -= (high < 0).sum()
    return best, worst
