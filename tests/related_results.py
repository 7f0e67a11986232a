"""Made-up measures of the experiment `related`, without a run: its numbers follow from seeded formulas."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from reproduction.jobs.files import atomic_write, write_json
from reproduction.settings.configuration import Configuration, dump, load

LEVELS = ("easy", "normal", "hard")


def accuracies(label: str, seed: int) -> list[float]:
    """By level: krpo and grpo alike, raft 20 points below, all others a few points above or below."""
    noise = np.random.default_rng([seed, *map(ord, label)])
    skill = {"grpo": 0.6, "krpo": 0.6, "raft": 0.4}.get(label, 0.6 + (len(label) % 7 - 3) / 100)
    own_level = 0.05 * np.random.default_rng(seed).standard_normal()
    return [float(skill + own_level + shift + 0.01 * noise.standard_normal()) for shift in (0.2, 0.0, -0.2)]


def write_related(results: Path, missing: Collection[str] = (), budgets: bool = True) -> Configuration:
    """Write config.yaml and measures.json; missing: `experiment/label/seed6`, named there as missing."""
    configuration = load({"study": "related", "results": str(results)})
    rows = []
    for experiment, label, seed in configuration.runs():
        name = f"{experiment}/{label}/seed{seed}"
        values = {f"late_accuracy.{level}": value for level, value in zip(LEVELS, accuracies(label, seed), strict=True)}
        tokens = {"generated_tokens": 160_000.0 + seed, "update_tokens": (40_000.0 if "pods" in label else 160_000.0)}
        values |= {"collapse": 0.0} | (tokens if budgets else {})
        rows.append({
            "experiment": experiment, "label": label, "seed": seed, "values": values, "correct": {}, "samples": {},
            "code": "made up", "versions": {}, "hardware": {}, "sampling": {}, "training": {}, "stopped": None,
            "fingerprint": name,
        })  # fmt: skip
    rows = [row for row in rows if row["fingerprint"] not in missing]
    atomic_write(configuration.folder / "config.yaml", dump(configuration))
    record = {"scale": configuration.scale, "runs": rows, "missing": sorted(missing)}
    write_json(configuration.folder / "measures.json", record)
    return configuration
