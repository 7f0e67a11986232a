"""A declared comparison carried out on a study: which runs it took, one number for each seed, the effect."""

from dataclasses import dataclass, field

import numpy as np

from kpo.claims.declare import Comparison, Rule, Side, Term
from kpo.claims.estimate import Effect, effect_of_means, effect_of_shares
from kpo.claims.measures import MEASURES
from kpo.claims.one_run import ClaimsError, Run
from kpo.claims.runs import Study
from kpo.evaluation.bootstrap import hierarchical_difference

RESAMPLES = 2_000
Cell = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """The outcome of a comparison. effect: None where the scale lacks its cells or no seed has all of them.

    per_seed: the number of each seed. sides: which cells each side took. left_out: configured runs that did not enter,
    each with its reason.
    """

    effect: Effect | None
    per_seed: dict[int, float] = field(default_factory=dict)
    sides: list[dict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def compare(study: Study, comparison: Comparison, rule: Rule, *, seed: int = 0) -> Compared:
    """Estimate a comparison on the seeds that all its cells share.

    Raises ClaimsError where the runs compared differ in code, versions, sampling or held-out problems, or, for measures
    of time, in hardware.
    """
    experiments = _shared_experiments(study, comparison)
    cells_by_term = []
    for term in comparison:
        cells = _cells(study, term.side, experiments)
        if not cells:
            return Compared(None)
        cells_by_term.append(cells)
    runs = [run for cells in cells_by_term for cell in cells for run in study.runs.get(cell, {}).values()]
    timed = any(term.measure.endswith("_seconds") for term in comparison)
    check_comparable(runs, timed=timed)
    seeds, left_out = _shared_seeds(study, comparison, cells_by_term)
    sides = [
        {"measure": term.measure, "weight": term.weight, "cells": ["/".join(cell) for cell in cells]}
        for term, cells in zip(comparison, cells_by_term, strict=True)
    ]
    if not seeds:
        return Compared(None, sides=sides, left_out=left_out)
    per_seed = {
        number: float(
            sum(
                term.weight * np.mean([study.runs[cell][number].values[term.measure] for cell in cells])
                for term, cells in zip(comparison, cells_by_term, strict=True)
            )
        )
        for number in seeds
    }
    if any(MEASURES[term.measure].binary for term in comparison):
        effect = _shares(study, comparison, cells_by_term, seeds, rule)
    else:
        effect = effect_of_means(per_seed, rule)
        problems = _over_problems(study, comparison, cells_by_term, seeds, rule, seed)
        if problems is not None:
            effect = effect.widened(*problems)
    return Compared(effect, per_seed, sides, left_out)


def check_comparable(runs: list[Run], *, timed: bool) -> None:
    """Refuse runs whose difference could come from something other than what is compared."""
    if not runs:
        return
    first = runs[0]
    for run in runs[1:]:
        for what, own, other in (
            ("code", run.code, first.code),
            ("versions", run.versions, first.versions),
            ("sampling of the evaluation", run.sampling, first.sampling),
            ("samples per problem", run.samples, first.samples),
            ("number of held-out problems", _sizes(run), _sizes(first)),
            *([("hardware", run.hardware, first.hardware)] if timed else []),
        ):
            if own != other:
                raise ClaimsError(
                    f"{run.name} and {first.name} are compared but differ in {what}: {_differing(own, other)}; "
                    "make both again with one version"
                )


def _sizes(run: Run) -> dict[str, int]:
    return {split: len(counts) for split, counts in run.correct.items()}


def _differing(own: object, other: object) -> str:
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}, key=str):
            if own.get(key) != other.get(key):
                return f"{key} {own.get(key)!r} and {other.get(key)!r}"
    return f"{own!r} and {other!r}"


def _shared_experiments(study: Study, comparison: Comparison) -> set[str]:
    """The experiments in which every side that runs along several has its method configured."""
    along = [term.side for term in comparison if term.side.choose == "mean" and len(term.side.cells) > 1]
    found = [
        {experiment for experiment, label in side.cells if (experiment, label) in study.configured} for side in along
    ]
    return set.intersection(*found) if found else set()


def _cells(study: Study, side: Side, experiments: set[str]) -> list[Cell]:
    """The cells that a side takes; none where the scale does not test it."""
    configured = [cell for cell in side.cells if cell in study.configured]
    if side.choose == "best":
        # Every method has to get the same number of tries, and the same training in each.
        if len(configured) < len(side.cells):
            return []
        return _best(study, side)
    if len(side.cells) > 1:
        configured = [cell for cell in configured if cell[0] in experiments]
    return configured


def _best(study: Study, side: Side) -> list[Cell]:
    protocols = [run.training for cell in side.cells for run in study.runs.get(cell, {}).values()]
    if any(protocol != protocols[0] for protocol in protocols):
        raise ClaimsError(
            f"{side}: the variants were trained differently "
            f"({_differing(next(p for p in protocols if p != protocols[0]), protocols[0])}); "
            "give their experiments the same training"
        )
    seeds = set.intersection(*(_with_value(study, cell, side.by) for cell in side.cells))
    if not seeds:
        return []
    means = {cell: np.mean([study.runs[cell][seed].values[side.by] for seed in seeds]) for cell in side.cells}
    return [max(side.cells, key=lambda cell: means[cell])]


def _with_value(study: Study, cell: Cell, measure: str) -> set[int]:
    return {seed for seed, run in study.runs.get(cell, {}).items() if run.values.get(measure) is not None}


def _shared_seeds(study: Study, comparison: Comparison, cells_by_term: list[list[Cell]]) -> tuple[list[int], list[str]]:
    uses = list(
        dict.fromkeys(
            (term.measure, cell) for term, cells in zip(comparison, cells_by_term, strict=True) for cell in cells
        )
    )
    shared = set.intersection(*(_with_value(study, cell, measure) for measure, cell in uses))
    left_out = []
    for cell in dict.fromkeys(cell for _, cell in uses):
        for seed in study.configured[cell]:
            name = f"{cell[0]}/{cell[1]}/seed{seed}"
            if seed in shared:
                continue
            run = study.runs.get(cell, {}).get(seed)
            undefined = [m for m, c in uses if c == cell and run is not None and run.values.get(m) is None]
            if run is None:
                left_out.append(f"{name}: missing")
            elif undefined:
                left_out.append(f"{name}: {undefined[0]} is not defined for it")
            else:
                left_out.append(f"{name}: no such seed of what it is compared with")
    return sorted(shared), left_out


def _two_sided(comparison: Comparison) -> tuple[Term, Term] | None:
    """(first, second) where the comparison is the difference of one measure at two sides."""
    if len(comparison) == 2 and comparison[0].measure == comparison[1].measure:
        first, second = sorted(comparison, key=lambda term: -term.weight)
        if (first.weight, second.weight) == (1.0, -1.0):
            return first, second
    return None


def _shares(study, comparison, cells_by_term, seeds, rule) -> Effect:
    pair = _two_sided(comparison)
    if pair is None:
        raise ValueError("a yes-or-no measure can only be compared as the difference of two sides")
    counts = []
    for term in pair:
        cells = cells_by_term[comparison.index(term)]
        outcomes = [study.runs[cell][seed].values[term.measure] for cell in cells for seed in seeds]
        counts.append((round(sum(outcomes)), len(outcomes)))
    return effect_of_shares(counts[0], counts[1], len(seeds), rule)


def _over_problems(study, comparison, cells_by_term, seeds, rule, seed) -> tuple[float, float] | None:
    """The bootstrap over seeds and problems, where two methods' accuracies are compared."""
    pair = _two_sided(comparison)
    if pair is None or not pair[0].measure.startswith("accuracy.") or len(seeds) < 2:
        return None
    split = pair[0].measure.removeprefix("accuracy.")
    tables = []
    for term in pair:
        cells = cells_by_term[comparison.index(term)]
        if len(cells) != 1:
            return None
        tables.append({number: _table(study.runs[cells[0]][number], split) for number in seeds})
    found = hierarchical_difference(
        tables[0],
        tables[1],
        num_resamples=RESAMPLES,
        seed=seed,
        confidence=rule.confidence,
        levels=("seed", "question"),
    )
    return found.low, found.high


def _table(run: Run, split: str) -> np.ndarray:
    """(problems, samples) of 0 and 1 with the run's counts; the order of samples carries no meaning."""
    counts = np.asarray(run.correct[split])[:, None]
    return (np.arange(run.samples[split])[None, :] < counts).astype(int)
