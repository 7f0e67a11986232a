"""measures.json and claims.json as the figures read them: checked against the configuration, nothing filled in."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paper_figures.catalogue import ENTRIES
from paper_figures.results import Results, ResultsError
from reproduction.jobs.files import read_json

Cell = tuple[str, str]
ACCURACIES = {"late_accuracy": "accuracy, last third of training", "accuracy": "accuracy after training"}


def show_seeds(seeds: Iterable[int]) -> str:
    """`seed 2`, or `seeds 1, 2, 3`."""
    seeds = list(seeds)
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def accuracy_name(measure: str) -> str:
    """What readers call a measure of accuracy, such as `late_accuracy.normal`."""
    kind, _, split = measure.partition(".")
    return f"{ACCURACIES[kind]}, {split}"


class Measures:
    """The measured runs. What is asked for and not there is collected in `missing`, to be named in the figure."""

    def __init__(self, results: Results):
        self.results = results
        self.path = results.root / "measures.json"
        found = _read(self.path, results, "measure the runs (python -m reproduction measure)")
        try:
            self._values = {
                (row["experiment"], row["label"], int(row["seed"])): dict(row["values"]) for row in found["runs"]
            }
            self._absent = set(found["missing"])
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"{self.path}: not what python -m reproduction measure writes ({error!r}); measure the runs again"
            ) from None
        self.missing: list[str] = []

    def has(self, cell: Cell) -> bool:
        """Whether the configuration has the experiment with this method."""
        experiment, label = cell
        return experiment in self.results.experiments and label in self.results.methods(experiment)

    def of(self, measure: str, cell: Cell) -> dict[int, float]:
        """One measure of an (experiment, label) by seed; seeds without it are named in `missing`.

        Raises ResultsError if measures.json neither holds a configured run nor names it as missing.
        """
        experiment, label = cell
        table, gone, undefined = {}, [], []
        for seed in self.results.seeds_of(experiment, label):
            run = f"{experiment}/{label}/seed{seed}"
            values = self._values.get((experiment, label, seed))
            if values is None and run not in self._absent:
                raise ResultsError(f"{self.path}: {run} of the configuration is not there; measure the runs again")
            value = None if values is None else values.get(measure)
            if values is None:
                gone.append(seed)
            elif value is None or not math.isfinite(value):
                undefined.append(seed)
            else:
                table[seed] = float(value)
        for seeds, why in ((gone, ""), (undefined, f" ({measure} is undefined)")):
            note = f"{experiment}/{label} {show_seeds(seeds)}{why}"
            if seeds and note not in self.missing:
                self.missing.append(note)
        return table

    def shared(self, measure: str, cells: Sequence[Cell]) -> dict[Cell, dict[int, float]]:
        """The measure of each cell that has any value, on the seeds that all of these share: points of one figure are
        means over the same seeds. Empty if there is no such seed."""
        tables = {cell: self.of(measure, cell) for cell in cells if self.has(cell)}
        tables = {cell: by_seed for cell, by_seed in tables.items() if by_seed}
        if not tables:
            return {}
        common = sorted(set.intersection(*(set(by_seed) for by_seed in tables.values())))
        return {cell: {seed: by_seed[seed] for seed in common} for cell, by_seed in tables.items()} if common else {}


class Claims:
    """The verdicts of claims.json by claim id."""

    def __init__(self, results: Results):
        self.path = results.root / "claims.json"
        found = _read(self.path, results, "judge the claims (python -m reproduction claims)")
        if found.get("seeds") != results.seeds:
            raise ResultsError(
                f"{self.path}: of the seeds {found.get('seeds')}, not {results.seeds}; judge the claims again"
            )
        try:
            self.by_id: Mapping[str, dict[str, Any]] = {record["id"]: record for record in found["claims"]}
            self.missing: list[str] = list(found["missing"])
        except (KeyError, TypeError) as error:
            raise ResultsError(
                f"{self.path}: not what python -m reproduction claims writes ({error!r}); judge the claims again"
            ) from None

    def __getitem__(self, claim_id: str) -> dict[str, Any]:
        if claim_id not in self.by_id:
            raise ResultsError(f"{self.path}: no claim {claim_id!r}; judge the claims again")
        return self.by_id[claim_id]

    def measure(self, claim_id: str) -> str:
        """The measure that decides a claim: the one declared, or what takes its place at this scale."""
        return self[claim_id]["effect"]["sides"][0]["measure"]

    def note(self, ids: Iterable[str]) -> str:
        """A sentence for captions: each claim with its effect and verdict."""
        return "Verdicts: " + "; ".join(self.line(claim_id) for claim_id in ids) + "."

    def line(self, claim_id: str) -> str:
        """`id: effect [low, high], verdict`."""
        record = self[claim_id]
        estimate = record["effect"]["estimate"]
        return f"{claim_id}: {number(estimate)}{record['verdict']}" if estimate else f"{claim_id}: {record['verdict']}"

    def notes_for(self, name: str) -> str:
        """`note` of the claims that the figure `name` shows."""
        return self.note(ENTRIES[name].claims)


def number(estimate: Mapping[str, Any], end: str = ", ") -> str:
    """`value [low, high]`, without brackets if there is no interval."""
    interval = "" if estimate["low"] is None else f" [{estimate['low']:.2g}, {estimate['high']:.2g}]"
    return f"{estimate['value']:.2g}{interval}{end}"


def _read(path, results: Results, how: str) -> dict:
    if not path.is_file():
        raise ResultsError(f"{path}: missing; {how} before drawing this figure")
    try:
        found = read_json(path)
    except ValueError as error:
        raise ResultsError(str(error)) from None
    if not isinstance(found, dict) or found.get("scale") != results.scale:
        raise ResultsError(f"{path}: not of scale {results.scale!r}, which config.yaml says; {how} again")
    return found
