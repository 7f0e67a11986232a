"""Confidence intervals by resampling problems, seeds and samples.

Problems are the unit of chance: a benchmark is a sample of the problems that might have been asked (arXiv 2411.00640),
and its samples per problem are not independent of each other. Seeds are a second unit, never pooled with the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reproduction.evaluation.intervals import Interval, check_resampling, is_constant, quantiles, without_spread
from reproduction.evaluation.scores import correct_counts, score_by_count

# Resamples are drawn in blocks of this many numbers, which bounds the memory.
_BLOCK = 1 << 21


def question_bootstrap(
    correct: Any,
    statistic: str = "avg_at_k",
    k: int | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """avg@k or pass@k with a percentile interval from resampling the problems.

    correct: (problems, samples) of 0 and 1. statistic: "avg_at_k", or "pass_at_k" with k.

    If all problems score the same, resampling finds no spread; the interval is then that of `without_spread`, which
    for scores of 0 or 1 is Clopper and Pearson's. A single problem with a score between tells nothing about others: its
    interval is (0, 1).
    """
    check_resampling(num_resamples, confidence)
    counts, num_samples = correct_counts(correct)
    scores = score_by_count(statistic, num_samples, k)[counts]
    estimate = float(scores.mean())
    if len(scores) == 1 and scores[0] not in (0.0, 1.0):
        return Interval(estimate, 0.0, 1.0)
    if (scores == scores[0]).all():
        return Interval(estimate, *without_spread(estimate, len(scores), confidence, 0.0))
    return Interval(estimate, *quantiles(_resampled_means(scores, num_resamples, seed), confidence))


def hierarchical_bootstrap(
    correct_by_seed: Mapping[Any, Any] | Sequence[Any],
    statistic: str = "avg_at_k",
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


def hierarchical_difference(
    correct_by_seed_a: Mapping[Any, Any],
    correct_by_seed_b: Mapping[Any, Any],
    statistic: str = "avg_at_k",
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


def _units(counts: np.ndarray, tables: list[np.ndarray], levels: Sequence[str]) -> int:
    """How many units the finest level drawn has that are not the same ones again."""
    num_seeds, num_questions = counts.shape
    if "question" in levels:
        return num_questions
    return num_seeds if "seed" in levels else num_questions * min(len(table) - 1 for table in tables)


def _counts_by_seed(correct_by_seed, name: str, statistic: str, k: int | None) -> tuple[np.ndarray, list[np.ndarray]]:
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
