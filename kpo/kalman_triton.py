"""The filter on a CUDA device: one Triton program a row, an associative scan over blocks of tokens.

    m_t = d_t m_{t-1} + f_t z_t

with d_t = 1 - k_n and f_t = k_n at the row's n-th observed token, d_t = 1 and f_t = 0 elsewhere. Pairs (d, f z) compose
as (d1, s1) then (d2, s2) -> (d1 d2, d2 s1 + s2), which is associative; a masked token is the identity. All in float64.

The order of the operations depends on a token's place in its row: results have the same bits in any batch and
with more padding on the right; under other masks, and against the CPU, they agree within the rounding of the dtype.

Imported only if Triton is installed. With `TRITON_INTERPRET=1` set before the import the same code runs on the CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Tokens per scan, whatever the width of the batch, so that padding does not change the order of operations.
BLOCK = 1024
NUM_WARPS = 4


@triton.jit
def _compose(decay_before, sum_before, decay, total):
    return decay_before * decay, decay * sum_before + total


@triton.jit
def _filter_kernel(
    observations, mask, gains, result, not_finite, initial_mean, num_tokens, observation_stride,
    HAS_MASK: tl.constexpr, ROUND_TO_FLOAT32: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    observations += row * observation_stride
    mask += row * num_tokens
    result += row * num_tokens
    offsets = tl.arange(0, BLOCK)
    is_last = offsets == BLOCK - 1
    state = tl.load(initial_mean)
    num_seen = 0
    num_wrong = 0
    for start in range(0, num_tokens, BLOCK):
        tokens = start + offsets
        inside = tokens < num_tokens
        if HAS_MASK:
            observed = tl.load(mask + tokens, mask=inside, other=0) != 0
            number = num_seen + tl.cumsum(observed.to(tl.int32), axis=0) - 1
            num_seen += tl.sum(observed.to(tl.int32), axis=0)
        else:
            observed = inside
            number = tokens
        # A masked place may hold anything, so it is not even read.
        values = tl.load(observations + tokens, mask=observed, other=0.0)
        if ROUND_TO_FLOAT32:
            values = values.to(tl.float32)
        values = values.to(tl.float64)
        gain = tl.load(gains + number, mask=observed, other=0.0)
        # NaN and the infinities are the numbers whose difference from themselves is not 0.
        num_wrong += tl.sum(((values - values) != 0).to(tl.int32), axis=0)
        decay, total = tl.associative_scan((1.0 - gain, gain * values), 0, _compose)
        states = decay * state + total
        filtered = tl.where(observed, states, 0.0)
        if ROUND_TO_FLOAT32:
            filtered = filtered.to(tl.float32)
        tl.store(result + tokens, filtered.to(result.dtype.element_ty), mask=inside)
        state = tl.sum(tl.where(is_last, states, 0.0), axis=0)
    if num_wrong > 0:
        tl.store(not_finite, 1)


def filter_rows_triton(observations: Tensor, mask: Tensor | None, gains: Tensor, initial_mean: float):
    """Filtered means (B, T) and whether every observed value was finite; arguments as for the CPU, on one device."""
    num_rows, num_tokens = observations.shape
    if observations.stride(1) != 1:
        observations = observations.contiguous()
    result = torch.empty_like(observations, memory_format=torch.contiguous_format)
    not_finite = torch.zeros(1, dtype=torch.int32, device=observations.device)
    start = torch.full((1,), initial_mean, dtype=torch.float64, device=observations.device)
    tensors = (observations, result if mask is None else mask.contiguous(), gains, result, not_finite, start)
    # Half types convert to and from float32 only.
    constants = {"HAS_MASK": mask is not None, "ROUND_TO_FLOAT32": observations.dtype != torch.float64, "BLOCK": BLOCK}
    with torch.cuda.device_of(observations):
        _filter_kernel[(num_rows,)](*tensors, num_tokens, observations.stride(0), **constants, num_warps=NUM_WARPS)
    return result, not bool(not_finite.item())
