"""kpo.kalman: gains and the filter over sequences, against a sequential loop, brute force, filterpy and limits."""

import decimal
import math

import numpy as np
import pytest
import torch
from filterpy.kalman import KalmanFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from kpo.kalman import kalman_filter, kalman_gains, linear_filter

# Q / V and length at which the published float32 closed form gives NaN or is off by 0.3 % and more.
FAILING_RELEASE = [(1e-3, 4096), (1e-4, 8192), (1e-2, 1024), (1e-6, 4096), (1e-8, 4096)]
ROUNDING = 7e-8  # relative: half a unit of float32 is 6e-8, and the loop in float64 rounds in its own places
RATIOS = (0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.3, 1.0, 30.0, 1e3, 1e6)


def sequential_gains(num_steps, process_variance, observation_variance, initial_variance=0.0):
    gains, variances, variance = np.empty(num_steps), np.empty(num_steps), initial_variance
    for t in range(num_steps):
        predicted = variance + process_variance
        gains[t] = predicted / (predicted + observation_variance)
        variance = variances[t] = gains[t] * observation_variance
    return gains, variances


def sequential_filter(observations, mask, gains, initial_mean=0.0):
    """The plain loop in float64: a masked token changes nothing and its output is 0."""
    values = observations.double().numpy()
    observed = np.ones(values.shape, bool) if mask is None else mask.numpy().astype(bool)
    state, seen = np.full(len(values), float(initial_mean)), np.zeros(len(values), int)
    result = np.zeros(values.shape)
    for t in range(values.shape[1]):
        rows = observed[:, t]
        state[rows] += gains[seen[rows]] * (values[rows, t] - state[rows])
        seen += rows
        result[rows, t] = state[rows]
    return result


def assert_token_by_token(result, reference, relative):
    """Every single value within the relative error, however small it is and whatever cancelled in it."""
    np.testing.assert_allclose(result.double().numpy(), reference, rtol=relative, atol=1e-37)


def variances(ratio, initial_variance=0.0):
    return {"process_variance": ratio, "observation_variance": 1.0, "initial_variance": initial_variance}


def batch(num_rows, num_tokens, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_rows, num_tokens, generator=generator, dtype=torch.float64) * 0.1
    mask = torch.rand(num_rows, num_tokens, generator=generator) < 0.7
    return values.to(dtype), mask


# Gains


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("initial_variance", [0.0, 1e-9, 1.0, 1e12])
def test_gains_agree_with_the_recursion(ratio, initial_variance):
    gains, posterior = kalman_gains(6000, 2.5 * ratio, 2.5, initial_variance)
    expected_gains, expected_variances = sequential_gains(6000, 2.5 * ratio, 2.5, initial_variance)
    np.testing.assert_allclose(gains.numpy(), expected_gains, rtol=1e-12)
    np.testing.assert_allclose(posterior.numpy(), expected_variances, rtol=1e-12)
    assert gains.dtype == posterior.dtype == torch.float64 and gains.shape == posterior.shape == (6000,)


@pytest.mark.parametrize("ratio", ["1e-12", "1e-6", "0.01", "1", "1e6"])
@pytest.mark.parametrize("initial_variance", ["0", "1e-6", "1000"])
def test_gains_agree_with_fifty_digits(ratio, initial_variance):
    with decimal.localcontext() as context:
        context.prec = 50
        variance, expected = decimal.Decimal(initial_variance), []
        for _ in range(500):
            predicted = variance + decimal.Decimal(ratio)
            variance = predicted / (predicted + 1)
            expected.append(float(variance))
    gains, _ = kalman_gains(500, float(ratio), 1.0, float(initial_variance))
    np.testing.assert_allclose(gains.numpy(), expected, rtol=3e-14)


def test_gains_of_the_papers_table():
    """K_t for Q / V and P_0 = 0 as tabulated in the facts on KPO, to the digits given there."""
    table = {
        1e-8: {1: 1e-8, 10: 1e-7, 100: 1e-6, 500: 5e-6, 1000: 9.97e-6, 2000: 1.97e-5, 4096: 3.88e-5},
        1e-6: {1: 1e-6, 10: 1e-5, 100: 9.97e-5, 500: 4.62e-4, 1000: 7.61e-4, 2000: 9.64e-4, 4096: 9.99e-4},
        1e-4: {1: 1e-4, 10: 9.96e-4, 100: 7.59e-3, 500: 9.95e-3, 1000: 9.95e-3},
        1e-2: {1: 9.9e-3, 10: 7.33e-2, 100: 9.51e-2},
    }
    for ratio, row in table.items():
        gains, _ = kalman_gains(4096, ratio, 1.0)
        for step, gain in row.items():
            assert gains[step - 1].item() == pytest.approx(gain, rel=6e-3), (ratio, step)


def test_gains_of_krpo_by_hand():
    """Q = 1e-5, R = 1e-2, P_0 = 1: the first gains of a group, as tabulated in the facts on KRPO."""
    gains, _ = kalman_gains(12, 1e-5, 1e-2, 1.0)
    expected = [0.990, 0.498, 0.333, 0.250, 0.201, 0.168, 0.145, 0.127, 0.114, 0.103, 0.094, 0.087]
    np.testing.assert_allclose(gains.numpy(), expected, atol=6e-4)


def test_gains_are_quick_and_finite_at_the_extremes():
    for ratio in (1e-12, 1e6, 1e300, 1e-300):
        for initial_variance in (0.0, 1e-300, 1e300):
            gains, posterior = kalman_gains(131_072, ratio, 1.0, initial_variance)
            assert bool(torch.isfinite(gains).all()) and bool(torch.isfinite(posterior).all())
            assert float(gains.min()) >= 0 and float(gains.max()) <= 1
    gains, posterior = kalman_gains(4, 0.3, 0.0, 0.1)
    assert gains.tolist() == [1.0] * 4 and posterior.tolist() == [0.0] * 4


def test_steady_gain_and_long_sequences():
    ratio = 1e-6
    gains, _ = kalman_gains(131_072, ratio, 1.0)
    expected, _ = sequential_gains(131_072, ratio, 1.0)
    np.testing.assert_allclose(gains.numpy(), expected, rtol=1e-12)
    assert gains[-1].item() == pytest.approx((-ratio + math.sqrt(ratio**2 + 4 * ratio)) / 2, rel=1e-12)


# The filter against the sequential loop


@pytest.mark.parametrize(("ratio", "num_tokens"), FAILING_RELEASE)
@pytest.mark.parametrize("holes", [False, True])
def test_exact_where_the_published_form_fails(ratio, num_tokens, holes):
    values, mask = batch(3, num_tokens, seed=num_tokens)
    mask = mask if holes else None
    result = kalman_filter(values, mask, **variances(ratio))
    gains, _ = sequential_gains(num_tokens, ratio, 1.0)
    assert_token_by_token(result, sequential_filter(values, mask, gains), ROUNDING)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    log_ratio=st.floats(-12, 6),
    log_variance=st.one_of(st.none(), st.floats(-12, 12)),
    num_tokens=st.integers(1, 700),
    mean=st.sampled_from([0.0, -0.7]),
    share=st.sampled_from([0.0, 0.1, 0.6, 0.95, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_exact_over_a_grid(log_ratio, log_variance, num_tokens, mean, share, seed):
    initial_variance = 0.0 if log_variance is None else 10.0**log_variance
    values, _ = batch(2, num_tokens, seed)
    mask = torch.rand(2, num_tokens, generator=torch.Generator().manual_seed(seed)) < share
    # Runs of exact zeros leave only the decay of what came before: nothing may hide in an absolute tolerance.
    values[:, num_tokens // 3 : num_tokens // 2] = 0.0
    values[~mask] = math.nan
    result = kalman_filter(values, mask, **variances(10.0**log_ratio, initial_variance), initial_mean=mean)
    gains, _ = sequential_gains(num_tokens, 10.0**log_ratio, 1.0, initial_variance)
    assert_token_by_token(result, sequential_filter(values, mask, gains, mean), 2 * ROUNDING)


@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-2, 1.0, 1e6])
def test_exact_at_the_greatest_length(ratio):
    values, _ = batch(2, 131_072, seed=3)
    gains, _ = sequential_gains(131_072, ratio, 1.0)
    reference = sequential_filter(values, None, gains)
    # If a value all but cancels after 1e5 steps, the rounding of the float64 loop itself shows.
    rounding = 1e-12 * np.abs(reference).max()
    np.testing.assert_allclose(
        kalman_filter(values, **variances(ratio)).numpy(), reference, rtol=ROUNDING, atol=rounding
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    gains=st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1 - 1e-16, 1e-9])), min_size=1, max_size=150),
    seed=st.integers(0, 10**6),
)
def test_linear_filter_for_any_gains(gains, seed):
    """Gains of exactly 1, which restart the state, and of 0, which hold it, in any order."""
    values, mask = batch(3, len(gains), seed, torch.float64)
    result = linear_filter(values, torch.tensor(gains, dtype=torch.float64), mask, 0.4)
    reference = sequential_filter(values, mask, np.array(gains), 0.4)
    np.testing.assert_allclose(result.numpy(), reference, rtol=1e-9, atol=1e-15)


def test_linear_filter_with_one_gain_and_with_kalman_gains():
    values, mask = batch(4, 300)
    assert_token_by_token(
        linear_filter(values, 0.2, mask), sequential_filter(values, mask, np.full(300, 0.2)), ROUNDING
    )
    gains, _ = kalman_gains(300, 1e-3, 1.0)
    scheduled = linear_filter(values, gains, mask)
    torch.testing.assert_close(scheduled, kalman_filter(values, mask, **variances(1e-3)), rtol=2e-7, atol=0)
    observed = values.masked_fill(~mask, 0.0)
    assert torch.equal(linear_filter(values, 1.0, mask), observed)
    assert torch.equal(linear_filter(values, 0.0), torch.zeros_like(values))


# Brute force and an independent library


@pytest.mark.parametrize("initial_variance", [0.0, 0.5, 100.0])
@pytest.mark.parametrize(("process_variance", "observation_variance"), [(0.1, 1.0), (2.0, 0.3), (1e-3, 5.0)])
def test_brute_force_joint_gaussian(process_variance, observation_variance, initial_variance):
    """Invert the covariance of all observations: cov(x_i, x_j) = P_0 + Q min(i, j)."""
    num_tokens, mean = 20, 0.3
    values, _ = batch(1, num_tokens, seed=5, dtype=torch.float64)
    steps = np.arange(1, num_tokens + 1)
    covariance = initial_variance + process_variance * np.minimum.outer(steps, steps)
    _, posterior = kalman_gains(num_tokens, process_variance, observation_variance, initial_variance)
    result = kalman_filter(
        values,
        process_variance=process_variance,
        observation_variance=observation_variance,
        initial_mean=mean,
        initial_variance=initial_variance,
    )
    for t in range(1, num_tokens + 1):
        cross = covariance[t - 1, :t]
        weights = np.linalg.solve(covariance[:t, :t] + observation_variance * np.eye(t), cross)
        assert result[0, t - 1].item() == pytest.approx(mean + weights @ (values[0, :t].numpy() - mean), rel=1e-10)
        assert posterior[t - 1].item() == pytest.approx(covariance[t - 1, t - 1] - weights @ cross, rel=1e-9)


@pytest.mark.parametrize("initial_variance", [0.0, 3.0])
@pytest.mark.parametrize("ratio", [1e-6, 1e-2, 4.0])
def test_filterpy(ratio, initial_variance):
    values, _ = batch(1, 400, seed=6, dtype=torch.float64)
    other = KalmanFilter(dim_x=1, dim_z=1)
    other.F, other.H = np.eye(1), np.eye(1)
    other.x, other.P = np.array([[0.2]]), np.array([[initial_variance]])
    other.Q, other.R = np.array([[ratio]]), np.eye(1)
    means, covariances, _, _ = other.batch_filter(values[0].numpy())
    _, posterior = kalman_gains(400, ratio, 1.0, initial_variance)
    result = kalman_filter(values, **variances(ratio, initial_variance), initial_mean=0.2)
    np.testing.assert_allclose(result[0].numpy(), means[:, 0, 0], rtol=1e-10)
    np.testing.assert_allclose(posterior.numpy(), covariances[:, 0, 0], rtol=1e-10)


# Limits, causality, gradients


def test_limits():
    values, mask = batch(3, 200)
    observed = values.masked_fill(~mask, 0.0)
    assert torch.equal(kalman_filter(values, mask, process_variance=1.0, observation_variance=0.0), observed)
    torch.testing.assert_close(kalman_filter(values, mask, **variances(1e12)), observed, rtol=1e-6, atol=1e-12)
    assert torch.equal(kalman_filter(values, mask, **variances(0.0)), torch.zeros_like(values))
    held = kalman_filter(values, mask, **variances(0.0), initial_mean=0.25)
    assert torch.equal(held, torch.where(mask, 0.25, 0.0))
    # Q = 0 with a vague prior: the running mean.
    wide = kalman_filter(values.double(), **variances(0.0, 1e14))
    running = values.double().cumsum(1) / torch.arange(1, 201)
    torch.testing.assert_close(wide, running, rtol=1e-10, atol=1e-13)


def test_only_the_ratio_of_the_variances_matters():
    values, mask = batch(2, 100, dtype=torch.float64)
    small = kalman_filter(values, mask, process_variance=1e-3, observation_variance=1.0, initial_variance=0.5)
    large = kalman_filter(values, mask, process_variance=7e-3, observation_variance=7.0, initial_variance=3.5)
    torch.testing.assert_close(small, large, rtol=1e-12, atol=0)


@pytest.mark.parametrize("ratio", [1e-6, 1e-2, 1e3])
def test_a_later_token_never_changes_an_earlier_value(ratio):
    values, mask = batch(4, 500)
    before = kalman_filter(values, mask, **variances(ratio))
    for changed in (1, 31, 32, 33, 250, 499):
        other = values.clone()
        other[:, changed:] = 1e6
        after = kalman_filter(other, mask, **variances(ratio))
        assert torch.equal(before[:, :changed], after[:, :changed])


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e6, 1e18])
def test_gradient_is_that_of_the_linear_map(ratio):
    values, mask = batch(2, 40, dtype=torch.float64)
    values.requires_grad_(True)

    def filtered(x):
        return kalman_filter(x, mask, **variances(ratio, 0.1), initial_mean=0.3)

    assert torch.autograd.gradcheck(filtered, (values,))
    assert torch.autograd.gradgradcheck(filtered, (values,))


def test_gradient_is_that_of_the_mask_and_gains_at_the_forward_pass():
    values, mask = torch.ones(2, 4, dtype=torch.float64, requires_grad=True), torch.tensor([[1, 0, 1, 1]] * 2).bool()
    gains = torch.full((4,), 0.5, dtype=torch.float64)
    filtered = linear_filter(values, gains, mask)
    mask.zero_(), gains.zero_()
    filtered.sum().backward()
    assert values.grad[0].tolist() == [0.875, 0.0, 0.75, 0.5]


def test_no_gradient_without_a_request():
    assert not kalman_filter(batch(1, 30)[0], **variances(0.1)).requires_grad


def test_nothing_observed_gives_zeros_and_no_gradient():
    """Whatever is behind the mask, and only with valid variances."""
    values = torch.tensor([[0.5, math.nan], [math.inf, 1.0]], requires_grad=True)
    result = kalman_filter(values, torch.zeros(2, 2), process_variance=1e-2, observation_variance=1.0)
    result.sum().backward()
    assert torch.equal(result, torch.zeros(2, 2)) and torch.equal(values.grad, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="process_variance"):
        kalman_filter(values, torch.zeros(2, 2), process_variance=-1.0, observation_variance=1.0)


def test_extremely_large_observations_do_not_overflow():
    values = torch.full((1, 400), 3e38)
    for ratio in (1e-2, 1.0, 1e6):
        result = kalman_filter(values, **variances(ratio))
        gains, _ = sequential_gains(400, ratio, 1.0)
        assert_token_by_token(result, sequential_filter(values, None, gains), 1e-6)
