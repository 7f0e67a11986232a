"""What an open claim could have shown with its seeds, and how many seeds it needs."""

import itertools
import math
from dataclasses import dataclass

from scipy import stats

from reproduction.claims.betting import effect_of_shares
from reproduction.claims.declare import ABOVE, Rule
from reproduction.claims.design import SEQUENTIAL, Design, schedule
from reproduction.claims.estimate import COMPUTED, SHARES, Effect
from reproduction.evaluation.aggregates import minimum_detectable_effect

POWER = 0.8
_MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Needed:
    """detectable: the smallest true effect that this many seeds show with probability 0.8, if it has a meaning; seeds:
    how many are likely to decide; text: both in a sentence, "" without an estimate."""

    detectable: float | None = None
    seeds: int | None = None
    text: str = ""


def needed(effect: Effect | None, rule: Rule, num_claims: int, design: Design) -> Needed:
    """What the seeds at hand could have shown of a claim, and the seeds that decide it with probability 0.8.

    Both corrected for `num_claims` claims of the family (Holm's first step), the latter if there is no effect, or if
    the estimate is exact, whichever the rule speaks of; for looks it is the size of the first look with that power.
    """
    if effect is None or effect.num_seeds < 2:
        return Needed()
    level = rule.significance / num_claims
    if effect.kind == SHARES:
        seeds = _of_shares(effect.value, rule, level, design)
        return Needed(None, seeds, f"{_said(seeds)} would decide, were this estimate every seed's")
    if not effect.deviation:
        agree = "all seeds gave the same number, which leaves no spread to judge by"
        return Needed(text="" if effect.kind == COMPUTED else agree)
    if rule.kind != ABOVE:
        distance = rule.margin - (effect.value if rule.kind != "equal" else abs(effect.value - rule.target))
        seeds = _seeds(abs(distance) / effect.deviation, level, design)
        return Needed(None, seeds, f"{_said(seeds)} would decide with probability {POWER}, were this estimate exact")
    weight = (design.looks(effect.num_seeds) or [(0, 1.0)])[-1][1]
    # A one-sided test at a level is a two-sided one at twice the level, but for what it finds on the wrong side.
    detectable = max(
        minimum_detectable_effect(effect.deviation, effect.num_seeds, significance=2 * level * weight, power=POWER),
        rule.margin + float(stats.norm.ppf(POWER)) * effect.deviation / math.sqrt(effect.num_seeds),
    )
    size = rule.margin if rule.paper is None else rule.paper
    seeds = _seeds(size / effect.deviation, level, design)
    return Needed(
        detectable,
        seeds,
        f"an effect of {detectable:.3g} or more could have been shown, with probability {POWER}; {_said(seeds)} would "
        f"exclude one of {size:.3g} with that probability, were there none",
    )


def _said(seeds: int | None) -> str:
    return f"more than {_MOST_SEEDS} seeds" if seeds is None else f"{seeds} seeds"


def _sizes(design: Design):
    if design.kind == SEQUENTIAL:
        return itertools.takewhile(lambda look: look[0] <= _MOST_SEEDS, schedule())
    return ((size, 1.0) for size in range(2, _MOST_SEEDS + 1))


def _seeds(distance: float, level: float, design: Design) -> int | None:
    """The first number of seeds at which a one-sided t test sees a distance, in deviations, with the power."""
    for size, weight in _sizes(design):
        critical = stats.t.ppf(1 - level * weight, size - 1)
        if stats.nct.sf(critical, size - 1, distance * math.sqrt(size)) >= POWER:
            return size
    return None


def _of_shares(value: float, rule: Rule, level: float, design: Design) -> int | None:
    """The seeds that decide if each gives the same value."""
    for size, _ in _sizes(design):
        found = effect_of_shares(dict.fromkeys(range(size), value), rule)
        if min(p for p in (found.p_for, found.p_against, found.p_size) if p is not None) <= level:
            return size
    return None
