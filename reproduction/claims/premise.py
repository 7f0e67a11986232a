"""KPO's premise asked of kept log-ratios: are they a slowly drifting state seen through noise, or noise only?

Both are Gaussian models that start each response at 0, as KPO's filter does (`kpo.likelihood`): a random walk of
variance Q a token plus noise of variance V, and independent noise, which is Q = 0. Shuffling a response's tokens takes
drift away and keeps the rest, such as the mean of a response and heavy tails: what shuffled tokens gain is not drift.

Gains are in nats per memory of the run's filter, sqrt(V / Q) tokens, so that scales can be compared. If log-ratios did
what the filter assumes, the gain would be 0.4 to 0.5 for responses of three and a half to four memories (simulated: 57
tokens and a memory of 17, and 4,000 and 1,000), and that of the shuffled tokens a little over half as much.
"""

import math

import torch

from kpo.kalman import fit_variances, log_likelihood
from reproduction.claims.structure import shuffled_order

PREMISE_DRAWS = 5
PREMISE_SERIES = {"raw": "raw", "shuffled": "shuffled"}
PREMISE_MEASURES = {
    "drift_gain": "nats per memory of the run's filter (sqrt(V / Q) tokens) by which a random walk plus noise with the "
    "most likely Q and V is likelier than independent noise, Q = 0",
    "drift_share": "most likely Q / (Q + V) of a random walk plus noise",
    "drift_assumed": "nats per memory by which a random walk plus noise with the Q / V that the run's filter assumes, "
    "and the most likely V, is likelier than independent noise",
}
"""What each measure is; their names end in _raw or _shuffled. `drift_share` is between 0 and 1."""


def premise_measures(
    log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, time_constant: float, seed: int
) -> dict[str, float]:
    """`PREMISE_MEASURES` of the log-ratios, and the mean of each over shuffled orders; NaN if all log-ratios are 0.

    time_constant: memory of the run's filter in tokens. Raises ValueError for counted values that are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = [shuffled_order(log_ratio_BT, mask_BT, generator) for _ in range(PREMISE_DRAWS)]
    counted = mask_BT.bool()
    if not bool((log_ratio_BT[counted] != 0).any()) or int(counted.sum(dim=1).max()) < 2:
        return {f"{name}_{series}": math.nan for name in PREMISE_MEASURES for series in PREMISE_SERIES}
    values = {}
    for series, rows in (("raw", [log_ratio_BT]), ("shuffled", draws)):
        measured = [_measures(each_BT, counted, time_constant) for each_BT in rows]
        values |= {f"{name}_{series}": math.fsum(one[name] for one in measured) / len(rows) for name in measured[0]}
    return values


def log_likelihood_at(log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, ratio: float) -> float:
    """log L of all responses at Q / V = ratio with the most likely V.

    log L = -(N log V + s / V + constant) / 2, so its values at two V give s, and V = s / N is the best.
    """

    def at(variance: float) -> float:
        variances = {"process_variance": ratio * variance, "observation_variance": variance}
        return float(log_likelihood(log_ratio_BT, mask_BT, **variances).sum())

    num_tokens = int(mask_BT.sum())
    unit = float(log_ratio_BT[mask_BT.bool()].double().square().mean())
    squares = 4 * unit * (at(2 * unit) - at(unit) + num_tokens * math.log(2) / 2)
    return at(squares / num_tokens)


def _measures(log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, time_constant: float) -> dict[str, float]:
    fit = fit_variances(log_ratio_BT, mask_BT)
    assumed = log_likelihood_at(log_ratio_BT, mask_BT, time_constant**-2) - fit.log_likelihood_without_drift
    return {
        "drift_gain": fit.gain_per_observation * time_constant,
        "drift_share": fit.process_variance / (fit.process_variance + fit.observation_variance),
        "drift_assumed": assumed / fit.num_observations * time_constant,
    }
