"""The measures of KPO's premise: against dense Gaussian densities, and on values whose drift is known."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from kpo.kalman import fit_variances
from reproduction.claims.premise import PREMISE_MEASURES, log_likelihood_at, premise_measures

MEMORY = 10


def drawn(num_rows, num_tokens, ratio, seed, level=0.0):
    generator = torch.Generator().manual_seed(seed)
    steps, noise = torch.randn(2, num_rows, num_tokens, generator=generator, dtype=torch.float64)
    levels = level * torch.randn(num_rows, 1, generator=generator, dtype=torch.float64)
    mask = torch.arange(num_tokens) < torch.randint(num_tokens // 2, num_tokens + 1, (num_rows, 1), generator=generator)
    return (noise + levels + math.sqrt(ratio) * steps.cumsum(dim=1)) * 1e-3, mask


def test_likelihood_at_a_ratio_has_the_best_noise():
    values, mask = drawn(4, 12, 0.05, seed=1)

    def density(variance, ratio):
        total = 0.0
        for row, seen in zip(values, mask, strict=True):
            steps = np.arange(1, int(seen.sum()) + 1)
            matrix = variance * (ratio * np.minimum.outer(steps, steps) + np.eye(len(steps)))
            total += scipy.stats.multivariate_normal(np.zeros(len(steps)), matrix).logpdf(row[seen].numpy())
        return total

    for ratio in (0.0, 0.01, 3.0):
        best = scipy.optimize.minimize_scalar(
            lambda logarithm, ratio=ratio: -density(math.exp(logarithm), ratio), (-16, -12), tol=1e-10
        )
        assert log_likelihood_at(values, mask, ratio) == pytest.approx(-best.fun, abs=1e-6)
    fit = fit_variances(values, mask)
    assert log_likelihood_at(values, mask, fit.ratio) == pytest.approx(fit.log_likelihood, abs=1e-6)


def test_drift_is_told_from_noise_and_from_the_level_of_a_response():
    drift = premise_measures(*drawn(400, 40, MEMORY**-2, seed=2), MEMORY, seed=0)
    assert set(drift) == {f"{name}_{series}" for name in PREMISE_MEASURES for series in ("raw", "shuffled")}
    # The filter's own model: nothing beats it, and shuffling loses much of the gain.
    assert drift["drift_share_raw"] == pytest.approx(MEMORY**-2, rel=0.2)
    assert 0.3 < drift["drift_gain_raw"] < 0.7 and drift["drift_assumed_raw"] == pytest.approx(
        drift["drift_gain_raw"], abs=0.01
    )
    assert drift["drift_gain_shuffled"] < 0.75 * drift["drift_gain_raw"]
    noise = premise_measures(*drawn(400, 40, 0.0, seed=3), MEMORY, seed=0)
    assert 0 <= noise["drift_gain_raw"] < 0.01 and noise["drift_assumed_raw"] < -0.1
    # A response whose tokens all lean to one side looks like drift, in any order.
    level = premise_measures(*drawn(400, 40, 0.0, seed=4, level=0.5), MEMORY, seed=0)
    assert level["drift_gain_raw"] > 0.2 and level["drift_gain_raw"] - level["drift_gain_shuffled"] < 0.02


def test_measures_follow_the_seed_and_refuse_what_is_no_number():
    values, mask = drawn(20, 20, 0.0, seed=5)
    first = premise_measures(values, mask, MEMORY, seed=1)
    assert first == premise_measures(values, mask, MEMORY, seed=1)
    scaled = premise_measures(values * 1e4, mask, MEMORY, seed=1)
    np.testing.assert_allclose(list(scaled.values()), list(first.values()), rtol=1e-6, atol=1e-9)
    assert all(map(math.isnan, premise_measures(torch.zeros_like(values), mask, MEMORY, seed=1).values()))
    assert all(map(math.isnan, premise_measures(values[:, :1], mask[:, :1], MEMORY, seed=1).values()))
    with pytest.raises(ValueError, match="NaN or an infinity"):
        premise_measures(values.masked_fill(mask, math.nan), mask, MEMORY, seed=1)
