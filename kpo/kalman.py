"""The scalar random-walk Kalman filter of KPO and KRPO: gains, the filter over sequences, the filter over groups.

    state        x_t = x_{t-1} + N(0, Q)        Q  process_variance
    observation  z_t = x_t     + N(0, V)        V  observation_variance

    predict      P_{t|t-1} = P_{t-1|t-1} + Q
    update       K_t = P_{t|t-1} / (P_{t|t-1} + V)
                 x_{t|t} = x_{t-1|t-1} + K_t (z_t - x_{t-1|t-1})
                 P_{t|t} = (1 - K_t) P_{t|t-1} = K_t V

KPO (arXiv 2602.10609, the state-space model of its method section) filters a response's token log-ratios from x = 0,
P = 0. KRPO (arXiv 2505.07527, method section) filters the rewards of one prompt's group from x = 0, P = 1.

The gains do not depend on the observations, so they are computed first; the recursion over the tokens then runs in
float64: see `kpo.kalman_cpu` and `kpo.kalman_triton`.

Masks. Masked tokens are skipped: the state is carried over and no process noise is added, so t counts the observed
tokens of a row, and padding or holes never change a value. What a masked place holds, NaN included, does not matter.

Gradients. The filters over tokens are linear maps, differentiable with respect to the observations only.
"""

import functools
import importlib.util
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kpo.checks import check_integer, check_mask, check_real, check_rows, observed_tokens, refuse_not_finite
from kpo.likelihood import VarianceFit, fit_variances, log_likelihood

__all__ = [
    "GroupFilter", "VarianceFit", "fit_variances", "kalman_filter", "kalman_filter_group", "kalman_gains",
    "linear_filter", "log_likelihood",
]  # fmt: skip

HAS_TRITON = importlib.util.find_spec("triton") is not None
# Tables are made for at least this many tokens, then for powers of two: batches of changing width share them.
SMALLEST_TABLE = 1024


def kalman_gains(
    num_steps: int, process_variance: float, observation_variance: float, initial_variance: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Gains K_t and posterior variances P_{t|t} for t = 1 .. num_steps, each float64 (num_steps,) on the CPU.

    Closed form. With q = Q / V, p = P_0 / V and sinh(h) = sqrt(q) / 2, the map P_{t-1|t-1} -> P_{t|t} is a ratio of
    linear functions whose matrix [[1, q], [1, 1 + q]] has the eigenvalues exp(+-2h), so

        K_t = (p cosh((2t-1)h) / cosh(h) + q U_t) / (p U_t + cosh((2t+1)h) / cosh(h)),   U_t = sinh(2th) / sinh(2h).

    Every term is positive, so nothing cancels, and exp(2th) is divided out, so nothing overflows: exact to about 1e-14
    relative, for every Q / V, any P_0 and any number of steps. V = 0 gives K_t = 1 and P_{t|t} = 0.

    Raises TypeError or ValueError for anything but finite numbers that are not negative, fewer than 1 step, and
    Q = V = 0 (a gain of 0 / 0).
    """
    variances = _check_variances(process_variance, observation_variance, initial_variance)
    gains = _gains(check_integer("num_steps", num_steps, minimum=1), *variances)
    return torch.from_numpy(gains), torch.from_numpy(gains * variances[1])


def kalman_filter(
    observations: Tensor,
    mask: Tensor | None = None,
    *,
    process_variance: float,
    observation_variance: float,
    initial_mean: float = 0.0,
    initial_variance: float = 0.0,
) -> Tensor:
    """Filtered means x_{t|t}, in the shape, dtype and device of the observations.

    observations: (B, T), float32, float64, bfloat16 or float16; log-ratios in nats for KPO.
    mask: (B, T), bool or 0 / 1 of any dtype, 1 for an observed token; None if all are. Masked tokens give 0.

    On a CPU a row has the same bits by itself, in a batch, and with other padding or holes; on a CUDA device a Triton
    kernel agrees with it within the rounding of the dtype. Elsewhere the CPU filters and the result is copied.

    Raises TypeError or ValueError for a wrong type, dtype, shape, device or mask, and as `kalman_gains`;
    `kpo.checks.NonFiniteError` for an observed value that is not finite.
    """
    initial_mean = check_real("initial_mean", initial_mean)
    check_rows("observations", observations)
    mask = observed_tokens(mask, observations)
    variances = _check_variances(process_variance, observation_variance, initial_variance)
    num_steps = max(SMALLEST_TABLE, 1 << (observations.shape[1] - 1).bit_length())
    gains = _gains_table(num_steps, *variances, gains_device(observations.device))
    return _filter_rows(observations, mask, gains, initial_mean)


def linear_filter(
    observations: Tensor, gains: float | Tensor, mask: Tensor | None = None, initial_mean: float = 0.0
) -> Tensor:
    """m_t = m_{t-1} + k_t (z_t - m_{t-1}) over each row, in the shape, dtype and device of the observations.

    gains: one number (an exponential moving average) or a tensor (T,), k_t for a row's t-th observed token; in [0, 1],
        without a gradient. With those of `kalman_gains` this is `kalman_filter`, to the bit.
    observations, mask, errors: as for `kalman_filter`.
    """
    check_rows("observations", observations)
    initial_mean = check_real("initial_mean", initial_mean)
    if isinstance(gains, Tensor) and gains.dim() > 0:
        gains = _check_gains(gains, observations)
    else:
        gain = check_real("gains", gains, minimum=0.0, maximum=1.0)
        gains = torch.full(observations.shape[1:], gain, dtype=torch.float64, device=gains_device(observations.device))
    return _filter_rows(observations, observed_tokens(mask, observations), gains, initial_mean)


class GroupFilter(NamedTuple):
    """Result of `kalman_filter_group`, each (P, G) float64: x_{i|i}, P_{i|i}, x_{i|i-1}, P_{i|i-1}."""

    means: Tensor
    variances: Tensor
    prior_means: Tensor
    prior_variances: Tensor


def kalman_filter_group(
    rewards_PG: Tensor,
    mask: Tensor | None = None,
    *,
    process_variance: float,
    observation_variance: float,
    initial_mean: float = 0.0,
    initial_variance: float = 1.0,
) -> GroupFilter:
    """The filter over each prompt's group of rewards, in sampled order, restarted for every prompt.

    rewards_PG: (P, G), any real dtype. mask: (P, G), 1 where a reward was graded; None if all were.
    The prior variance is P_{i-1|i-1} + Q, without the observation's noise. At an ungraded reward the posterior is that
    after the last graded one, or x_0 and P_0, and the prior the prediction for the next graded one. No gradient. Raises
    as `kalman_filter`.
    """
    initial_mean = check_real("initial_mean", initial_mean)
    check_rows("rewards_PG", rewards_PG, floating=False)
    graded_PG = check_mask(mask, rewards_PG, like="rewards_PG")
    rewards_PG = rewards_PG.detach().to(torch.float64).masked_fill(~graded_PG, 0.0)
    refuse_not_finite(rewards_PG, graded_PG, "rewards_PG", "member")
    num_groups, group_size = rewards_PG.shape
    gains, variances = kalman_gains(group_size, process_variance, observation_variance, initial_variance)
    gains = gains.to(rewards_PG.device)
    variances = torch.cat((variances.new_tensor([float(initial_variance)]), variances)).to(rewards_PG.device)
    num_seen = graded_PG.cumsum(dim=1)
    num_before = num_seen - graded_PG.long()
    gains_PG = torch.where(graded_PG, gains[num_before.clamp(max=group_size - 1)], 0.0)
    means, prior_means = torch.empty_like(rewards_PG), torch.empty_like(rewards_PG)
    state = rewards_PG.new_full((num_groups,), initial_mean)
    # A group has some tens of members, so the plain loop is both the clearest and the most exact form.
    for i in range(group_size):
        prior_means[:, i] = state
        state = state + gains_PG[:, i] * (rewards_PG[:, i] - state)
        means[:, i] = state
    return GroupFilter(means, variances[num_seen], prior_means, variances[num_before] + float(process_variance))


def gains_device(device: torch.device) -> torch.device:
    """The device that filters observations on `device`, and on which their gains have to be."""
    return device if device.type == "cuda" and HAS_TRITON else torch.device("cpu")


@functools.lru_cache(maxsize=16)
def _gains_table(
    num_steps: int, process_variance: float, observation_variance: float, initial_variance: float, device: torch.device
) -> Tensor:
    return torch.from_numpy(_gains(num_steps, process_variance, observation_variance, initial_variance)).to(device)


def _gains(num_steps: int, process_variance: float, observation_variance: float, initial_variance: float) -> np.ndarray:
    if observation_variance == 0:
        return np.ones(num_steps)
    # Dividing numerator and denominator by 1 + p = (P_0 + V) / V keeps a very large P_0 finite.
    total = initial_variance / 2 + observation_variance / 2
    prior_share, observation_share = initial_variance / 2 / total, observation_variance / 2 / total
    steps = np.arange(1, num_steps + 1, dtype=np.float64)
    root = math.sqrt(process_variance) / math.sqrt(observation_variance)  # sqrt(q)
    if root == 0:
        return prior_share / (prior_share * steps + observation_share)
    half_angle = math.asinh(root / 2)
    # All terms times 2 cosh(h) exp(-2th); exp(-h) is divided out of both sides as well.
    fading = np.exp(-4 * half_angle * steps)
    grown = -np.expm1(-4 * half_angle * steps)  # 2 sinh(2th) exp(-2th)
    # q U_t cosh(h) = sqrt(q) sinh(2th), and U_t cosh(h) = sinh(2th) / sqrt(q).
    shrink, swell = math.exp(-2 * half_angle), math.exp(-2 * half_angle) * fading
    numerator = prior_share * (shrink + fading) + observation_share * root * math.exp(-half_angle) * grown
    denominator = prior_share * math.exp(-half_angle) * grown / root + observation_share * (1 + swell)
    # Rounding may lift a gain of almost 1 above it.
    return np.minimum(numerator / denominator, 1.0)


def _check_gains(gains: Tensor, observations: Tensor) -> Tensor:
    """The gains as float64 (T,), where the observations are filtered."""
    if not gains.is_floating_point():
        raise TypeError(f"gains must be floating, found {gains.dtype}")
    if gains.requires_grad:
        raise ValueError("gains requires a gradient, and the filter gives it none; pass gains.detach()")
    if gains.shape != observations.shape[1:]:
        raise ValueError(f"gains has shape {tuple(gains.shape)}; expected (T,) = {tuple(observations.shape[1:])}")
    if gains.device not in (observations.device, torch.device("cpu")):
        raise ValueError(f"gains is on {gains.device}, observations on {observations.device}; move them to one device")
    gains = gains.to(gains_device(observations.device), torch.float64, copy=True).contiguous()
    # Written so that NaN is refused as well.
    if not bool(((gains >= 0) & (gains <= 1)).all()):
        raise ValueError("gains must lie in [0, 1]; found a value outside or NaN")
    return gains


def _check_variances(process_variance: Any, observation_variance: Any, initial_variance: Any) -> tuple[float, ...]:
    process_variance = check_real("process_variance", process_variance, minimum=0.0)
    observation_variance = check_real("observation_variance", observation_variance, minimum=0.0)
    initial_variance = check_real("initial_variance", initial_variance, minimum=0.0)
    if observation_variance == 0 and process_variance == 0:
        why = "so the gain is 0 / 0 once the state is known; give at least one of them a positive value"
        raise ValueError(f"observation_variance and process_variance are both 0, {why}")
    return process_variance, observation_variance, initial_variance


def _filter_rows(observations: Tensor, mask: Tensor | None, gains: Tensor, initial_mean: float) -> Tensor:
    """`linear_filter` of checked arguments. mask: from `observed_tokens`. gains: at least T, on the `gains_device`."""
    if observations.requires_grad and torch.is_grad_enabled():
        # A copy, since the caller may reuse a mask's memory before the backward pass.
        return _RowMap.apply(observations, None if mask is None else mask.clone(), gains, initial_mean, False)
    return _filter(observations.detach(), mask, gains, initial_mean)


class _RowMap(torch.autograd.Function):
    """The filter as a linear map of the observations; its gradient is the transposed map, and so on."""

    @staticmethod
    def forward(ctx, values, mask, gains, initial_mean, transposed):
        ctx.mask, ctx.gains, ctx.transposed = mask, gains, transposed
        if not transposed:
            return _filter(values, mask, gains, initial_mean)
        from kpo.kalman_cpu import transpose_rows_cpu

        # Rarely asked for; the copies to the CPU and back are small compared with a training step.
        return transpose_rows_cpu(values.cpu(), mask, gains.cpu()).to(values.device)

    @staticmethod
    def backward(ctx, gradient):
        return _RowMap.apply(gradient, ctx.mask, ctx.gains, 0.0, not ctx.transposed), None, None, None, None


def _filter(observations: Tensor, mask: Tensor | None, gains: Tensor, initial_mean: float) -> Tensor:
    # Kernels are imported when first used, so that using only the losses needs no compiler.
    if gains.device.type == "cuda":
        from kpo.kalman_triton import filter_rows_triton

        result, finite = filter_rows_triton(observations, mask, gains, initial_mean)
    else:
        if mask is not None and not bool(mask.any()):
            return torch.zeros_like(observations)
        from kpo.kalman_cpu import filter_rows_cpu

        result, finite = filter_rows_cpu(observations.cpu(), mask, gains, initial_mean)
        result = result.to(observations.device)
    if not finite:
        # A sum can overflow although every input is finite, so the inputs decide.
        refuse_not_finite(observations, mask)
    return result
