"""What a claim that stayed open could have shown: the effect, the width, or the number of seeds that it lacks."""

from dataclasses import dataclass

from reproduction.claims.declare import ABOVE, EQUAL, Comparison, Rule
from reproduction.claims.estimate import COMPUTED, SHARES, Effect
from reproduction.claims.measures import MEASURES
from reproduction.claims.shares import needed_seeds, smallest_p_for


@dataclass(frozen=True)
class Resolution:
    """detectable: the minimum detectable effect, where one has a meaning; text: a sentence, "" without an estimate."""

    detectable: float | None = None
    text: str = ""


def resolution(effect: Effect | None, rule: Rule, num_claims: int, comparison: Comparison) -> Resolution:
    """What so many seeds could have shown of a claim, corrected for the claims of its family."""
    if effect is None or effect.num_seeds < 2:
        return Resolution()
    if effect.kind == SHARES:
        return Resolution(text=_of_shares(effect, rule, num_claims))
    if effect.deviation == 0 and effect.kind != COMPUTED:
        return Resolution(text="all seeds gave the same number, which leaves no spread to judge by")
    if rule.kind != ABOVE:
        return Resolution(text=_of_width(effect, rule))
    detectable, largest = effect.detectable(rule, num_claims), largest_effect(comparison)
    if detectable is None:
        return Resolution()
    if largest is not None and detectable > largest:
        return Resolution(text=f"no possible effect, with probability 0.8: none exceeds {largest:g}")
    return Resolution(
        detectable, f"an effect of {detectable:.3g} or more, with probability 0.8 (minimum detectable effect)"
    )


def largest_effect(comparison: Comparison) -> float | None:
    """The largest effect that measures between 0 and 1 can give; None where one of them is not bounded so."""
    if not all(MEASURES[term.measure].bounded for term in comparison):
        return None
    return sum(term.weight for term in comparison if term.weight > 0)


def _of_shares(effect: Effect, rule: Rule, num_claims: int) -> str:
    count, least = effect.num_seeds, smallest_p_for(rule, effect.num_seeds)
    if least <= (1 - rule.confidence) / num_claims:
        return f"the clearest outcome of {count} seeds has p = {least:.2g} before correction"
    needed = needed_seeds(rule, num_claims)
    wanted = "more than 200 seeds" if needed is None else f"{needed} seeds"
    if least > 1 - rule.confidence:
        return (
            f"nothing: no outcome of {count} seeds could show this, as the exact test cannot go below p = {least:.2g}; "
            f"the clearest outcome of {wanted} could, alone among the {num_claims} tested claims of its family"
        )
    return (
        f"the clearest outcome of {count} seeds has p = {least:.2g}, which counts only where other claims of the "
        f"family are shown as well; by itself it needs {wanted}"
    )


def _of_width(effect: Effect, rule: Rule) -> str:
    if effect.low is None or effect.high is None:
        return ""
    half = max(effect.value - effect.low, effect.high - effect.value)
    room = rule.margin - (abs(effect.value - rule.target) if rule.kind == EQUAL else effect.value)
    if room <= 0:
        return "the estimate itself lies outside of what the claim allows, its interval does not"
    return f"an interval reaching at most {room:.2g} from this estimate would be needed; it reaches {half:.2g}"
