"""A made-up results folder in the formats that runs leave, with numbers that follow from seeded formulas.
No model is in it.

`write_results(tmp_path / "laptop")` gives everything that figures, summaries and claims read. The sizes are arguments:
small for tests, realistic for looking at the figures.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from kpo.methods import METHODS
from reproduction.jobs.files import write_json, write_jsonl
from reproduction.settings.configuration import CONFIG_FOLDER
from reproduction.settings.files import read_yaml

EXPERIMENTS = {
    "kpo": ("grpo", "gspo", "gmpo", "kpo-clipped", "kpo-unclipped", "krpo"),
    "krpo": ("grpo", "krpo"),
}
# What each method's accuracy tends to, and the share of tokens that it clips off-policy: made up, different for each.
FINAL_ACCURACY = {
    "base": 0.35, "grpo": 0.84, "gspo": 0.80, "gmpo": 0.78, "kpo-clipped": 0.86, "kpo-unclipped": 0.55, "krpo": 0.82,
}  # fmt: skip
CLIP_SHARE = {"grpo": 0.006, "gspo": 0.25, "gmpo": 0.004, "kpo-clipped": 0.15, "kpo-unclipped": 0.0, "krpo": 0.007}
LEVELS = {"easy": 1.12, "normal": 1.0, "hard": 0.55}


def write_results(
    root: str | Path,
    *,
    experiments: Mapping[str, Sequence[str]] = EXPERIMENTS,
    seeds: Sequence[int] = (1, 2, 3),
    rollout_batches: int = 6,
    minibatches: int = 4,
    prompts: int = 4,
    group_size: int = 4,
    response_length: int = 24,
    kept_every: int = 2,
    problems: int = 12,
    samples: int = 8,
    levels: Mapping[str, float] = LEVELS,
    time_constant: float = 8.0,
    scale: str = "laptop",
) -> Path:
    """Write the whole tree below `root` and return `root`. Equal arguments write equal bytes."""
    root = Path(root)
    config = read_yaml(CONFIG_FOLDER / "laptop.yaml") | {"scale": scale, "seeds": list(seeds)}
    config["evaluation"] |= {"samples_per_problem": samples, "confidence": 0.95}
    own = config["experiments"]
    sizes = {"rollout_batches": rollout_batches, "minibatches": minibatches, "group_size": group_size}
    config["experiments"] = {
        name: own[name if name in own else "kpo"]
        | {
            # A label that is not a method's name means a variant of GRPO.
            "methods": {label: {} if label in METHODS else {"method": "grpo"} for label in methods},
            "kalman_time_constant": time_constant,
            "training": own["kpo"]["training"] | sizes | {"prompts_per_rollout": prompts * minibatches},
        }
        for name, methods in experiments.items()
    }
    _write_yaml(root / "config.yaml", config)
    for split, shift in (("train", 0), ("held_out", 1)):
        rows = [_problem(index, level, shift) for level in levels for index in range(problems)]
        write_jsonl(root / "problems" / f"{split}.jsonl", rows)
    evaluations = {}
    for seed in seeds:
        folder = root / "base" / f"seed{seed}"
        write_jsonl(folder / "metrics.jsonl", [{"step": step, "loss": 3.0 / step} for step in range(1, 6)])
        evaluations["base", "base", seed] = _write_evaluation(folder, "base", "base", seed, levels, problems, samples)
        _write_provenance(folder, seed)
        for experiment, methods in experiments.items():
            for method in methods:
                folder = root / experiment / method / f"seed{seed}"
                write_jsonl(
                    folder / "metrics.jsonl", metrics_rows(experiment, method, seed, rollout_batches, minibatches)
                )
                _write_yaml(folder / "config.yaml", config)
                tensors = structure_tensors(
                    experiment,
                    method,
                    seed,
                    rollout_batches,
                    minibatches,
                    prompts,
                    group_size,
                    response_length,
                    kept_every,
                )
                folder.mkdir(parents=True, exist_ok=True)
                save_file(tensors, folder / "structure.safetensors")
                evaluations[experiment, method, seed] = _write_evaluation(
                    folder, experiment, method, seed, levels, problems, samples
                )
                _write_provenance(folder, seed)
    write_json(root / "summary.json", summary(evaluations, scale))
    return root


def generator(*words: object) -> np.random.Generator:
    """Random numbers that depend only on `words`, on every machine."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


def metrics_rows(experiment: str, method: str, seed: int, rollout_batches: int, minibatches: int) -> list[dict]:
    """Rows of metrics.jsonl: accuracy rises from the base's towards the method's own; kpo-unclipped falls back."""
    random = generator("metrics", experiment, method, seed)
    rows = []
    for batch in range(1, rollout_batches + 1):
        progress = 1 - math.exp(-4 * (batch - 1) / rollout_batches)
        accuracy = FINAL_ACCURACY["base"] + (FINAL_ACCURACY.get(method, 0.7) - FINAL_ACCURACY["base"]) * progress
        if method == "kpo-unclipped" and batch > rollout_batches / 2:
            accuracy *= 1 - 1.6 * (batch / rollout_batches - 0.5)
        accuracy = float(np.clip(accuracy + 0.04 * random.standard_normal(), 0, 1))
        reward = accuracy + 0.3 * (1 - accuracy) if experiment == "krpo" else accuracy
        for minibatch in range(1, minibatches + 1):
            off_policy = minibatch > 1
            spread = 0.01 * minibatch * (1 + 0.1 * random.random()) * (4 if method == "kpo-unclipped" else 1)
            rows.append(
                {
                    "update": len(rows) + 1,
                    "rollout_batch": batch,
                    "minibatch": minibatch,
                    "learning_rate": 3e-4,
                    "loss": 0.01 * random.standard_normal(),
                    "reward": reward,
                    "reward_std": math.sqrt(accuracy * (1 - accuracy)),
                    "accuracy": accuracy,
                    "entropy": 0.25 * (1 - 0.7 * accuracy) + 0.005 * random.random(),
                    "gradient_norm": 0.8 * (1 + 0.5 * random.random()) * (9 if method == "krpo" else 1),
                    "clip_share": CLIP_SHARE.get(method, 0.01) * (0.8 + 0.4 * random.random()) if off_policy else 0.0,
                    "log_ratio_std": spread if off_policy else 0.0,
                    "log_ratio_abs_max": 20 * spread if off_policy else 0.0,
                    "effective_sample_size": 1 - spread,
                    "mean_ratio": 1.0 + 0.1 * spread,
                    "kl": None,
                    "informative_groups": 0.9 - 0.5 * accuracy,
                    "response_length": 69.0,
                    "truncation": 0.0,
                    "rollout_seconds": 0.4 if minibatch == 1 else 0.0,
                    "update_seconds": 0.1,
                }
            )
    return rows


def structure_tensors(
    experiment: str, method: str, seed: int, rollout_batches: int, minibatches: int, prompts: int, group_size: int,
    response_length: int, kept_every: int,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Tensors of structure.safetensors for every `kept_every`-th rollout batch; log-ratios heavy-tailed."""
    random = generator("structure", experiment, method, seed)
    tensors = {}
    sequences = max(1, prompts * group_size // minibatches)
    for batch in range(kept_every, rollout_batches + 1, kept_every):
        share = 0.3 + 0.5 * batch / rollout_batches
        rewards = (random.random((prompts, group_size)) < share).astype(np.float32)
        tensors[f"rollout{batch}.rewards"] = torch.from_numpy(
            np.where(rewards, 1.0, 0.3 if experiment == "krpo" else 0.0)
        ).float()
        for minibatch in range(1, minibatches + 1):
            lengths = random.integers(response_length // 2, response_length + 1, size=sequences)
            mask = np.arange(response_length)[None, :] < lengths[:, None]
            scale = 0.02 * (minibatch - 1)
            log_ratio = scale * random.standard_t(3, size=mask.shape) * mask
            key = f"{(batch - 1) * minibatches + minibatch:05d}"
            tensors[f"{key}.log_ratio"] = torch.from_numpy(log_ratio.astype(np.float32))
            tensors[f"{key}.mask"] = torch.from_numpy(mask.astype(np.uint8))
            tensors[f"{key}.advantage"] = torch.from_numpy(random.standard_normal(sequences).astype(np.float32))
            tensors[f"{key}.minibatch"] = torch.tensor(minibatch)
    return tensors


def summary(evaluations: Mapping[tuple[str, str, int], dict], scale: str) -> dict:
    """summary.json from the evaluations: means over seeds, intervals by the normal approximation over problems."""
    rows = []
    for experiment, method in dict.fromkeys(key[:2] for key in evaluations):
        runs = {key[2]: value for key, value in evaluations.items() if key[:2] == (experiment, method)}
        for level in next(iter(runs.values()))["splits"]:
            splits = {seed: run["splits"][level] for seed, run in runs.items()}
            shares = np.mean(
                [np.array(split["correct"]) / split["samples_per_problem"] for split in splits.values()], axis=0
            )
            largest = str(next(iter(splits.values()))["samples_per_problem"])
            rows.append(
                {
                    "experiment": experiment,
                    "method": method,
                    "split": level,
                    "seeds": list(splits),
                    "num_problems": next(iter(splits.values()))["num_problems"],
                    "samples_per_problem": int(largest),
                    "avg_at_k": float(np.mean([split["avg_at_k"] for split in splits.values()])),
                    "avg_at_k_interval": _interval(shares),
                    "pass_at_k": float(np.mean([split["pass_at"][largest] for split in splits.values()])),
                    "greedy": float(np.mean([split["greedy"] for split in splits.values()])),
                    "per_seed": {str(seed): split["avg_at_k"] for seed, split in splits.items()},
                }
            )
    return {"scale": scale, "rows": rows}


def _write_evaluation(folder, experiment, method, seed, levels, problems, samples) -> dict:
    random = generator("evaluation", experiment, method, seed)
    splits, records = {}, []
    for level, factor in levels.items():
        chance = min(0.97, FINAL_ACCURACY.get(method, 0.7) * factor * (0.95 + 0.1 * random.random()))
        # Problems differ in difficulty, as real ones do: each has its own chance, with the level's as their mean.
        chances = random.beta(3 * chance, 3 * (1 - chance), size=problems)
        counts = random.binomial(samples, chances)
        any_right = (counts > 0).astype(float)
        greedy = (random.random(problems) < chance).astype(float)
        splits[level] = {
            "num_problems": problems,
            "samples_per_problem": samples,
            "avg_at_k": float(counts.mean() / samples),
            "avg_at_k_interval": _interval(counts / samples),
            "pass_at": {"1": float(counts.mean() / samples), str(samples): float(any_right.mean())},
            "pass_at_interval": {"1": _interval(counts / samples), str(samples): _interval(any_right)},
            "greedy": float(greedy.mean()),
            "greedy_interval": _interval(greedy),
            "correct": counts.tolist(),
        }
        for index, count in enumerate(counts):
            for sample in range(samples):
                records.append({"split": level, "id": index, "sample": sample, "correct": int(sample < count)})
    evaluation = {
        "model": f"{experiment}/{method}/seed{seed}",
        "sampling": {"engine": "transformers", "temperature": 1.0, "top_p": 1.0, "top_k": 0},
        "confidence": 0.95,
        "splits": splits,
    }
    write_json(folder / "evaluation.json", evaluation)
    write_jsonl(folder / "samples.jsonl", records)
    return evaluation


def _interval(values: np.ndarray) -> list[float]:
    half = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return [max(0.0, mean - half), min(1.0, mean + half)]


def _problem(index: int, level: str, shift: int) -> dict:
    first, second = 10 + index, 20 + index + shift
    question = f"{first} + {second} = ?"
    return {
        "id": index,
        "question": question,
        "answer": str(first + second),
        "num_terms": 2,
        "num_digits": 2,
        "level": level,
    }


def _write_provenance(folder: Path, seed: int) -> None:
    record = {
        "commit": "0" * 40, "dirty": False, "versions": {}, "hardware": {}, "seed": seed, "wall_seconds": 1.0,
        "peak_memory_bytes": 1_000_000, "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z",
    }  # fmt: skip
    write_json(folder / "provenance.json", record)


def _write_yaml(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
