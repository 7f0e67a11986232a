"""Rules, intervals and verdicts against numbers worked by hand and tables."""

import math

import pytest

from kpo.claims.declare import ABOVE, AT_MOST, EQUAL, Rule
from kpo.claims.estimate import Effect, effect_of_means, effect_of_shares
from kpo.claims.verdict import (
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
    correct_family,
    decide,
    judge,
)

RULE = Rule(ABOVE, 0.02)


def effect(value, low, high, p_for=0.001, p_against=0.001, num_seeds=5):
    return Effect(value, low, high, p_for, p_against, 0.01, num_seeds, num_seeds)


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

    def test_identical_seeds(self):
        found = effect_of_means({1: 0.3, 2: 0.3, 3: 0.3}, RULE)
        assert (found.low, found.high, found.p_for, found.p_against) == (0.3, 0.3, 0.0, 1.0)

    def test_nothing_is_filled_in(self):
        for values in ({}, {1: math.nan, 2: 0.1}):
            with pytest.raises(ValueError, match="per_seed"):
                effect_of_means(values, RULE)

    def test_detectable_effect_shrinks_with_seeds_and_grows_with_the_family(self):
        few, many = (
            effect_of_means(dict(enumerate(values)), RULE) for values in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3] * 3)
        )
        assert many.detectable(RULE, 1) < few.detectable(RULE, 1) < few.detectable(RULE, 4)


class TestShares:
    def test_newcombe_example(self):
        """Newcombe (1998), table II: 56/70 and 48/80 give 0.2 with (0.0524, 0.3339) by method 10."""
        found = effect_of_shares((56, 70), (48, 80), 5, RULE)
        assert found.value == pytest.approx(0.2)
        assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)

    def test_no_collapse_at_all_is_no_certainty(self):
        """Newcombe (1998), table II: 0/10 and 0/10 give (-0.2775, 0.2775)."""
        found = effect_of_shares((0, 10), (0, 10), 5, RULE)
        assert (found.low, found.high) == pytest.approx((-0.2775, 0.2775), abs=5e-5)
        assert judge(found, Rule(ABOVE, 0.1)) == OPEN
        assert found.detectable(RULE, 1) > 0

    def test_p_values_agree_with_the_interval(self):
        for first, second in (((9, 10), (2, 10)), ((3, 15), (1, 15)), ((15, 15), (0, 15)), ((6, 10), (1, 10))):
            for confidence in (0.8, 0.95, 0.999):
                found = effect_of_shares(first, second, 5, Rule(ABOVE, 0.1, confidence=confidence))
                assert (found.p_for < 1 - confidence) == (found.low > 0)

    def test_bad_counts(self):
        with pytest.raises(ValueError, match="share"):
            effect_of_shares((3, 2), (0, 2), 2, RULE)


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

    def test_no_difference_in_any_seed_decides_nothing(self):
        nothing = effect_of_means({1: 0.0, 2: 0.0, 3: 0.0}, RULE)
        assert judge(nothing, RULE) == OPEN and nothing.detectable(RULE, 1) is None
        exact = Rule(AT_MOST, 1e-9)
        assert judge(effect_of_means({1: 0.0, 2: 0.0, 3: 0.0}, exact), exact) == SHOWN

    def test_too_few_seeds(self):
        assert judge(effect(0.05, 0.04, 0.06, num_seeds=2), RULE) == OPEN


CLEAR = effect(0.10, 0.08, 0.12)
NOTHING = effect(0.0, -0.01, 0.01)
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


def test_holm_within_a_family_by_hand():
    """p = .01, .04, .03 become .03, .06, .06; both directions are corrected by themselves; one seed stays out."""
    effects = [effect(0.1, 0.0, 0.2, p, q) for p, q in ((0.01, 0.5), (0.04, 0.9), (0.03, 0.001))]
    alone = Effect(0.1, None, None, None, None, None, 1, 1)
    corrected = correct_family([*effects, alone])
    assert [e.p_for for e in corrected[:3]] == pytest.approx([0.03, 0.06, 0.06])
    assert [e.p_against for e in corrected[:3]] == pytest.approx([1.0, 1.0, 0.003])
    assert corrected[3] == alone


@pytest.mark.parametrize(
    "arguments",
    [("better", 0.1), (ABOVE, 0.1, 0.5), (ABOVE, -0.1), (ABOVE, 0.1, 0.0, 1.0), (ABOVE, 0.1, 0.0, 0.95, 1)],
)
def test_bad_rules(arguments):
    with pytest.raises(ValueError):
        Rule(*arguments)
