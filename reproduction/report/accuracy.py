"""The summary's accuracies as one table for each experiment."""

from collections.abc import Sequence
from dataclasses import dataclass

from reproduction.report.numbers import percent


@dataclass(frozen=True)
class Accuracies:
    """A table of accuracies in percent. rows: (method, one cell for each split); a cell is (mean, interval, greedy)."""

    experiment: str
    seeds: list[int]
    splits: list[str]
    rows: list[tuple[str, list[tuple[str, str, str] | None]]]


def accuracies(summary: Sequence[dict]) -> list[Accuracies]:
    """One table for each experiment of summary.json, each with the base model it started from and its own splits."""
    tables = []
    for experiment in dict.fromkeys(row["experiment"] for row in summary if row["experiment"] != "base"):
        shown = [row for row in summary if row["experiment"] in ("base", experiment)]
        splits = list(dict.fromkeys(row["split"] for row in shown))
        rows = []
        for method in dict.fromkeys(row["method"] for row in shown):
            cells = {row["split"]: _cell(row) for row in shown if row["method"] == method}
            name = "base (before training)" if method == "base" else method
            rows.append((name, [cells.get(split) for split in splits]))
        seeds = sorted({seed for row in shown if row["experiment"] == experiment for seed in row["seeds"]})
        tables.append(Accuracies(experiment, seeds, splits, rows))
    return tables


def sizes(summary: Sequence[dict]) -> str:
    """How many problems and samples each split has, in words; all of them if experiments differ in that."""
    found: dict[str, dict[str, None]] = {}
    for row in summary:
        size = f"{row['num_problems']} problems, {row['samples_per_problem']} samples each"
        found.setdefault(row["split"], {})[size] = None
    return "; ".join(f"{split}: {' or '.join(of_split)}" for split, of_split in found.items())


def _cell(row: dict) -> tuple[str, str, str]:
    low, high = row["avg_at_k_interval"]
    return percent(row["avg_at_k"]), f"[{percent(low)}, {percent(high)}]", percent(row["greedy"])
