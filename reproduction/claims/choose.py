"""Which runs of a study a comparison takes: its cells, the seeds that they share, and why there are none."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from reproduction.claims.declare import Cell, Comparison, Side, stand_in
from reproduction.claims.one_run import ClaimsError, differing
from reproduction.claims.runs import Study


def resolved(study: Study, comparison: Comparison, stand_ins: Mapping[str, str]) -> Comparison:
    """The comparison with stand-ins in the place of cells that are not configured and measures that no run has.

    Cells are replaced together or not at all, so that no cell of one scale is compared with another's stand-in.
    """
    stands = {cell: stand_in(cell, stand_ins) for term in comparison for cell in term.side.cells}
    stands = {cell: other for cell, other in stands.items() if other != cell}
    if any(cell in study.configured for cell in stands) or not any(c in study.configured for c in stands.values()):
        stands = {}
    placed = []
    for term in comparison:
        cells = tuple(stands.get(cell, cell) for cell in term.side.cells)
        placed.append(dataclasses.replace(term, side=dataclasses.replace(term.side, cells=cells)))

    def known(measure: str) -> bool:
        return any(_with_value(study, cell, measure) for term in placed for cell in term.side.cells)

    measures = {
        measure: stand_ins[measure]
        for measure in {term.measure for term in placed} & set(stand_ins)
        if not known(measure) and known(stand_ins[measure])
    }
    return tuple(dataclasses.replace(term, measure=measures.get(term.measure, term.measure)) for term in placed)


def cells_of(study: Study, comparison: Comparison) -> list[list[Cell]]:
    """The cells of each term; none where the scale does not have what its side needs."""
    experiments = _shared_experiments(study, comparison)
    return [_cells(study, term.side, experiments) for term in comparison]


def seeds_of(
    study: Study, comparison: Comparison, cells_by_term: list[list[Cell]]
) -> tuple[list[int], list[str], list[str]]:
    """The seeds that all cells share; configured runs that do not enter, with the reason; of these the undefined.

    A side that takes the best of several tries enters with the seeds that all its tries have, so that which try wins
    decides no seeds.
    """
    uses = list(
        dict.fromkeys(
            (term.measure, cell) for term, cells in zip(comparison, cells_by_term, strict=True) for cell in cells
        )
    )
    tried = [_tried_seeds(study, term.side) for term in comparison if term.side.choose == "best"]
    shared = set.intersection(*(_with_value(study, cell, measure) for measure, cell in uses), *tried)
    left_out, undefined = [], []
    for cell in dict.fromkeys(cell for _, cell in uses):
        for seed in study.configured[cell]:
            name = f"{cell[0]}/{cell[1]}/seed{seed}"
            if seed in shared:
                continue
            run = study.runs.get(cell, {}).get(seed)
            absent = [m for m, c in uses if c == cell and run is not None and run.values.get(m) is None]
            if run is None:
                left_out.append(f"{name}: missing")
            elif absent:
                undefined.append(name)
                why = f" (it was stopped: {run.stopped})" if run.stopped else ""
                left_out.append(f"{name}: {absent[0]} is not defined for it{why}")
            else:
                left_out.append(f"{name}: no such seed of what it is compared with")
    return sorted(shared), left_out, undefined


def why_none(study: Study, comparison: Comparison, cells_by_term: list[list[Cell]]) -> str:
    """Why a comparison has no effect: not configured, not made, or made without what is measured."""
    for term, cells in zip(comparison, cells_by_term, strict=True):
        absent = ["/".join(cell) for cell in term.side.cells if cell not in study.configured]
        if not cells and absent:
            return f"the configuration of these runs has no {', '.join(absent)}"
    for term, cells in zip(comparison, cells_by_term, strict=True):
        # A choice among tries may have failed for want of runs; then all of them are looked at.
        for cell in cells or term.side.cells:
            name = "/".join(cell)
            if not study.runs.get(cell):
                return f"the runs {name} are missing"
            if not _with_value(study, cell, term.measure):
                return f"{term.measure} was not measured of the runs {name}"
    return "no seed has all runs that it compares"


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
            f"({differing(next(p for p in protocols if p != protocols[0]), protocols[0])}); "
            "give their experiments the same training"
        )
    seeds = _tried_seeds(study, side)
    if not seeds:
        return []
    means = {cell: np.mean([study.runs[cell][seed].values[side.by] for seed in seeds]) for cell in side.cells}
    return [max(side.cells, key=lambda cell: means[cell])]


def _tried_seeds(study: Study, side: Side) -> set[int]:
    return set.intersection(*(_with_value(study, cell, side.by) for cell in side.cells))


def _with_value(study: Study, cell: Cell, measure: str) -> set[int]:
    return {seed for seed, run in study.runs.get(cell, {}).items() if run.values.get(measure) is not None}
