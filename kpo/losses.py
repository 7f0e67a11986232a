"""Ratio times advantage to the clipped, aggregated policy loss: one function for every method.

For counted token t of response i, with ratio r and advantage A (`kpo.ratios`, `kpo.advantages`):

    clipped     l_t = max(-A r_t, -A clip(r_t, 1 - low, 1 + high))
    unclipped   l_t = -A r_t      (also GMPO, whose ratio has been clipped already)
    weighted    w_t l_t  if the sampler's importance weights w are given, as in TRL and verl
    KL          l_t + weight k_t, k_t = exp(d_t) - d_t - 1 with d_t = log pi_ref - log pi   (k3, Schulman 2020)

Both exponentials are bounded: log r and d count as at most 10, beyond which their gradient is 0. The bound on log r is
that of KPO's release and of verl's GSPO. verl clips d to 20 and k to 10; TRL has no bound.

and the aggregations, with B sequences of n_i counted tokens:

    seq-mean-token-mean      1/B sum_i 1/n_i sum_t l_t
    token-mean               sum_i sum_t l_t / sum_i n_i
    seq-mean-token-sum-norm  1/(B L) sum_i sum_t l_t, L the method's `aggregation_length`

A response without tokens counts as a sequence and adds nothing. Given the totals of the whole minibatch, the losses of
its micro-batches add up to the loss of the whole, and so do the gradients.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kpo.checks import check_advantages, check_finite, check_integer, check_sampler_weights, check_token_tensors, known
from kpo.methods import AGGREGATIONS, Method, get_method
from kpo.ratios import RATIO_KINDS, counted, sequence_mean, token_log_ratio

__all__ = ["PolicyLoss", "aggregate", "merge_metrics", "policy_loss"]

# exp(10) = 22,026. Without a bound an overflow to infinity turns the gradient of the clipped branch into 0 * inf = NaN.
MAX_LOG_RATIO = 10.0
# verl adds it to the sampler's weights before their geometric mean, so that a weight of 0 has a logarithm.
WEIGHT_EPSILON = 1e-10


@dataclass(frozen=True)
class PolicyLoss:
    """A loss to minimise, scalar and differentiable, and sums from which its metrics follow (see `merge_metrics`)."""

    loss: Tensor
    sums: Tensor  # of `_SUMS`; float64, detached, on the device; `metrics` brings them to the CPU
    clipped: Tensor | None = None  # (B, T) bool: the counted tokens of `clip_share`; None if the method does not clip

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        return merge_metrics([self])


_SUMS = ("tokens", "log_ratio", "log_ratio_squared", "clipped", "ratio", "ratio_squared", "kl", "log_ratio_abs_max")


def merge_metrics(parts: Iterable[PolicyLoss]) -> dict[str, float]:
    """Metrics over the counted tokens of several micro-batches together, exactly those of one undivided batch.

    clip_share: share of tokens whose clipped term is the larger loss (for GMPO whose log ratio was cut).
    log_ratio_std (divisor n), log_ratio_abs_max: of the raw token log ratio log pi - log pi_old, in nats.
    effective_sample_size, mean_ratio: (sum r)^2 / (n sum r^2), in (0, 1], and the mean of r, the ratio used at each
        token, before the two-sided clip.
    kl: mean k3 estimate of KL(pi || pi_ref) in nats per token; only with reference log-probabilities.
    All are NaN if no token counts. Reading them waits for the device.
    """
    rows = torch.stack([part.sums for part in parts])
    sums = dict(zip(_SUMS, torch.cat([rows[:, :-1].sum(dim=0), rows[:, -1:].amax(dim=0)]).tolist(), strict=True))
    tokens = sums["tokens"] or math.nan
    mean = sums["log_ratio"] / tokens
    variance = sums["log_ratio_squared"] / tokens - mean * mean  # `mean**2` raises where the product is infinite
    metrics = {
        "clip_share": sums["clipped"] / tokens,
        # Rounding can leave a constant's variance just below 0; a NaN passes both.
        "log_ratio_std": 0.0 if variance < 0 else math.sqrt(variance),
        "log_ratio_abs_max": sums["log_ratio_abs_max"] if sums["tokens"] else math.nan,
        "effective_sample_size": min(sums["ratio"] ** 2 / (tokens * (sums["ratio_squared"] or math.nan)), 1.0),
        "mean_ratio": sums["ratio"] / tokens,
    }
    if not math.isnan(sums["kl"]):
        metrics["kl"] = sums["kl"] / tokens
    return metrics


def policy_loss(
    method: str | Method,
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ref_log_probs: Tensor | None = None,
    *,
    sampler_weights: Tensor | None = None,
    num_sequences: int | None = None,
    num_tokens: int | None = None,
) -> PolicyLoss:
    """Loss of `method` (a name or a `Method`) for one batch or micro-batch, with metrics.

    log_probs, old_log_probs: (B, T) floating, natural logarithms of the sampled tokens' probabilities under the current
        and the sampling policy; only `log_probs` gets a gradient. Half precision is computed in float32.
    advantages: (B,) or (B, T) floating. mask: (B, T) bool or 0/1, True at the counted tokens of the responses.
    ref_log_probs: (B, T), of the reference policy; needed if the method has a KL weight, else only for the metric `kl`.
    sampler_weights: (B, T) or (B, 1), not negative: importance weights pi_old / pi_sampler, truncated or masked by the
        trainer (`importance_sampling_ratio` in TRL, `rollout_is_weights` in verl). They multiply the clipped loss, not
        the KL term. For GMPO each response has their geometric mean, as in verl (TRL's GMPO trainer ignores them).
    num_sequences, num_tokens: rows and counted tokens of the whole minibatch of which this is a part; default: those of
        this batch.

    What masked positions hold does not matter, NaN included. Raises ValueError or TypeError naming the argument:
    shapes, dtypes or devices that do not fit, missing `ref_log_probs`, and as `aggregate`; `kpo.checks.NonFiniteError`
    for NaN or infinities at counted tokens.
    """
    method = method if isinstance(method, Method) else get_method(method)
    log_ratio_BT, mask_BT = token_log_ratio(log_probs, old_log_probs, mask)
    advantages_BT = check_advantages(advantages, mask_BT)
    finite = {"log_probs": log_probs, "old_log_probs": old_log_probs, "advantages": advantages_BT}
    if ref_log_probs is not None:
        check_token_tensors(mask, ref_log_probs=ref_log_probs)
        finite["ref_log_probs"] = ref_log_probs
    elif method.kl_weight > 0:
        weight = f"{method.name} has kl_weight {method.kl_weight}"
        raise ValueError(f"ref_log_probs are missing: {weight}; pass them, or set it to 0")
    check_finite(mask_BT, **finite)
    # A masked position of per-token advantages may hold anything, so it must not meet arithmetic.
    advantages_BT = torch.where(mask_BT, advantages_BT.to(log_ratio_BT.dtype), 0.0)

    kind, clip = RATIO_KINDS.find(method.ratio), method.clip
    runtime: dict[str, Any] = {"advantages": advantages_BT, "clip": clip}
    if "old_log_probs" in kind.runtime:
        runtime["old_log_probs"] = counted(old_log_probs, mask_BT, log_ratio_BT.dtype)
    runtime = {name: value for name, value in runtime.items() if name in kind.runtime}
    log_used = kind(log_ratio_BT, mask_BT, **runtime, **method.ratio_parameters)
    ratio = torch.exp(log_used.clamp(max=MAX_LOG_RATIO))

    losses_BT = -advantages_BT * ratio
    clipped_BT = None
    if clip is not None and kind.clips_itself:
        too_high_BT = (advantages_BT > 0) & (log_ratio_BT > clip[1])
        clipped_BT = too_high_BT | ((advantages_BT < 0) & (log_ratio_BT < -clip[0]))
    elif clip is not None:
        bounded_BT = -advantages_BT * ratio.clamp(1.0 - clip[0], 1.0 + clip[1])
        clipped_BT = bounded_BT > losses_BT
        losses_BT = torch.maximum(losses_BT, bounded_BT)
    if sampler_weights is not None:
        weights_BT = counted(check_sampler_weights(sampler_weights, mask_BT), mask_BT, log_ratio_BT.dtype)
        if kind.clips_itself:
            log_weights_BT = torch.where(mask_BT, (weights_BT + WEIGHT_EPSILON).log(), 0.0)
            weights_BT = sequence_mean(log_weights_BT, mask_BT).exp()
        losses_BT = losses_BT * weights_BT

    kl_BT = None
    if ref_log_probs is not None:
        kl_BT = _kl_k3(log_probs, ref_log_probs, mask_BT, log_ratio_BT.dtype)
        if method.kl_weight > 0:
            losses_BT = losses_BT + method.kl_weight * kl_BT
    totals = {"num_sequences": num_sequences, "num_tokens": num_tokens}
    loss = aggregate(method.aggregation, losses_BT, mask_BT, **totals, length=method.aggregation_length)
    return PolicyLoss(loss, _sums(log_ratio_BT, ratio, clipped_BT, kl_BT, mask_BT), clipped_BT)


def aggregate(
    kind: str,
    values: Tensor,
    mask: Tensor,
    *,
    num_sequences: int | None = None,
    num_tokens: int | None = None,
    length: int | None = None,
) -> Tensor:
    """One number from values (B, T), by the aggregation `kind` of the module's table; masked values are ignored.

    num_sequences, num_tokens: totals used for B and the counted tokens, so that parts of a batch add up.
    length: L of `seq-mean-token-sum-norm`, in tokens; a constant of the run, such as the longest response allowed.
    Raises TypeError or ValueError for wrong tensors, an unknown kind, a missing length, totals smaller than this part,
    and no counted token without both totals.
    """
    known("aggregation", kind, AGGREGATIONS)
    mask_BT = check_token_tensors(mask, values=values)
    tokens_B = mask_BT.sum(dim=1)
    rows, counted = mask_BT.shape[0], int(tokens_B.sum())
    if counted == 0 and (num_sequences is None or num_tokens is None):
        remedy = "leave the batch out, or pass num_sequences and num_tokens of the whole minibatch"
        raise ValueError(f"mask counts no token, so there is nothing to learn from; {remedy}")
    if num_sequences is not None and check_integer("num_sequences", num_sequences, minimum=1) < rows:
        raise ValueError(f"num_sequences {num_sequences} is below this part's {rows} rows; pass the minibatch's total")
    if num_tokens is not None and check_integer("num_tokens", num_tokens, minimum=0) < counted:
        raise ValueError(f"num_tokens {num_tokens} is below this part's {counted}; pass the minibatch's total")
    sequences = rows if num_sequences is None else num_sequences
    values_BT = torch.where(mask_BT, values, 0.0)
    if kind == "seq-mean-token-mean":
        return (values_BT.sum(dim=1) / tokens_B.clamp(min=1)).sum() / sequences
    if kind == "token-mean":
        return values_BT.sum() / max(counted if num_tokens is None else num_tokens, 1)
    if length is None:
        raise ValueError("length is missing: seq-mean-token-sum-norm divides by it; give the longest response")
    return values_BT.sum() / (sequences * check_integer("length", length, minimum=1))


def _kl_k3(log_probs: Tensor, ref_log_probs: Tensor, mask_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(d) - d - 1 with d = log pi_ref - log pi, at most `MAX_LOG_RATIO`; 0 where masked."""
    difference_BT = torch.where(mask_BT, ref_log_probs.detach().to(dtype) - log_probs.to(dtype), 0.0)
    difference_BT = difference_BT.clamp(max=MAX_LOG_RATIO)
    # expm1, since exp(d) - d - 1 is d^2 / 2: in float32 its rounding would be all that is left of d = 1e-4.
    return torch.expm1(difference_BT) - difference_BT


@torch.no_grad()
def _sums(log_ratio_BT: Tensor, ratio: Tensor, clipped_BT: Tensor | None, kl_BT: Tensor | None, mask_BT: Tensor):
    """The entries of `_SUMS` over counted tokens; kl is NaN without a reference."""
    # Squares in float64: in float32 they overflow, and give equal ratios an effective sample size just off 1.
    ratio_BT = torch.where(mask_BT, ratio.detach().double(), 0.0)
    log_ratio_BT = log_ratio_BT.double()
    clipped = ratio_BT.new_zeros(()) if clipped_BT is None else clipped_BT.sum()
    kl = ratio_BT.new_full((), math.nan) if kl_BT is None else kl_BT.sum(dtype=torch.float64)
    sums = [mask_BT.sum(), log_ratio_BT.sum(), log_ratio_BT.square().sum(), clipped]
    sums += [ratio_BT.sum(), ratio_BT.square().sum(), kl, log_ratio_BT.abs().amax()]
    return torch.stack([value.double() for value in sums])
