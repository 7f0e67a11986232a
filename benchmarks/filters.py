"""The filters that `benchmarks.filter` compares: a yardstick, the plain loop, the published closed form, ours.

Shape suffixes: B sequences, T tokens.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from kpo.kalman import kalman_filter, kalman_gains

Filter = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def cumulative_sum(observations_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
    """`torch.cumsum`, which filters nothing: a yardstick."""
    return observations_BT.cumsum(dim=1)


def sequential_loop(ratio: float) -> Filter:
    """The recursion as a Python loop over tokens, in the dtype of the observations; masked tokens as zeros."""

    def run(observations_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        if mask_BT is not None:
            observations_BT = torch.where(mask_BT, observations_BT, 0.0)
        state = torch.zeros_like(observations_BT[:, 0])
        result = torch.empty_like(observations_BT)
        variance = 0.0
        for t in range(observations_BT.shape[1]):
            predicted = variance + ratio
            variance = predicted / (predicted + 1)
            state = state + variance * (observations_BT[:, t] - state)
            result[:, t] = state
        return result if mask_BT is None else torch.where(mask_BT, result, 0.0)

    return run


def published_closed_form(ratio: float) -> Filter:
    """KPO's released way (arXiv 2602.10609), re-derived from its equations, in float32, for P_0 = 0.

    With q = Q / V the posterior variances obey a Moebius map with the eigenvalues exp(+-phi), cosh(phi) = 1 + q / 2:
    K_t = q U_t / ((1 + q) U_t - U_{t-1}), U_t = sinh(t phi) / sinh(phi), held within [1e-6, 1 - 1e-6]. With A_t the
    product of 1 - K up to t, the filtered mean is A_t sum_{i <= t} z_i K_i / A_i, where log A is held above log(1e-30)
    and the exponent of 1 / A below 80. Masked observations count as 0 and masked outputs are 0.
    """

    def run(observations_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        steps_T = torch.arange(1, observations_BT.shape[1] + 1, dtype=torch.float32, device=observations_BT.device)
        q = torch.tensor(ratio, dtype=torch.float32, device=observations_BT.device)
        phi = torch.acosh(1 + q / 2)
        growth_T = torch.sinh(steps_T * phi) / torch.sinh(phi)
        before_T = torch.sinh((steps_T - 1) * phi) / torch.sinh(phi)
        gains_T = (q * growth_T / ((1 + q) * growth_T - before_T)).clamp(1e-6, 1 - 1e-6)
        log_decay_T = torch.log1p(-gains_T).cumsum(dim=0).clamp(min=math.log(1e-30))
        weights_T = gains_T * torch.exp((-log_decay_T).clamp(max=80.0))
        if mask_BT is not None:
            observations_BT = torch.where(mask_BT, observations_BT, 0.0)
        result = torch.cumsum(observations_BT * weights_T, dim=1) * torch.exp(log_decay_T)
        return result if mask_BT is None else torch.where(mask_BT, result, 0.0)

    return run


def ours(ratio: float) -> Filter:
    """`kpo.kalman.kalman_filter`, its checks included."""

    def run(observations_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        return kalman_filter(observations_BT, mask_BT, process_variance=ratio, observation_variance=1.0)

    return run


def float64_reference(observations_BT: torch.Tensor, ratio: float) -> np.ndarray:
    """The sequential recursion in float64."""
    gains_T = kalman_gains(observations_BT.shape[1], ratio, 1.0)[0].tolist()
    values_TB = observations_BT.double().cpu().numpy().T
    state, result_TB = np.zeros(values_TB.shape[1]), np.empty_like(values_TB)
    for t, gain in enumerate(gains_T):
        state = state + gain * (values_TB[t] - state)
        result_TB[t] = state
    return result_TB.T
