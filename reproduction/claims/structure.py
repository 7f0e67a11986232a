"""All measures of `kpo.structure` of a batch of log-ratios, before and after KPO's filter, and of its nulls."""

import math
from collections.abc import Callable

from torch import Tensor

from kpo.kalman import kalman_filter
from kpo.structure import low_frequency_energy, run_lengths, switch_frequency, white_noise_null


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
    """{series: {measure: value}}.

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
            null = {"transform": transform, "noise": noise, "num_draws": num_draws, "seed": seed}
            summary[series + suffix] = {
                name: float(white_noise_null(measure, log_ratio_BT, mask_BT, **null).nanmean())
                for name, measure in measures.items()
            }
    return summary


def _mean_run_length(log_ratio_BT: Tensor, mask_BT: Tensor) -> float:
    lengths = run_lengths(log_ratio_BT, mask_BT)
    return float(lengths.double().mean()) if len(lengths) else math.nan
