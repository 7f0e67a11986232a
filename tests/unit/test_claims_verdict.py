"""Rules, intervals and verdicts against numbers worked by hand and tables."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from reproduction.claims.declare import ABOVE, AT_MOST, EQUAL, Rule
from reproduction.claims.design import SEQUENTIAL, SINGLE, Design
from reproduction.claims.estimate import COMPUTED, Effect, effect_of_means, sign_flip, statements
from reproduction.claims.needed import needed
from reproduction.claims.verdict import (
    CONTROL_AS_WELL,
    INCONCLUSIVE,
    NOT_AT_SIZE,
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
    judge_control,
    p_values,
)

RULE = Rule(ABOVE, 0.02, paper=0.05, paper_from="the paper")


def effect(value, low, high, rule=RULE, num_seeds=6):
    """An effect whose p-values are .001 for what its interval excludes and .5 otherwise."""
    p = statements(rule, lambda t: 0.001 if low > t else 0.5, lambda t: 0.001 if high < t else 0.5)
    return Effect(value, low, high, p[0], p[1], 0.01, num_seeds, p_size=p[2])


def seeds(*values):
    return dict(enumerate(values))


class TestMeans:
    def test_one_sided_by_hand(self):
        # Differences .1, .2, .3: mean .2, deviation .1, error .1 / sqrt(3) = .057735, t(.95; 2) = 2.919986.
        found = effect_of_means(seeds(0.1, 0.2, 0.3), RULE)
        assert found.value == pytest.approx(0.2)
        assert (found.low, found.high) == pytest.approx((0.2 - 0.168585, 0.2 + 0.168585), abs=1e-6)
        # With two degrees of freedom P(T > t) = (1 - t / sqrt(2 + t^2)) / 2; t = .2 / .057735 = 3.4641, once.
        assert found.p_for == pytest.approx((1 - 3.4641016 / math.sqrt(2 + 12)) / 2, rel=1e-6)
        for p_value, threshold in ((found.p_against, 0.02), (found.p_size, 0.05)):
            t = (0.2 - threshold) / 0.05773503
            assert p_value == pytest.approx((1 + t / math.sqrt(2 + t * t)) / 2, rel=1e-6)

    def test_half_the_two_sided_p_value_decides(self):
        """A two-sided p of .09 is a one-sided one of .045: what needed 2.5% a side is shown at 5%."""
        values = np.array([0.12, -0.02, 0.09, 0.01, 0.08, 0.01])
        two_sided = scipy.stats.ttest_1samp(values, 0.0).pvalue
        assert 0.05 < two_sided < 0.1
        found = effect_of_means(seeds(*values), RULE)
        assert found.p_for == pytest.approx(two_sided / 2) and judge(found, RULE) == SHOWN

    @pytest.mark.parametrize(
        ("values", "rule"),
        [
            ((0.05, 0.09, 0.07, 0.04), RULE),
            ((-0.05, 0.01, 0.03, 0.02), Rule(EQUAL, 0.03)),
            ((0.40, 0.44, 0.47), Rule(EQUAL, 0.05, target=0.43)),
            ((0.4, 0.1, 0.3), Rule(AT_MOST, 0.2)),
        ],
    )
    def test_p_values_agree_with_the_interval(self, values, rule):
        """A statement is shown at a level if the interval with that level at each end is on its side."""
        for level in (0.005, 0.01, 0.05, 0.1, 0.25, 0.4):
            for weight in (1.0, 0.4):
                at = dataclasses.replace(rule, significance=level)
                found = effect_of_means(seeds(*values), at, weight=weight)
                if rule.kind == ABOVE:
                    inside, outside = found.low > 0, found.high < rule.margin
                    assert (found.p_size <= level) == (found.high < rule.paper)
                elif rule.kind == EQUAL:
                    below, above = rule.target - rule.margin, rule.target + rule.margin
                    inside = below <= found.low and found.high <= above
                    halved = effect_of_means(
                        seeds(*values), dataclasses.replace(at, significance=level / 2), weight=weight
                    )
                    outside = halved.low > above or halved.high < below
                else:
                    inside, outside = found.high <= rule.margin, found.low > rule.margin
                assert (found.p_for <= level) == inside
                assert (found.p_against <= level) == outside

    def test_one_seed_has_no_interval(self):
        found = effect_of_means({1: 0.3}, RULE)
        assert found.low is None and found.p_for is None
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

    def test_a_deviation_below_the_known_noise_is_raised_to_it(self):
        """krpo-9-adaptive-drift: three seeds with a deviation of .75 points, and 2.1 from the evaluation by itself."""
        values = seeds(-0.0536, -0.0461, -0.0386)
        lucky = effect_of_means(values, RULE)
        assert lucky.deviation == pytest.approx(0.0075) and not lucky.raised
        assert decide(RULE, lucky).verdict == NOT_REPRODUCED
        found = effect_of_means(values, RULE, floor=0.021)
        assert found.deviation == 0.021 and found.raised and found.value == lucky.value
        half = scipy.stats.t.ppf(0.95, 2) * 0.021 / math.sqrt(3)
        assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
        assert found.p_against == pytest.approx(scipy.stats.t.cdf((found.value - 0.02) / (0.021 / math.sqrt(3)), 2))
        # A larger deviation stays, and seeds that agree have the floor.
        assert not effect_of_means(seeds(0.0, 0.1, 0.2), RULE, floor=0.021).raised
        assert effect_of_means(seeds(0.1, 0.1, 0.1), RULE, floor=0.021).low is not None

    def test_seeds_that_agree_in_what_is_computed_are_certain(self):
        found = effect_of_means({1: 0.3, 2: 0.3, 3: 0.3}, RULE, COMPUTED)
        assert (found.low, found.high, found.p_for, found.p_against) == (0.3, 0.3, 0.0, 1.0)
        exact = Rule(AT_MOST, 1e-9)
        assert judge(effect_of_means({1: 0.0, 2: 0.0, 3: 0.0}, exact, COMPUTED), exact) == SHOWN

    def test_nothing_is_filled_in(self):
        for values in ({}, {1: math.nan, 2: 0.1}):
            with pytest.raises(ValueError, match="per_seed"):
                effect_of_means(values, RULE)

    def test_signs_are_flipped_on_the_mean_s_side(self):
        """Of six seeds that are all positive one pattern of 64 is as extreme."""
        assert sign_flip([0.1, 0.2, 0.15, 0.3, 0.05, 0.2]) == pytest.approx(1 / 64)
        assert sign_flip([-0.1, -0.2, -0.15]) == pytest.approx(1 / 8)
        assert sign_flip([0.1]) is None


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
            (Rule(AT_MOST, 0.05), 0.01, 0.02, 0.049, SHOWN),
            (Rule(AT_MOST, 0.05), 0.04, 0.06, 0.08, OPEN),
            (Rule(AT_MOST, 0.05), 0.051, 0.06, 0.08, REFUTED),
        ],
    )
    def test_rules(self, rule, low, value, high, outcome):
        assert judge(effect(value, low, high, rule), rule) == outcome

    def test_a_corrected_p_value_can_undo_an_interval(self):
        assert judge(dataclasses.replace(effect(0.05, 0.01, 0.09), p_for=0.06), RULE) == OPEN
        assert judge(dataclasses.replace(effect(0.0, -0.02, 0.01), p_against=0.06), RULE) == OPEN

    def test_too_few_seeds(self):
        assert judge(effect(0.05, 0.04, 0.06, num_seeds=2), RULE) == OPEN


CLEAR = effect(0.10, 0.08, 0.12)
NOTHING = effect(0.0, -0.01, 0.01)
SMALL = effect(0.01, -0.02, 0.04)  # between what counts and the paper's size nothing is excluded
HINT = effect(0.015, 0.001, 0.029)
UNSURE = effect(0.05, -0.05, 0.15)


class TestDecide:
    @pytest.mark.parametrize(
        ("found", "control", "contrast", "verdict"),
        [
            (None, CLEAR, NOTHING, NOT_TESTED),
            (NOTHING, CLEAR, NOTHING, NOT_REPRODUCED),
            (SMALL, CLEAR, NOTHING, NOT_AT_SIZE),
            (UNSURE, NOTHING, CLEAR, INCONCLUSIVE),
            (CLEAR, NOTHING, CLEAR, REPRODUCED),
            (CLEAR, CLEAR, NOTHING, CONTROL_AS_WELL),
            (CLEAR, CLEAR, CLEAR, REPRODUCED),  # the control gains too, the method gains more
            (CLEAR, UNSURE, NOTHING, CONTROL_AS_WELL),  # the method adds less than counts
            (CLEAR, UNSURE, UNSURE, INCONCLUSIVE),
            (CLEAR, CLEAR, UNSURE, INCONCLUSIVE),  # what the method adds is not bounded
            (CLEAR, CLEAR, SMALL, CONTROL_AS_WELL),  # the control shows it too, and the method adds less than the paper
            (CLEAR, UNSURE, SMALL, INCONCLUSIVE),
            (CLEAR, CLEAR, HINT, CONTROL_AS_WELL),  # above 0, not by what counts, and less than the paper's size
            (CLEAR, None, None, INCONCLUSIVE),
        ],
    )
    def test_table(self, found, control, contrast, verdict):
        decided = decide(RULE, found, [ControlEvidence("c", control, contrast)])
        assert decided.verdict == verdict
        assert decided.verdict in VERDICTS

    def test_a_contrast_that_is_merely_not_shown_is_no_control_as_well(self):
        """Effect .30, control .08, contrast .22 [-.03, .47]: absence of evidence, once taken for "does as well"."""
        control = ControlEvidence("c", effect(0.08, 0.03, 0.13), effect(0.22, -0.03, 0.47))
        assert judge_control(control, RULE) == OPEN
        assert decide(RULE, effect(0.30, 0.25, 0.35), [control]).verdict == INCONCLUSIVE

    def test_the_bound_is_printed_with_the_paper_s_size(self):
        decided = decide(RULE, SMALL)
        assert decided.verdict == NOT_AT_SIZE
        assert "an effect of 0.05 is excluded: it is at most 0.04 (one-sided 95%)" in decided.reason

    def test_a_reproduced_effect_says_if_it_is_smaller_than_the_paper_s(self):
        decided = decide(RULE, effect(0.03, 0.02, 0.04))
        assert decided.verdict == REPRODUCED and decided.reason.endswith(
            "smaller than 0.05: it is at most 0.04 (one-sided 95%)"
        )

    def test_the_paper_s_size_is_corrected_for_the_family(self):
        raw = p_values(RULE, SMALL)
        assert decide(RULE, SMALL, corrected=dataclasses.replace(raw, size=0.06)).verdict == INCONCLUSIVE

    def test_no_control_declared(self):
        assert decide(RULE, CLEAR).verdict == REPRODUCED

    def test_one_control_as_good_is_enough(self):
        controls = [ControlEvidence("a", NOTHING, CLEAR), ControlEvidence("b", CLEAR, NOTHING)]
        decided = decide(RULE, CLEAR, controls)
        assert decided.verdict == CONTROL_AS_WELL and "b" in decided.reason and "a," not in decided.reason

    def test_controls_without_contrast_are_judged_by_the_rule(self):
        rule = Rule(AT_MOST, 1e-9)
        exact, far = effect(1e-12, 1e-13, 1e-11, rule), effect(0.3, 0.2, 0.4, rule)
        assert decide(rule, exact, [ControlEvidence("c", far, has_contrast=False)]).verdict == REPRODUCED
        assert decide(rule, exact, [ControlEvidence("c", exact, has_contrast=False)]).verdict == CONTROL_AS_WELL

    def test_a_control_has_a_margin_of_its_own(self):
        low = effect(0.01, 0.008, 0.012, contrast_rule(RULE, 0.005))
        assert (
            decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, effect(0.01, 0.008, 0.012))]).verdict == CONTROL_AS_WELL
        )
        assert decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, low, margin=0.005)]).verdict == REPRODUCED

    def test_few_seeds_are_inconclusive(self):
        decided = decide(RULE, effect(0.1, 0.08, 0.12, num_seeds=2))
        assert decided.verdict == INCONCLUSIVE and "2 of at least 3" in decided.reason

    def test_the_sentence_fits_the_rule(self):
        above = decide(RULE, CLEAR, [ControlEvidence("c", NOTHING, CLEAR)])
        assert above.reason == "the effect is shown, and larger than with: c"
        rule = Rule(AT_MOST, 1e-9)
        exact, far = effect(1e-12, 1e-13, 1e-11, rule), effect(0.3, 0.2, 0.4, rule)
        at_most = decide(rule, exact, [ControlEvidence("c", far, has_contrast=False)])
        assert at_most.reason == "the effect is shown, and not for: c"

    def test_why_nothing_was_tested(self):
        assert decide(RULE, None, why_none="the runs kpo/grpo are missing").reason == "the runs kpo/grpo are missing"


class TestFamily:
    def test_holm_by_hand(self):
        """p = .01, .04, .03 become .03, .06, .06; each kind of statement is corrected by itself."""
        raw = [PValues(p, 0.5, 1.0, q, q) for p, q in ((0.01, 0.5), (0.04, 0.9), (0.03, 0.001))]
        corrected = correct_family(raw)
        assert [p.effect for p in corrected] == pytest.approx([0.03, 0.06, 0.06])
        assert [p.claim for p in corrected] == [1.0, 1.0, 1.0]
        assert [p.against for p in corrected] == [p.size for p in corrected] == pytest.approx([1.0, 1.0, 0.003])
        assert correct_family([]) == []

    def test_a_claim_has_the_largest_of_its_p_values(self):
        first = dataclasses.replace(CLEAR, p_for=0.0004)
        contrasts = [dataclasses.replace(CLEAR, p_for=p) for p in (0.029, 0.0001)]
        controls = [ControlEvidence(name, NOTHING, found) for name, found in zip("ab", contrasts, strict=True)]
        assert p_values(RULE, first, controls).claim == 0.029
        assert p_values(RULE, first, [*controls, ControlEvidence("c", None, None)]).claim == 1.0
        # Without a contrast the control is beaten if the rule is refuted for it.
        exact = Rule(AT_MOST, 1e-9)
        far = dataclasses.replace(effect(0.3, 0.2, 0.4, exact), p_against=0.04)
        one = effect(1e-12, 1e-13, 1e-11, exact)
        assert p_values(exact, one, [ControlEvidence("c", far, has_contrast=False)]).claim == 0.04

    def test_one_weak_contrast_among_six_claims_is_not_enough(self):
        """Raw, p = .029 for "beyond the control" shows it; corrected for six claims, 6 x .029 = .17 does not."""
        strong = dataclasses.replace(CLEAR, p_for=0.0004)
        weak = dataclasses.replace(effect(0.05, 0.01, 0.09), p_for=0.029)
        control = ControlEvidence("shuffled", effect(0.68, 0.67, 0.69), weak)
        assert decide(RULE, strong, [control]).verdict == REPRODUCED
        family = [p_values(RULE, strong, [control])] + [PValues(0.001, 0.9, 0.9, 1.0)] * 5
        corrected = correct_family(family)[0]
        assert corrected.claim == pytest.approx(6 * 0.029)
        decided = decide(RULE, strong, [control], corrected)
        assert decided.verdict == INCONCLUSIVE and "told from that of: shuffled" in decided.reason
        # A control that is beaten even after correction is not named.
        clear = ControlEvidence("noise", NOTHING, effect(0.5, 0.4, 0.6))
        family[0] = p_values(RULE, strong, [control, clear])
        decided = decide(RULE, strong, [control, clear], correct_family(family)[0])
        assert decided.reason.endswith("told from that of: shuffled")

    def test_as_well_pays_for_every_way(self):
        """Two controls that can each do as well in two ways: four times the smallest p, set against the effect's."""
        controls = [
            ControlEvidence("a", UNSURE, dataclasses.replace(NOTHING, p_against=0.002)),
            ControlEvidence("b", UNSURE, UNSURE),
        ]
        assert p_values(RULE, CLEAR, controls).as_well == pytest.approx(4 * 0.002)
        assert p_values(RULE, dataclasses.replace(CLEAR, p_for=0.04), controls).as_well == 0.04

    def test_a_beaten_control_lends_no_p_value(self):
        """A is beaten; B's best way has p = .0125, times 4 = .05 and no less, whatever A's own effect says.

        Effects .28 .32 .30 .29 .31, A = .10 .105 .095 .10 .10, B = .05 .55 .20 .45 .30: A's effect by itself has
        p < 1e-6, which once made "does as well: B" of it.
        """
        method = np.array([0.28, 0.32, 0.30, 0.29, 0.31])
        others = {"A": np.array([0.10, 0.105, 0.095, 0.10, 0.10]), "B": np.array([0.05, 0.55, 0.20, 0.45, 0.30])}
        controls = [
            ControlEvidence(name, effect_of_means(seeds(*own), RULE), effect_of_means(seeds(*(method - own)), RULE))
            for name, own in others.items()
        ]
        beaten, open_ = controls
        assert judge_control(beaten, RULE) == REFUTED and beaten.effect.p_for < 1e-5
        assert open_.effect.p_for == pytest.approx(0.0125, abs=0.002)
        assert judge_control(open_, RULE) == OPEN  # its contrast is not bounded
        assert p_values(RULE, effect_of_means(seeds(*method), RULE), controls).as_well == 1.0
        # Bounded by a larger size, B does as well by its second way, and pays for all four.
        large = dataclasses.replace(RULE, paper=0.4)
        controls = [
            ControlEvidence(name, effect_of_means(seeds(*own), large), effect_of_means(seeds(*(method - own)), large))
            for name, own in others.items()
        ]
        assert judge_control(controls[1], large) == SHOWN
        ways = max(controls[1].effect.p_for, controls[1].contrast.p_size)
        assert p_values(large, effect_of_means(seeds(*method), large), controls).as_well == pytest.approx(4 * ways)

    def test_a_contrast_has_the_control_s_margin(self):
        assert contrast_rule(Rule(ABOVE, 0.2, min_seeds=4), 0.02) == Rule(ABOVE, 0.02, min_seeds=4)
        assert contrast_rule(Rule(ABOVE, 0.2), None) == Rule(ABOVE, 0.2)


class TestNeeded:
    def test_detectable_effect_by_simulation(self):
        """At the effect named, an effect above 0 and an estimate of the margin come 4 times in 5."""
        random = np.random.default_rng(0)
        for margin in (0.0, 0.3):
            rule = Rule(ABOVE, margin)
            # Five seeds with a deviation of exactly 0.1.
            found = effect_of_means(seeds(*(0.1 * np.array([-1, -1, 0, 1, 1]))), rule)
            least = needed(found, rule, 1, Design(SINGLE)).detectable
            draws = random.normal(least, 0.1, size=(20_000, 5))
            low = draws.mean(axis=1) - 2.131847 * draws.std(axis=1, ddof=1) / math.sqrt(5)
            shown = ((low > 0) & (draws.mean(axis=1) >= margin)).mean()
            assert shown == pytest.approx(0.8, abs=0.015)

    def test_seeds_needed_are_those_of_the_table(self):
        """A deviation of 4.7 points: 7 seeds exclude 5 points if there is no effect, 17 exclude 3, 36 exclude 2."""
        shape = np.array([-1, -1, 0, 1, 1]) * 0.047
        for paper, count in ((0.05, 7), (0.03, 17), (0.02, 36)):
            rule = Rule(ABOVE, 0.02, paper=paper, paper_from="x")
            found = needed(effect_of_means(seeds(*shape), rule), rule, 1, Design(SINGLE))
            assert abs(found.seeds - count) <= 1
        # A sequence of looks has that power at the first of its sizes that is large enough for its share.
        assert needed(effect_of_means(seeds(*shape), RULE), RULE, 1, Design(SEQUENTIAL)).seeds == 12

    def test_nothing_without_an_estimate_or_spread(self):
        assert needed(None, RULE, 1, Design(SINGLE)).text == ""
        assert "no spread" in needed(effect_of_means(seeds(0.1, 0.1, 0.1), RULE), RULE, 1, Design(SINGLE)).text


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "better", "margin": 0.1},
        {"kind": ABOVE, "margin": 0.1, "target": 0.5},
        {"kind": ABOVE, "margin": -0.1},
        {"kind": ABOVE, "margin": 0.1, "significance": 0.0},
        {"kind": ABOVE, "margin": 0.1, "min_seeds": 1},
        {"kind": ABOVE, "margin": 0.1, "paper": 0.05, "paper_from": "the paper"},
        {"kind": ABOVE, "margin": 0.1, "paper": 0.5},
        {"kind": AT_MOST, "margin": 0.1, "paper": 0.5, "paper_from": "the paper"},
    ],
)
def test_bad_rules(arguments):
    with pytest.raises(ValueError):
        Rule(**arguments)
