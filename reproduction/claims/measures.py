"""From one run's files to the numbers that claims compare: pure functions, each measure defined once in `MEASURES`.

Shape suffixes: P prompts, G group members, B sequences, T tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kpo.advantages import group_advantages
from kpo.kalman import kalman_filter
from reproduction.claims.paper_tables import KPO_BENCHMARKS
from reproduction.claims.premise import PREMISE_MEASURES, PREMISE_SERIES, premise_measures
from reproduction.claims.structure import structure_summary

LATE_SHARE = 0.2
SPIKE_FACTOR = 3.0
STRUCTURE_DRAWS = 5
ORDER_DRAWS = 20
STRUCTURE_SERIES = {
    "raw": "raw",
    "filtered": "filtered",
    "shuffled": "shuffled",
    "shuffled_filtered": "shuffled, filtered",
    "noise": "white noise",
    "noise_filtered": "white noise, filtered",
}
STRUCTURE_MEASURES = {"switch": "switch_frequency", "run": "mean_run_length", "energy": "low_frequency_energy"}


@dataclass(frozen=True)
class Measure:
    """What a measure is and from which file it comes.

    binary: a yes or no for each run. bounded: it is between 0 and 1, so that a difference is at most 1. computed: it
    follows exactly from its input, so that runs which agree in it do so for no other reason.
    """

    definition: str
    source: str
    binary: bool = False
    bounded: bool = False
    computed: bool = False


EVALUATION = "evaluation.json"
BENCHMARKS = "accuracy.benchmarks"
"""The measure of accuracy at scales that evaluate on mathematics benchmarks."""
BENCHMARK_SPLITS = {benchmark.split: benchmark.name for benchmark in KPO_BENCHMARKS}

MEASURES: dict[str, Measure] = {
    **{
        f"accuracy.{split}": Measure(
            f"share of right answers to the held-out {split} problems at temperature 1", EVALUATION, bounded=True
        )
        for split in ("easy", "normal", "hard")
    },
    **{
        f"accuracy.{split}": Measure(
            f"share of right answers to the problems of {name} as sampled for the evaluation",
            EVALUATION,
            bounded=True,
        )
        for split, name in BENCHMARK_SPLITS.items()
    },
    BENCHMARKS: Measure(
        "mean of the run's accuracies on the mathematics benchmarks of KPO's Table 1 that it was evaluated on, each "
        "counting the same",
        EVALUATION,
        bounded=True,
    ),
    **{
        f"late_accuracy.{level}": Measure(
            f"share of right answers to {level} problems at temperature 1, over the checkpoints after each rollout "
            "batch of the last third of training, each asked fresh problems that the seed draws",
            "metrics.jsonl",
            bounded=True,
        )
        for level in ("easy", "normal", "hard")
    },
    "reward_half": Measure(
        "mean reward over the second half of the rollout batches; a run that stopped scores 0 in the batches it lacks",
        "metrics.jsonl",
    ),
    "reward_late": Measure(
        "mean reward over the last fifth of the rollout batches; a run that stopped scores 0 in the batches it lacks",
        "metrics.jsonl",
    ),
    "reward_area": Measure("mean reward over all rollout batches: area under the learning curve", "metrics.jsonl"),
    "collapse": Measure(
        "1 where the share of right answers over the last fifth of the rollout batches is below half of the best "
        "moving mean of that width, or more than half of the last fifth's responses were cut off, or the run was "
        "stopped because a value was not finite or no reward was earned any more; else 0",
        "metrics.jsonl",
        binary=True,
        bounded=True,
    ),
    "entropy_drop": Measure(
        "1 - (mean token entropy in the last fifth of the updates) / (that in the first fifth), of the updates whose "
        "entropy is finite",
        "metrics.jsonl",
    ),
    "entropy_fall": Measure(
        "logarithm of the ratio of the mean token entropy in the first fifth of the updates to that in the last fifth, "
        "of the updates whose entropy is finite",
        "metrics.jsonl",
    ),
    "gradient_spikes": Measure(
        "share of updates whose gradient norm (before clipping) is above 3 times the run's median, or not finite",
        "metrics.jsonl",
        bounded=True,
    ),
    "generated_tokens": Measure(
        "tokens of all responses sampled for training: those of the rollout batches, drafts and base responses",
        "metrics.jsonl",
    ),
    "update_tokens": Measure(
        "response tokens through which updates took a gradient, those without advantage included, once in each epoch",
        "metrics.jsonl",
    ),
    "log_update_seconds": Measure("logarithm of the median time of an update", "metrics.jsonl"),
    "log_token_seconds": Measure(
        "logarithm of the median over rollout batches of the batch's whole time divided by its mean response length",
        "metrics.jsonl",
    ),
    "log_sampling_seconds": Measure(
        "logarithm of the median over rollout batches of the sampling time divided by the mean response length",
        "metrics.jsonl",
    ),
    **{
        f"{name}_{series}": Measure(
            f"{definition}; {label} log-ratios of kept off-policy minibatches",
            "structure.safetensors",
            bounded=name != "run",
        )  # fmt: skip
        for name, definition in (
            ("switch", "share of adjacent tokens whose signs differ"),
            ("run", "mean length in tokens of runs of one sign"),
            ("energy", "share of energy in the lowest tenth of the frequencies"),
        )
        for series, label in STRUCTURE_SERIES.items()
    },
    **{
        f"{name}_{series}": Measure(
            f"{definition}; {label} log-ratios of kept off-policy minibatches",
            "structure.safetensors",
            bounded=name == "drift_share",
        )
        for name, definition in PREMISE_MEASURES.items()
        for series, label in PREMISE_SERIES.items()
    },
    "schedule_deviation": Measure(
        "root mean square difference between the filter and a moving average with gain K_t at the t-th token, computed "
        "token by token in float64, over the root mean square filtered value",
        "structure.safetensors",
        computed=True,
    ),
    "constant_gain_deviation": Measure(
        "the same for a moving average with the filter's steady gain", "structure.safetensors", computed=True
    ),
    "order_bias": Measure(
        "how far KRPO's advantages of kept rewards in sampled order lie, in the direction of their mean over random "
        "orders, from that mean, relative to its size; 0 where the sampled order is as good as a random one on average",
        "structure.safetensors",
    ),
    "order_sensitivity": Measure(
        "root mean square difference between KRPO's advantages of kept rewards in sampled and in random order, over "
        "the root mean square of those in sampled order",
        "structure.safetensors",
    ),
}


def curve_measures(rows: Sequence[Mapping], planned_batches: int, *, stopped: bool = False) -> dict[str, float]:
    """Measures of a run's metrics rows, one for each update; `planned_batches` is what the configuration asks for.

    stopped: whether training ended because of what the method did, be it in the last rollout batch.
    """
    batches = [row for row in rows if row["minibatch"] == 1]
    stopped = stopped or len(batches) < planned_batches
    missing = [0.0] * (planned_batches - len(batches))
    rewards = np.array([_number(row["reward"]) for row in batches] + missing)
    right = np.array([_number(row["accuracy"]) for row in batches] + missing)
    late = _late(planned_batches)
    moving = np.convolve(right, np.full(late, 1.0 / late), mode="valid")
    cut_off = np.mean([_number(row["truncation"]) for row in batches[-late:]])
    # A run that breaks has entropies that are no number near its end; what it did until then still counts.
    entropy = np.array([_number(row["entropy"]) for row in rows])
    entropy = entropy[np.isfinite(entropy)]
    part = _late(len(entropy))
    first, last = (float(one.mean()) if one.size else math.nan for one in (entropy[:part], entropy[-part:]))
    norms = np.array([_number(row["gradient_norm"]) for row in rows])
    finite = np.isfinite(norms)
    spikes = ~finite | (norms > SPIKE_FACTOR * (np.median(norms[finite]) if finite.any() else 0.0))
    seconds = [
        _number(row["rollout_seconds"])
        + sum(_number(update["update_seconds"]) for update in rows if update["rollout_batch"] == row["rollout_batch"])
        for row in batches
    ]
    lengths = np.maximum([_number(row["response_length"]) for row in batches], 1.0)
    return {
        "reward_half": float(rewards[planned_batches // 2 :].mean()),
        "reward_late": float(rewards[-late:].mean()),
        "reward_area": float(rewards.mean()),
        "collapse": float(stopped or right[-late:].mean() < 0.5 * moving.max() or cut_off > 0.5),
        "entropy_drop": 1.0 - last / first if first else math.nan,
        "entropy_fall": math.log(first / last) if first > 0 and last > 0 else math.nan,
        "gradient_spikes": float(spikes.mean()),
        "log_update_seconds": _log(np.median([_number(row["update_seconds"]) for row in rows])),
        "log_token_seconds": _log(np.median(np.divide(seconds, lengths))),
        "log_sampling_seconds": _log(np.median([_sampling_seconds(row) for row in batches] / lengths)),
        # Rows count from the start of the run; earlier studies did not count.
        **{name: float(rows[-1][name]) for name in ("generated_tokens", "update_tokens") if name in rows[-1]},
    }


def late_counts(
    rows: Sequence[Mapping], planned: Mapping[str, int], *, stopped: bool = False
) -> dict[str, list[int]] | None:
    """For each level (right answers, answers) of a run's late checkpoints; None if some were not evaluated.

    planned: answers of each level that a whole run gives. Those that a stopped run lacks count as wrong, as its rewards
    count as 0: its model would answer nothing.
    """
    right, answered = dict.fromkeys(planned, 0), dict.fromkeys(planned, 0)
    for row in rows:
        for level, (correct, asked) in (row.get("late_evaluation") or {}).items():
            right[level] += correct
            answered[level] += asked
    if answered != planned and not stopped:
        return None
    return {level: [right[level], answers] for level, answers in planned.items()}


def _sampling_seconds(row: Mapping) -> float:
    """The time to sample a rollout batch; runs of the first study timed it only with rewards and advantages."""
    return _number(row.get("sampling_seconds", row["rollout_seconds"]))


def structure_measures(
    log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, time_constant: float, seed: int
) -> dict[str, float]:
    """Measures of raw and filtered log-ratios with their nulls; time_constant in tokens is sqrt(V / Q)."""
    variances = {"process_variance": time_constant**-2, "observation_variance": 1.0}
    summary = structure_summary(log_ratio_BT, mask_BT, **variances, num_draws=STRUCTURE_DRAWS, seed=seed)
    values = {
        f"{name}_{series}": summary[label][measure]
        for name, measure in STRUCTURE_MEASURES.items()
        for series, label in STRUCTURE_SERIES.items()
    }
    values |= schedule_deviations(log_ratio_BT, mask_BT, **variances)
    return values | premise_measures(log_ratio_BT, mask_BT, time_constant, seed)


def schedule_deviations(
    log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, *, process_variance: float, observation_variance: float
) -> dict[str, float]:
    """How far the filter is from m_t = m_{t-1} + a_t (z_t - m_{t-1}), with a_t = K_t and with the steady gain.

    Written as the textbook recursion, apart from `kpo.kalman`:  P = P + Q,  K = P / (P + V),  P = (1 - K) P.
    """
    observed = mask_BT.bool().numpy()
    values = np.where(observed, log_ratio_BT.double().numpy(), 0.0)
    filtered = kalman_filter(
        torch.from_numpy(values), mask_BT, process_variance=process_variance, observation_variance=observation_variance
    ).numpy()
    size = math.sqrt(np.square(filtered[observed]).sum())
    if size == 0.0:
        return {"schedule_deviation": math.nan, "constant_gain_deviation": math.nan}
    ratio = process_variance / observation_variance
    steady = (math.sqrt(ratio * ratio + 4.0 * ratio) - ratio) / 2.0
    num_rows = len(values)
    state = {"schedule_deviation": np.zeros(num_rows), "constant_gain_deviation": np.zeros(num_rows)}
    squares = dict.fromkeys(state, 0.0)
    variance = np.zeros(num_rows)
    for token in range(values.shape[1]):
        here = observed[:, token]
        predicted = variance + process_variance
        gain = predicted / (predicted + observation_variance)
        variance = np.where(here, (1.0 - gain) * predicted, variance)
        for name, alpha in (("schedule_deviation", gain), ("constant_gain_deviation", steady)):
            mean = state[name]
            state[name] = np.where(here, mean + alpha * (values[:, token] - mean), mean)
            squares[name] += float(np.square(state[name] - filtered[:, token])[here].sum())
    return {name: math.sqrt(value) / size for name, value in squares.items()}


def order_sensitivity(rewards_by_batch: Sequence[torch.Tensor], seed: int) -> float:
    """Relative change of KRPO's advantages when the rewards (P, G) of each batch are filtered in random order."""
    generator = torch.Generator().manual_seed(seed)
    changed, size = 0.0, 0.0
    for rewards_PG in rewards_by_batch:
        rewards_PG = rewards_PG.double()
        sampled_PG = group_advantages("krpo", rewards_PG)
        size += float(sampled_PG.square().sum())
        for _ in range(ORDER_DRAWS):
            other_PG = group_advantages("krpo-random-order", rewards_PG, generator=generator)
            changed += float((other_PG - sampled_PG).square().sum()) / ORDER_DRAWS
    return math.sqrt(changed / size) if size > 0 else math.nan


def order_bias(rewards_by_batch: Sequence[torch.Tensor], seed: int) -> float:
    """Whether the sampled order of the rewards (P, G) changes KRPO's advantages on average, as the paper denies.

    With A the advantages in sampled order and M, N two independent means over random orders, over all responses

        sum (A - M) N / sum M N.

    Two means, since with one its own noise would enter squared. If the sampled order is a random one this is 0 in
    expectation. For 48 groups of 12 rewards, 0.3 to 0.8 of them 1, it strays by 0.013 to 0.034 (standard deviation,
    simulated on independent rewards); rewards in ascending order give 0.14, -0.10 and -0.50 at 0.3, 0.5 and 0.8.
    """
    generator = torch.Generator().manual_seed(seed)
    moved, size = 0.0, 0.0
    for rewards_PG in rewards_by_batch:
        rewards_PG = rewards_PG.double()
        first_PG, second_PG = (
            torch.stack(
                [group_advantages("krpo-random-order", rewards_PG, generator=generator) for _ in range(ORDER_DRAWS)]
            ).mean(dim=0)
            for _ in range(2)
        )
        moved += float(((group_advantages("krpo", rewards_PG) - first_PG) * second_PG).sum())
        size += float((first_PG * second_PG).sum())
    return moved / size if size > 0 else math.nan


def mean_of_benchmarks(accuracies: Mapping[str, float]) -> float | None:
    """`BENCHMARKS` from a run's accuracies by split; None if no split is one of the benchmarks."""
    found = [value for split, value in accuracies.items() if split in BENCHMARK_SPLITS]
    return sum(found) / len(found) if found else None


def _late(count: int) -> int:
    return max(1, round(LATE_SHARE * count))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan
