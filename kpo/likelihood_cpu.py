"""The pass over the data that the filter's likelihood needs, compiled by Numba: many models at once."""

import numpy as np

from kpo.kalman_cpu import compiled


@compiled
def innovation_squares(rows, observed, gains, precisions, initial_mean, scale):
    """Sums over each row's observed tokens of (innovation scale)^2 precision, (B, M).

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
