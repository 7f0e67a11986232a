"""avg@k and pass@k of graded samples."""

import math
from typing import Any

import numpy as np


def avg_at_k(correct: Any) -> float:
    """Mean accuracy over problems and samples: what papers call avg@k, k the number of samples.

    correct: (problems, samples) of 0 and 1, as numpy array, torch tensor or lists.

    Raises ValueError if it is anything else, for instance if problems have different numbers of samples.
    """
    counts, num_samples = correct_counts(correct)
    return float(counts.mean() / num_samples)


def pass_at_k(correct: Any, k: int) -> float:
    """Probability that at least one of k samples is right, without bias: the mean over problems of

        1 - C(n - c, k) / C(n, k),    n samples of a problem, c of them right

    (Chen et al. 2021, section 2.1). With k = n this is the share of problems with any right sample.

    correct: (problems, samples) of 0 and 1. Raises ValueError for other values and for k outside 1 .. samples.
    """
    counts, num_samples = correct_counts(correct)
    return float(score_by_count("pass_at_k", num_samples, k)[counts].mean())


def correct_counts(correct: Any, name: str = "correct") -> tuple[np.ndarray, int]:
    """Number of right samples of each problem, (problems,), and the number of samples of every problem."""
    matrix = _as_matrix(correct, name)
    return matrix.sum(axis=1), matrix.shape[1]


def _as_matrix(correct: Any, name: str) -> np.ndarray:
    """`correct` as an integer array (problems, samples); ValueError if it is not one of 0 and 1."""
    if hasattr(correct, "detach"):
        correct = correct.detach().cpu().numpy()
    try:
        matrix = np.asarray(correct)
    except ValueError:
        raise ValueError(f"{name} must hold equally many samples for each problem, got ragged rows") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have shape (problems, samples), at least (1, 1), got {matrix.shape}")
    if matrix.dtype.kind not in "buif" or not np.isin(matrix, (0, 1)).all():
        raise ValueError(f"{name} must hold only 0 (wrong) and 1 (right)")
    return matrix.astype(np.int64)


def score_by_count(statistic: str, num_samples: int, k: int | None = None) -> np.ndarray:
    """A problem's score for each count of right samples, (num_samples + 1,): the statistic is its mean over problems.

    statistic: "avg_at_k" (k is not used) or "pass_at_k".
    """
    if statistic == "avg_at_k":
        return np.arange(num_samples + 1) / num_samples
    if statistic != "pass_at_k":
        raise ValueError(f"statistic must be 'avg_at_k' or 'pass_at_k', got {statistic!r}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise ValueError(f"k must be an integer between 1 and the number of samples, got {k!r}")
    k = int(k)
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be between 1 and the number of samples, {num_samples}, got {k}; draw more samples")
    ways = math.comb(num_samples, k)
    # Differences of exact integers, so that no cancellation occurs if the probability is small.
    return np.array([(ways - math.comb(num_samples - count, k)) / ways for count in range(num_samples + 1)])
