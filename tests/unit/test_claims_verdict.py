"""Rules, intervals and verdicts against numbers worked by hand and tables."""

import math

import numpy as np
import pytest

from reproduction.claims.declare import ABOVE, AT_MOST, EQUAL, Rule
from reproduction.claims.estimate import COMPUTED, Effect, effect_of_means
from reproduction.claims.verdict import (
    CONTROL_AS_WELL,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    OPEN,
    REFUTED,
    REPRODUCED,
    SHOWN,
    VERDICTS,
    ControlEvidence,
    PValues,
    contrast_rule,
    correct_family,
    decide,
    judge,
    p_values,
)

RULE = Rule(ABOVE, 0.02)


def effect(value, low, high, p_for=0.001, p_against=0.001, num_seeds=5):
    return Effect(value, low, high, p_for, p_against, 0.01, num_seeds)


class TestMeans:
    def test_interval_by_hand(self):
        # Differences .1, .2, .3: mean .2, deviation .1, error .1 / sqrt(3) = .057735, t(.975; 2) = 4.302653.
        found = effect_of_means({1: 0.1, 2: 0.2, 3: 0.3}, RULE)
        assert found.value == pytest.approx(0.2)
        assert (found.low, found.high) == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
        # t = .2 / .057735 = 3.4641; with two degrees of freedom P(T > t) = (1 - t / sqrt(2 + t^2)) / 2.
        tail = (1 - 3.4641016 / math.sqrt(2 + 12)) / 2
        assert found.p_for == pytest.approx(2 * tail, rel=1e-6)
        # Against: below the margin .02, t = .18 / .057735 on the other side.
        t = 0.18 / 0.05773503
        assert found.p_against == pytest.approx(min(1, 2 * (1 + t / math.sqrt(2 + t * t)) / 2), rel=1e-6)

    @pytest.mark.parametrize(
        ("values", "rule"),
        [
            ((0.05, 0.09, 0.07, 0.04), Rule(ABOVE, 0.02)),
            ((-0.05, 0.01, 0.03, 0.02), Rule(EQUAL, 0.03)),
            ((0.40, 0.44, 0.47), Rule(EQUAL, 0.05, target=0.43)),
            ((0.4, 0.1, 0.3), Rule(AT_MOST, 0.2)),
        ],
    )
    def test_p_values_agree_with_the_interval(self, values, rule):
        """A p-value below 1 - c means that the interval at confidence c excludes what the p-value is against."""
        for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
            at = Rule(rule.kind, rule.margin, rule.target, confidence, rule.min_seeds)
            found = effect_of_means(dict(enumerate(values)), at)
            if rule.kind == ABOVE:
                inside, outside = found.low > 0, found.high < rule.margin
            elif rule.kind == EQUAL:
                below, above = rule.target - rule.margin, rule.target + rule.margin
                inside = below <= found.low and found.high <= above
                outside = found.low > above or found.high < below
            else:
                inside, outside = found.high <= rule.margin, found.low > rule.margin
            assert (found.p_for <= 1 - confidence) == inside
            assert (found.p_against <= 1 - confidence) == outside

    def test_one_seed_has_no_interval(self):
        found = effect_of_means({1: 0.3}, RULE)
        assert found.low is None and found.p_for is None and found.detectable(RULE, 1) is None
        assert judge(found, RULE) == OPEN

    @pytest.mark.parametrize("value", [0.0, 0.3, 1 / 96, 0.1 + 0.2])
    def test_seeds_that_agree_leave_no_spread_and_decide_nothing(self, value):
        """One spike more in each of three seeds is 1/96 three times: a step of the measure, no certainty."""
        found = effect_of_means({1: value, 2: value, 3: value + 1e-17}, Rule(ABOVE, 0.01))
        assert (found.value, found.deviation) == (pytest.approx(value), 0.0)
        assert found.low is found.high is found.p_for is found.p_against is None
        for rule in (Rule(ABOVE, 0.01), Rule(AT_MOST, 0.5), Rule(EQUAL, 0.5)):
            decided = decide(rule, effect_of_means({1: value, 2: value, 3: value}, rule))
            assert decided.verdict == INCONCLUSIVE

    def test_seeds_that_agree_in_what_is_computed_are_certain(self):
        found = effect_of_means({1: 0.3, 2: 0.3, 3: 0.3}, RULE, COMPUTED)
        assert (found.low, found.high, found.p_for, found.p_against) == (0.3, 0.3, 0.0, 1.0)
        exact = Rule(AT_MOST, 1e-9)
        assert judge(effect_of_means({1: 0.0, 2: 0.0, 3: 0.0}, exact, COMPUTED), exact) == SHOWN

    def test_nothing_is_filled_in(self):
        for values in ({}, {1: math.nan, 2: 0.1}):
            with pytest.raises(ValueError, match="per_seed"):
                effect_of_means(values, RULE)

    def test_detectable_effect_shrinks_with_seeds_and_grows_with_the_family(self):
        few, many = (
            effect_of_means(dict(enumerate(values)), RULE) for values in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3] * 3)
        )
        assert many.detectable(RULE, 1) < few.detectable(RULE, 1) < few.detectable(RULE, 4)

    def test_detectable_effect_reaches_the_margin_as_well(self):
        """By simulation: at the effect named, an interval above 0 and an estimate of the margin come 4 times in 5."""
        random = np.random.default_rng(0)
        for margin in (0.0, 0.3):
            rule = Rule(ABOVE, margin)
            # Five seeds with a deviation of exactly 0.1.
            least = effect_of_means(dict(enumerate(0.1 * np.array([-1, -1, 0, 1, 1]))), rule).detectable(rule, 1)
            draws = random.normal(least, 0.1, size=(20_000, 5))
            low = draws.mean(axis=1) - 2.776445 * draws.std(axis=1, ddof=1) / math.sqrt(5)
            shown = ((low > 0) & (draws.mean(axis=1) >= margin)).mean()
            # At the margin alone nearly all of these intervals exclude 0.
            assert shown == pytest.approx(0.8, abs=0.015)

    def test_detectable_effect_counts_the_wider_interval(self):
        found = effect_of_means({1: 0.1, 2: 0.2, 3: 0.3}, RULE)
        wider = found.widened(found.low - 0.248414, found.high)
        assert wider.detectable(RULE, 1) == pytest.approx(2 * found.detectable(RULE, 1), rel=1e-4)

    @pytest.mark.parametrize("rule", [Rule(EQUAL, 0.1), Rule(AT_MOST, 0.1)])
    def test_no_detectable_effect_of_rules_that_ask_for_none(self, rule):
        assert effect_of_means({1: 0.1, 2: 0.2, 3: 0.3}, rule).detectable(rule, 1) is None


class TestJudge:
    @pytest.mark.parametrize(
        ("rule", "low", "value", "high", "outcome"),
        [
            (RULE, 0.01, 0.05, 0.09, SHOWN),
            (RULE, 0.001, 0.01, 0.019, REFUTED),  # there, but smaller than counts
            (RULE, 0.001, 0.015, 0.03, OPEN),  # above 0, estimated below the margin, which is not excluded
            (RULE, -0.01, 0.05, 0.11, OPEN),
            (RULE, -0.05, -0.01, 0.019, REFUTED),
            (Rule(EQUAL, 0.05, target=0.43), 0.39, 0.42, 0.46, SHOWN),
            (Rule(EQUAL, 0.05, target=0.43), 0.39, 0.45, 0.49, OPEN),
            (Rule(EQUAL, 0.05, target=0.43), 0.49, 0.50, 0.51, REFUTED),
            (Rule(EQUAL, 0.02), -0.06, -0.04, -0.03, REFUTED),
            (Rule(AT_MOST, 0.05), 0.01, 0.02, 0.05, SHOWN),
            (Rule(AT_MOST, 0.05), 0.04, 0.06, 0.08, OPEN),
            (Rule(AT_MOST, 0.05), 0.051, 0.06, 0.08, REFUTED),
        ],
    )
    def test_rules(self, rule, low, value, high, outcome):
        assert judge(effect(value, low, high), rule) == outcome

    def test_a_corrected_p_value_can_undo_an_interval(self):
        assert judge(effect(0.05, 0.01, 0.09, p_for=0.06), RULE) == OPEN
        assert judge(effect(0.0, -0.02, 0.01, p_against=0.06), RULE) == OPEN

    def test_too_few_seeds(self):
        assert judge(effect(0.05, 0.04, 0.06, num_seeds=2), RULE) == OPEN


CLEAR = effect(0.10, 0.08, 0.12)
NOTHING = effect(0.0, -0.01, 0.01)
HINT = effect(0.015, 0.001, 0.029)
UNSURE = effect(0.05, -0.05, 0.15)


class TestDecide:
    @pytest.mark.parametrize(
        ("found", "control", "contrast", "verdict"),
        [
            (None, CLEAR, NOTHING, NOT_TESTED),
            (NOTHING, CLEAR, NOTHING, NOT_REPRODUCED),
            (UNSURE, NOTHING, CLEAR, INCONCLUSIVE),
            (CLEAR, NOTHING, CLEAR, REPRODUCED),
            (CLEAR, CLEAR, NOTHING, CONTROL_AS_WELL),
            (CLEAR, CLEAR, CLEAR, REPRODUCED),  # the control gains as well, the method gains more
            (CLEAR, UNSURE, NOTHING, CONTROL_AS_WELL),  # the method adds less than counts
            (CLEAR, UNSURE, UNSURE, INCONCLUSIVE),
            (CLEAR, CLEAR, UNSURE, CONTROL_AS_WELL),
            (CLEAR, CLEAR, HINT, INCONCLUSIVE),  # above 0, not by enough: neither beaten nor as good
            (CLEAR, None, None, INCONCLUSIVE),
        ],
    )
    def test_table(self, found, control, contrast, verdict):
        decided = decide(RULE, found, [ControlEvidence("c", control, contrast)])
        assert decided.verdict == verdict
        assert decided.verdict in VERDICTS

    def test_no_control_declared(self):
        assert decide(RULE, CLEAR).verdict == REPRODUCED

    def test_one_control_as_good_is_enough(self):
        controls = [ControlEvidence("a", NOTHING, CLEAR), ControlEvidence("b", CLEAR, NOTHING)]
        decided = decide(RULE, CLEAR, controls)
        assert decided.verdict == CONTROL_AS_WELL and "b" in decided.reason and "a," not in decided.reason

    def test_controls_without_contrast_are_judged_by_the_rule(self):
        rule = Rule(AT_MOST, 1e-9)
        exact, far = effect(1e-12, 1e-13, 1e-11), effect(0.3, 0.2, 0.4)
        assert decide(rule, exact, [ControlEvidence("c", far, has_contrast=False)]).verdict == REPRODUCED
        assert decide(rule, exact, [ControlEvidence("c", exact, has_contrast=False)]).verdict == CONTROL_AS_WELL

    def test_a_control_has_a_margin_of_its_own(self):
        small = effect(0.01, 0.008, 0.012)
        assert decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, small)]).verdict == CONTROL_AS_WELL
        assert decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, small, margin=0.005)]).verdict == REPRODUCED

    def test_few_seeds_are_inconclusive(self):
        decided = decide(RULE, effect(0.1, 0.08, 0.12, num_seeds=2))
        assert decided.verdict == INCONCLUSIVE and "2 of at least 3" in decided.reason

    def test_the_sentence_fits_the_rule(self):
        above = decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, CLEAR)])
        assert above.reason == "the effect is shown, and larger than with: c"
        rule = Rule(AT_MOST, 1e-9)
        exact, far = effect(1e-12, 1e-13, 1e-11), effect(0.3, 0.2, 0.4)
        at_most = decide(rule, exact, [ControlEvidence("c", far, has_contrast=False)])
        assert at_most.reason == "the effect is shown, and not for: c"

    def test_why_nothing_was_tested(self):
        assert decide(RULE, None, why_none="the runs kpo/grpo are missing").reason == "the runs kpo/grpo are missing"


class TestFamily:
    def test_holm_by_hand(self):
        """p = .01, .04, .03 become .03, .06, .06; each kind of statement is corrected by itself."""
        raw = [PValues(p, 0.5, 1.0, q) for p, q in ((0.01, 0.5), (0.04, 0.9), (0.03, 0.001))]
        corrected = correct_family(raw)
        assert [p.effect for p in corrected] == pytest.approx([0.03, 0.06, 0.06])
        assert [p.claim for p in corrected] == [1.0, 1.0, 1.0]
        assert [p.against for p in corrected] == pytest.approx([1.0, 1.0, 0.003])
        assert correct_family([]) == []

    def test_claims_that_cannot_be_shown_cost_the_others_nothing(self):
        """Of p = .01, .0625, .03 the second is the least that 5 seeds can give; the others become .02 and .03."""
        raw = [PValues(p, p, p, q) for p, q in ((0.01, 0.5), (0.0625, 0.001), (0.03, 0.9))]
        corrected = correct_family(raw, [True, False, True])
        assert [p.effect for p in corrected] == pytest.approx([0.02, 0.0625, 0.03])
        assert [p.claim for p in corrected] == [p.effect for p in corrected]
        # What speaks against them is still corrected for all three.
        assert [p.against for p in corrected] == pytest.approx([1.0, 0.003, 1.0])

    def test_a_claim_has_the_largest_of_its_p_values(self):
        first = effect(0.1, 0.08, 0.12, p_for=0.0004)
        contrasts = [effect(0.05, 0.01, 0.09, p_for=p) for p in (0.029, 0.0001)]
        controls = [ControlEvidence(name, NOTHING, found) for name, found in zip("ab", contrasts, strict=True)]
        assert p_values(RULE, first, controls).claim == 0.029
        assert p_values(RULE, first, [*controls, ControlEvidence("c", None, None)]).claim == 1.0
        # Without a contrast the control is beaten where the rule is refuted for it.
        exact = Rule(AT_MOST, 1e-9)
        far = effect(0.3, 0.2, 0.4, p_against=0.04)
        one = effect(1e-12, 1e-13, 1e-11)
        assert p_values(exact, one, [ControlEvidence("c", far, has_contrast=False)]).claim == 0.04

    def test_one_weak_contrast_among_six_claims_is_not_enough(self):
        """Raw, p = .029 for "beyond the control" shows it; corrected for six claims, 6 x .029 = .17 does not."""
        strong = effect(0.73, 0.70, 0.76, p_for=0.0004)
        weak = effect(0.05, 0.01, 0.09, p_for=0.029)
        control = ControlEvidence("shuffled", effect(0.68, 0.67, 0.69, p_for=0.0001), weak)
        assert decide(RULE, strong, [control]).verdict == REPRODUCED
        family = [p_values(RULE, strong, [control])] + [PValues(0.001, 0.9, 0.9, 1.0)] * 5
        corrected = correct_family(family)[0]
        assert corrected.claim == pytest.approx(6 * 0.029)
        decided = decide(RULE, strong, [control], corrected)
        assert decided.verdict == INCONCLUSIVE and "told from that of: shuffled" in decided.reason
        # A control that is beaten after correction as well is not named.
        clear = ControlEvidence("noise", NOTHING, effect(0.5, 0.4, 0.6, p_for=0.0001))
        family[0] = p_values(RULE, strong, [control, clear])
        decided = decide(RULE, strong, [control, clear], correct_family(family)[0])
        assert decided.reason.endswith("told from that of: shuffled")

    def test_as_well_pays_for_every_way(self):
        """Two controls that can each do as well in two ways: four times the smallest p, set against the effect's."""
        controls = [
            ControlEvidence("a", effect(0.1, 0.08, 0.12, p_for=0.003), effect(0.0, -0.01, 0.01, p_against=0.002)),
            ControlEvidence("b", NOTHING, effect(0.1, 0.08, 0.12, p_against=1.0)),
        ]
        assert p_values(RULE, CLEAR, controls).as_well == pytest.approx(4 * 0.002)
        assert p_values(RULE, effect(0.1, 0.08, 0.12, p_for=0.04), controls).as_well == 0.04

    def test_a_contrast_has_the_control_s_margin(self):
        assert contrast_rule(Rule(ABOVE, 0.2, min_seeds=4), 0.02) == Rule(ABOVE, 0.02, min_seeds=4)
        assert contrast_rule(Rule(ABOVE, 0.2), None) == Rule(ABOVE, 0.2)


@pytest.mark.parametrize(
    "arguments",
    [("better", 0.1), (ABOVE, 0.1, 0.5), (ABOVE, -0.1), (ABOVE, 0.1, 0.0, 1.0), (ABOVE, 0.1, 0.0, 0.95, 1)],
)
def test_bad_rules(arguments):
    with pytest.raises(ValueError):
        Rule(*arguments)
