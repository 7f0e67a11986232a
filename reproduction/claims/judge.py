"""Verdicts: the result of every claim at each of its looks, from the measured runs only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from reproduction.claims.betting import effect_of_shares
from reproduction.claims.comparable import check_comparable
from reproduction.claims.declarations import CLAIMS
from reproduction.claims.declare import Claim, Control, Rule
from reproduction.claims.design import FIRST_SEED, SEQUENTIAL, SINGLE, Design, next_look
from reproduction.claims.estimate import COMPUTED, MEASURED, Effect, combined, effect_of_means, sign_flip
from reproduction.claims.measures import EVALUATION, MEASURES
from reproduction.claims.needed import Needed, needed
from reproduction.claims.noise import floor
from reproduction.claims.page import names_of
from reproduction.claims.resolve import Resolved, resolve, seeds_of
from reproduction.claims.runs import Study
from reproduction.claims.verdict import (
    DECIDED,
    INCONCLUSIVE,
    NOT_TESTED,
    ControlEvidence,
    PValues,
    Verdict,
    contrast_rule,
    correct_family,
    decide,
    p_values,
)

SINGLE_LOOK = Design(SINGLE)


@dataclass(frozen=True)
class Compared:
    """A comparison at one look. effect: None if there is none, for the reason why_none.

    per_seed: the number of each seed. sides: which cells each term took. left_out: runs that did not enter, with the
    reason.
    """

    effect: Effect | None
    per_seed: dict[int, float]
    sides: list[dict]
    left_out: list[str]
    why_none: str = ""


@dataclass(frozen=True)
class ControlResult:
    """A control's outcome: what it gives, and the method's effect minus it."""

    name: str
    question: str
    effect: Compared
    contrast: Compared | None


@dataclass(frozen=True)
class Look:
    """What a claim gave at one look: seeds, the estimate with the look's own interval, that of all looks so far, the
    one-sided p-values of all looks so far, and the verdict."""

    seeds: int
    value: float
    low: float | None
    high: float | None
    low_so_far: float | None
    high_so_far: float | None
    p_for: float | None
    p_against: float | None
    p_size: float | None
    verdict: str


@dataclass(frozen=True)
class Published:
    """What the published study says of a claim, and whether this run's effect agrees with its: the two differ by no
    more than the half-widths of both intervals, added in squares; None if one of them has no interval."""

    verdict: str
    value: float | None
    low: float | None
    high: float | None
    num_seeds: int
    agrees: bool | None


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its numbers and its verdict.

    beside: (name, in words, outcome) of what is shown and decides nothing. family_size: tested claims that the p-values
    are corrected for. corrected: the p-values of the verdict's statements after that correction. decided_at: the seeds
    of the look that decided. waiting: what the next look lacks. published: the published study on the same claim, for
    a run that is not part of it.
    """

    claim: Claim
    compared: Compared
    controls: list[ControlResult]
    beside: list[tuple[str, str, Compared]]
    verdict: Verdict
    family_size: int
    corrected: PValues
    looks: list[Look]
    decided_at: int | None
    waiting: str
    needed: Needed
    published: Published | None = None

    @property
    def deciding(self) -> list[Compared]:
        """The outcomes that decide: the effect, and each control with its contrast."""
        return [self.compared, *(one for part in self.controls for one in (part.effect, part.contrast) if one)]


def evaluate_claims(
    study: Study, design: Design = SINGLE_LOOK, claims: tuple[Claim, ...] = CLAIMS
) -> list[ClaimResult]:
    """The result of every claim, look by look, p-values corrected within the families of those that are tested.

    A claim keeps the verdict of the first look that decides it; later seeds of its runs are left out. Claims of one
    family are at different looks then, each with the p-values that it has.
    """
    gathered = {claim.id: _Gathered(study, design, claim) for claim in claims}
    families: dict[str, list[_Gathered]] = {}
    for one in gathered.values():
        if one.is_tested:
            families.setdefault(one.claim.family, []).append(one)
    for look in range(1, max((len(one.looks) for one in gathered.values()), default=0) + 1):
        for family in families.values():
            raw = [one.at(one.stopped or min(look, len(one.looks))).p for one in family]
            for one, corrected in zip(family, correct_family(raw), strict=True):
                one.judge(look, corrected, len(family))
    return [one.result() for one in gathered.values()]


@dataclass(frozen=True)
class _State:
    """A claim's parts through one look."""

    effect: Compared
    controls: list[tuple[Compared, Compared | None]]
    evidence: list[ControlEvidence]
    p: PValues


class _Gathered:
    """A claim on a study: its comparisons resolved once, the seeds of its looks, and its verdict as looks go by."""

    def __init__(self, study: Study, design: Design, claim: Claim):
        self.study, self.design, self.claim = study, design, claim
        self.effect = resolve(study, claim.effect, claim.stand_ins)
        self.controls = [
            (resolve(study, one.effect, claim.stand_ins), resolve(study, one.contrast, claim.stand_ins))
            if one.contrast
            else (resolve(study, one.effect, claim.stand_ins), None)
            for one in claim.controls
        ]
        self.is_tested = bool(self.effect.uses) and all(cells for *_, cells in self.effect.terms)
        parts = [part for pair in self.controls for part in pair if part is not None and not part.why_none]
        self.parts = [self.effect, *parts] if not self.effect.why_none else []
        for part in self.parts:
            _check(study, part)
        self.seeds, self.missing, self.undefined = seeds_of(study, self.parts)
        if design.kind == SEQUENTIAL:
            self.seeds = self._in_order()
        self.looks = design.looks(len(self.seeds))
        self.stopped: int | None = None
        self.verdicts: list[Verdict] = []
        self.corrected, self.family_size = PValues(), 0
        self.at = lru_cache(None)(self._at)

    def _in_order(self) -> list[int]:
        """The complete seeds from the first on, up to one that lacks a run; seeds without a value are passed over."""
        complete, undefined = set(self.seeds), {_seed_of(text.split(":")[0]) for text in self.undefined}
        found, seed = [], FIRST_SEED
        while seed in complete or (seed in undefined and seed not in {_seed_of(name) for name in self.missing}):
            found += [seed] if seed in complete else []
            seed += 1
        return found

    @property
    def waiting(self) -> str:
        """What the next look lacks, for a claim of the sequential design that is open."""
        if self.design.kind != SEQUENTIAL or self.stopped or not self.is_tested:
            return ""
        number = next_look(len(self.seeds))
        lacking = [name for name in self.missing if _seed_of(name) < FIRST_SEED + number]
        named = f"; missing: {names_of(lacking)}" if lacking else ""
        return f"the look at {number} complete seeds, of which there are {len(self.seeds)}{named}"

    def _at(self, look: int) -> _State:
        if not self.looks or look == 0:
            nothing = self._nothing(self.effect)
            controls = [
                (self._nothing(effect), None if contrast is None else self._nothing(contrast))
                for effect, contrast in self.controls
            ]
            return _State(nothing, controls, [], PValues())
        looks = self.looks[:look]
        effect = self._compared(self.effect, self.claim.rule, looks)
        controls, evidence = [], []
        for control, (own, contrast) in zip(self.claim.controls, self.controls, strict=True):
            found = self._compared(own, self.claim.rule, looks)
            beyond = None if contrast is None else self._compared(contrast, self._rule_against(control), looks)
            controls.append((found, beyond))
            evidence.append(
                ControlEvidence(
                    control.name,
                    found.effect,
                    beyond.effect if beyond else None,
                    control.margin,
                    bool(control.contrast),
                )
            )
        return _State(effect, controls, evidence, p_values(self.claim.rule, effect.effect, evidence))

    def _rule_against(self, control: Control) -> Rule:
        return contrast_rule(self.claim.rule, control.margin)

    def _nothing(self, part: Resolved, why: str = "") -> Compared:
        if not why:
            why = part.why_none or (
                f"no look yet: {self.waiting}" if self.waiting else "no seed has all runs that it compares"
            )
        return Compared(None, {}, _sides(part), [], why)

    def _compared(self, part: Resolved, rule: Rule, looks: Sequence[tuple[int, float]]) -> Compared:
        if part.why_none:
            return self._nothing(part)
        seeds = self.seeds[: looks[-1][0]]
        per_seed = {seed: part.value(self.study, seed) for seed in seeds}
        effect = effect_at(self.study, part, rule, per_seed, looks)
        return Compared(effect, per_seed, _sides(part), [])

    def _named(self, part: Resolved, found: Compared) -> Compared:
        """The outcome with the runs that are not in it, once it is known which look decided."""
        return replace(found, left_out=[] if part.why_none else self._left_out(part, found.per_seed))

    def _left_out(self, part: Resolved, seeds: Collection[int]) -> list[str]:
        cells = {f"{experiment}/{label}" for _, (experiment, label) in part.uses}
        missing = [] if self.stopped and self.design.kind == SEQUENTIAL else self.missing
        lines = [f"{name}: missing" for name in missing if _cell_of(name) in cells]
        lines += [text for text in self.undefined if _cell_of(text.split(":")[0]) in cells]
        named = {text.split(":")[0] for text in lines}
        why = "after the look that decided" if self.stopped else "of no complete look"
        for _, (experiment, label) in part.uses:
            for seed in sorted(self.study.runs.get((experiment, label), {})):
                name = f"{experiment}/{label}/seed{seed}"
                if seed not in seeds and name not in named:
                    is_later = self.design.kind == SEQUENTIAL
                    lines.append(f"{name}: {why if is_later else 'no such seed of what it is compared with'}")
                    named.add(name)
        return lines

    def judge(self, look: int, corrected: PValues, family_size: int) -> None:
        """Take the verdict at a look of the family, unless an earlier one has decided."""
        if self.stopped:
            return
        self.corrected, self.family_size = corrected, family_size
        own = min(look, len(self.looks))
        if not own:
            return
        state = self.at(own)
        verdict = decide(self.claim.rule, state.effect.effect, state.evidence, corrected, state.effect.why_none)
        self.verdicts[own - 1 :] = [verdict]
        if verdict.verdict in DECIDED:
            self.stopped = own

    def result(self) -> ClaimResult:
        through = self.stopped or len(self.looks)
        state = self.at(through)
        effect = state.effect.effect
        if effect is not None:
            verdict = self.verdicts[-1]
        elif self.is_tested and self.waiting:
            verdict = Verdict(INCONCLUSIVE, f"no look yet: waiting for {self.waiting}")
        else:
            verdict = Verdict(NOT_TESTED, state.effect.why_none)
        if self.undefined and effect is not None:
            # A run that broke must not leave the comparison unseen.
            named = ", ".join(dict.fromkeys(text.split(":")[0] for text in self.undefined))
            verdict = replace(verdict, reason=f"{verdict.reason}; without {named}, not defined there")
        if effect is not None and effect.kind == MEASURED:
            effect = replace(effect, p_flip=sign_flip(list(state.effect.per_seed.values())))
        looks = [self._look(number, verdict) for number, verdict in enumerate(self.verdicts, start=1)]
        rule = self.claim.rule
        return ClaimResult(
            claim=self.claim,
            compared=self._named(self.effect, replace(state.effect, effect=effect)),
            controls=[
                ControlResult(
                    control.name,
                    control.question,
                    self._named(own, effect),
                    None if contrast is None else self._named(contrast, beyond),
                )
                for control, (own, contrast), (effect, beyond) in zip(
                    self.claim.controls, self.controls, state.controls, strict=True
                )
            ],
            beside=[(one.name, one.what, self._beside(one.measured, through)) for one in self.claim.beside],
            verdict=verdict,
            family_size=self.family_size,
            corrected=self.corrected,
            looks=looks,
            decided_at=self.looks[self.stopped - 1][0] if self.stopped else None,
            waiting=self.waiting,
            needed=needed(effect, rule, max(1, self.family_size), self.design),
        )

    def _look(self, number: int, verdict: Verdict) -> Look:
        through = self.at(number).effect.effect
        alone = self._compared(self.effect, self.claim.rule, self.looks[number - 1 : number]).effect
        return Look(
            self.looks[number - 1][0], alone.value, alone.low, alone.high, through.low, through.high,
            through.p_for, through.p_against, through.p_size, verdict.verdict,
        )  # fmt: skip

    def _beside(self, comparison, look: int) -> Compared:
        part = resolve(self.study, comparison, self.claim.stand_ins)
        if part.why_none or not look:
            return self._nothing(part)
        seeds, *_ = seeds_of(self.study, [part])
        shown = [seed for seed in self.seeds[: self.looks[look - 1][0]] if seed in seeds]
        if not shown:
            return self._nothing(part)
        _check(self.study, part)
        per_seed = {seed: part.value(self.study, seed) for seed in shown}
        effect = effect_at(self.study, part, self.claim.rule, per_seed, [(len(shown), 1.0)])
        return Compared(effect, per_seed, _sides(part), self._left_out(part, shown))


def effect_at(
    study: Study, part: Resolved, rule: Rule, per_seed: dict[int, float], looks: Sequence[tuple[int, float]]
) -> Effect:
    """A comparison's effect from some looks at the first seeds of `per_seed`."""
    measures = [MEASURES[measure] for _, measure, _ in part.terms]
    seeds = list(per_seed)
    if any(measure.binary for measure in measures):
        # Its p-values hold at any seed, so that they need no share of the looks.
        return effect_of_shares(per_seed, rule)
    kind = COMPUTED if all(measure.computed for measure in measures) else MEASURED
    found = []
    for size, weight in looks:
        first = seeds[:size]
        known = floor(study, part, first) if kind == MEASURED else 0.0
        values = {seed: per_seed[seed] for seed in first}
        found.append(effect_of_means(values, rule, kind, weight=weight, floor=known))
    return combined(found)


def _check(study: Study, part: Resolved) -> None:
    runs = [run for _, cell in part.uses for run in study.runs.get(cell, {}).values()]
    measures = [measure for measure, _ in part.uses]
    timed = any(measure.endswith("_seconds") for measure in measures)
    check_comparable(runs, timed=timed, graded=any(MEASURES[one].source == EVALUATION for one in measures))


def _sides(part: Resolved) -> list[dict]:
    return [
        {"measure": measure, "weight": weight, "cells": ["/".join(cell) for cell in cells]}
        for weight, measure, cells in part.terms
    ]


def _seed_of(name: str) -> int:
    return int(name.rpartition("seed")[2])


def _cell_of(name: str) -> str:
    return name.rpartition("/")[0]
