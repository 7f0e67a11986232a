"""Scores and their uncertainty: worked by hand, by enumeration, against scipy, and by simulated coverage."""

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.evaluation import (
    avg_at_k,
    hierarchical_bootstrap,
    hierarchical_difference,
    holm,
    minimum_detectable_effect,
    pass_at_k,
    question_bootstrap,
)

CORRECT = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def draw(problems: int, samples: int, seed: int, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ability = np.clip(rng.normal(0.5, spread, size=(problems, 1)), 0, 1)
    return (rng.random((problems, samples)) < ability).astype(int)


@pytest.mark.parametrize("as_type", [list, np.array, torch.tensor, lambda rows: np.array(rows, dtype=bool), np.float32])
def test_scores_by_hand(as_type):
    correct = as_type(CORRECT)
    assert avg_at_k(correct) == 0.25
    assert pass_at_k(correct, 1) == 0.25
    # 1 - C(3,2)/C(4,2) = 1/2 and 1 - C(2,2)/C(4,2) = 5/6.
    assert pass_at_k(correct, 2) == pytest.approx((1 / 2 + 5 / 6 + 0) / 3, abs=1e-15)
    assert pass_at_k(correct, 4) == pytest.approx(2 / 3, abs=1e-15)
    assert type(avg_at_k(correct)) is float and type(pass_at_k(correct, 2)) is float


@given(num_samples=st.integers(1, 7), data=st.data())
@settings(max_examples=60, deadline=None)
def test_pass_at_k_is_the_mean_over_all_subsets(num_samples, data):
    k = data.draw(st.integers(1, num_samples))
    row = data.draw(st.lists(st.integers(0, 1), min_size=num_samples, max_size=num_samples))
    subsets = list(itertools.combinations(row, k))
    expected = Fraction(sum(any(subset) for subset in subsets), len(subsets))
    assert pass_at_k([row], k) == pytest.approx(float(expected), abs=1e-15)


def test_pass_at_k_with_many_samples_does_not_overflow():
    row = [1] + [0] * 4095
    assert pass_at_k([row], 1024) == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize(
    ("correct", "message"),
    [
        ([[1, 0], [1]], "ragged"),
        ([1, 0], "shape"),
        ([[]], "shape"),
        ([], "shape"),
        ([[0.5, 1]], "only 0"),
        ([[2, 1]], "only 0"),
        ([[float("nan"), 1]], "only 0"),
        ([["1", "0"]], "only 0"),
        (torch.zeros(2, 2, 2), "shape"),
    ],
)
def test_scores_refuse(correct, message):
    for score in (avg_at_k, lambda matrix: pass_at_k(matrix, 1), question_bootstrap):
        with pytest.raises(ValueError, match=message):
            score(correct)


@pytest.mark.parametrize("k", [0, 5, -1, 1.0, True, None])
def test_pass_at_k_refuses_k(k):
    with pytest.raises(ValueError, match="k must"):
        pass_at_k(CORRECT, k)


@pytest.mark.parametrize(("statistic", "k"), [("avg_at_k", None), ("pass_at_k", 3)])
def test_question_bootstrap_agrees_with_scipy(statistic, k):
    correct = draw(60, 8, seed=1)
    ours = question_bootstrap(correct, statistic, k, num_resamples=40_000, seed=1)
    scores = [avg_at_k([row]) if k is None else pass_at_k([row], k) for row in correct]
    reference = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.estimate == pytest.approx(np.mean(scores), abs=1e-12)
    # Monte-Carlo error of a 2.5% quantile from 40,000 draws is about 1.3% of the standard error, below .001 here.
    assert ours.low == pytest.approx(reference.low, abs=4e-3)
    assert ours.high == pytest.approx(reference.high, abs=4e-3)


def test_question_bootstrap_covers_the_truth():
    # The population's mean is known; a 90% interval misses it in about 10% of the draws.
    misses = 0
    for seed in range(400):
        low, high = question_bootstrap(draw(80, 4, seed, spread=0.2), num_resamples=400, confidence=0.9)[1:]
        misses += not low <= 0.5 <= high
    # Five standard deviations of a binomial around 40 (and 2 points for the percentile interval's own bias).
    assert 40 - 30 < misses < 48 + 30


def test_question_bootstrap_degenerate_cases():
    # No spread to resample: the exact bound for 0 of 3, 1 - .025^(1/3).
    bound = 1 - 0.025 ** (1 / 3)
    assert question_bootstrap([[0, 0]] * 3) == pytest.approx((0.0, 0.0, bound))
    assert question_bootstrap([[1, 1]] * 3) == pytest.approx((1.0, 1.0 - bound, 1.0))
    exact = scipy.stats.binomtest(0, 3).proportion_ci(0.95, method="exact")
    assert bound == pytest.approx(exact.high)
    assert question_bootstrap([[1, 0]]) == (0.5, 0.0, 1.0)
    # Of five, 0 differed; at most 1 - .025^(1/5) = .5218 of all do, and these could score 0 or 1.
    assert question_bootstrap([[1, 0]] * 5) == pytest.approx((0.5, 0.5 - 0.2609, 0.5 + 0.2609), abs=1e-4)
    # pass@2 is 1 for every problem although not every sample is right.
    assert question_bootstrap([[1, 0]] * 3, "pass_at_k", 2) == pytest.approx((1.0, 1.0 - bound, 1.0))


def test_bootstraps_are_seeded_and_quick():
    correct = draw(300, 8, seed=6)
    assert question_bootstrap(correct, seed=1) == question_bootstrap(correct, seed=1)
    assert question_bootstrap(correct, seed=1) != question_bootstrap(correct, seed=2)
    started = time.process_time()
    question_bootstrap(correct, "pass_at_k", 4, num_resamples=10_000)
    assert time.process_time() - started < 1.0


def test_hierarchical_bootstrap_levels():
    # Seeds differ, questions of a seed do not: only drawing seeds gives a width.
    correct = {1: [[1, 1]] * 4, 2: [[0, 0]] * 4}
    assert hierarchical_bootstrap(correct) == (0.5, 0.0, 1.0)
    # If no draw differs, the interval is that of four problems, or of eight samples, which all agreed.
    for level, units in (("question", 4), ("sample", 8)):
        half = (1 - 0.025 ** (1 / units)) / 2
        assert hierarchical_bootstrap(correct, levels=[level]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    # Questions differ, seeds do not: one set of questions is drawn for all seeds, so more seeds do not narrow it.
    one = np.repeat([[1], [0]], 8, axis=0)
    few = hierarchical_bootstrap([one] * 2, levels=["seed", "question"], num_resamples=40_000)
    many = hierarchical_bootstrap([one] * 6, levels=["seed", "question"], num_resamples=40_000)
    assert few == pytest.approx(many, abs=0.07) and few.high - few.low > 0.4
    assert few == pytest.approx(question_bootstrap(one, num_resamples=40_000), abs=0.07)


@pytest.mark.parametrize("right", [0, 1])
def test_a_method_that_is_never_or_always_right_is_not_certain(right):
    """Five seeds of 150 problems, all the same: Clopper and Pearson's interval of 150, not one without width."""
    correct = {seed: np.full((150, 4), right) for seed in range(5)}
    exact = scipy.stats.binomtest(150 * right, 150).proportion_ci(0.95, method="exact")
    found = hierarchical_bootstrap(correct, levels=("seed", "question"), num_resamples=200)
    assert found == pytest.approx((right, exact.low, exact.high))
    alone = hierarchical_bootstrap(correct, levels=("seed",), num_resamples=200)
    exact = scipy.stats.binomtest(5 * right, 5).proportion_ci(0.95, method="exact")
    assert alone == pytest.approx((right, exact.low, exact.high))


def test_hierarchical_sample_level_by_hand():
    # One problem, two samples, one right: resampled means are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    interval = hierarchical_bootstrap([[[1, 0]]], levels=["sample"], confidence=0.4, num_resamples=20_000)
    assert interval == (0.5, 0.5, 0.5)
    assert hierarchical_bootstrap([[[1, 0]]], levels=["sample"], confidence=0.6, num_resamples=20_000)[1:] == (0.0, 1.0)
    # pass@2 of that is 0, 1, 1: three quarters of the draws are 1.
    passes = hierarchical_bootstrap([[[1, 0]]], "pass_at_k", 2, levels=["sample"], confidence=0.6, num_resamples=20_000)
    assert passes == (1.0, 0.0, 1.0)


def test_hierarchical_variance_is_the_crossed_one():
    rng = np.random.default_rng(7)
    counts = [draw(50, 6, seed) for seed in range(4)]
    interval = hierarchical_bootstrap(counts, levels=["seed", "question"], num_resamples=20_000, confidence=0.6827)
    # A plain loop over index sets, the definition.
    scores = np.stack([matrix.mean(axis=1) for matrix in counts])
    means = [
        np.mean([scores[seed][questions].mean() for seed in rng.integers(4, size=4)])
        for questions in rng.integers(50, size=(20_000, 50))
    ]
    assert interval.estimate == pytest.approx(scores.mean())
    assert interval.high - interval.low == pytest.approx(2 * np.std(means), rel=0.05)


def test_hierarchical_refuses():
    with pytest.raises(ValueError, match=r"correct_by_seed\[2\] has 3 problems"):
        hierarchical_bootstrap({1: [[1]] * 4, 2: [[1]] * 3})
    with pytest.raises(ValueError, match="at least one seed"):
        hierarchical_bootstrap({})
    with pytest.raises(ValueError, match="levels"):
        hierarchical_bootstrap([[[1]]], levels=["run"])
    with pytest.raises(ValueError, match="levels"):
        hierarchical_bootstrap([[[1]]], levels=[])
    with pytest.raises(ValueError, match=r"correct_by_seed\['a'\] must hold only"):
        hierarchical_bootstrap({"a": [[3]]})


def test_hierarchical_difference():
    base = {seed: draw(60, 4, seed) for seed in range(3)}
    bound = scipy.stats.binomtest(0, 60).proportion_ci(0.95, method="exact").high
    same = hierarchical_difference(base, base, levels=["seed", "question"])
    assert same == pytest.approx((0.0, -bound, bound))
    better = {seed: np.maximum(matrix, draw(60, 4, seed + 10)) for seed, matrix in base.items()}
    difference = hierarchical_difference(better, base)
    assert difference.estimate == pytest.approx(np.mean([better[s].mean() - base[s].mean() for s in base]))
    assert 0 < difference.low < difference.estimate < difference.high
    # Paired: narrower than the two sides drawn apart.
    sides = [hierarchical_bootstrap(side, levels=["seed", "question"]) for side in (better, base)]
    paired = hierarchical_difference(better, base, levels=["seed", "question"])
    assert paired.high - paired.low < math.hypot(*(side.high - side.low for side in sides))
    # The order in which the seeds come does not matter, their names do.
    assert hierarchical_difference(better, dict(reversed(base.items()))) == difference
    with pytest.raises(ValueError, match="same seeds"):
        hierarchical_difference(base, {**base, 9: base[0]})
    with pytest.raises(TypeError, match="map seeds"):
        hierarchical_difference([base[0]], [base[0]])


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04, cumulated .04 .06 .06 .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).shape == (0,)
    for bad in ([1.2], [-0.1], [float("nan")], [[0.1]]):
        with pytest.raises(ValueError, match="p_values"):
            holm(bad)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8), level=st.floats(0.001, 0.5))
@settings(max_examples=200, deadline=None)
def test_holm_is_the_step_down_procedure(p_values, level):
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {index for index, value in enumerate(holm(p_values)) if value <= level} == rejected


def test_minimum_detectable_effect():
    # The usual table: a one-sample t test finds d = .5 with 80% power from 34 units (33 are too few).
    assert minimum_detectable_effect(1.0, 34) < 0.5 < minimum_detectable_effect(1.0, 33)
    # Many units: the normal approximation, (1.96 + .8416) / sqrt(n).
    assert minimum_detectable_effect(2.0, 10_000) == pytest.approx(2 * 2.80159 / 100, rel=1e-3)
    assert minimum_detectable_effect(0.0, 5) == 0.0
    assert minimum_detectable_effect(0.1, 2) > minimum_detectable_effect(0.1, 3) > minimum_detectable_effect(0.1, 5)


@pytest.mark.parametrize("num_units", [2, 5, 20])
def test_minimum_detectable_effect_has_the_power_it_claims(num_units):
    effect = minimum_detectable_effect(1.0, num_units, significance=0.05, power=0.8)
    rng = np.random.default_rng(num_units)
    data = rng.normal(effect, 1.0, size=(20_000, num_units))
    found = (scipy.stats.ttest_1samp(data, 0.0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=5 * (0.16 / 20_000) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"standard_deviation": -1.0, "num_units": 5}, "standard_deviation"),
        ({"standard_deviation": float("nan"), "num_units": 5}, "standard_deviation"),
        ({"standard_deviation": 1.0, "num_units": 1}, "num_units"),
        ({"standard_deviation": 1.0, "num_units": 5, "power": 1.0}, "power"),
        ({"standard_deviation": 1.0, "num_units": 5, "significance": 0.9}, "significance"),
    ],
)
def test_minimum_detectable_effect_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        minimum_detectable_effect(**arguments)


@pytest.mark.parametrize(
    "options", [{"num_resamples": 0}, {"num_resamples": 1.5}, {"confidence": 1.0}, {"confidence": 95}]
)
def test_resampling_options_are_checked(options):
    for call in (question_bootstrap, lambda rows, **o: hierarchical_difference({1: rows}, {1: rows}, **o)):
        with pytest.raises(ValueError, match=next(iter(options))):
            call(CORRECT, **options)
