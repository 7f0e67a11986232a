"""Confidence intervals and paired comparisons by resampling problems, seeds and samples.

Problems are the unit of chance: a benchmark is a sample of the problems that might have been asked (arXiv 2411.00640),
and its samples per problem are not independent of each other. Seeds are a second unit, never pooled with the first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reproduction.evaluation.aggregates import interquartile_mean, seeds_by_tasks
from reproduction.evaluation.intervals import (
    Difference,
    Interval,
    check_resampling,
    is_constant,
    quantiles,
    quantiles_or_none,
    without_spread,
)
from reproduction.evaluation.scores import Statistic, as_matrix, avg_at_k, correct_counts, pass_at_k, score_by_count

# Resamples are drawn in blocks of this many numbers, which bounds the memory.
_BLOCK = 1 << 21


def question_bootstrap(
    correct: Any,
    statistic: Statistic = "avg_at_k",
    k: int | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """avg@k or pass@k with a percentile interval from resampling the problems.

    correct: (problems, samples) of 0 and 1. statistic: "avg_at_k" or "pass_at_k" (or the functions of these names), the
    latter with k; or another function of such a matrix, called for every resample, which takes seconds rather than
    milliseconds.

    If all problems score the same, resampling finds no spread; the interval is then that of `without_spread`, which
    for scores of 0 or 1 is Clopper and Pearson's. A single problem with a score between tells nothing about others: its
    interval is (0, 1). A custom function has the plain percentile interval, and NaN if that has no width.
    """
    check_resampling(num_resamples, confidence)
    if callable(statistic) and statistic not in (avg_at_k, pass_at_k):
        return _bootstrap_function(correct, statistic, num_resamples, seed, confidence)
    scores = _question_scores(correct, statistic, k)
    estimate = float(scores.mean())
    if len(scores) == 1 and scores[0] not in (0.0, 1.0):
        return Interval(estimate, 0.0, 1.0)
    if (scores == scores[0]).all():
        return Interval(estimate, *without_spread(estimate, len(scores), confidence, 0.0))
    return Interval(estimate, *quantiles(_resampled_means(scores, num_resamples, seed), confidence))


def hierarchical_bootstrap(
    correct_by_seed: Mapping[Any, Any] | Sequence[Any],
    statistic: Statistic = "avg_at_k",
    k: int | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    levels: Sequence[str] = ("seed", "question", "sample"),
) -> Interval:
    """Mean over seeds of avg@k or pass@k, with a percentile interval from resampling seeds, problems and samples.

    correct_by_seed: for each seed a (problems, samples) matrix of 0 and 1, all for the same problems in the same order;
    a mapping from seed to matrix or a sequence of matrices. Each resample draws seeds with replacement, then one set of
    problems for all of them (the seeds were asked the same problems), then for each problem its samples.

    levels: which of these three are drawn. Samples drawn on top of problems count the sampling noise twice, so the full
    interval errs on the wide side. With one seed, or without "seed", the interval says nothing about other seeds.

    If all draws are equal, as with a method that is never right, the interval is that of `without_spread` for as many
    units as the finest level drawn has: problems as in `question_bootstrap`, seeds if only these are drawn, samples if
    these are. With problems it says nothing about seeds that differ, of which none was seen.
    """
    counts, tables = _counts_by_seed(correct_by_seed, "correct_by_seed", statistic, k)
    check_resampling(num_resamples, confidence)
    estimate = _mean_score(counts, tables)
    draws = _hierarchical_means([(counts, tables)], levels, num_resamples, seed)[0]
    if is_constant(draws):
        return Interval(estimate, *without_spread(estimate, _units(counts, tables, levels), confidence, 0.0))
    return Interval(estimate, *quantiles(draws, confidence))


def paired_difference(
    correct_a: Any,
    correct_b: Any,
    statistic: Statistic = "avg_at_k",
    k: int | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Difference of two models on the same problems, a minus b, with a paired interval and p-value.

    correct_a, correct_b: (problems, samples) of 0 and 1 with the same problems in the same order; the numbers of
    samples may differ. The interval resamples problems. The p-value is that of the paired permutation test (under the
    null hypothesis each problem's difference is as likely to have the other sign): exact if there are no more than
    num_resamples sign patterns, else from as many random ones, (1 + as extreme) / (1 + num_resamples).

    With one problem the interval is (-1, 1); if all differ alike it is that of `without_spread`. Without any
    difference the p-value is 1.
    """
    scores_a, scores_b = _question_scores(correct_a, statistic, k), _question_scores(correct_b, statistic, k)
    if len(scores_a) != len(scores_b):
        raise ValueError(
            f"correct_a and correct_b must hold the same problems, got {len(scores_a)} and {len(scores_b)} problems"
        )
    check_resampling(num_resamples, confidence)
    differences = scores_a - scores_b
    estimate = float(differences.mean())
    p_value = _sign_flip_p_value(differences, num_resamples, seed)
    if len(differences) == 1:
        return Difference(estimate, -1.0, 1.0, p_value)
    if is_constant(differences):
        return Difference(estimate, *without_spread(estimate, len(differences), confidence, -1.0), p_value)
    return Difference(estimate, *quantiles(_resampled_means(differences, num_resamples, seed), confidence), p_value)


def hierarchical_difference(
    correct_by_seed_a: Mapping[Any, Any],
    correct_by_seed_b: Mapping[Any, Any],
    statistic: Statistic = "avg_at_k",
    k: int | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    levels: Sequence[str] = ("seed", "question", "sample"),
) -> Interval:
    """Difference of two methods, a minus b, over the same seeds and problems, resampled as in `hierarchical_bootstrap`.

    Both mappings must hold the same seeds: a seed identifies what the two runs share (base model, problems), and each
    resample draws the same seeds and problems for both. If all draws are equal, as with two methods that score the same
    on every problem, the interval is that of `without_spread`.
    """
    if not isinstance(correct_by_seed_a, Mapping) or not isinstance(correct_by_seed_b, Mapping):
        raise TypeError("correct_by_seed_a and correct_by_seed_b must map seeds to matrices")
    if set(correct_by_seed_a) != set(correct_by_seed_b):
        raise ValueError(
            "correct_by_seed_a and correct_by_seed_b must hold the same seeds, "
            f"got {sorted(correct_by_seed_a)} and {sorted(correct_by_seed_b)}"
        )
    check_resampling(num_resamples, confidence)
    in_order = {key: correct_by_seed_b[key] for key in correct_by_seed_a}
    side_a = _counts_by_seed(correct_by_seed_a, "correct_by_seed_a", statistic, k)
    side_b = _counts_by_seed(in_order, "correct_by_seed_b", statistic, k)
    if side_a[0].shape != side_b[0].shape:
        raise ValueError("correct_by_seed_a and correct_by_seed_b must hold the same problems")
    estimate = _mean_score(*side_a) - _mean_score(*side_b)
    draws_a, draws_b = _hierarchical_means([side_a, side_b], levels, num_resamples, seed)
    if is_constant(draws_a - draws_b):
        return Interval(estimate, *without_spread(estimate, _units(*side_a, levels), confidence, -1.0))
    return Interval(estimate, *quantiles(draws_a - draws_b, confidence))


def seed_bootstrap(
    scores: Any,
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    *,
    num_resamples: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """A statistic over (seeds, tasks) scores with a percentile interval from resampling seeds within each task.

    The stratified bootstrap of arXiv 2108.13264. A one-dimensional array is the seeds of one task. If all draws
    are equal, as with one seed, nothing is known about others: both ends are NaN.
    """
    scores = seeds_by_tasks("scores", scores)
    check_resampling(num_resamples, confidence)
    rng = np.random.default_rng(seed)
    num_seeds, num_tasks = scores.shape
    columns = np.arange(num_tasks)
    drawn = scores[rng.integers(num_seeds, size=(num_resamples, num_seeds, num_tasks)), columns]
    if statistic is interquartile_mean:
        from scipy import stats

        draws = stats.trim_mean(drawn.reshape(num_resamples, -1), 0.25, axis=1)
    else:
        draws = np.array([statistic(one) for one in drawn])
    return Interval(float(statistic(scores)), *quantiles_or_none(draws, confidence))


def _bootstrap_function(
    correct: Any, statistic: Callable, num_resamples: int, seed: int, confidence: float
) -> Interval:
    matrix = as_matrix(correct)
    rng = np.random.default_rng(seed)
    draws = [statistic(matrix[rng.integers(len(matrix), size=len(matrix))]) for _ in range(num_resamples)]
    return Interval(float(statistic(matrix)), *quantiles_or_none(np.asarray(draws, dtype=float), confidence))


def _units(counts: np.ndarray, tables: list[np.ndarray], levels: Sequence[str]) -> int:
    """How many units the finest level drawn has that are not the same ones again."""
    num_seeds, num_questions = counts.shape
    if "question" in levels:
        return num_questions
    return num_seeds if "seed" in levels else num_questions * min(len(table) - 1 for table in tables)


def _question_scores(correct: Any, statistic: Statistic, k: int | None) -> np.ndarray:
    counts, num_samples = correct_counts(correct)
    return score_by_count(statistic, num_samples, k)[counts]


def _counts_by_seed(
    correct_by_seed, name: str, statistic: Statistic, k: int | None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Counts of right samples, (seeds, problems), and each seed's score by count."""
    items = correct_by_seed.items() if isinstance(correct_by_seed, Mapping) else enumerate(correct_by_seed)
    counts, tables = [], []
    for key, correct in items:
        row, num_samples = correct_counts(correct, f"{name}[{key!r}]")
        if counts and len(row) != len(counts[0]):
            raise ValueError(f"{name}[{key!r}] has {len(row)} problems, the first seed {len(counts[0])}; use the same")
        counts.append(row)
        tables.append(score_by_count(statistic, num_samples, k))
    if not counts:
        raise ValueError(f"{name} must hold at least one seed")
    return np.stack(counts), tables


def _mean_score(counts: np.ndarray, tables: list[np.ndarray]) -> float:
    return float(np.mean([table[row] for table, row in zip(tables, counts, strict=True)]))


def _resampled_means(scores: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = len(scores)
    means = np.empty(num_resamples)
    block = max(1, _BLOCK // size)
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        means[start : start + rows] = scores[rng.integers(size, size=(rows, size))].mean(axis=1)
    return means


def _hierarchical_means(sides, levels: Sequence[str], num_resamples: int, seed: int) -> list[np.ndarray]:
    """Resampled means over seeds and problems of each side, all sides with the same seeds and problems drawn."""
    unknown = set(levels) - {"seed", "question", "sample"}
    if unknown or not levels or isinstance(levels, str):
        raise ValueError(f"levels must be some of 'seed', 'question', 'sample', got {levels!r}")
    rng = np.random.default_rng(seed)
    num_seeds, num_questions = sides[0][0].shape
    means = [np.empty(num_resamples) for _ in sides]
    block = max(1, _BLOCK // (num_seeds * num_questions))
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        seeds = np.broadcast_to(np.arange(num_seeds), (rows, num_seeds))
        questions = np.broadcast_to(np.arange(num_questions), (rows, num_questions))
        if "seed" in levels:
            seeds = rng.integers(num_seeds, size=(rows, num_seeds))
        if "question" in levels:
            questions = rng.integers(num_questions, size=(rows, num_questions))
        for side_means, (counts, tables) in zip(means, sides, strict=True):
            num_samples = np.array([len(table) - 1 for table in tables])
            table = np.zeros((num_seeds, num_samples.max() + 1))
            for index, scores in enumerate(tables):
                table[index, : len(scores)] = scores
            drawn = counts[seeds[:, :, None], questions[:, None, :]]
            if "sample" in levels:
                # n samples drawn with replacement from n, c of them right, hold Binomial(n, c / n) right ones.
                size = num_samples[seeds][:, :, None]
                drawn = rng.binomial(size, drawn / size)
            side_means[start : start + rows] = table[seeds[:, :, None], drawn].mean(axis=(1, 2))
    return means


def _sign_flip_p_value(differences: np.ndarray, num_resamples: int, seed: int) -> float:
    # Problems without a difference contribute nothing under either sign.
    nonzero = differences[differences != 0]
    size = len(nonzero)
    if size == 0:
        return 1.0
    # Sums that differ by rounding only are equally extreme.
    threshold = abs(nonzero.sum()) - 1e-9
    if 2**size <= num_resamples:
        patterns = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
        return float((np.abs((1 - 2 * patterns) @ nonzero) >= threshold).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    block = max(1, _BLOCK // size)
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        signs = rng.integers(2, size=(rows, size), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ nonzero) >= threshold).sum())
    return (1 + extreme) / (1 + num_resamples)
