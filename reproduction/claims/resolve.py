"""Which runs of a study a claim takes: each comparison's cells, found once, and the seeds that all of them have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from reproduction.claims.declare import Cell, Comparison, Side, stand_in
from reproduction.claims.runs import Study


@dataclass(frozen=True)
class Resolved:
    """A comparison on one study: (weight, measure, cells) of each term; why_none: why it cannot be made, or ""."""

    terms: tuple[tuple[float, str, tuple[Cell, ...]], ...]
    why_none: str = ""

    @property
    def uses(self) -> list[tuple[str, Cell]]:
        """Each (measure, cell) once."""
        return list(dict.fromkeys((measure, cell) for _, measure, cells in self.terms for cell in cells))

    def value(self, study: Study, seed: int) -> float:
        """The comparison's number of one seed, which all cells must have."""
        return float(
            sum(
                weight * np.mean([study.runs[cell][seed].values[measure] for cell in cells])
                for weight, measure, cells in self.terms
            )
        )


def resolve(study: Study, comparison: Comparison, stand_ins: Mapping[str, str | tuple[str, ...]]) -> Resolved:
    """The comparison's terms on a study, with stand-ins in the place of cells and measures that the study lacks.

    Cells are replaced together or not at all, so that no cell of one scale is compared with another's stand-in.
    """
    stands = {cell: stand_in(cell, stand_ins) for term in comparison for cell in term.side.cells}
    stands = {cell: other for cell, other in stands.items() if other != cell}
    if any(cell in study.configured for cell in stands) or not any(c in study.configured for c in stands.values()):
        stands = {}
    sides = [Side(tuple(stands.get(cell, cell) for cell in term.side.cells)) for term in comparison]
    experiments = _shared_experiments(study, sides)

    def known(measure: str) -> bool:
        return any(with_value(study, cell, measure) for side in sides for cell in side.cells)

    terms = []
    for term, side in zip(comparison, sides, strict=True):
        cells = [cell for cell in side.cells if cell in study.configured]
        if len(side.cells) > 1:
            cells = [cell for cell in cells if cell[0] in experiments]
        others = stand_ins.get(term.measure, ())
        measure = next(
            (one for one in (term.measure, *([others] if isinstance(others, str) else others)) if known(one)),
            term.measure,
        )
        terms.append((term.weight, measure, tuple(cells)))
    return Resolved(tuple(terms), _why_none(study, sides, terms))


def seeds_of(study: Study, parts: Iterable[Resolved]) -> tuple[list[int], list[str], list[str]]:
    """The seeds that all cells of several comparisons have; the runs that a further seed lacks; the undefined runs.

    A seed counts if each of its runs was made and measured. Missing are configured runs that were not made; undefined
    are those that were, but whose measure has no value, with the reason.
    """
    uses = list(dict.fromkeys(use for part in parts for use in part.uses))
    shared = set.intersection(*(with_value(study, cell, measure) for measure, cell in uses)) if uses else set()
    missing, undefined = [], []
    for cell in dict.fromkeys(cell for _, cell in uses):
        for seed in study.configured[cell]:
            run, name = study.runs.get(cell, {}).get(seed), f"{cell[0]}/{cell[1]}/seed{seed}"
            if run is None:
                missing.append(name)
                continue
            for measure in (measure for measure, other in uses if other == cell and run.values.get(measure) is None):
                why = f" (it was stopped: {run.stopped})" if run.stopped else ""
                undefined.append(f"{name}: {measure} is not defined for it{why}")
                break
    return sorted(shared), missing, undefined


def with_value(study: Study, cell: Cell, measure: str) -> set[int]:
    """The seeds for which a cell has a value of a measure."""
    return {seed for seed, run in study.runs.get(cell, {}).items() if run.values.get(measure) is not None}


def _shared_experiments(study: Study, sides: list[Side]) -> set[str]:
    """The experiments in which every side that takes several has its method configured."""
    along = [side for side in sides if len(side.cells) > 1]
    found = [{name for name, label in side.cells if (name, label) in study.configured} for side in along]
    return set.intersection(*found) if found else set()


def _why_none(study: Study, sides: list[Side], terms: list) -> str:
    """Why a comparison cannot be made: not configured, not run, or run without what is measured; "" if it can."""
    for side, (_, _, cells) in zip(sides, terms, strict=True):
        absent = ["/".join(cell) for cell in side.cells if cell not in study.configured]
        if not cells:
            return f"the configuration of these runs has no {', '.join(absent)}"
    for _, measure, cells in terms:
        for cell in cells:
            if not study.runs.get(cell):
                return f"the runs {'/'.join(cell)} are missing"
            if not with_value(study, cell, measure):
                return f"{measure} was not measured of the runs {'/'.join(cell)}"
    return ""
