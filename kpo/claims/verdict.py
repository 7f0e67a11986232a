"""From numbers to one of five verdicts. Nothing here knows a method, a file or a paper.

With the effect judged by the claim's rule as shown, refuted or open:

    no runs                                          not tested at this scale
    fewer seeds than the rule asks for, or open      inconclusive
    refuted                                          not reproduced
    shown, and every control is beaten               reproduced
    shown, and a control does as well                reproduced, but the control does as well
    shown, and a control was not run or is open      inconclusive

A control is beaten where the method's effect minus the control's is shown to be above 0 by the control's margin;
without such a contrast, where the claim's own rule refutes it for the control. Unbeaten, it does as well where the rule
shows it for the control, or where the contrast's interval lies below the margin, so that the method adds less than
counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kpo.claims.declare import ABOVE, EQUAL, Rule
from kpo.claims.estimate import Effect
from kpo.evaluation.aggregates import holm

REPRODUCED = "reproduced"
CONTROL_AS_WELL = "reproduced, but the control does as well"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
NOT_TESTED = "not tested at this scale"
VERDICTS = (REPRODUCED, CONTROL_AS_WELL, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED)

SHOWN, REFUTED, OPEN = "shown", "refuted", "open"


@dataclass(frozen=True)
class ControlEvidence:
    """A control's effect and the method's effect minus it; None where it was not run or makes no sense.

    margin: by how much the method must beat the control; None takes the rule's. has_contrast: whether one is declared.
    """

    name: str
    effect: Effect | None
    contrast: Effect | None = None
    margin: float | None = None
    has_contrast: bool = True


@dataclass(frozen=True)
class Verdict:
    """One of `VERDICTS`, and why in a sentence."""

    verdict: str
    reason: str


def judge(effect: Effect, rule: Rule) -> str:
    """`SHOWN`, `REFUTED` or `OPEN`; see `kpo.claims.declare.Rule`."""
    if effect.num_seeds < rule.min_seeds or effect.low is None or effect.high is None:
        return OPEN
    if rule.kind == ABOVE and effect.value == 0 and effect.deviation == 0:
        # Not one seed shows any difference: nothing to compare happened, such as spikes that no run has.
        return OPEN
    significance = 1.0 - rule.confidence
    if rule.kind == ABOVE:
        shown = effect.low > 0 and effect.value >= rule.margin
        refuted = effect.high < rule.margin
    elif rule.kind == EQUAL:
        below, above = rule.target - rule.margin, rule.target + rule.margin
        shown = below <= effect.low and effect.high <= above
        refuted = effect.low > above or effect.high < below
    else:
        shown, refuted = effect.high <= rule.margin, effect.low > rule.margin
    if shown and effect.p_for <= significance:
        return SHOWN
    if refuted and effect.p_against <= significance:
        return REFUTED
    return OPEN


def decide(rule: Rule, effect: Effect | None, controls: Sequence[ControlEvidence] = ()) -> Verdict:
    """The verdict on a claim whose family correction is already in the effect's p-values.

    effect: None where the scale has no such runs.
    """
    if effect is None:
        return Verdict(NOT_TESTED, "no runs of what the claim compares")
    if effect.num_seeds < rule.min_seeds:
        return Verdict(INCONCLUSIVE, f"{effect.num_seeds} of at least {rule.min_seeds} seeds")
    outcome = judge(effect, rule)
    if outcome == REFUTED:
        return Verdict(NOT_REPRODUCED, "the interval excludes an effect as claimed")
    if outcome == OPEN:
        return Verdict(INCONCLUSIVE, "neither shown nor excluded, after correction for the family")
    outcomes = {control.name: judge_control(control, rule) for control in controls}
    as_well = [name for name, found in outcomes.items() if found == SHOWN]
    undecided = [control for control in controls if outcomes[control.name] == OPEN]
    if as_well:
        return Verdict(CONTROL_AS_WELL, f"the effect is shown, and so it is for: {', '.join(as_well)}")
    if undecided:
        missing = [control.name for control in undecided if control.effect is None]
        if missing:
            return Verdict(INCONCLUSIVE, f"the effect is shown, but the control was not run: {', '.join(missing)}")
        names = ", ".join(control.name for control in undecided)
        return Verdict(INCONCLUSIVE, f"the effect is shown, but too few seeds to tell it from: {names}")
    against = f" and larger than with: {', '.join(outcomes)}" if outcomes else ""
    return Verdict(REPRODUCED, f"the effect is shown{against}")


def judge_control(control: ControlEvidence, rule: Rule) -> str:
    """`SHOWN` where the control does as well, `REFUTED` where it is beaten, else `OPEN`."""
    if control.effect is None:
        return OPEN
    own = judge(control.effect, rule)
    if not control.has_contrast:
        return own
    if control.contrast is None:
        return SHOWN if own == SHOWN else OPEN
    beating = Rule(
        ABOVE,
        rule.margin if control.margin is None else control.margin,
        confidence=rule.confidence,
        min_seeds=rule.min_seeds,
    )
    contrast = judge(control.contrast, beating)
    if contrast == SHOWN:
        return REFUTED
    return SHOWN if own == SHOWN or contrast == REFUTED else OPEN


def correct_family(effects: Sequence[Effect]) -> list[Effect]:
    """The effects of a family's tested claims with Holm-corrected p-values, for and against each by themselves."""
    known = [index for index, effect in enumerate(effects) if effect.p_for is not None]
    corrected = list(effects)
    if known:
        p_for = holm([effects[index].p_for for index in known])
        p_against = holm([effects[index].p_against for index in known])
        for place, index in enumerate(known):
            corrected[index] = replace(effects[index], p_for=float(p_for[place]), p_against=float(p_against[place]))
    return corrected
