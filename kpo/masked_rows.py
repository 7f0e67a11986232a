"""Checks of observations and masks for the filters, and gains applied to the observed tokens of each row.

A row's observed tokens are numbered 1, 2, .. whatever lies between them; the n-th meets the n-th gain.
"""

from __future__ import annotations

import importlib.util

import torch

FLOATING_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
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


def gains_device(device: torch.device) -> torch.device:
    """Where observations on `device` are filtered, and where their gains have to be."""
    return device if device.type == "cuda" and HAS_TRITON else torch.device("cpu")


def filter_rows(
    observations: torch.Tensor, mask: torch.Tensor | None, gains: torch.Tensor, initial_mean: float
) -> torch.Tensor:
    """m_n = m_{n-1} + k_n (z_n - m_{n-1}) over the observed tokens of each row; 0 elsewhere. Differentiable.

    mask as `check_mask` returns it; gains: at least T, float64, on the `gains_device`. ValueError where an observed
    value is not finite.
    """
    if observations.requires_grad and torch.is_grad_enabled():
        return _RowMap.apply(observations, mask, gains, initial_mean, False)
    return _filter(observations.detach(), mask, gains, initial_mean)


def filter_packed_rows(
    observations: torch.Tensor, lengths: torch.Tensor, gains: torch.Tensor, initial_mean: float
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
        rows = filter_rows(observations[index], observed.view(torch.uint8), gains, initial_mean)
        filtered.append(rows[observed])
        positions.append(index[observed])
    return torch.zeros_like(observations).scatter(0, torch.cat(positions), torch.cat(filtered))


class _RowMap(torch.autograd.Function):
    """The filter as a linear map of the observations; its gradient is the transposed map, and so on."""

    @staticmethod
    def forward(ctx, values, mask, gains, initial_mean, transposed):
        ctx.mask, ctx.gains, ctx.transposed = mask, gains, transposed
        if transposed:
            from kpo.kalman_cpu import transpose_rows_cpu

            # Few ask for it, and copies to the CPU and back are small beside any training step.
            return transpose_rows_cpu(values.cpu(), _on_cpu(mask), gains.cpu()).to(values.device)
        return _filter(values, mask, gains, initial_mean)

    @staticmethod
    def backward(ctx, gradient):
        return _RowMap.apply(gradient, ctx.mask, ctx.gains, 0.0, not ctx.transposed), None, None, None, None


def _filter(
    observations: torch.Tensor, mask: torch.Tensor | None, gains: torch.Tensor, initial_mean: float
) -> torch.Tensor:
    # Whoever takes the losses alone does not wait for a compiler to be imported, nor need it.
    if gains.device.type == "cuda":
        from kpo.kalman_triton import filter_rows_triton

        result, finite = filter_rows_triton(observations, mask, gains, initial_mean)
    else:
        from kpo.kalman_cpu import filter_rows_cpu

        result, finite = filter_rows_cpu(observations.cpu(), _on_cpu(mask), gains, initial_mean)
        result = result.to(observations.device)
    if not finite:
        # Sums of float64 values near the largest number raise this alarm as well, and are then found to be no fault.
        refuse_not_finite(observations, mask)
    return result


def _on_cpu(mask: torch.Tensor | None) -> torch.Tensor | None:
    return None if mask is None else mask.cpu()


def refuse_not_finite(observations: torch.Tensor, mask: torch.Tensor | None) -> None:
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
