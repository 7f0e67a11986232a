"""kpo.likelihood against dense Gaussian densities, filterpy, a general optimiser, invariances, simulated coverage."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from filterpy.kalman import KalmanFilter

from kpo.kalman import fit_variances, log_likelihood

# (Q, V, P_0, x_0), with each of the variances 0 at least once.
MODELS = [(0.1, 1, 0, 0), (0, 1, 0, 0.3), (1, 0, 0, 0), (0.2, 0.5, 2.0, -1), (1e-6, 1, 0, 0), (3.0, 0, 0.7, 0.1)]


def covariance(num_tokens, process_variance, observation_variance, initial_variance=0.0):
    steps = np.arange(1, num_tokens + 1)
    walk = process_variance * np.minimum.outer(steps, steps)
    return initial_variance + walk + observation_variance * np.eye(num_tokens)


def dense(row, process_variance, observation_variance, initial_variance=0.0, initial_mean=0.0):
    """The joint density; if P_0 is infinite that of the differences between tokens, which no level changes."""
    if math.isinf(initial_variance):
        difference = np.diff(np.eye(len(row)), axis=0)
        matrix = difference @ covariance(len(row), process_variance, observation_variance) @ difference.T
        return scipy.stats.multivariate_normal(np.zeros(len(row) - 1), matrix).logpdf(difference @ row)
    matrix = covariance(len(row), process_variance, observation_variance, initial_variance)
    return scipy.stats.multivariate_normal(np.full(len(row), initial_mean), matrix).logpdf(row)


def walks(num_rows, num_tokens, process_variance, observation_variance, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    steps, noise = torch.randn(2, num_rows, num_tokens, generator=generator, dtype=torch.float64) * scale
    return (math.sqrt(process_variance) * steps).cumsum(dim=1) + math.sqrt(observation_variance) * noise


def holes(values, seed=0, share=0.7):
    return torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < share


# The likelihood of given variances


@pytest.mark.parametrize("process_variance, observation_variance, initial_variance, initial_mean", MODELS)
def test_rows_have_their_joint_gaussian_density(process_variance, observation_variance, initial_variance, initial_mean):
    values = walks(5, 30, 0.2, 1.0, seed=1)
    mask = holes(values)
    found = log_likelihood(
        values, mask, process_variance=process_variance, observation_variance=observation_variance,
        initial_mean=initial_mean, initial_variance=initial_variance,
    )  # fmt: skip
    expected = [
        dense(row[seen].numpy(), process_variance, observation_variance, initial_variance, initial_mean)
        for row, seen in zip(values, mask, strict=True)
    ]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-10)


def test_unknown_level_gives_the_density_of_differences_and_is_the_limit_of_a_vague_one():
    values = walks(4, 20, 0.2, 1.0, seed=2) + 50.0
    given = {"process_variance": 0.3, "observation_variance": 0.8}
    found = log_likelihood(values, **given, initial_variance=math.inf)
    np.testing.assert_allclose(found, [dense(row.numpy(), 0.3, 0.8, math.inf) for row in values], rtol=1e-11)
    vague = log_likelihood(values, **given, initial_variance=1e10) + 0.5 * math.log(2 * math.pi * 1e10)
    np.testing.assert_allclose(found, vague, rtol=1e-6)


def test_agrees_with_the_likelihood_of_filterpy():
    values = walks(1, 200, 0.01, 1.0, seed=3)[0]
    other = KalmanFilter(dim_x=1, dim_z=1)
    other.x, other.P, other.F, other.H = np.array([[0.5]]), np.array([[2.0]]), np.eye(1), np.eye(1)
    other.Q, other.R = np.array([[0.02]]), np.array([[0.9]])
    total = 0.0
    for value in values.tolist():
        other.predict()
        other.update(value)
        total += other.log_likelihood
    found = log_likelihood(
        values[None], process_variance=0.02, observation_variance=0.9, initial_mean=0.5, initial_variance=2.0
    )
    assert float(found) == pytest.approx(float(total), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_masked_places_have_no_influence_and_rows_none_on_each_other(dtype):
    values = walks(6, 40, 0.05, 1.0, seed=4).to(dtype)
    mask = holes(values)
    mask[2] = False
    given = {"process_variance": 0.05, "observation_variance": 1.0}
    found = log_likelihood(values.masked_fill(~mask, math.nan), mask, **given)
    assert float(found[2]) == 0.0
    for row in (0, 1, 3, 4, 5):
        packed = values[row][mask[row]][None]
        assert float(log_likelihood(packed, **given)) == float(found[row])
        assert float(log_likelihood(packed.double(), **given)) == float(found[row])


def test_bad_observations_and_variances_are_refused_in_one_line():
    values = walks(2, 8, 0.1, 1.0, seed=5)
    values[1, 3] = math.nan
    for call in (
        lambda: log_likelihood(values, process_variance=0.1, observation_variance=1.0),
        lambda: fit_variances(values),
    ):
        with pytest.raises(ValueError, match="nan at row 1, token 3"):
            call()
    good = values.nan_to_num()
    with pytest.raises(ValueError, match="both 0"):
        log_likelihood(good, process_variance=0.0, observation_variance=0.0)
    with pytest.raises(ValueError, match="process_variance must be at least 0"):
        log_likelihood(good, process_variance=-1.0, observation_variance=1.0, initial_variance=math.inf)
    with pytest.raises(TypeError, match="process_variance must be a number"):
        log_likelihood(good, process_variance="1e-6", observation_variance=1.0)
    with pytest.raises(ValueError, match="initial_variance must be finite"):
        log_likelihood(good, process_variance=1.0, observation_variance=1.0, initial_variance=math.nan)
    with pytest.raises(ValueError, match="initial_variance must be 0"):
        fit_variances(good, initial_variance=1.0)
    with pytest.raises(ValueError, match="level must be above 0 and at most 0.999999, found 1"):
        fit_variances(good, level=1.0)
    with pytest.raises(ValueError, match="no row has two observed tokens"):
        fit_variances(good[:, :1])
    with pytest.raises(ValueError, match="no row has two observed tokens"):
        fit_variances(good, torch.zeros_like(good))
    for constant, initial_variance in ((0.0, 0.0), (0.1, math.inf)):
        with pytest.raises(ValueError, match="all innovations are 0"):
            fit_variances(torch.full((3, 9), constant), initial_variance=initial_variance)


# The fit


def profile_by_scipy(values, mask, initial_variance, **fixed):
    """max log L over the variances that are not fixed, by Nelder-Mead over their logarithms."""
    free = [name for name in ("process_variance", "observation_variance") if name not in fixed]

    def loss(logarithms):
        given = {**fixed, **dict(zip(free, np.exp(logarithms).tolist(), strict=True))}
        return -float(log_likelihood(values, mask, **given, initial_variance=initial_variance).sum())

    options = {"xatol": 1e-9, "fatol": 1e-10, "maxiter": 4000}
    return scipy.optimize.minimize(loss, np.full(len(free), -2.0), method="Nelder-Mead", options=options)


@pytest.mark.parametrize("initial_variance", [0.0, math.inf])
def test_maximum_and_intervals_are_those_of_a_general_optimiser(initial_variance):
    values = walks(20, 30, 0.05, 1.0, seed=6)
    mask = holes(values)
    fit = fit_variances(values, mask, initial_variance=initial_variance)
    best = profile_by_scipy(values, mask, initial_variance)
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-7)
    np.testing.assert_allclose([fit.process_variance, fit.observation_variance], np.exp(best.x), rtol=1e-4)
    given = {"process_variance": fit.process_variance, "observation_variance": fit.observation_variance}
    again = log_likelihood(values, mask, **given, initial_variance=initial_variance).sum()
    assert fit.log_likelihood == pytest.approx(float(again), abs=1e-8)
    without = profile_by_scipy(values, mask, initial_variance, process_variance=0.0)
    assert fit.log_likelihood_without_drift == pytest.approx(-without.fun, abs=1e-7)
    ratio = 2 * (fit.log_likelihood - fit.log_likelihood_without_drift)
    assert fit.p_value == pytest.approx(0.5 * scipy.stats.chi2(1).sf(ratio), rel=1e-9)
    assert fit.gain_per_observation == pytest.approx(ratio / 2 / fit.num_observations)
    # At each end of an interval the best of the other variance costs the quantile.
    limit = scipy.stats.chi2(1).ppf(0.95)
    for name in ("process_variance", "observation_variance"):
        for end in getattr(fit, f"{name}_interval"):
            other = profile_by_scipy(values, mask, initial_variance, **{name: end})
            assert 2 * (fit.log_likelihood + other.fun) == pytest.approx(limit, abs=0.02)
    for end in fit.ratio_interval:
        found = np.interp(end, fit.profile_ratio[1:-1], fit.profile_log_likelihood[1:-1])
        assert 2 * (fit.log_likelihood - found) == pytest.approx(limit, abs=0.02)


@pytest.mark.parametrize("initial_variance", [0.0, math.inf])
@pytest.mark.parametrize("process_variance, observation_variance", [(0.0, 1.0), (0.01, 1.0), (1.0, 0.0)])
def test_profile_is_the_highest_likelihood_at_each_ratio(process_variance, observation_variance, initial_variance):
    values = walks(6, 25, process_variance, observation_variance, seed=7)
    fit = fit_variances(values, initial_variance=initial_variance)
    assert (np.diff(fit.profile_ratio) > 0).all() and fit.profile_ratio[0] == 0 and fit.profile_ratio[-1] == math.inf
    for ratio, found in list(zip(fit.profile_ratio, fit.profile_log_likelihood, strict=True))[::40]:
        share = 1.0 if math.isinf(ratio) else ratio / (1 + ratio)
        matrix = covariance(25, share, 1 - share)
        difference = np.eye(25) if initial_variance == 0 else np.diff(np.eye(25), axis=0)
        matrix = difference @ matrix @ difference.T
        rows = values.numpy() @ difference.T
        scale = np.einsum("bi,ij,bj->", rows, np.linalg.inv(matrix), rows) / rows.size
        density = scipy.stats.multivariate_normal(np.zeros(len(matrix)), scale * matrix).logpdf(rows).sum()
        assert found == pytest.approx(density, abs=1e-7)


def test_scale_shifts_padding_and_order_of_rows_change_nothing():
    values = walks(30, 24, 0.02, 1.0, seed=8)
    mask = holes(values)
    fit = fit_variances(values, mask)

    def assert_same(other, factor=1.0):
        tolerance = {"rtol": 1e-6}
        np.testing.assert_allclose(other.ratio, fit.ratio, **tolerance)
        np.testing.assert_allclose(other.ratio_interval, fit.ratio_interval, **tolerance)
        np.testing.assert_allclose(other.robust_ratio_interval, fit.robust_ratio_interval, **tolerance)
        np.testing.assert_allclose(other.observation_variance, fit.observation_variance * factor**2, **tolerance)
        np.testing.assert_allclose(other.robust_p_value, fit.robust_p_value, rtol=1e-5)
        shift = fit.num_observations * math.log(factor)
        assert other.log_likelihood == pytest.approx(fit.log_likelihood - shift, abs=1e-5)

    assert_same(fit_variances(values * 1e-150, mask), 1e-150)
    assert_same(fit_variances(values * 1e150, mask), 1e150)
    assert_same(fit_variances(values + 3.0, mask, initial_mean=3.0))
    assert_same(fit_variances(values.flip(0), mask.flip(0)))
    rows = [row[seen] for row, seen in zip(values, mask, strict=True)]
    packed = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=math.nan)
    assert_same(fit_variances(packed, ~packed.isnan()))
    unknown = fit_variances(values, mask, initial_variance=math.inf)
    offsets = torch.linspace(-5, 5, len(values), dtype=torch.float64)[:, None]
    shifted = fit_variances(values + offsets, mask, initial_variance=math.inf)
    np.testing.assert_allclose(shifted.ratio_interval, unknown.ratio_interval, rtol=1e-6)
    # A separate level for each row looks like drift to a model that starts at 0, and only to that.
    assert fit_variances(walks(60, 24, 0.0, 1.0, seed=9) + 3.0).p_value < 1e-10
    assert fit_variances(walks(60, 24, 0.0, 1.0, seed=9) + 3.0, initial_variance=math.inf).p_value > 0.01


def test_no_drift_and_no_noise_are_found_at_the_boundary():
    # Tokens that alternate have less drift than independent noise; a step that is kept has no noise at all.
    alternating = torch.tensor([1.0, -1.0] * 10).repeat(4, 1)
    fit = fit_variances(alternating)
    assert fit.process_variance == 0.0 and fit.ratio == 0.0 and fit.observation_variance == pytest.approx(1.0)
    assert fit.process_variance_interval[0] == 0.0 and fit.ratio_interval[0] == 0.0 and fit.p_value == 1.0
    assert fit.robust_p_value > 0.97 and fit.gain_per_observation == 0.0
    kept = torch.full((4, 20), 2.0)
    fit = fit_variances(kept)
    # Q is the mean square of the increments: one of 2.0 for each row.
    assert fit.observation_variance == 0.0 and fit.ratio == math.inf and fit.process_variance == pytest.approx(4 / 20)
    assert fit.observation_variance_interval[0] == 0.0 and fit.ratio_interval[1] == math.inf
    one = fit_variances(walks(1, 50, 0.1, 1.0, seed=10))
    # One row has no spread over rows to compare with.
    assert one.robust_ratio_interval == (0.0, math.inf) and one.robust_p_value > 0.15


@pytest.mark.parametrize("ratio, initial_variance", [(0.0, 0.0), (0.003, 0.0), (0.1, math.inf)])
def test_intervals_and_tests_keep_their_promise_over_repeated_draws(ratio, initial_variance):
    num_draws = 100
    fits = [
        fit_variances(walks(60, 30, ratio, 1.0, seed=100 + draw), initial_variance=initial_variance)
        for draw in range(num_draws)
    ]

    def covered(name, value):
        return sum(getattr(fit, name)[0] <= value <= getattr(fit, name)[1] for fit in fits)

    lowest = scipy.stats.binom(num_draws, 0.95).ppf(0.001)
    assert covered("ratio_interval", ratio) >= lowest
    assert covered("process_variance_interval", ratio) >= lowest
    assert covered("observation_variance_interval", 1.0) >= lowest
    assert covered("robust_ratio_interval", ratio) >= lowest
    assert np.median([fit.ratio for fit in fits]) == pytest.approx(ratio, rel=0.1, abs=1e-4)
    if ratio == 0:
        # The mixture: about half of the draws at the boundary, and one in twenty below 0.05.
        at_boundary = sum(fit.ratio == 0 for fit in fits) / num_draws
        assert 0.4 < at_boundary < 0.75
        assert sum(fit.p_value <= 0.05 for fit in fits) <= scipy.stats.binom(num_draws, 0.05).ppf(0.999)
        assert sum(fit.robust_p_value <= 0.05 for fit in fits) <= scipy.stats.binom(num_draws, 0.05).ppf(0.999)
    else:
        assert sum(fit.robust_p_value <= 0.05 for fit in fits) > num_draws / 2


def test_rows_of_unequal_spread_spoil_gaussian_intervals_but_not_robust_ones():
    num_draws, covered = 100, {"ratio_interval": 0, "robust_ratio_interval": 0}
    for draw in range(num_draws):
        spread = torch.randn(60, 1, generator=torch.Generator().manual_seed(1000 + draw), dtype=torch.float64).exp()
        fit = fit_variances(walks(60, 30, 0.1, 1.0, seed=draw) * spread.sqrt())
        for name in covered:
            low, high = getattr(fit, name)
            covered[name] += low <= 0.1 <= high
    assert covered["robust_ratio_interval"] >= 90 > 85 >= covered["ratio_interval"]


def test_same_bits_twice_and_no_change_of_what_was_given():
    values = walks(10, 30, 0.01, 1.0, seed=11)
    mask = holes(values)
    before = values.clone()
    first, second = fit_variances(values, mask), fit_variances(values, mask)
    assert torch.equal(values, before)
    np.testing.assert_array_equal(first.profile_log_likelihood, second.profile_log_likelihood)
    assert first.ratio_interval == second.ratio_interval and first.robust_p_value == second.robust_p_value
