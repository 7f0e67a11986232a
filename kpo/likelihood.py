"""The Gaussian likelihood of the random walk plus noise that `kpo.kalman` filters, and its maximum over Q and V.

    state        x_t = x_{t-1} + N(0, Q)
    observation  z_t = x_t     + N(0, V)

With the innovations e_n = z_n - x_{n-1|n-1} and their variances F_n = P_{n-1|n-1} + Q + V, the joint density of
a row's observed tokens is, by the prediction-error decomposition (Schweppe 1965; Durbin and Koopman 2012, section 7.2),

    log L = -1/2 sum_n (log 2 pi F_n + e_n^2 / F_n).

Masked tokens are no observation, as in `kpo.kalman.kalman_filter`: the state passes them unchanged and without noise.

Start. P_0 = 0 (KPO): at initial_mean, so a level of its own for each row counts as drift. P_0 = infinity: each row has
an unknown level, which its first token is spent on (the diffuse, or restricted, likelihood).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from kpo.checks import check_mask, check_real, check_rows, refuse_not_finite

__all__ = ["VarianceFit", "fit_variances", "log_likelihood"]

COARSE_POINTS = 48
ZOOM_POINTS = 9
CURVE_POINTS = 33
POINTS_AT_ONCE = 16  # so that the gains of all tokens stay in a processor's cache
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

    Arguments and errors as for `kpo.kalman.kalman_filter`; initial_variance may also be math.inf. Computed on the CPU;
    it has no gradient.
    """
    from kpo.kalman_cpu import innovation_squares  # without Numba's import for those who only filter or train

    initial_mean = check_real("initial_mean", initial_mean)
    rows, observed = _checked_rows(observations, mask)
    models = [(process_variance, observation_variance)]
    gains, precisions, constants = _tables(rows.shape[1], models, initial_variance)
    squares = innovation_squares(rows, observed, gains, precisions, initial_mean, 1.0)
    result = -0.5 * (constants[observed.sum(axis=1)] + squares)[:, 0]
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

    Given Q / V the best Q + V is a mean of e_n^2 / F_n, so the search is over log Q / V, 0 and infinity included.
    Intervals hold the values that the likelihood ratio does not reject: 2 (max log L - max log L given the value) is at
    most the quantile of chi^2 with 1 degree of freedom. If Q or V truly is 0, their coverage is (1 + level) / 2.
    p_value refers the ratio at Q = 0 to its null distribution on the boundary, 0 or chi^2_1 with probability 1/2 each
    (Self and Liang 1987), which many rows are needed for.

    If values are not Gaussian, the estimate is still consistent, but intervals and p_value too narrow and too small.
    robust_ratio_interval and robust_p_value take the spread of the score from row to row: with u_b the derivative of
    row b's log L by log Q / V, Q + V profiled out, they refer sum u_b / sqrt(sum u_b^2) to the normal distribution,
    one-sided at Q = 0. Rows must be independent, and several tens of them. An upper end of almost 0 says that tokens
    alternate more than independent ones would.

    Raises as `log_likelihood`; ValueError also if no row has two observed tokens, and if all innovations are 0.
    """
    initial_mean = check_real("initial_mean", initial_mean)
    level = check_real("level", level, minimum=0.0, maximum=0.999999, exclusive=True)
    if isinstance(initial_variance, bool) or initial_variance not in (0, math.inf):
        meaning = "0 (rows start at initial_mean) or math.inf (each row has an unknown level)"
        raise ValueError(f"initial_variance must be {meaning} to fit variances, found {initial_variance!r}")
    rows, observed = _checked_rows(observations, mask)
    scale = float(np.abs(np.where(observed, rows, initial_mean) - initial_mean).max())
    if not math.isfinite(scale):
        refuse_not_finite(observations, mask)
    profile = _Profile(rows, observed, initial_mean, initial_variance, scale)
    profile.maximise()
    return profile.result(NormalDist().inv_cdf((1 + level) / 2))


class _Profile:
    """The curve over log Q / V, (4, points): log Q / V, log L with the best Q + V, that Q + V, standardised score."""

    def __init__(self, rows, observed, initial_mean: float, initial_variance: float, scale: float):
        self.rows, self.observed, self.scale = rows, observed, scale
        self.initial_mean, self.initial_variance = initial_mean, initial_variance
        self.counts = observed.sum(axis=1)
        self.longest = int(self.counts.max())
        if self.longest < 2:
            raise ValueError("no row has two observed tokens, so Q and V cannot be told apart; pass longer rows")
        # A row whose level is unknown spends its first token on it.
        self.sizes = np.maximum(self.counts - (1 if initial_variance else 0), 0)
        self.num_observations = int(self.sizes.sum())
        self.curve = np.empty((4, 0))
        # Beyond these ends the likelihood of so many rows and tokens is that of Q = 0, or of V = 0.
        bottom = math.log(1e-3 / (self.longest**2 * math.sqrt(len(rows))))
        top = math.log(1e3 * math.sqrt(self.num_observations))
        if scale > 0:
            self.evaluate(np.concatenate(([-math.inf], np.linspace(bottom, top, COARSE_POINTS), [math.inf])))
        # Rows of one value each leave rounding where the level is unknown.
        if scale == 0 or self.curve[2].max() <= 1e-28 * scale**2:
            raise ValueError("all innovations are 0, so are both variances, and the likelihood has no maximum")

    def evaluate(self, points: np.ndarray) -> None:
        points = np.setdiff1d(points, self.curve[0])
        starts = range(0, len(points), POINTS_AT_ONCE)
        curve = np.hstack([self.curve, *(self._columns(points[start : start + POINTS_AT_ONCE]) for start in starts)])
        self.curve = curve[:, curve[0].argsort()]

    def _columns(self, points: np.ndarray) -> np.ndarray:
        from kpo.kalman_cpu import innovation_squares

        # The derivative is a difference to a neighbour: above, or, at the ends, a small step in Q / V or V / Q inside.
        neighbours = points + DIFFERENCE
        neighbours[points == -math.inf] = math.log(1e-5 / self.longest**2)
        neighbours[points == math.inf] = -math.log(1e-6)
        models = list(zip(*_shares(np.append(points, neighbours)), strict=True))
        gains, precisions, constants = _tables(self.longest, models, self.initial_variance)
        squares = innovation_squares(self.rows, self.observed, gains, precisions, self.initial_mean, 1.0 / self.scale)
        squares, moved_squares = np.hsplit(squares, 2)
        constants, moved = np.hsplit(constants[self.counts], 2)
        size = self.num_observations
        total = squares.sum(axis=0) / size
        with np.errstate(divide="ignore", invalid="ignore"):
            value = -0.5 * (constants.sum(axis=0) + size * (np.log(total) + 1)) - size * math.log(self.scale)
            ahead = np.where(points == math.inf, -1.0, 1.0)
            moved = moved - constants
            slope = moved + (moved_squares - squares) / total
            # Less what the derivative by log(Q + V) explains of it, in the model's own covariance.
            slope -= (self.sizes[:, None] - squares / total) * (moved.sum(axis=0) / size)
            slope *= -0.5 * ahead
            score = slope.sum(axis=0) / np.sqrt(np.square(slope).sum(axis=0))
        return np.stack((points, value, total * self.scale**2, score))

    def maximise(self) -> None:
        """Evaluate the highest point: 0, infinity, or a point between."""
        for _ in range(MOST_ZOOMS):
            best = int(self.curve[1].argmax())
            if math.isinf(self.curve[0, best]):
                return
            x, y = self.curve[:2, best - 1 : best + 2]
            if np.isfinite(x).all() and y[1] - y.min() < 1e-4:
                self.evaluate(np.array([_vertex(x, y)]))
                return
            # The maximum may lie between the last finite point and an end.
            below = x[0] if math.isfinite(x[0]) else 2 * x[1] - x[2]
            above = x[2] if math.isfinite(x[2]) else 2 * x[1] - x[0]
            self.evaluate(np.linspace(below, above, 2 * ZOOM_POINTS + 1))

    def end(self, direction: int, quantile: float, robust: bool = False) -> float:
        """log Q / V at which the likelihood ratio, or the score, passes its limit; infinite if it never does."""
        for _ in range(MOST_ZOOMS):
            x, value, _, score = self.curve
            distance, limit = (-direction * score, quantile) if robust else (2 * (value.max() - value), quantile**2)
            inside = int(value.argmax())
            outside = inside + direction
            while 0 <= outside < len(x) and not distance[outside] > limit:
                inside, outside = outside, outside + direction
            if not 0 <= outside < len(x) or math.isinf(x[outside]):
                return float(x[inside])
            if math.isinf(x[inside]):
                return float(x[outside])
            gap = distance[outside] - distance[inside]
            if gap < 0.01 or abs(x[outside] - x[inside]) < 1e-9:
                break
            self.evaluate(np.linspace(x[inside], x[outside], ZOOM_POINTS + 1)[1:-1])
        share = min(max((limit - distance[inside]) / gap, 0.0), 1.0) if gap > 0 else 0.0
        return float(x[inside] + share * (x[outside] - x[inside]))

    def result(self, quantile: float) -> VarianceFit:
        low, high = (self.end(direction, quantile) for direction in (-1, 1))
        robust = [self.end(direction, quantile, robust=True) for direction in (-1, 1)]
        bottom, top = self.curve[0, [1, -2]]
        start, end = min(max(low, bottom), top), max(min(high, top), bottom)
        steps = np.linspace(0, 1, CURVE_POINTS)
        # The bounds of Q and of V lie close to its ends.
        near = min(end - start, 4.0) * steps**2
        self.evaluate(np.concatenate([start + near, end - near, start + (end - start) * steps]))
        log_ratio, value, total, score = self.curve
        best = int(value.argmax())
        deviance = 2 * (value[best] - value)
        # For each Q / V the interval of Q + V: N (s - 1 - log s) is at most what the limit leaves, s = best / given.
        within = deviance <= quantile**2 * (1 + 1e-9)
        shrink, swell = _roots(np.maximum(quantile**2 - deviance[within], 0.0) / self.num_observations)
        shares = _shares(log_ratio)
        process_variance, observation_variance = (float(share[best] * total[best]) for share in shares)
        process_interval, observation_interval = (
            (float((variance * shrink).min()), float((variance * swell).max()))
            for variance in (share[within] * total[within] for share in shares)
        )
        return VarianceFit(
            process_variance=process_variance,
            observation_variance=observation_variance,
            ratio=float(np.exp(log_ratio[best])),
            log_likelihood=float(value[best]),
            log_likelihood_without_drift=float(value[0]),
            process_variance_interval=process_interval,
            observation_variance_interval=observation_interval,
            ratio_interval=(float(np.exp(low)), float(np.exp(high))),
            robust_ratio_interval=(float(np.exp(robust[0])), float(np.exp(robust[1]))),
            p_value=0.5 * math.erfc(math.sqrt(deviance[0] / 2)) if best > 0 else 1.0,
            robust_p_value=0.5 * math.erfc(float(score[0]) / math.sqrt(2)),
            num_observations=self.num_observations,
            profile_ratio=np.exp(log_ratio),
            profile_log_likelihood=value,
        )


def _checked_rows(observations: torch.Tensor, mask: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Observations, float64, and where there are any, bool."""
    check_rows("observations", observations)
    tensors = observations.to(torch.float64), check_mask(mask, observations)
    return tuple(each.detach().cpu().contiguous().numpy() for each in tensors)


def _shares(log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q / (Q + V) and V / (Q + V) at log Q / V, which may be infinite."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(np.negative(log_ratio))), 1 / (1 + np.exp(log_ratio))


def _tables(num_tokens: int, models: list[tuple[float, float]], initial_variance: float) -> tuple[np.ndarray, ...]:
    """Of M pairs (Q, V): K_n and 1 / F_n, (T, M), and the sums of log 2 pi F_n for n <= N, N = 0 .. T, (T + 1, M).

    If P_0 is infinite, so is F_1; K_1 = 1, and the sums leave it out.
    """
    # kpo.kalman offers these functions as its own and therefore imports this module first.
    from kpo.kalman import kalman_gains

    diffuse = initial_variance == math.inf
    gains, variances = [], []
    for process_variance, observation_variance in models:
        # After a first token that is spent on the level, this is known up to V.
        first = observation_variance if diffuse else initial_variance
        gain, posterior = kalman_gains(num_tokens, process_variance, observation_variance, first)
        gain, before = gain.numpy(), np.append(first, posterior[:-1])
        if diffuse:
            gain, before = np.append(1.0, gain[:-1]), np.append(math.inf, before[:-1])
        gains.append(gain)
        variances.append(before + float(process_variance) + float(observation_variance))
    variances = np.stack(variances, axis=1)
    logarithms = np.where(np.isinf(variances), 0.0, np.log(2 * math.pi * variances))
    constants = np.concatenate((np.zeros((1, len(models))), logarithms.cumsum(axis=0)))
    return np.stack(gains, axis=1), 1 / variances, constants


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through three points is highest; the middle one, if it has no such place."""
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    return (x[0] + x[1]) / 2 + left * (x[2] - x[0]) / (2 * (left - right)) if left > right else x[1]


def _roots(excess: np.ndarray) -> list[np.ndarray]:
    """1 / s for the larger and the smaller root s of s - 1 - log s = excess, by bisection in log s."""
    found = []
    for inner, outer in ((np.zeros_like(excess), np.sqrt(2 * excess)), (-np.sqrt(2 * excess), -1 - excess)):
        for _ in range(100):
            middle = (inner + outer) / 2
            beyond = np.expm1(middle) - middle > excess
            inner, outer = np.where(beyond, inner, middle), np.where(beyond, middle, outer)
        found.append(np.exp(-(inner + outer) / 2))
    return found
