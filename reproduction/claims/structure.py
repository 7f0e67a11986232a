"""The nulls of the measures of `kpo.structure`, noise and shuffled tokens, and a summary of a batch and of its nulls.

Shape suffixes: B sequences, T tokens.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kpo.checks import check_integer, unknown_name
from kpo.kalman import kalman_filter
from kpo.structure import counted_tokens, low_frequency_energy, run_lengths, switch_frequency

NOISES = ("heavy-tailed", "gaussian", "random-signs", "shuffled")
# Student's t with 3 degrees of freedom has a variance, but no fourth moment; token log-ratios have a kurtosis of 17 to
# 59 (a follow-up study of KPO). "random-signs" and "shuffled" keep the measured magnitudes, whatever their tail.
HEAVY_TAIL_DEGREES = 3


def shuffled_order(log_ratio: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each row's counted values in random order at its counted places, 0 where masked: (B, T), dtype of log_ratio.

    generator: on the device of log_ratio; torch's own if None. Errors as for `switch_frequency`.
    """
    observed = counted_tokens(log_ratio, mask)
    keys = torch.rand(log_ratio.shape, generator=generator, device=log_ratio.device, dtype=torch.float64)
    # Counted tokens first, once in random order and once in place: the n-th random one moves to the n-th place.
    random_order = keys.masked_fill(~observed, 2.0).argsort(dim=1)
    places = (~observed).to(torch.uint8).argsort(dim=1, stable=True)
    values = log_ratio.detach().masked_fill(~observed, 0.0)
    return torch.zeros_like(values).scatter_(1, places, values.gather(1, random_order))


def white_noise(
    log_ratio: Tensor, mask: Tensor, noise: str = "heavy-tailed", generator: torch.Generator | None = None
) -> Tensor:
    """Values without structure in place of log-ratios: (B, T), dtype of log_ratio, 0 where masked.

    noise:
        "heavy-tailed"  independent Student-t values with 3 degrees of freedom
        "gaussian"      independent standard normal values
        "random-signs"  the magnitudes of log_ratio in place, with independent random signs
        "shuffled"      `shuffled_order`
    The measures of `kpo.structure` do not depend on the scale. Errors as for `switch_frequency`.
    """
    if noise not in NOISES:
        raise ValueError(unknown_name("noise", noise, NOISES))
    observed = counted_tokens(log_ratio, mask)
    if noise == "shuffled":
        return shuffled_order(log_ratio, mask, generator)

    def normal() -> Tensor:
        return torch.randn(log_ratio.shape, generator=generator, device=log_ratio.device, dtype=torch.float64)

    if noise == "random-signs":
        values = log_ratio.detach().double().abs() * normal().sign()
    elif noise == "gaussian":
        values = normal()
    else:
        chi_square = sum(normal().square() for _ in range(HEAVY_TAIL_DEGREES))
        values = normal() / (chi_square / HEAVY_TAIL_DEGREES).sqrt()
    return values.masked_fill(~observed, 0.0).to(log_ratio.dtype)


def white_noise_null(
    statistic: Callable[[Tensor, Tensor], float],
    log_ratio: Tensor,
    mask: Tensor,
    *,
    transform: Callable[[Tensor, Tensor], Tensor] | None = None,
    noise: str = "heavy-tailed",
    num_draws: int = 20,
    seed: int = 0,
) -> Tensor:
    """The distribution of a statistic without structure: statistic(transform(noise, mask), mask) of fresh draws.

    statistic: such as `switch_frequency`. transform: such as the Kalman filter; None for the noise itself.
    noise: as for `white_noise`; it has the shape and mask of log_ratio. Returns float64 (num_draws,), a function of the
    seed.
    """
    num_draws = check_integer("num_draws", num_draws, minimum=1)
    generator = torch.Generator(device=log_ratio.device).manual_seed(seed)
    values = []
    for _ in range(num_draws):
        drawn = white_noise(log_ratio, mask, noise, generator)
        values.append(float(statistic(drawn if transform is None else transform(drawn, mask), mask)))
    return torch.tensor(values, dtype=torch.float64)


def structure_summary(
    log_ratio_BT: Tensor,
    mask_BT: Tensor,
    *,
    process_variance: float,
    observation_variance: float,
    fraction: float = 0.1,
    num_draws: int = 10,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """All measures of a batch, before and after KPO's filter, and of its nulls: {series: {measure: value}}.

    Series: "raw"; "filtered" by KPO's filter; "shuffled" and "shuffled, filtered", the same values in random order;
    "white noise" and "white noise, filtered", heavy-tailed and of the same shape. The last four are means over
    `num_draws` draws. Measures: "switch_frequency", "mean_run_length" (tokens), "low_frequency_energy" (share below
    `fraction`).
    """

    def filtered(values: Tensor, mask: Tensor) -> Tensor:
        return kalman_filter(
            values.detach(), mask, process_variance=process_variance, observation_variance=observation_variance
        )

    measures: dict[str, Callable[[Tensor, Tensor], float]] = {
        "switch_frequency": switch_frequency,
        "mean_run_length": _mean_run_length,
        "low_frequency_energy": lambda values, mask: low_frequency_energy(values, mask, fraction),
    }
    smooth_BT = filtered(log_ratio_BT, mask_BT)
    summary = {
        "raw": {name: measure(log_ratio_BT, mask_BT) for name, measure in measures.items()},
        "filtered": {name: measure(smooth_BT, mask_BT) for name, measure in measures.items()},
    }
    for series, noise in (("shuffled", "shuffled"), ("white noise", "heavy-tailed")):
        for suffix, transform in (("", None), (", filtered", filtered)):
            null: dict[str, Any] = {"transform": transform, "noise": noise, "num_draws": num_draws, "seed": seed}
            summary[series + suffix] = {
                name: float(white_noise_null(measure, log_ratio_BT, mask_BT, **null).nanmean())
                for name, measure in measures.items()
            }
    return summary


def _mean_run_length(log_ratio_BT: Tensor, mask_BT: Tensor) -> float:
    lengths = run_lengths(log_ratio_BT, mask_BT)
    return float(lengths.double().mean()) if len(lengths) else math.nan
