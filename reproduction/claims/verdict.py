"""From numbers to one of six verdicts. Nothing here knows a method, a file or a paper.

With the effect e judged by the claim's rule as shown, refuted or open:

    no runs                                            not tested at this scale
    refuted                                            not reproduced
    shown, and every control is beaten                 reproduced
    shown, and a control does as well                  reproduced, but the control does as well
    none of these, and e < the paper's size is shown   not reproduced at the paper's size
    otherwise, or fewer seeds than the rule asks for   inconclusive

A control is beaten if the method's effect minus the control's (the contrast) is above 0 and estimated at the control's
margin or more; without a contrast, if the claim's own rule refutes it for the control. Unbeaten, it does as well

    1. if the contrast is below the margin, so that the method adds less than counts; or
    2. if the rule shows the effect for the control too, and the contrast is below the paper's size.

Both bound the contrast: that a difference from the control was not found is no evidence that there is none.

Each verdict is a statement with its own one-sided p-value (`PValues`), and each kind of statement is corrected
after Holm over the tested claims of a family. "Reproduced" says that the effect is there *and* beyond each control: its
p-value is the largest of theirs, which needs no correction within the claim (an intersection-union test, Berger 1982).
"The control does as well" says that *some* control does, in one of the two ways: the smallest p-value of the controls
that do is multiplied by the number of ways of all controls, before the effect's own is set against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from reproduction.claims.declare import ABOVE, Rule
from reproduction.claims.estimate import Effect
from reproduction.evaluation.aggregates import holm

REPRODUCED = "reproduced"
CONTROL_AS_WELL = "reproduced, but the control does as well"
NOT_AT_SIZE = "not reproduced at the paper's size"
NOT_REPRODUCED = "not reproduced"
INCONCLUSIVE = "inconclusive"
NOT_TESTED = "not tested at this scale"
VERDICTS = (REPRODUCED, CONTROL_AS_WELL, NOT_AT_SIZE, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED)
DECIDED = (REPRODUCED, CONTROL_AS_WELL, NOT_AT_SIZE, NOT_REPRODUCED)

SHOWN, REFUTED, OPEN = "shown", "refuted", "open"


@dataclass(frozen=True)
class ControlEvidence:
    """A control's effect and the method's effect minus it; None if it was not run or makes no sense.

    margin: by how much the method must beat the control; None takes the rule's. has_contrast: whether one is declared.
    """

    name: str
    effect: Effect | None
    contrast: Effect | None = None
    margin: float | None = None
    has_contrast: bool = True


@dataclass(frozen=True)
class PValues:
    """p-values of the statements that a verdict can make; 1 if the statement cannot be made.

    effect: the effect is as claimed. claim: so, and every control is beaten. as_well: so, and some control does as
    well. against: the effect is not as claimed. size: it is smaller than the paper's.
    """

    effect: float = 1.0
    claim: float = 1.0
    as_well: float = 1.0
    against: float = 1.0
    size: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """One of `VERDICTS`, and why in a sentence."""

    verdict: str
    reason: str


def contrast_rule(rule: Rule, margin: float | None) -> Rule:
    """The rule for an effect minus a control's: above 0, by the control's margin or else the claim's."""
    beyond = rule.margin if margin is None else margin
    return replace(rule, kind=ABOVE, margin=beyond, target=0.0) if rule.kind == ABOVE else Rule(ABOVE, beyond)


def judge(effect: Effect | None, rule: Rule) -> str:
    """`SHOWN`, `REFUTED` or `OPEN`; see `reproduction.claims.declare.Rule`."""
    if effect is None or effect.num_seeds < rule.min_seeds or effect.p_for is None or effect.p_against is None:
        return OPEN
    if effect.p_for <= rule.significance and (rule.kind != ABOVE or effect.value >= rule.margin):
        return SHOWN
    return REFUTED if effect.p_against <= rule.significance else OPEN


def p_values(rule: Rule, effect: Effect | None, controls: Sequence[ControlEvidence] = ()) -> PValues:
    """The p-value of each statement about a claim, before correction for its family."""
    if effect is None or effect.p_for is None or effect.p_against is None:
        return PValues()
    beaten = [_p_beaten(control) for control in controls]
    # A control that does not do as well lends no p-value to the statement that one does.
    ways = [p for control in controls if judge_control(control, rule) == SHOWN for p in _ways_as_well(control, rule)]
    number = sum(2 if control.has_contrast else 1 for control in controls)
    as_well = min(1.0, number * min(ways)) if ways else 1.0
    size = 1.0 if effect.p_size is None else effect.p_size
    return PValues(effect.p_for, max([effect.p_for, *beaten]), max(effect.p_for, as_well), effect.p_against, size)


def correct_family(found: Sequence[PValues]) -> list[PValues]:
    """The p-values of a family's tested claims after Holm, each kind of statement by itself."""
    corrected = list(found)
    for name in (one.name for one in fields(PValues)):
        for place, p_value in enumerate(holm([getattr(one, name) for one in found]) if found else ()):
            corrected[place] = replace(corrected[place], **{name: float(p_value)})
    return corrected


def decide(
    rule: Rule,
    effect: Effect | None,
    controls: Sequence[ControlEvidence] = (),
    corrected: PValues | None = None,
    why_none: str = "no runs of what the claim compares",
) -> Verdict:
    """The verdict on a claim.

    effect: None if there are no such runs; why_none then says why. corrected: its p-values as corrected for the
    family, by default those of a family of one.
    """
    if effect is None:
        return Verdict(NOT_TESTED, why_none)
    if effect.num_seeds < rule.min_seeds:
        return Verdict(INCONCLUSIVE, f"{effect.num_seeds} of at least {rule.min_seeds} seeds")
    raw = p_values(rule, effect, controls)
    corrected = raw if corrected is None else corrected
    known = effect.p_for is not None and effect.p_against is not None
    outcome = judge(replace(effect, p_for=corrected.effect, p_against=corrected.against), rule) if known else OPEN
    if outcome == REFUTED:
        return Verdict(NOT_REPRODUCED, f"an effect as claimed is excluded{_bound(rule, effect)}")
    outcomes = {control.name: judge_control(control, rule) for control in controls}
    if outcome == SHOWN:
        beaten = all(found == REFUTED for found in outcomes.values())
        if beaten and corrected.claim <= rule.significance:
            return Verdict(REPRODUCED, f"the effect is shown{_beyond(controls)}{_smaller(rule, effect, corrected)}")
        as_well = [name for name, found in outcomes.items() if found == SHOWN]
        if as_well and corrected.as_well <= rule.significance:
            return Verdict(CONTROL_AS_WELL, f"the effect is shown, and so it is for: {', '.join(as_well)}")
    open_because = _why_open(rule, outcome, controls, outcomes, raw, corrected)
    if rule.paper is not None and corrected.size <= rule.significance:
        return Verdict(NOT_AT_SIZE, f"an effect of {rule.paper:.3g} is excluded{_bound(rule, effect)}; {open_because}")
    return Verdict(INCONCLUSIVE, open_because)


def judge_control(control: ControlEvidence, rule: Rule) -> str:
    """`SHOWN` if the control does as well, `REFUTED` if it is beaten, else `OPEN`; before any correction."""
    if not control.has_contrast:
        return judge(control.effect, rule)
    if control.effect is None or control.contrast is None:
        return OPEN
    if judge(control.contrast, contrast_rule(rule, control.margin)) == SHOWN:
        return REFUTED
    return SHOWN if min(_ways_as_well(control, rule), default=1.0) <= rule.significance else OPEN


def _p_beaten(control: ControlEvidence) -> float:
    if control.has_contrast:
        found = None if control.contrast is None else control.contrast.p_for
    else:
        found = None if control.effect is None else control.effect.p_against
    return 1.0 if found is None else found


def _ways_as_well(control: ControlEvidence, rule: Rule) -> list[float]:
    """The p-values of the ways in which a control can do as well; none if its numbers do not allow them."""
    own, contrast = control.effect, control.contrast
    if own is None or own.p_for is None:
        return []
    if not control.has_contrast:
        return [own.p_for]
    if contrast is None or contrast.p_against is None:
        return []
    too = judge(own, rule) == SHOWN and contrast.p_size is not None
    return [contrast.p_against, *([max(own.p_for, contrast.p_size)] if too else [])]


def _why_open(rule, outcome, controls, outcomes, raw: PValues, corrected: PValues) -> str:
    if outcome != SHOWN:
        return "neither shown nor refuted, after correction for the family"
    missing = [control.name for control in controls if control.effect is None]
    if missing:
        return f"the effect is shown, but the control was not run: {', '.join(missing)}"
    if not controls:
        return "shown by itself, but not after correction for the family"
    # What the correction does to the largest p-value of the claim, the others would suffer as well.
    factor = corrected.claim / max(raw.claim, 1e-300)
    close = [
        control.name
        for control in controls
        if outcomes[control.name] != REFUTED or factor * _p_beaten(control) > rule.significance
    ]
    return (
        "the effect is shown, but not, after correction for the family, told from that of: "
        f"{', '.join(close or outcomes)}"
    )


def _bound(rule: Rule, effect: Effect) -> str:
    """The bound that the interval gives, if it has one."""
    if rule.kind != ABOVE or effect.high is None:
        return ""
    return f": it is at most {effect.high:.3g} (one-sided {1 - rule.significance:.0%})"


def _smaller(rule: Rule, effect: Effect, corrected: PValues) -> str:
    """For an effect that is shown, whether it is smaller than the paper's."""
    if rule.paper is None or corrected.size > rule.significance:
        return ""
    return f"; it is smaller than {rule.paper:.3g}{_bound(rule, effect)}"


def _beyond(controls: Sequence[ControlEvidence]) -> str:
    """By what each control is beaten: a contrast says that the effect is larger, the rule that it does not hold."""
    larger = [control.name for control in controls if control.has_contrast]
    refuted = [control.name for control in controls if not control.has_contrast]
    parts = [f"larger than with: {', '.join(larger)}"] if larger else []
    parts += [f"not for: {', '.join(refuted)}"] if refuted else []
    return f", and {', and '.join(parts)}" if parts else ""
