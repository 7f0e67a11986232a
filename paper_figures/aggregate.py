"""Numbers between files and lines: rows of metrics to one value a rollout batch, and seeds to mean and range."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def per_rollout_batch(rows: Sequence[dict], key: str, *, off_policy_only: bool = False) -> np.ndarray:
    """Mean of `key` over the minibatches of each rollout batch, shape (rollout batches,).

    With `off_policy_only` the first minibatch, in which every ratio is 1, is left out. A batch with a value that is
    null in any of its minibatches gives NaN, never the mean of the others: that would be a mean over another set of
    updates."""
    batches: dict[int, list[float]] = {}
    for row in rows:
        values = batches.setdefault(row["rollout_batch"], [])
        if not (off_policy_only and row["minibatch"] == 1):
            values.append(math.nan if row[key] is None else float(row[key]))
    return np.array([np.mean(values) if values else math.nan for values in batches.values()])


def over_seeds(by_seed: Mapping[int, Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest value over the seeds at each position; NaN in one seed gives NaN in all three.

    Raises ValueError without seeds and for seeds of different lengths.
    """
    if not by_seed:
        raise ValueError("over_seeds: no seeds to take a mean over")
    lengths = {seed: len(values) for seed, values in by_seed.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"over_seeds: seeds of different lengths {lengths}; a mean would mix different sets of seeds")
    values_SN = np.array(list(by_seed.values()), dtype=np.float64)
    # One undefined seed leaves the point out: numpy's min and max pass NaN on, as mean does.
    return values_SN.mean(axis=0), values_SN.min(axis=0), values_SN.max(axis=0)


def seeds_phrase(counts: tuple[int, int], missing: Iterable[str] = (), first: int | None = None) -> str:
    """`3 seeds`, or `1 to 5 seeds by method`, of the fewest and the most seeds of a method.

    With notes of missing seeds it says that some methods have fewer. first: how many of each method are drawn.
    """
    low, high = counts
    phrase = f"{high} seed{'s' * (high != 1)}" if low == high else f"{low} to {high} seeds by method"
    if first is not None and first < high:
        phrase = f"the first {first} of {phrase}"
    return phrase + (" (fewer where some are missing)" if any(missing) else "")


def band_phrase(counts: tuple[int, int], missing: Iterable[str] = (), first: int | None = None) -> str:
    """What line, band and thin lines mean, for captions."""
    if counts[1] == 1:
        return "One seed, so that no band can be given."
    seeds = seeds_phrase(counts, missing, first)
    return f"Thick lines: mean over {seeds}; thin lines: each seed; bands: lowest to highest seed."
