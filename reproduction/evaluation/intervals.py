"""Intervals from resampled draws, and what to say if resampling finds no spread."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A point estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


def without_spread(value: float, units: int, confidence: float, lowest: float) -> tuple[float, float]:
    """Interval of a mean if all units gave the same value, which a bootstrap takes for certainty.

    Of n units none differed, so that the share of those that would is at most 1 - ((1 - confidence) / 2)^(1 / n)
    (Clopper and Pearson 1934; about 3.7 / n); these could have any value from `lowest` to 1. For a value of 0 or 1
    it is Clopper and Pearson's interval itself.
    """
    share = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / units)
    return value - share * (value - lowest), value + share * (1.0 - value)


def is_constant(draws: np.ndarray) -> bool:
    """Whether all draws are the same number, but for rounding."""
    return bool(np.ptp(draws) <= 1e-12)


def quantiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def check_resampling(num_resamples: int, confidence: float) -> None:
    """Raises ValueError naming the argument that is out of range."""
    if isinstance(num_resamples, bool) or not isinstance(num_resamples, int | np.integer) or num_resamples < 1:
        raise ValueError(f"num_resamples must be an integer of at least 1, got {num_resamples!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
