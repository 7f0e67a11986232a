"""From numbers to one of five verdicts. Nothing here knows a method, a file or a paper.

With the effect judged by the claim's rule as shown, refuted or open:

    no runs                                          not tested at this scale
    fewer seeds than the rule asks for, or open      inconclusive
    refuted                                          not reproduced
    shown, and every control is beaten               reproduced
    shown, and a control does as well                reproduced, but the control does as well
    shown, and a control was not run or is open      inconclusive

A control is beaten where the method's effect minus the control's is shown to be above 0 by the control's margin;
without such a contrast, where the claim's own rule refutes it for the control. Unbeaten, it does as well where the
contrast's interval lies below the margin, so that the method adds less than counts, or where the rule shows it for the
control and the contrast's interval does not lie above 0.

Each verdict is a statement with a p-value of its own (`PValues`), and each kind of statement is corrected after Holm
over the tested claims of a family. "Reproduced" says that the effect is there *and* beyond each control: its p-value is
the largest of theirs, which needs no correction within the claim (an intersection-union test). "The control does as
well" says that *some* control does, in one of the two ways above: its smallest p-value is multiplied by the number of
ways, before the effect's own is set against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from reproduction.claims.declare import ABOVE, EQUAL, Rule
from reproduction.claims.estimate import COMPUTED, SHARES, Effect
from reproduction.evaluation.aggregates import holm

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

    def beating(self, rule: Rule) -> Rule:
        """The rule by which the contrast shows that the control is beaten."""
        return contrast_rule(rule, self.margin)


def contrast_rule(rule: Rule, margin: float | None) -> Rule:
    """The rule for an effect minus a control's: above 0, by the control's margin or else the claim's."""
    beyond = rule.margin if margin is None else margin
    return Rule(ABOVE, beyond, confidence=rule.confidence, min_seeds=rule.min_seeds)


@dataclass(frozen=True)
class PValues:
    """p-values of the statements that a verdict can make; 1 where the statement cannot be made.

    effect: the effect is as claimed. claim: so, and every control is beaten. as_well: so, and some control does as
    well. against: the effect is not as claimed.
    """

    effect: float = 1.0
    claim: float = 1.0
    as_well: float = 1.0
    against: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """One of `VERDICTS`, and why in a sentence."""

    verdict: str
    reason: str


def judge(effect: Effect, rule: Rule) -> str:
    """`SHOWN`, `REFUTED` or `OPEN`; see `reproduction.claims.declare.Rule`."""
    if effect.num_seeds < rule.min_seeds or effect.low is None or effect.high is None:
        return OPEN
    if effect.p_for is None or effect.p_against is None:
        return OPEN
    if rule.kind == ABOVE and effect.value == 0 and effect.deviation == 0 and effect.kind != COMPUTED:
        # Not one seed shows any difference: nothing to compare happened, such as collapses that no run has.
        return OPEN
    if rule.kind == ABOVE:
        shown = effect.low > 0 and effect.value >= rule.margin
        refuted = effect.high < rule.margin
    elif rule.kind == EQUAL:
        below, above = rule.target - rule.margin, rule.target + rule.margin
        shown = below <= effect.low and effect.high <= above
        refuted = effect.low > above or effect.high < below
    else:
        shown, refuted = effect.high <= rule.margin, effect.low > rule.margin
    if effect.kind == SHARES:
        # The exact p-values decide; of the interval, which is wider, nothing is asked.
        shown, refuted = rule.kind != ABOVE or effect.value >= rule.margin, True
    significance = 1.0 - rule.confidence
    if shown and effect.p_for <= significance:
        return SHOWN
    if refuted and effect.p_against <= significance:
        return REFUTED
    return OPEN


def p_values(rule: Rule, effect: Effect | None, controls: Sequence[ControlEvidence] = ()) -> PValues:
    """The p-value of each statement about a claim, before correction for its family."""
    if effect is None or effect.p_for is None or effect.p_against is None:
        return PValues()
    beaten = [_p_beaten(control) for control in controls]
    ways = [p_value for control in controls for p_value in _ways_as_well(control, rule)]
    as_well = min(1.0, len(ways) * min(ways)) if ways else 1.0
    return PValues(effect.p_for, max([effect.p_for, *beaten]), max(effect.p_for, as_well), effect.p_against)


def correct_family(found: Sequence[PValues], can_be_shown: Sequence[bool] | None = None) -> list[PValues]:
    """The p-values of a family's tested claims after Holm, each kind of statement by itself.

    can_be_shown: whether any outcome of the seeds at hand could show the claim; by default all can. Those that cannot
    take no part in the correction of what speaks for the claims, since they cannot be shown by mistake either (Tarone
    1990, Biometrics 46): an exact test over few seeds costs the claims beside it nothing.
    """
    if not found:
        return []
    counted = [True] * len(found) if can_be_shown is None else list(can_be_shown)
    corrected = list(found)
    for name in (one.name for one in fields(PValues)):
        taking = [place for place in range(len(found)) if counted[place] or name == "against"]
        for place, p_value in zip(taking, holm([getattr(found[place], name) for place in taking]), strict=True):
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

    effect: None where the scale has no such runs; why_none then says why. corrected: its p-values as corrected for the
    family, by default those of a family of one.
    """
    if effect is None:
        return Verdict(NOT_TESTED, why_none)
    if effect.num_seeds < rule.min_seeds:
        return Verdict(INCONCLUSIVE, f"{effect.num_seeds} of at least {rule.min_seeds} seeds")
    corrected = p_values(rule, effect, controls) if corrected is None else corrected
    known = effect.p_for is not None and effect.p_against is not None
    outcome = judge(replace(effect, p_for=corrected.effect, p_against=corrected.against), rule) if known else OPEN
    if outcome == REFUTED:
        return Verdict(NOT_REPRODUCED, "an effect as claimed is excluded")
    if outcome == OPEN:
        return Verdict(INCONCLUSIVE, "neither shown nor excluded, after correction for the family")
    significance = 1.0 - rule.confidence
    outcomes = {control.name: judge_control(control, rule) for control in controls}
    if all(found == REFUTED for found in outcomes.values()) and corrected.claim <= significance:
        return Verdict(REPRODUCED, f"the effect is shown{_beyond(controls)}")
    as_well = [name for name, found in outcomes.items() if found == SHOWN]
    if as_well and corrected.as_well <= significance:
        return Verdict(CONTROL_AS_WELL, f"the effect is shown, and so it is for: {', '.join(as_well)}")
    missing = [control.name for control in controls if control.effect is None]
    if missing:
        return Verdict(INCONCLUSIVE, f"the effect is shown, but the control was not run: {', '.join(missing)}")
    if not controls:
        return Verdict(INCONCLUSIVE, "shown by itself, but not after correction for the family")
    # What the correction does to the largest p-value of the claim, the others would suffer as well.
    factor = corrected.claim / max(p_values(rule, effect, controls).claim, 1e-300)
    close = [
        control.name
        for control in controls
        if outcomes[control.name] != REFUTED or factor * _p_beaten(control) > significance
    ]
    return Verdict(
        INCONCLUSIVE,
        "the effect is shown, but not, after correction for the family, told from that of: "
        f"{', '.join(close or outcomes)}",
    )


def judge_control(control: ControlEvidence, rule: Rule) -> str:
    """`SHOWN` where the control does as well, `REFUTED` where it is beaten, else `OPEN`; before any correction."""
    if control.effect is None:
        return OPEN
    own = judge(control.effect, rule)
    if not control.has_contrast:
        return own
    if control.contrast is None:
        return SHOWN if own == SHOWN else OPEN
    contrast = judge(control.contrast, control.beating(rule))
    if contrast == SHOWN:
        return REFUTED
    if contrast == REFUTED:
        return SHOWN
    # What lies above 0 without being shown is no sign that the two are alike.
    above = control.contrast.low is not None and control.contrast.low > 0
    return SHOWN if own == SHOWN and not above else OPEN


def _p_beaten(control: ControlEvidence) -> float:
    if control.has_contrast:
        found = None if control.contrast is None else control.contrast.p_for
    else:
        found = None if control.effect is None else control.effect.p_against
    return 1.0 if found is None else found


def _ways_as_well(control: ControlEvidence, rule: Rule) -> list[float]:
    """The p-values of the ways in which a control can do as well; 1 for a way that its numbers do not take."""
    if control.effect is None:
        return []
    ways = [control.effect.p_for if judge(control.effect, rule) == SHOWN else None]
    if control.contrast is not None:
        ways.append(control.contrast.p_against)
    return [1.0 if p_value is None else p_value for p_value in ways]


def _beyond(controls: Sequence[ControlEvidence]) -> str:
    """By what each control is beaten: a contrast says that the effect is larger, the rule that it does not hold."""
    larger = [control.name for control in controls if control.has_contrast]
    refuted = [control.name for control in controls if not control.has_contrast]
    parts = [f"larger than with: {', '.join(larger)}"] if larger else []
    parts += [f"not for: {', '.join(refuted)}"] if refuted else []
    return f", and {', and '.join(parts)}" if parts else ""
