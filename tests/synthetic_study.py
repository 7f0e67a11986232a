"""A made-up full study in the layout of published results: configuration, measures, verdicts, and the runs that the
figures read. Its numbers follow from seeded formulas; no model is in it.

`tests.synthetic_results` writes every file of every run; this writes `measures.json` directly and the run files of only
a few experiments, as published results have them.
"""

import math
from collections.abc import Callable
from pathlib import Path

from reproduction.claims.declarations import needed_cells
from reproduction.claims.measures import MEASURES
from reproduction.claims.record import write_claims
from reproduction.jobs.files import atomic_write, write_json, write_jsonl
from reproduction.settings.configuration import Configuration, dump, load, validate
from tests.synthetic_results import generator, metrics_rows, write_results

LADDER = ("kpo-stress-2", "kpo-stress-3", "kpo-stress-4")
# Made up: how good a method is, and how far a rung of the ladder of stress throws it back.
SKILL = {
    "grpo": 0.80, "gspo": 0.78, "gmpo": 0.77, "kpo-clipped": 0.84, "kpo-unclipped": 0.72, "kpo-unit": 0.81,
    "kpo-ema": 0.84, "krpo": 0.83, "krpo-mean": 0.82, "krpo-scale": 0.79, "grpo-rescaled": 0.83, "krpo-r1e-3": 0.66,
    "kpo-weakest": 0.74, "krpo-kl0": 0.80, "krpo-kl0.05": 0.78,
}  # fmt: skip
STRESS = {"kpo-stress-2": 0.1, "kpo-stress-3": 0.3, "kpo-stress-4": 0.4, "kpo-clips": 0.1, "kpo-q": 0.1}
FRAGILE = {"grpo": 1.0, "gmpo": 0.9, "gspo": 0.6, "kpo-unclipped": 1.6}
STRUCTURE = {
    "switch_raw": 0.44, "switch_filtered": 0.11, "switch_shuffled": 0.47, "switch_shuffled_filtered": 0.12,
    "switch_noise": 0.5, "switch_noise_filtered": 0.13, "run_raw": 2.2, "run_filtered": 8.6, "run_shuffled": 2.1,
    "run_shuffled_filtered": 7.9, "run_noise": 2.0, "run_noise_filtered": 7.4, "energy_raw": 0.14,
    "drift_gain_raw": 0.004, "drift_gain_shuffled": 0.003, "drift_share_raw": 1e-4, "drift_share_shuffled": 1e-4,
    "drift_assumed_raw": -0.17, "drift_assumed_shuffled": -0.16,
    "energy_filtered": 0.83, "energy_shuffled": 0.1, "energy_shuffled_filtered": 0.8, "energy_noise": 0.1,
    "energy_noise_filtered": 0.79,
}  # fmt: skip

SMALL = {"problems": 6, "response_length": 12}
"""Of `write_study`: few problems and short responses."""


def write_study(
    results: Path,
    *,
    study: str | None = "full",
    seeds: list[int] | None = None,
    problems: int = 20,
    rollout_batches: int | None = 4,
    response_length: int = 24,
    values: Callable[[str, str, int, dict[str, float]], None] | None = None,
    missing: tuple[str, ...] = (),
) -> Configuration:
    """Write `results/laptop` for the scale's own experiments, or with `study` for those of the study as well.

    seeds: of every experiment; None for the pilot's, of which most experiments have three. rollout_batches: of every
    experiment; None leaves the configuration's. values: called with (experiment, label, seed, measures) and free to
    change the measures of a run. missing: runs, `experiment/label/seed1`, that measures.json names as missing.
    """
    configuration = _configuration(results, study, rollout_batches, seeds)
    rows = [
        _row(configuration, *run, problems, values)
        for run in configuration.runs()
        if "/".join((*run[:2], f"seed{run[2]}")) not in missing
    ]
    folder = configuration.folder
    own = {name: tuple(configuration.experiments[name].methods) for name in ("kpo", "krpo")}
    training = configuration.experiments["kpo"].training
    write_results(
        folder, experiments=own, seeds=configuration.seeds, minibatches=training.minibatches, problems=problems,
        rollout_batches=training.rollout_batches, samples=4, response_length=response_length, group_size=12,
    )  # fmt: skip
    _fit_lengths(configuration, own)
    for name in LADDER:
        if name in configuration.experiments:
            _write_rung(configuration, name)
    atomic_write(folder / "config.yaml", dump(configuration))
    write_json(folder / "measures.json", {"scale": configuration.scale, "runs": rows, "missing": sorted(missing)})
    write_claims(configuration)
    return configuration


def _configuration(
    results: Path, study: str | None, rollout_batches: int | None, seeds: list[int] | None
) -> Configuration:
    chosen = {"study": study, "seeds": seeds or ([1, 2, 3] if study is None else [1, 2, 3, 4, 5])}
    raw = load({**chosen, "results": str(results)}).model_dump()
    for name, settings in raw["experiments"].items() if study is not None else ():
        # As in the pilot, most experiments have three seeds.
        if name not in ("kpo", "krpo", *LADDER) and seeds is None:
            settings["seeds"] = [1, 2, 3]
    for settings in raw["experiments"].values():
        if rollout_batches is not None:
            settings["training"]["rollout_batches"] = rollout_batches
    return validate(raw, "the synthetic study")


def _fit_lengths(configuration: Configuration, own: dict[str, tuple[str, ...]]) -> None:
    """Both experiments may have their own number of rollout batches; `write_results` knows one for all."""
    for name, methods in own.items():
        training = configuration.experiments[name].training
        for method in methods:
            for seed in configuration.seeds:
                rows = metrics_rows(name, method, seed, training.rollout_batches, training.minibatches)
                write_jsonl(configuration.run_folder(name, method, seed) / "metrics.jsonl", rows)


def _write_rung(configuration: Configuration, name: str) -> None:
    training = configuration.experiments[name].training
    for label in configuration.experiments[name].methods:
        for seed in configuration.seeds_of(name):
            folder = configuration.run_folder(name, label, seed)
            per_batch = training.minibatches * training.epochs
            rows = metrics_rows(name, label, seed, training.rollout_batches, per_batch)
            stopped = name == "kpo-stress-3" and label == "kpo-unclipped" and seed == 1
            if stopped:
                rows = rows[: len(rows) // 2]
            write_jsonl(folder / "metrics.jsonl", rows)
            reason = {"update": len(rows) + 1, "reason": "the loss is not finite"}
            write_json(folder / "provenance.json", {"stopped": reason if stopped else None, "seed": seed})


def _row(configuration: Configuration, experiment: str, label: str, seed: int, problems: int, values) -> dict:
    random, shared = generator("measures", experiment, label, seed), generator("seed", seed)
    seed_effect = 0.02 * shared.standard_normal()
    method = configuration.experiments[experiment].methods[label].get("method", label)
    skill = SKILL.get(label, SKILL.get(method, 0.82))
    stress = STRESS.get(experiment, 0.0) * FRAGILE.get(method, 0.3)
    noisy = 0.08 if "noise" in experiment else 0.0

    def jittered(value: float, spread: float = 0.01) -> float:
        return float(value + spread * random.standard_normal())

    late = jittered(skill - stress - noisy + seed_effect)
    correct = {}
    for split, factor in (("easy", 1.1), ("normal", 1.0), ("hard", 0.5)):
        chance = min(0.98, max(0.02, (skill - 0.6 * stress - noisy + seed_effect) * factor))
        correct[split] = random.binomial(4, random.beta(6 * chance, 6 * (1 - chance), size=problems)).tolist()
    measures = {
        **{f"accuracy.{split}": sum(counts) / (4 * problems) for split, counts in correct.items()},
        **{f"late_accuracy.{split}": sum(counts) / (4 * problems) for split, counts in correct.items()},
        "reward_half": jittered(late - 0.02),
        "reward_late": late,
        "reward_area": jittered(late - 0.1),
        "collapse": float(random.random() < min(0.95, 3 * max(0.0, stress - 0.05))),
        "entropy_drop": jittered(0.5 + stress),
        "entropy_fall": jittered(0.7 + stress),
        "gradient_spikes": float(max(0.0, jittered(0.01 + 0.1 * stress, 0.004))),
        "log_update_seconds": math.log(jittered(0.1 if method != "kpo-clipped" else 0.102, 0.0005)),
        "log_token_seconds": math.log(jittered(0.02, 0.0001)),
        "log_sampling_seconds": math.log(jittered(0.015, 0.0001)),
    }
    wanted = needed_cells().get((experiment, label), set())
    for name, value in STRUCTURE.items():
        if name in wanted:
            measures[name] = jittered(value, 0.002 * value)
    for name, value in (
        ("schedule_deviation", 3e-16), ("constant_gain_deviation", 0.3), ("order_sensitivity", 0.6),
        ("order_bias", 0.02),
    ):  # fmt: skip
        if name in wanted:
            measures[name] = abs(jittered(value, 0.1 * value))
    if values is not None:
        values(experiment, label, seed, measures)
    assert set(measures) <= set(MEASURES)
    return {
        "experiment": experiment, "label": label, "seed": seed, "values": measures,
        "correct": {split: " ".join(map(str, counts)) for split, counts in correct.items()},
        "samples": dict.fromkeys(correct, 4), "code": "made up", "versions": {}, "hardware": {},
        "sampling": {"engine": "transformers", "temperature": 1.0, "top_p": 1.0},
        "training": configuration.experiments[experiment].training.model_dump(),
        "fingerprint": f"{experiment}/{label}/{seed}", "stopped": None,
    }  # fmt: skip
