"""Checks of observations and masks for the filters, and a gain schedule applied to the observed tokens of each row.

A row's observed tokens are numbered 1, 2, .. whatever lies between them; the t-th meets the t-th gain. Where they
already stand first in the row (no mask, or padding on the right only) nothing is moved, because a causal filter carries
nothing from the padding back; otherwise they are moved together, filtered, and moved back.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch

from kpo.linear_recurrence import GainSchedule

FLOATING_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}
HAS_TRITON = importlib.util.find_spec("triton") is not None


def check_rows(name: str, values: torch.Tensor, *, num_dimensions: int = 2, floating: bool = True) -> None:
    """TypeError or ValueError unless `values` is a real tensor with that many dimensions and at least one element."""
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, found {type(values).__name__}")
    if floating and values.dtype not in FLOATING_DTYPES:
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, found {values.dtype}; convert it")
    if values.is_complex():
        raise TypeError(f"{name} must be real, found {values.dtype}")
    if values.dim() != num_dimensions:
        expected = "(B, T)" if num_dimensions == 2 else "(N,)"
        raise ValueError(f"{name} must have shape {expected}, found {tuple(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(values.shape)}; pass at least one row of one element")


def check_mask(mask: torch.Tensor | None, values: torch.Tensor, like: str = "observations") -> torch.Tensor | None:
    """The mask as uint8 0 / 1, or None if it is known to be 1 everywhere."""
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask must be a torch tensor or None, found {type(mask).__name__}")
    if mask.shape != values.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, {like} {tuple(values.shape)}; they must be equal")
    if mask.device != values.device:
        raise ValueError(f"mask is on {mask.device}, {like} on {values.device}; move them to one device")
    if mask.dtype == torch.bool:
        binary = mask.view(torch.uint8)
    else:
        if mask.is_complex():
            raise TypeError(f"mask must be bool or hold 0 and 1, found {mask.dtype}")
        binary = mask.to(torch.uint8)
        within = not bool(mask.amin() < 0) and not bool(mask.amax() > 1)
        if not within or (mask.is_floating_point() and not torch.equal(binary.to(mask.dtype), mask)):
            raise ValueError("mask must hold only 0 and 1 (or be bool); weights per token are not supported")
    # On a CUDA device the question would wait for the device, and the kernel does not need the answer.
    if binary.device.type == "cpu" and bool(binary.amin()):
        return None
    return binary


def check_lengths(cumulative_lengths: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
    """Sequence lengths (B,), int64 on the CPU, from cumulative lengths (B + 1,)."""
    name = "cumulative_lengths"
    if not isinstance(cumulative_lengths, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor of integers, found {type(cumulative_lengths).__name__}")
    if cumulative_lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be int32 or int64, found {cumulative_lengths.dtype}")
    if cumulative_lengths.dim() != 1 or cumulative_lengths.numel() < 2:
        raise ValueError(f"{name} must have shape (B + 1,) with B >= 1, found {tuple(cumulative_lengths.shape)}")
    bounds = cumulative_lengths.to("cpu", torch.int64)
    lengths = bounds.diff()
    if bounds[0] != 0 or bounds[-1] != observations.numel() or bool((lengths < 0).any()):
        raise ValueError(
            f"{name} must rise from 0 to the number of observations, {observations.numel()}, and never fall; "
            f"found first {int(bounds[0])}, last {int(bounds[-1])}, smallest step {int(lengths.min())}"
        )
    return lengths


def filter_rows(
    observations: torch.Tensor, mask: torch.Tensor | None, schedule: GainSchedule, initial_mean: float
) -> torch.Tensor:
    """m_t = m_{t-1} + k_t (z_t - m_{t-1}) over the observed tokens of each row; 0 elsewhere. Differentiable.

    mask as `check_mask` returns it. ValueError where an observed value is not finite.
    """
    if observations.requires_grad and torch.is_grad_enabled():
        return _RowMap.apply(observations, mask, schedule, initial_mean, False)
    return _filter(observations.detach(), mask, schedule, initial_mean)


def filter_packed_rows(
    observations: torch.Tensor, lengths: torch.Tensor, schedule: GainSchedule, initial_mean: float
) -> torch.Tensor:
    """`filter_rows` over sequences of the given lengths that lie end to end."""
    if not bool(torch.isfinite(observations).all()):
        raise ValueError("observations holds NaN or an infinity; pack observed tokens only")
    starts = lengths.cumsum(0) - lengths
    # Sequences of like length are padded together, so that padding at most doubles the work however lengths differ.
    bucket = torch.frexp(lengths.double()).exponent
    filtered, positions = [], []
    for value in bucket[lengths > 0].unique().tolist():
        members = (bucket == value) & (lengths > 0)
        steps = torch.arange(int(lengths[members].max()))
        observed = steps < lengths[members, None]
        # Beyond its end a row repeats its neighbour's tokens; they are padding to it.
        index = (starts[members, None] + steps).clamp(max=observations.numel() - 1)
        index, observed = index.to(observations.device), observed.to(observations.device)
        rows = filter_rows(observations[index], observed.view(torch.uint8), schedule, initial_mean)
        filtered.append(rows[observed])
        positions.append(index[observed])
    return torch.zeros_like(observations).scatter(0, torch.cat(positions), torch.cat(filtered))


class _RowMap(torch.autograd.Function):
    """The filter as a linear map of the observations; its gradient is the transposed map, and so on."""

    @staticmethod
    def forward(ctx, values, mask, schedule, initial_mean, transposed):
        ctx.mask, ctx.schedule, ctx.transposed = mask, schedule, transposed
        if transposed:
            return _apply_transposed(values, mask, schedule)
        return _filter(values, mask, schedule, initial_mean)

    @staticmethod
    def backward(ctx, gradient):
        return _RowMap.apply(gradient, ctx.mask, ctx.schedule, 0.0, not ctx.transposed), None, None, None, None


def _filter(
    observations: torch.Tensor, mask: torch.Tensor | None, schedule: GainSchedule, initial_mean: float
) -> torch.Tensor:
    if observations.is_cuda and HAS_TRITON:
        from kpo.kalman_triton import filter_rows_triton

        result, finite = filter_rows_triton(observations, mask, schedule.gains, initial_mean)
        if not finite:
            _refuse_not_finite(observations, mask)
        return result

    finite = True

    def states(rows: torch.Tensor) -> torch.Tensor:
        nonlocal finite
        result, finite = schedule.filter(rows, initial_mean)
        return result

    result = _over_observed(observations, mask, states)
    if not finite:
        # Padding that is not finite raises this alarm as well, and is then found to be no fault.
        _refuse_not_finite(observations, mask)
        if not bool(torch.isfinite(result).all()):
            raise ValueError("observations are so large that their float64 sums overflow; scale them down")
    return result


def _refuse_not_finite(observations: torch.Tensor, mask: torch.Tensor | None) -> None:
    wrong = ~torch.isfinite(observations)
    if mask is not None:
        wrong &= mask.bool()
    places = wrong.nonzero()
    if len(places):
        row, token = places[0].tolist()
        raise ValueError(
            f"observations holds {observations[row, token].item()} at row {row}, token {token}, and {len(places)} such "
            "values in all, where the mask is 1; mask them out or look for a diverged update"
        )


def _apply_transposed(gradient: torch.Tensor, mask: torch.Tensor | None, schedule: GainSchedule) -> torch.Tensor:
    if mask is not None:
        gradient = gradient.masked_fill(mask == 0, 0.0)
    return _over_observed(gradient, mask, schedule.transposed)


def _over_observed(
    values: torch.Tensor, mask: torch.Tensor | None, apply: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`apply` to rows in which the observed values stand first; 0 where the mask is 0."""
    if mask is None:
        return apply(values)
    if _observed_first(mask):
        return _zero_where_masked(apply(values), mask)
    lengths = mask.sum(dim=1)
    width = int(lengths.max())
    sources = _positions(mask)
    # The n-th observed token of all stands in row b at b * width + n - (number observed in the rows before).
    shifts = torch.arange(len(lengths), device=values.device) * width - (lengths.cumsum(0) - lengths)
    targets = torch.arange(len(sources), device=values.device) + shifts.repeat_interleave(lengths)
    rows = values.new_zeros(len(lengths) * width).scatter_(0, targets, values.reshape(-1).index_select(0, sources))
    filtered = apply(rows.view(-1, width)).view(-1).index_select(0, targets)
    return values.new_zeros(values.numel()).scatter_(0, sources, filtered).view(values.shape)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Where the flattened mask is 1."""
    if mask.device.type == "cpu":
        # Six times faster than torch.nonzero.
        return torch.from_numpy(np.flatnonzero(mask.reshape(-1).view(torch.bool).numpy()))
    return mask.reshape(-1).nonzero()[:, 0]


def _observed_first(mask: torch.Tensor) -> bool:
    """Whether no observed token follows a masked one."""
    if mask.shape[1] == 1:
        return True
    return not bool((mask[:, 1:] > mask[:, :-1]).view(torch.uint8).amax())


def _zero_where_masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    # A bitwise and with 0 or all ones: several times faster than torch.where, and it clears NaN as well.
    integer = INTEGER_OF_SIZE[values.element_size()]
    values.view(integer).bitwise_and_(mask.view(torch.int8).neg().to(integer))
    return values
