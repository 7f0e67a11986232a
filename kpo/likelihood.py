"""The Gaussian likelihood of the random walk plus noise that `kpo.kalman` filters, and its maximum over Q and V.

    state        x_t = x_{t-1} + N(0, Q)
    observation  z_t = x_t     + N(0, V)

With the innovations e_n = z_n - x_{n-1|n-1} and their variances F_n = P_{n-1|n-1} + Q + V, the joint density of
a row's observed tokens is, by the prediction-error decomposition (Schweppe 1965; Durbin and Koopman 2012, section 7.2),

    log L = -1/2 sum_n (log 2 pi F_n + e_n^2 / F_n).

Masked tokens are no observation, as in `kpo.kalman.kalman_filter`: the state passes them unchanged and without noise.

Where the state starts. P_0 = 0 (KPO): at initial_mean, so Q = 0 says that tokens are independent noise around it, and a
level of its own for each row counts as drift. P_0 = infinity: each row has an unknown level, which its first
token is spent on (the diffuse, or restricted, likelihood); Q = 0 then says that the level of a row does not move.

Shape suffixes: B sequences, T tokens, M models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from kpo.checks import check_real, check_rows, observed_tokens, refuse_not_finite

__all__ = ["VarianceFit", "fit_variances", "log_likelihood"]

COARSE_POINTS = 48
ZOOM_POINTS = 9
CURVE_POINTS = 33
MODELS_AT_ONCE = 32  # so that the gains of all tokens stay in a processor's cache
DIFFERENCE = 1e-5  # of log Q / V, for the derivative
MOST_ZOOMS = 12


@dataclass(frozen=True)
class VarianceFit:
    """What `fit_variances` returns. Variances are in squared units of the observations, log-likelihoods in nats.

    ratio: Q / V; infinity if V is 0. Intervals: (lower, upper). p_value, robust_p_value: of Q = 0 against Q > 0.
    profile_ratio, profile_log_likelihood: values of Q / V in ascending order, from 0 to infinity, and the likelihood
        with the best V at each; dense around the estimate.
    """

    process_variance: float
    observation_variance: float
    ratio: float
    log_likelihood: float
    log_likelihood_without_drift: float
    process_variance_interval: tuple[float, float]
    observation_variance_interval: tuple[float, float]
    ratio_interval: tuple[float, float]
    robust_ratio_interval: tuple[float, float]
    p_value: float
    robust_p_value: float
    num_observations: int
    profile_ratio: np.ndarray
    profile_log_likelihood: np.ndarray

    @property
    def gain_per_observation(self) -> float:
        """Nats per observed token by which the best Q beats Q = 0."""
        return (self.log_likelihood - self.log_likelihood_without_drift) / self.num_observations


def log_likelihood(
    observations: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    process_variance: float,
    observation_variance: float,
    initial_mean: float = 0.0,
    initial_variance: float = 0.0,
) -> torch.Tensor:
    """log L of each row in nats: float64 (B,), on the device of the observations; 0 for a row without observations.

    Arguments as for `kpo.kalman.kalman_filter`; initial_variance may also be math.inf (see the module's text), and a
    row's first observed token then adds nothing. Computed on the CPU in float64; it has no gradient.

    Raises as `kalman_filter`.
    """
    from kpo.likelihood_cpu import innovation_squares  # without Numba's import for those who only filter or train

    initial_mean = check_real("initial_mean", initial_mean)
    rows, binary = _checked_rows(observations, mask)
    gains, variances = _gains_and_variances(rows.shape[1], process_variance, observation_variance, initial_variance)
    precisions, constants = _weights(variances)
    squares, counts = innovation_squares(rows, binary, gains[:, None], precisions[:, None], initial_mean)
    result = -0.5 * (constants[counts] + squares[:, 0])
    if not np.isfinite(result).all():
        refuse_not_finite(observations, mask)
    return torch.from_numpy(result).to(observations.device)


def fit_variances(
    observations: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    initial_mean: float = 0.0,
    initial_variance: float = 0.0,
    level: float = 0.95,
) -> VarianceFit:
    """The Q and V, the same for all rows, that make the observations most likely, with intervals and a test of Q = 0.

    observations, mask, initial_mean: as for `log_likelihood`. initial_variance: 0 or math.inf. level: of the intervals.

    The gains depend on Q / V only, and given Q / V the best Q + V is a mean of e_n^2 / F_n. So the search is over
    log Q / V: a grid in one pass over the data, with 0 and infinity, then finer grids around the maximum and the ends
    of the intervals.

    Intervals hold the values that the likelihood ratio does not reject: 2 (max log L - max log L given the value) is at
    most the quantile of chi^2 with 1 degree of freedom. They include 0, or infinity for Q / V, if that is not rejected;
    if Q or V truly is 0, their coverage is (1 + level) / 2. p_value refers the ratio at Q = 0 to its null distribution
    on the boundary, 0 or chi^2_1 with probability 1/2 each (Self and Liang 1987), which many rows are needed for.

    Heavy tails. If values are not Gaussian, the estimate is the pair whose second moments fit best: still consistent
    for a random walk plus noise of finite variances. Intervals and p_value are then too narrow and too small, because
    they take the spread of squares from the Gaussian. robust_ratio_interval and robust_p_value take the spread of
    the score from row to row: with u_b the derivative of row b's log L by log Q / V, Q + V profiled out, they refer
    sum u_b / sqrt(sum u_b^2) to the normal distribution, one-sided at Q = 0. Rows must be independent, and several
    tens of them; three or fewer reject nothing. An upper end of almost 0 says that tokens alternate more than
    independent ones would. If rows share a cause, such as a batch, resample batches and fit again.

    Raises as `log_likelihood`; ValueError also if no row has two observed tokens, so that Q and V cannot be told apart,
    and if all innovations are 0, so that both variances are.
    """
    initial_mean = check_real("initial_mean", initial_mean)
    level = check_real("level", level, minimum=0.0, maximum=1.0 - 1e-12, exclusive=True)
    if isinstance(initial_variance, bool) or initial_variance not in (0, math.inf):
        raise ValueError(
            "initial_variance must be 0 (rows start at initial_mean) or math.inf (each row has an unknown level) to "
            f"fit variances, found {initial_variance!r}"
        )
    profile = _Profile(observations, mask, initial_mean, initial_variance)
    profile.maximise()
    return profile.result(NormalDist().inv_cdf((1 + level) / 2))


class _Profile:
    """The likelihood with the best Q + V, and the row-wise standardised score, at the log Q / V evaluated so far."""

    def __init__(self, observations, mask, initial_mean, initial_variance):
        self.rows, self.binary = _checked_rows(observations, mask)
        self.initial_mean, self.initial_variance = initial_mean, initial_variance
        observed = self.rows if self.binary is None else self.rows.masked_fill(self.binary == 0, initial_mean)
        self.scale = max(abs(float(observed.amax()) - initial_mean), abs(float(observed.amin()) - initial_mean))
        if not math.isfinite(self.scale):
            refuse_not_finite(observations, mask)
        num_rows, num_tokens = self.rows.shape
        counts = np.full(num_rows, num_tokens) if self.binary is None else self.binary.sum(dim=1).numpy()
        self.longest = int(counts.max())
        if self.longest < 2:
            raise ValueError("no row has two observed tokens, so Q and V cannot be told apart; pass longer rows")
        # A row whose level is unknown spends its first token on it.
        self.sizes = np.maximum(counts - (1 if initial_variance else 0), 0)
        self.num_observations = int(self.sizes.sum())
        self.log_ratio = self.log_likelihood = self.total_variance = self.score = np.empty(0)
        # Beyond these ends the likelihood of so many rows and tokens is that of Q = 0, or of V = 0.
        bottom = math.log(1e-3 / (self.longest**2 * math.sqrt(num_rows)))
        top = math.log(1e3 * math.sqrt(self.num_observations))
        if self.scale > 0:
            self.evaluate(np.concatenate(([-math.inf], np.linspace(bottom, top, COARSE_POINTS), [math.inf])))
        # Rows of one value each leave rounding where the level is unknown.
        if self.scale == 0 or self.total_variance.max() <= 1e-28 * self.scale**2:
            raise ValueError("all innovations are 0, so are both variances, and the likelihood has no maximum")

    def evaluate(self, points: np.ndarray) -> None:
        points = np.setdiff1d(points, self.log_ratio)
        found = [
            self._evaluate(points[start : start + MODELS_AT_ONCE // 2])
            for start in range(0, len(points), MODELS_AT_ONCE // 2)
        ]
        columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [points] * 4
        known = (self.log_ratio, self.log_likelihood, self.total_variance, self.score)
        order = np.argsort(np.concatenate((self.log_ratio, points)))
        self.log_ratio, self.log_likelihood, self.total_variance, self.score = (
            np.concatenate(pair)[order] for pair in zip(known, columns, strict=True)
        )

    def _evaluate(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        from kpo.likelihood_cpu import innovation_squares

        # The derivative is a difference to a neighbour: above, or, at the ends, a small step in Q / V or V / Q inside.
        beside = points + DIFFERENCE
        beside[points == -math.inf] = math.log(1e-5 / self.longest**2)
        beside[points == math.inf] = -math.log(1e-6)
        tables = [
            _gains_and_variances(self.longest, float(process), float(observation), self.initial_variance)
            for process, observation in zip(*_shares(np.concatenate((points, beside))), strict=True)
        ]
        gains = np.stack([table[0] for table in tables], axis=1)
        precisions, constants = _weights(np.stack([table[1] for table in tables], axis=1))
        squares, counts = innovation_squares(
            self.rows, self.binary, gains, precisions, self.initial_mean, 1.0 / self.scale
        )
        constants = constants[counts]
        middle, size = len(points), self.num_observations
        total = squares[:, :middle].sum(axis=0) / size
        with np.errstate(divide="ignore", invalid="ignore"):
            value = -0.5 * (constants[:, :middle].sum(axis=0) + size * (np.log(total) + 1))
            value -= size * math.log(self.scale)
            ahead = np.where(points == math.inf, -1.0, 1.0)
            moved = constants[:, middle:] - constants[:, :middle]
            slope = -0.5 * ahead * (moved + (squares[:, middle:] - squares[:, :middle]) / total)
            by_scale = -0.5 * (self.sizes[:, None] - squares[:, :middle] / total)
            # What the derivative by log(Q + V) explains of the other one, in the model's own covariance.
            slope -= by_scale * (ahead * moved.sum(axis=0) / size)
            score = slope.sum(axis=0) / np.sqrt(np.square(slope).sum(axis=0))
        return points, value, total * self.scale**2, score

    def maximise(self) -> None:
        """Evaluate the highest point: 0, infinity, or a point between."""
        for _ in range(MOST_ZOOMS):
            best = int(self.log_likelihood.argmax())
            if math.isinf(self.log_ratio[best]):
                return
            x, y = self.log_ratio[best - 1 : best + 2], self.log_likelihood[best - 1 : best + 2]
            # The maximum may lie between the last finite point and an end.
            below = x[0] if math.isfinite(x[0]) else 2 * x[1] - x[2]
            above = x[2] if math.isfinite(x[2]) else 2 * x[1] - x[0]
            if np.isfinite(x).all() and y[1] - y.min() < 1e-4:
                self.evaluate(np.array([_vertex(x, y)[0]]))
                return
            self.evaluate(np.linspace(below, above, 2 * ZOOM_POINTS + 1))

    def interval(self, distance: Callable[[], np.ndarray], limit: float, direction: int) -> float:
        """log Q / V where a distance that grows away from the maximum passes the limit; infinite if it never does."""
        for _ in range(MOST_ZOOMS):
            values, x = distance(), self.log_ratio
            inside = int(self.log_likelihood.argmax())
            outside = inside + direction
            while 0 <= outside < len(x) and not values[outside] > limit:
                inside, outside = outside, outside + direction
            if not 0 <= outside < len(x) or math.isinf(x[outside]):
                return float(x[inside])
            if math.isinf(x[inside]):
                return float(x[outside])
            gap = values[outside] - values[inside]
            if gap < 0.01 or abs(x[outside] - x[inside]) < 1e-9:
                break
            self.evaluate(np.linspace(x[inside], x[outside], ZOOM_POINTS + 1)[1:-1])
        share = min(max((limit - values[inside]) / gap, 0.0), 1.0) if gap > 0 else 0.0
        return float(x[inside] + share * (x[outside] - x[inside]))

    def result(self, quantile: float) -> VarianceFit:
        limit = quantile**2
        low = self.interval(self._deviance, limit, -1)
        high = self.interval(self._deviance, limit, 1)
        robust_low = self.interval(lambda: self.score, quantile, -1)
        robust_high = self.interval(lambda: -self.score, quantile, 1)
        bottom, top = self.log_ratio[1], self.log_ratio[-2]
        start, end = min(max(low, bottom), top), max(min(high, top), bottom)
        steps = np.linspace(0, 1, CURVE_POINTS)
        # The bounds of Q and of V lie close to its ends.
        near = min(end - start, 4.0) * steps**2
        self.evaluate(np.concatenate([start + near, end - near, start + (end - start) * steps]))
        best = int(self.log_likelihood.argmax())
        process_share, observation_share = _shares(self.log_ratio)
        # For each Q / V the interval of Q + V: N (s - 1 - log s) is at most what the limit leaves, s = best / given.
        within = self._deviance() <= limit * (1 + 1e-9)
        shrink, swell = _roots(np.maximum(limit - self._deviance()[within], 0.0) / self.num_observations)
        total = self.total_variance[within]
        ratio = np.exp(self.log_ratio)

        def bounds(share: np.ndarray) -> tuple[float, float]:
            lowest, highest = share[within] * total * shrink, share[within] * total * swell
            return -_highest(self.log_ratio[within], -lowest), _highest(self.log_ratio[within], highest)

        return VarianceFit(
            process_variance=float(process_share[best] * self.total_variance[best]),
            observation_variance=float(observation_share[best] * self.total_variance[best]),
            ratio=float(ratio[best]),
            log_likelihood=float(self.log_likelihood[best]),
            log_likelihood_without_drift=float(self.log_likelihood[0]),
            process_variance_interval=bounds(process_share),
            observation_variance_interval=bounds(observation_share),
            ratio_interval=(float(np.exp(low)), float(np.exp(high))),
            robust_ratio_interval=(float(np.exp(robust_low)), float(np.exp(robust_high))),
            p_value=0.5 * math.erfc(math.sqrt(self._deviance()[0] / 2)) if best > 0 else 1.0,
            robust_p_value=0.5 * math.erfc(float(self.score[0]) / math.sqrt(2)),
            num_observations=self.num_observations,
            profile_ratio=ratio,
            profile_log_likelihood=self.log_likelihood,
        )

    def _deviance(self) -> np.ndarray:
        return 2 * (self.log_likelihood.max() - self.log_likelihood)


def _checked_rows(observations: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Observations, float32 or float64, and mask, uint8 or None, on the CPU."""
    check_rows("observations", observations)
    mask = observed_tokens(mask, observations)
    dtype = observations.dtype if observations.dtype in (torch.float32, torch.float64) else torch.float32
    return observations.detach().to("cpu", dtype).contiguous(), None if mask is None else mask.cpu()


def _shares(log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q / (Q + V) and V / (Q + V) at log Q / V, which may be infinite."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(np.negative(log_ratio))), 1 / (1 + np.exp(log_ratio))


def _gains_and_variances(
    num_tokens: int, process_variance: float, observation_variance: float, initial_variance: float
) -> tuple[np.ndarray, np.ndarray]:
    """K_n and F_n for n = 1 .. num_tokens, float64; K_1 = 1 and F_1 infinite if P_0 is."""
    # kpo.kalman offers these functions as its own and therefore imports this module first.
    from kpo.kalman import kalman_gains

    diffuse = isinstance(initial_variance, float) and initial_variance == math.inf
    if diffuse:
        # The first token is the level, known up to V.
        gains, posterior = kalman_gains(num_tokens, process_variance, observation_variance, observation_variance)
        gains, posterior = np.append(1.0, gains[:-1]), np.append(observation_variance, posterior[:-1])
    else:
        gains, posterior = kalman_gains(num_tokens, process_variance, observation_variance, initial_variance)
        gains, posterior = gains.numpy(), posterior.numpy()
    before = np.append(math.inf if diffuse else initial_variance, posterior[:-1])
    return gains, before + process_variance + observation_variance


def _weights(variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 / F_n, and sum over n <= N of log 2 pi F_n for N = 0, 1, .. in one row more; nothing where F is infinite."""
    logarithms = np.log(2 * math.pi * np.where(np.isinf(variances), 0.5 / math.pi, variances))
    return 1 / variances, np.concatenate((np.zeros_like(logarithms[:1]), np.cumsum(logarithms, axis=0)))


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Where the parabola through three points is highest, and how high; the middle one, if it has no such place."""
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    if not left > right:
        return x[1], y[1]
    curvature = (right - left) / (x[2] - x[0])
    place = (x[0] + x[1]) / 2 - left / (2 * curvature)
    return place, y[1] + (place - x[1]) * (left + curvature * (place - x[0]))


def _highest(x: np.ndarray, y: np.ndarray) -> float:
    """The maximum of a curve known at some points."""
    best = int(y.argmax())
    around = slice(best - 1, best + 2)
    inner = 0 < best < len(x) - 1 and np.isfinite(x[around]).all()
    return float(_vertex(x[around], y[around])[1] if inner else y[best])


def _roots(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 / s for the larger and the smaller root s of s - 1 - log s = excess, by bisection in log s."""
    found = []
    for inner, outer in ((np.zeros_like(excess), np.sqrt(2 * excess)), (-np.sqrt(2 * excess), -1 - excess)):
        for _ in range(100):
            middle = (inner + outer) / 2
            beyond = np.expm1(middle) - middle > excess
            inner, outer = np.where(beyond, inner, middle), np.where(beyond, middle, outer)
        found.append(np.exp(-(inner + outer) / 2))
    return found[0], found[1]
