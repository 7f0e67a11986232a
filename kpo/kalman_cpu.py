"""The filter on a CPU, and the pass over the data that its likelihood needs, compiled by Numba.

    m_n = (1 - k_n) m_{n-1} + k_n z_n    at a row's n-th observed token; elsewhere the state is carried over

in float64 and in the order of the tokens, so a row's values cannot depend on its neighbours, its padding or its holes.
Numba keeps the order of operations and fuses none, so that all processors agree to the bit. A kernel is compiled when a
dtype is first met, which takes about half a second.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

compiled = numba.njit(nogil=True)


@compiled
def _row_of(mask, row):
    # Numba compiles kernels of their own for a mask that is None, without these questions.
    if mask is None:
        return None
    return mask[row]


@compiled
def _is_observed(mask, t):
    if mask is None:
        return True
    return mask[t] != 0


@compiled
def _step(state, seen, gains, value, observed):
    """State, number of observed tokens and output after a token, by selections, not by branches hard to predict."""
    gain = gains[seen]
    updated = (1.0 - gain) * state + gain * value
    return (updated if observed else state), seen + observed, (updated if observed else 0.0)


@compiled
def _filter(values, mask, gains, initial_mean, result):
    """Fills the result; returns the sum of the last states, which is finite only if every observed value is."""
    num_rows, num_tokens = values.shape
    last = num_rows - 1
    total = 0.0
    # Four rows at once, because one would wait for the latency of each addition.
    for a in range(0, num_rows, 4):
        # If fewer than four rows are left, the last one is filtered again, to the same bits.
        b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
        values_a, values_b, values_c, values_d = values[a], values[b], values[c], values[d]
        mask_a, mask_b, mask_c, mask_d = _row_of(mask, a), _row_of(mask, b), _row_of(mask, c), _row_of(mask, d)
        result_a, result_b, result_c, result_d = result[a], result[b], result[c], result[d]
        state_a = state_b = state_c = state_d = initial_mean
        seen_a = seen_b = seen_c = seen_d = 0
        for t in range(num_tokens):
            state_a, seen_a, result_a[t] = _step(state_a, seen_a, gains, values_a[t], _is_observed(mask_a, t))
            state_b, seen_b, result_b[t] = _step(state_b, seen_b, gains, values_b[t], _is_observed(mask_b, t))
            state_c, seen_c, result_c[t] = _step(state_c, seen_c, gains, values_c[t], _is_observed(mask_c, t))
            state_d, seen_d, result_d[t] = _step(state_d, seen_d, gains, values_d[t], _is_observed(mask_d, t))
        total += state_a + state_b + state_c + state_d
    return total


@compiled
def _transpose(gradient, mask, gains, result):
    num_rows, num_tokens = gradient.shape
    for row in range(num_rows):
        gradient_T, mask_T, result_T = gradient[row], _row_of(mask, row), result[row]
        num_observed = 0
        for t in range(num_tokens):
            num_observed += _is_observed(mask_T, t)
        carried = decay = 0.0
        for t in range(num_tokens - 1, -1, -1):
            if _is_observed(mask_T, t):
                num_observed -= 1
                gain = gains[num_observed]
                carried = gradient_T[t] + decay * carried
                decay = 1.0 - gain
                result_T[t] = gain * carried
            else:
                result_T[t] = 0.0


@compiled
def innovation_squares(rows, observed, gains, precisions, initial_mean, scale):
    """Sums over each row's observed tokens of (innovation scale)^2 precision, for many models at once, (B, M).

    rows: (B, T) float64. observed: (B, T) bool. gains, precisions: (T, M), of M filters at a row's n-th observed token.
    """
    num_rows, num_tokens = rows.shape
    num_models = gains.shape[1]
    squares = np.zeros((num_rows, num_models))
    mean = np.empty(num_models)
    for row in range(num_rows):
        squares_M = squares[row]
        mean[:] = 0.0
        seen = 0
        for t in range(num_tokens):
            if observed[row, t]:
                value = (rows[row, t] - initial_mean) * scale
                gain, precision = gains[seen], precisions[seen]
                # Models are independent of each other, so a processor takes several at once.
                for m in range(num_models):
                    innovation = value - mean[m]
                    mean[m] = (1.0 - gain[m]) * mean[m] + gain[m] * value
                    squares_M[m] += innovation * (precision[m] * innovation)
                seen += 1
    return squares


def filter_rows_cpu(observations: Tensor, mask: Tensor | None, gains: Tensor, initial_mean: float):
    """Filtered means (B, T), and whether every observed value was finite (False also if a sum of rows overflows).

    observations: (B, T) floating. mask: (B, T) uint8 0 / 1, or None, on any device. gains: at least T, float64.
    """
    rows, result = _rows_and_result(observations)
    total = _filter(rows.numpy(), _as_numpy(mask), gains.numpy(), initial_mean, result.numpy())
    return result.to(observations.dtype), math.isfinite(total)


def transpose_rows_cpu(gradient: Tensor, mask: Tensor | None, gains: Tensor) -> Tensor:
    """The transpose of the filter as a linear map: k_n l_n with l_n = g_n + (1 - k_{n+1}) l_{n+1}; 0 where masked."""
    rows, result = _rows_and_result(gradient)
    _transpose(rows.numpy(), _as_numpy(mask), gains.numpy(), result.numpy())
    return result.to(gradient.dtype)


def _rows_and_result(values: Tensor) -> tuple[Tensor, Tensor]:
    """The values as NumPy knows them, float32 for the half types, and room for as many."""
    dtype = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32
    rows = values.detach().to(dtype).contiguous()
    return rows, torch.empty_like(rows)


def _as_numpy(mask: Tensor | None):
    return None if mask is None else mask.cpu().contiguous().numpy()
