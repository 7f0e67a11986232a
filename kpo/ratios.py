"""From log-probabilities to log importance ratios, one kind for each method and each control.

With z_t = log pi(y_t) - log pi_old(y_t) at the counted tokens t = 1..n of one response, a kind gives the logarithm of
the ratio that the loss weighs the advantage with, and says what the gradient flows through:

    token            z_t                                        GRPO; gradient of the token itself
    sequence         mean_t z_t, shape (B, 1)                   GSPO; gradient through the mean
    sequence-token   the same value at every token              GSPO-token; straight-through
    geometric-mean   mean_t c_t, shape (B, 1)                   GMPO; c_t is z_t clipped on the advantage's side
    kalman           rho_{t|t} of the random-walk filter of z   KPO; straight-through
    unit             0, so the ratio is exactly 1               control; straight-through
    ema              rho_t = rho_{t-1} + a (z_t - rho_{t-1})    control; straight-through
    ema-scheduled    the same with a = K_t, so it equals kalman control; straight-through

Straight-through means value and gradient are chosen apart: log r_t = sg[value_t] + z_t - sg[z_t], sg being
stop-gradient. The derivative with respect to log pi(y_t) is 1, and no gradient crosses tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kpo.checks import Kind, Registry, check_advantages, check_finite, check_parameters, check_real, check_token_tensors
from kpo.kalman import kalman_filter, kalman_gains, linear_filter

__all__ = ["RATIO_KINDS", "RatioKind", "log_importance_ratio", "ratio_kind", "straight_through", "token_log_ratio"]

# Keywords that a function may ask for in addition to its parameters.
RUNTIME = ("advantages", "clip", "old_log_probs")
Clip = float | tuple[float, float]


@dataclass(frozen=True)
class RatioKind(Kind):
    """One kind of ratio: its function and what the loss has to know of it."""

    depends_on_ratio: bool  # False if the value is the same whatever the policies are
    clips_itself: bool  # True if the clip acts on tokens inside the function instead of on the ratio

    def __call__(self, log_ratio_BT: Tensor, mask_BT: Tensor, **parameters: Any) -> Tensor:
        """The function's result, (B, T) with 0 where masked, or (B, 1)."""
        result = self.function(log_ratio_BT, mask_BT, **parameters)
        if result.shape == mask_BT.shape:
            return torch.where(mask_BT, result, 0.0)
        if result.shape == (len(mask_BT), 1):
            return result
        found = f"shape {tuple(result.shape)} for a mask of {tuple(mask_BT.shape)}"
        raise ValueError(f"ratio kind {self.name!r} gave {found}; its function must return (B, T) or (B, 1)")


RATIO_KINDS = Registry("ratio kind")


def ratio_kind(name: str, *, depends_on_ratio: bool = True, clips_itself: bool = False) -> Callable:
    """Register a function `f(log_ratio_BT, mask_BT, **parameters) -> (B, T) or (B, 1)` as the ratio kind `name`.

    `log_ratio_BT` is z, differentiable in the log-probabilities and 0 where `mask_BT` (bool) is False; what the result
    holds there is ignored. Keyword-only parameters, numbers, are those a method may set. Three come at run time if the
    function asks for them: `old_log_probs` and `advantages` (B, T), detached, 0 where masked; `clip`, the method's
    (low, high) or None. Raises ValueError if the name is taken.
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        fields = {"depends_on_ratio": depends_on_ratio, "clips_itself": clips_itself}
        RATIO_KINDS.add(name, RatioKind.of(name, function, RUNTIME, **fields))
        return function

    return register


def log_importance_ratio(
    kind: str, log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, **parameters: Any
) -> Tensor:
    """Log importance ratio of `kind`, differentiable in `log_probs` as the module's table says.

    log_probs, old_log_probs: (B, T) floating, natural logarithms, of the current and of the sampling policy; bfloat16
        and float16 are computed in float32. Gradients never flow into `old_log_probs`.
    mask: (B, T) bool or 0/1; True at the counted tokens of a response. Padding may lie anywhere.
    parameters: `process_variance`, `observation_variance`, `initial_variance` (kalman, ema-scheduled); `gain` (ema);
        `advantages` (B,) or (B, T), `clip` (kinds that ask for them, as `geometric_mean` does).

    Returns (B, T), 0 where mask is 0; (B, 1) for `sequence` and `geometric-mean`, 0 for a response without tokens.
    Raises ValueError or TypeError naming the argument.
    """
    chosen = RATIO_KINDS.find(kind)
    log_ratio_BT, mask_BT = token_log_ratio(log_probs, old_log_probs, mask)
    allowed = set(chosen.defaults) | (chosen.runtime - {"old_log_probs"})
    check_parameters(f"ratio kind {kind!r}", chosen.defaults, parameters, allowed)
    finite = {"log_probs": log_probs, "old_log_probs": old_log_probs}
    if parameters.get("advantages") is not None:
        finite["advantages"] = check_advantages(parameters["advantages"], mask_BT)
        parameters["advantages"] = torch.where(mask_BT, finite["advantages"], 0.0)
    check_finite(mask_BT, **finite)
    if "old_log_probs" in chosen.runtime:
        parameters["old_log_probs"] = counted(old_log_probs, mask_BT, log_ratio_BT.dtype)
    return chosen(log_ratio_BT, mask_BT, **parameters)


def counted(values: Tensor, mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """The values, detached, in `dtype`, 0 where the mask is False."""
    return torch.where(mask_BT, values.detach().to(dtype), 0.0)


def token_log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(z, mask as bool), both (B, T): z = log pi - sg[log pi_old] in at least float32, 0 where mask is 0."""
    mask_BT = check_token_tensors(mask, log_probs=log_probs, old_log_probs=old_log_probs)
    dtype = torch.promote_types(torch.promote_types(log_probs.dtype, old_log_probs.dtype), torch.float32)
    difference_BT = log_probs.to(dtype) - old_log_probs.detach().to(dtype)
    return torch.where(mask_BT, difference_BT, 0.0), mask_BT


def straight_through(value: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """`value` with the gradient of each token's own log-probability: sg[value] + z - sg[z]."""
    return value.detach() + (log_ratio_BT - log_ratio_BT.detach())


def sequence_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each row's counted tokens, shape (B, 1); 0 for a row without any. Values must be 0 where masked."""
    return values_BT.sum(dim=1, keepdim=True) / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)


@ratio_kind("token")
def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """z_t, each token by itself: GRPO (arXiv 2402.03300), PPO."""
    return log_ratio_BT


@ratio_kind("sequence")
def sequence(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log s = mean_t z_t, shape (B, 1), gradient through the mean: GSPO (arXiv 2507.18071, section 4)."""
    return sequence_mean(log_ratio_BT, mask_BT)


@ratio_kind("sequence-token")
def sequence_token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """GSPO-token (arXiv 2507.18071): s_t = sg[s] pi_t / sg[pi_t]; same value as `sequence` at every token."""
    return straight_through(sequence_mean(log_ratio_BT.detach(), mask_BT), log_ratio_BT)


@ratio_kind("geometric-mean", clips_itself=True)
def geometric_mean(
    log_ratio_BT: Tensor, mask_BT: Tensor, *, advantages: Tensor | None = None, clip: Clip | None = None
) -> Tensor:
    """log r = mean_t c_t, shape (B, 1): GMPO (arXiv 2507.20673).

    c_t = min(z_t, high) if the advantage is positive, max(z_t, -low) if it is negative, z_t if it is 0.

    advantages: (B, T), only their sign is used; clip: a bound in log space, or (low, high); None does not clip.
    """
    if clip is None:
        return sequence_mean(log_ratio_BT, mask_BT)
    if advantages is None:
        raise ValueError("advantages are missing: the clip goes by their sign; pass (B,) or (B, T), or clip=None")
    bounds = clip if isinstance(clip, (tuple, list)) else (clip, clip)
    if len(bounds) != 2:
        raise ValueError(f"clip must be one number or (low, high), found {len(bounds)} values")
    low, high = (check_real("clip", bound, minimum=0.0) for bound in bounds)
    clipped_BT = torch.where(advantages > 0, log_ratio_BT.clamp(max=high), log_ratio_BT)
    clipped_BT = torch.where(advantages < 0, log_ratio_BT.clamp(min=-low), clipped_BT)
    return sequence_mean(clipped_BT, mask_BT)


@ratio_kind("kalman")
def kalman(
    log_ratio_BT: Tensor, mask_BT: Tensor, *, process_variance: float, observation_variance: float,
    initial_variance: float = 0.0,
) -> Tensor:  # fmt: skip
    """rho_{t|t} of the random walk rho_t = rho_{t-1} + N(0, Q) seen as z_t = rho_t + N(0, V): KPO (arXiv 2602.10609).

    The filter starts at rho = 0 with variance `initial_variance` (0 as in the released loss) and sees detached values.
    """
    variances = {"process_variance": process_variance, "observation_variance": observation_variance}
    filtered_BT = kalman_filter(log_ratio_BT.detach(), mask_BT, **variances, initial_variance=initial_variance)
    return straight_through(filtered_BT, log_ratio_BT)


@ratio_kind("unit", depends_on_ratio=False)
def unit(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Ratio exactly 1: no importance correction at all, the limit of KPO for Q = 0 (control)."""
    return straight_through(torch.zeros_like(log_ratio_BT), log_ratio_BT)


@ratio_kind("ema")
def ema(log_ratio_BT: Tensor, mask_BT: Tensor, *, gain: float) -> Tensor:
    """Exponential moving average from 0, constant gain in [0, 1] (control; KPO's filter once its gain is steady)."""
    check_real("gain", gain, minimum=0.0, maximum=1.0)
    filtered_BT = linear_filter(log_ratio_BT.detach(), gain, mask_BT)
    return straight_through(filtered_BT, log_ratio_BT)


@ratio_kind("ema-scheduled")
def ema_scheduled(
    log_ratio_BT: Tensor, mask_BT: Tensor, *, process_variance: float, observation_variance: float,
    initial_variance: float = 0.0,
) -> Tensor:  # fmt: skip
    """Exponential moving average whose gain at the t-th counted token is K_t, so this must equal `kalman` (control)."""
    gains_T, _ = kalman_gains(log_ratio_BT.shape[1], process_variance, observation_variance, initial_variance)
    filtered_BT = linear_filter(log_ratio_BT.detach(), gains_T.to(log_ratio_BT.device), mask_BT)
    return straight_through(filtered_BT, log_ratio_BT)
