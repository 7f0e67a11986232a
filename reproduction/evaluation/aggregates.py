"""The correction for many claims, and what a study of a given size could have seen."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for being one family, in the order given (Holm 1979).

    Sorted upwards, the i-th of m is multiplied by m - i + 1, and none is smaller than the one before it. A claim holds
    at level a, with the family's error rate bounded by a, if its adjusted value is at most a.
    """
    p_values = np.asarray(p_values, dtype=float)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("p_values must be a list of numbers between 0 and 1")
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def minimum_detectable_effect(
    standard_deviation: float, num_units: int, *, significance: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true mean difference that a study of this size would have found with probability `power`.

    The study is a two-sided t test at level `significance` on the differences of num_units independent units (problems,
    or seeds), whose standard deviation is given; the effect has the deviation's unit. For a family of m claims divide
    the significance by m.
    """
    if not (np.isfinite(standard_deviation) and standard_deviation >= 0):
        raise ValueError(f"standard_deviation must be finite and at least 0, got {standard_deviation}")
    if isinstance(num_units, bool) or not isinstance(num_units, int | np.integer) or num_units < 2:
        raise ValueError(f"num_units must be an integer of at least 2, got {num_units!r}")
    if not 0 < significance < power < 1:
        raise ValueError(f"0 < significance < power < 1 must hold, got significance {significance}, power {power}")
    from scipy import optimize, stats

    degrees = num_units - 1
    critical = stats.t.ppf(1 - significance / 2, degrees)

    def excess_power(noncentrality: float) -> float:
        # |t| above its critical value is F(1, degrees) = t^2 above that value's square.
        return stats.ncf.sf(critical**2, 1, degrees, noncentrality**2) - power

    largest = critical + stats.norm.ppf(power) + 1.0
    while excess_power(largest) < 0:
        largest *= 1.5
    noncentrality = optimize.brentq(excess_power, 0.0, largest)
    return float(noncentrality * standard_deviation / np.sqrt(num_units))
