"""The pass over the data that the filter's likelihood needs, compiled by Numba: many models side by side."""

from __future__ import annotations

import numpy as np
import torch

from kpo.kalman_cpu import _as_numpy, _is_observed, _row_of, compiled


@compiled
def _squares(values, mask, gains, precisions, initial_mean, scale, squares, counts):
    num_rows, num_tokens = values.shape
    num_models = gains.shape[1]
    mean = np.empty(num_models)
    for row in range(num_rows):
        mask_T, squares_M = _row_of(mask, row), squares[row]
        mean[:] = 0.0
        seen = 0
        for t in range(num_tokens):
            if _is_observed(mask_T, t):
                value = (values[row, t] - initial_mean) * scale
                gain, precision = gains[seen], precisions[seen]
                # Models are independent of each other, so a processor takes several at once.
                for m in range(num_models):
                    innovation = value - mean[m]
                    mean[m] = (1.0 - gain[m]) * mean[m] + gain[m] * value
                    squares_M[m] += innovation * (precision[m] * innovation)
                seen += 1
        counts[row] = seen


def innovation_squares(
    observations: torch.Tensor,
    mask: torch.Tensor | None,
    gains: np.ndarray,
    precisions: np.ndarray,
    initial_mean: float = 0.0,
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over each row's observed tokens of (innovation scale)^2 precision, (B, M), and their number, (B,).

    observations, mask: (B, T) on the CPU, float32 or float64, as `kpo.likelihood` checks them.
    gains, precisions: (T, M) float64, those of M filters at a row's n-th observed token.
    """
    rows = observations.numpy()
    squares = np.zeros((len(rows), gains.shape[1]))
    counts = np.zeros(len(rows), dtype=np.int64)
    _squares(rows, _as_numpy(mask), gains, precisions, initial_mean, scale, squares, counts)
    return squares, counts
