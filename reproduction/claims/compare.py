"""A declared comparison carried out on a study: which runs it took, one number for each seed, the effect."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reproduction.claims.choose import cells_of, resolved, seeds_of, why_none
from reproduction.claims.declare import Comparison, Rule, Term
from reproduction.claims.estimate import COMPUTED, MEASURED, Effect, effect_of_means
from reproduction.claims.measures import BENCHMARK_SPLITS, BENCHMARKS, EVALUATION, MEASURES
from reproduction.claims.one_run import ClaimsError, Run, differing
from reproduction.claims.runs import Study
from reproduction.claims.shares import effect_of_shares
from reproduction.evaluation.aggregates import probability_of_improvement
from reproduction.evaluation.bootstrap import hierarchical_difference, seed_bootstrap

RESAMPLES = 2_000


@dataclass(frozen=True)
class Compared:
    """The outcome of a comparison. effect: None where the scale lacks its cells or no seed has all of them.

    per_seed: the number of each seed. sides: which cells each side took. left_out: configured runs that did not enter,
    each with its reason; undefined: those of them that were made, but whose measure is not defined. why_none: why there
    is no effect. described: interquartile mean over seeds with its bootstrap interval, and the probability that a run
    of the first side has more than one of the second; they decide nothing.
    """

    effect: Effect | None
    per_seed: dict[int, float] = field(default_factory=dict)
    sides: list[dict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)
    why_none: str = ""
    described: dict[str, float | list[float]] = field(default_factory=dict)


def compare(
    study: Study, comparison: Comparison, rule: Rule, *, stand_ins: Mapping[str, str] | None = None, seed: int = 0
) -> Compared:
    """Estimate a comparison on the seeds that all its cells share.

    stand_ins: experiments and measures that take the place of those that the study lacks; see `Claim`.
    Raises ClaimsError where the runs compared differ in code, versions, sampling or held-out problems, or, for measures
    of time, in hardware.
    """
    comparison = resolved(study, comparison, stand_ins or {})
    cells_by_term = cells_of(study, comparison)
    if not all(cells_by_term):
        return Compared(None, why_none=why_none(study, comparison, cells_by_term))
    runs = [run for cells in cells_by_term for cell in cells for run in study.runs.get(cell, {}).values()]
    timed = any(term.measure.endswith("_seconds") for term in comparison)
    graded = any(MEASURES[term.measure].source == EVALUATION for term in comparison)
    check_comparable(runs, timed=timed, graded=graded)
    seeds, left_out, undefined = seeds_of(study, comparison, cells_by_term)
    sides = [
        {"measure": term.measure, "weight": term.weight, "cells": ["/".join(cell) for cell in cells]}
        for term, cells in zip(comparison, cells_by_term, strict=True)
    ]
    if not seeds:
        reason = why_none(study, comparison, cells_by_term)
        return Compared(None, sides=sides, left_out=left_out, undefined=undefined, why_none=reason)
    by_term = [
        {number: float(np.mean([study.runs[cell][number].values[term.measure] for cell in cells])) for number in seeds}
        for term, cells in zip(comparison, cells_by_term, strict=True)
    ]
    per_seed = {
        number: float(sum(term.weight * values[number] for term, values in zip(comparison, by_term, strict=True)))
        for number in seeds
    }
    measures = [MEASURES[term.measure] for term in comparison]
    if any(measure.binary for measure in measures):
        if _two_sided(comparison) is None:
            raise ValueError("a yes-or-no measure can only be compared as the difference of two sides")
        effect = effect_of_shares(per_seed, rule, 1 / math.lcm(*(len(cells) for cells in cells_by_term)))
    else:
        computed = all(measure.computed for measure in measures)
        effect = effect_of_means(per_seed, rule, COMPUTED if computed else MEASURED)
        problems = _over_problems(study, comparison, cells_by_term, seeds, rule, seed)
        if problems is not None:
            effect = effect.widened(*problems)
    described = _described(comparison, by_term, per_seed, rule, seed)
    return Compared(effect, per_seed, sides, left_out, undefined, described=described)


def check_comparable(runs: list[Run], *, timed: bool, graded: bool = False) -> None:
    """Refuse runs whose difference could come from something other than what is compared.

    timed: whether times are compared; graded: whether what an evaluation found is. Runs that were measured before the
    code of their evaluation was recorded are taken without it.
    """
    if not runs:
        return
    by_grader = list({run.graded_by: run for run in runs if run.graded_by}.values())
    if graded and len(by_grader) > 1:
        raise ClaimsError(
            f"{by_grader[0].name} and {by_grader[1].name} are compared but were evaluated by different code; "
            "evaluate both again with one version"
        )
    first = runs[0]
    for run in runs[1:]:
        for what, own, other in (
            ("code", run.code, first.code),
            ("versions", run.versions, first.versions),
            ("sampling of the evaluation", run.sampling, first.sampling),
            ("samples per problem", run.samples, first.samples),
            ("number of held-out problems", _sizes(run), _sizes(first)),
            *([("hardware", _deciding_time(run), _deciding_time(first))] if timed else []),
        ):
            if own != other:
                raise ClaimsError(
                    f"{run.name} and {first.name} are compared but differ in {what}: {differing(own, other)}; "
                    "make both again with one version"
                )


def _deciding_time(run: Run) -> dict[str, Any]:
    """The hardware without its memory, whose size in bytes changes by a little with every start of a machine."""
    return {key: value for key, value in run.hardware.items() if key != "memory_bytes"}


def _sizes(run: Run) -> dict[str, int]:
    return {split: len(counts) for split, counts in run.correct.items()}


def _two_sided(comparison: Comparison) -> tuple[Term, Term] | None:
    """(first, second) where the comparison is the difference of one measure at two sides."""
    if len(comparison) == 2 and comparison[0].measure == comparison[1].measure:
        first, second = sorted(comparison, key=lambda term: -term.weight)
        if (first.weight, second.weight) == (1.0, -1.0):
            return first, second
    return None


def _described(comparison, by_term, per_seed, rule, seed) -> dict[str, float | list[float]]:
    """Aggregates of arXiv 2108.13264 of a difference of two sides; of a handful of seeds they describe, no more."""
    pair = _two_sided(comparison)
    if pair is None or len(per_seed) < 2:
        return {}
    middle = seed_bootstrap(list(per_seed.values()), num_resamples=RESAMPLES, seed=seed, confidence=rule.confidence)
    first, second = (list(by_term[comparison.index(term)].values()) for term in pair)
    bounds = [middle.low, middle.high] if math.isfinite(middle.low) else []
    return {
        "interquartile_mean": middle.estimate,
        "interquartile_mean_interval": bounds,
        "probability_of_improvement": probability_of_improvement(first, second),
    }


def _over_problems(study, comparison, cells_by_term, seeds, rule, seed) -> tuple[float, float] | None:
    """The bootstrap over seeds and problems, where two methods' accuracies are compared.

    Of a mean over benchmarks, whose problems are drawn apart from each other, that over the problems of each, the
    distances from the estimate added in squares.
    """
    pair = _two_sided(comparison)
    if pair is None or not pair[0].measure.startswith("accuracy.") or len(seeds) < 2:
        return None
    cells = [cells_by_term[comparison.index(term)] for term in pair]
    if any(len(own) != 1 for own in cells):
        return None
    sides = [{number: study.runs[own[0]][number] for number in seeds} for own in cells]
    split = pair[0].measure.removeprefix("accuracy.")
    averaged = pair[0].measure == BENCHMARKS
    splits = [name for name in sides[0][seeds[0]].correct if name in BENCHMARK_SPLITS] if averaged else [split]
    first, second = sides
    found = [
        hierarchical_difference(
            {number: _table(run, name) for number, run in first.items()},
            {number: _table(run, name) for number, run in second.items()},
            num_resamples=RESAMPLES,
            seed=seed,
            confidence=rule.confidence,
            levels=("question",) if averaged else ("seed", "question"),
        )
        for name in splits
    ]
    if not averaged:
        return found[0].low, found[0].high
    value = sum(one.estimate for one in found) / len(found)
    below, above = (
        math.hypot(*(one.estimate - end for one, end in zip(found, ends, strict=True))) / len(found)
        for ends in ([one.low for one in found], [one.high for one in found])
    )
    return value - below, value + above


def _table(run: Run, split: str) -> np.ndarray:
    """(problems, samples) of 0 and 1 with the run's counts; the order of samples carries no meaning."""
    counts = np.asarray(run.correct[split])[:, None]
    return (np.arange(run.samples[split])[None, :] < counts).astype(int)
