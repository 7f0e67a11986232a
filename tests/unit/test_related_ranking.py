"""Simultaneous intervals and places: by another library, by hand, and by the errors that they make in simulations."""

import numpy as np
import pytest
from scipy import stats

from reproduction.related.ranking import places, simultaneous_intervals

SEEDS, METHODS, TRIALS = 6, 20, 400
FEW = 100  # of what takes long


def simulated(trial: int, means=0.0) -> np.ndarray:
    """Accuracies (S, M): a seed's own level, which all methods share, and noise that differs from method to method."""
    random = np.random.default_rng([18, trial])
    noise = np.geomspace(0.005, 0.1, METHODS) * random.standard_normal((SEEDS, METHODS))
    return 0.6 + 0.05 * random.standard_normal((SEEDS, 1)) + noise + means


class TestSimultaneousIntervals:
    def test_one_comparison_is_a_t_test(self):
        differences = np.array([0.02, -0.01, 0.03, 0.015, 0.04, 0.0])
        low, high = simultaneous_intervals(differences[:, None], 0.9)
        expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
        assert (low[0], high[0]) == pytest.approx(tuple(expected), rel=1e-12)

    def test_several_comparisons_share_the_error(self):
        differences = np.random.default_rng(1).normal(size=(SEEDS, 5))
        low, high = simultaneous_intervals(differences, 0.95)
        for place in range(5):
            expected = stats.ttest_1samp(differences[:, place], 0.0).confidence_interval(1 - 0.05 / 5)
            assert (low[place], high[place]) == pytest.approx(tuple(expected), rel=1e-12)

    def test_they_hold_together_where_single_intervals_do_not(self):
        """All methods are equal: how often is any of them told from the control? At most 5% of the trials."""
        together = alone = 0
        for trial in range(TRIALS):
            values = simulated(trial)
            differences = values[:, 1:] - values[:, :1]
            low, high = simultaneous_intervals(differences)
            together += bool(((low > 0) | (high < 0)).any())
            alone += bool((stats.ttest_1samp(differences, 0.0).pvalue < 0.05).any())
        # Three standard errors of a share of 5% of so many trials.
        assert together / TRIALS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)
        assert alone / TRIALS > 0.3

    def test_a_pooled_variance_would_not_hold(self):
        """Why not Dunnett's test: the method with the most noise is told from the control far too often."""
        wrong = 0
        for trial in range(TRIALS):
            values = simulated(trial)
            centred = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
            pooled = np.sqrt((centred**2).sum() / ((SEEDS - 1) * (METHODS - 1)))
            errors = np.abs((values[:, 1:] - values[:, :1]).mean(axis=0)) / (pooled * np.sqrt(2 / SEEDS))
            # Bonferroni's bound, which is wider than Dunnett's.
            wrong += bool((errors > stats.t.ppf(1 - 0.025 / (METHODS - 1), (SEEDS - 1) * (METHODS - 1))).any())
        assert wrong / TRIALS > 0.08

    def test_no_spread_and_one_seed_say_nothing(self):
        low, high = simultaneous_intervals(np.full((SEEDS, 2), 0.1))
        assert np.isneginf(low).all() and np.isposinf(high).all()
        low, high = simultaneous_intervals(np.array([[0.5]]))
        assert np.isneginf(low).all() and np.isposinf(high).all()

    @pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 2)), np.full((3, 1), np.nan)])
    def test_refusals(self, values):
        with pytest.raises(ValueError, match="differences must be finite numbers"):
            simultaneous_intervals(values)
        with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
            simultaneous_intervals(np.zeros((3, 1)), 1.0)


class TestPlaces:
    def test_by_hand(self):
        """Two methods that differ by noise only, one far above them, one far below."""
        wave = 0.001 * np.array([1, -1, 2, -2, 3, -3])
        values = np.stack([0.5 + wave, 0.9 + 2 * wave, 0.5 - wave, 0.1 + 3 * wave], axis=1)
        best, worst = places(values)
        assert best.tolist() == [2, 1, 2, 4] and worst.tolist() == [3, 1, 3, 4]

    def test_each_place_holds(self):
        """Methods in groups of equals: how often is a method's range of places wrong? At most 5% for each."""
        means = np.repeat([0.0, 0.1, 0.3, 0.6], METHODS // 4)
        first = np.array([1 + (means > one).sum() for one in means])
        last = np.array([METHODS - (means < one).sum() for one in means])
        wrong, told = np.zeros(METHODS), 0
        for trial in range(FEW):
            best, worst = places(simulated(trial, means))
            # Equal methods share their places, so that any of them may be first among them.
            wrong += (best > first) | (worst < last)
            told += (worst - best + 1 < METHODS).sum()
        assert (wrong / FEW).max() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / FEW)
        assert told / FEW > METHODS / 2

    def test_one_method_is_first(self):
        best, worst = places(np.ones((3, 1)))
        assert best.tolist() == worst.tolist() == [1]
