"""Exact tests of shares over seeds: by enumeration, against scipy, by simulation; and what so many seeds can show."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from reproduction.claims import get_claim
from reproduction.claims.declare import ABOVE, AT_MOST, EQUAL, Rule, cell, difference, minus
from reproduction.claims.estimate import effect_of_means
from reproduction.claims.resolution import largest_effect, resolution
from reproduction.claims.shares import can_be_shown, effect_of_shares, needed_seeds, sign_flip, smallest_p_for
from reproduction.claims.verdict import INCONCLUSIVE, OPEN, REFUTED, SHOWN, decide, judge

RULE = Rule(ABOVE, 0.1)
NOT_MORE = Rule(AT_MOST, 0.1)
COLLAPSE = difference("collapse", cell("kpo", "grpo"), cell("kpo", "kpo-clipped"))


def seeds(values):
    return dict(enumerate(values))


class TestSignFlip:
    @pytest.mark.parametrize("steps", [(1, 1, 1), (3, 0, -1, 2), (1, -1), (0, 0, 0), (2, 1, 1, 3, -1)])
    def test_by_enumeration(self, steps):
        sums = [sum(s * d for s, d in zip(signs, steps, strict=True)) for signs in
                itertools.product((1, -1), repeat=len(steps))]  # fmt: skip
        more, less = sign_flip(steps)
        assert more == sum(total >= sum(steps) for total in sums) / len(sums)
        assert less == sum(total <= sum(steps) for total in sums) / len(sums)

    def test_agrees_with_scipy(self):
        steps = np.array([3, 2, 0, -1, 1, 2])
        for alternative, found in zip(("greater", "less"), sign_flip(steps), strict=True):
            reference = scipy.stats.permutation_test(
                (steps,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf
            )
            assert found == pytest.approx(reference.pvalue)

    def test_many_seeds_take_no_time(self):
        assert sign_flip([1] * 60)[0] == pytest.approx(2.0**-60)


class TestEffect:
    @pytest.mark.parametrize(("count", "p_value"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
    def test_every_seed_collapses_and_none_does(self, count, p_value):
        """2 / 2^n, both sides; Wilson's inverted gave 0.007 for three against none."""
        found = effect_of_shares(seeds([1.0] * count), RULE)
        assert found.p_for == p_value
        assert judge(found, RULE) == (SHOWN if p_value <= 0.05 else OPEN)
        assert effect_of_shares(seeds([-1.0] * count), RULE).p_against == pytest.approx(min(1.0, 2 * p_value))

    def test_runs_of_one_seed_are_one_unit(self):
        """Three experiments with one collapse in each of five seeds: p as for five seeds, not as for fifteen runs."""
        assert effect_of_shares(seeds([1 / 3] * 5), RULE, step=1 / 3).p_for == 0.0625

    def test_no_collapse_at_all_is_no_certainty(self):
        for rule in (RULE, NOT_MORE):
            found = effect_of_shares(seeds([0.0] * 5), rule)
            assert found.p_for == 1.0 and judge(found, rule) == OPEN
            # Clopper and Pearson's upper bound for 0 of 5 at a quarter of 5%: 1 - 0.0125^(1/5).
            assert (found.low, found.high) == pytest.approx((-0.58372, 0.58372), abs=1e-5)

    def test_at_most_by_hand(self):
        # Nothing collapses in n seeds: twice for two tests, twice for two sides, times 0.9^n.
        for count, outcome in ((41, OPEN), (42, SHOWN)):
            found = effect_of_shares(seeds([0.0] * count), NOT_MORE)
            assert found.p_for == pytest.approx(4 * 0.9**count) and judge(found, NOT_MORE) == outcome
        # One in each of n seeds: P(d > 0) is at most (1 + 0.1) / (1 + 1).
        found = effect_of_shares(seeds([1.0] * 8), NOT_MORE)
        assert found.p_against == pytest.approx(2 * 0.55**8) and judge(found, NOT_MORE) == REFUTED

    def test_errors_are_as_rare_as_said(self):
        """Differences whose mean is exactly at the margin, and exchangeable ones: at most 5% of the studies err."""
        random = np.random.default_rng(1)
        for probabilities, threshold, p_name in (
            ((0.1, 0.7, 0.2), NOT_MORE, "p_for"),
            ((0.1, 0.7, 0.2), NOT_MORE, "p_against"),
            ((0.3, 0.4, 0.3), RULE, "p_for"),
            ((0.0, 0.9, 0.1), RULE, "p_against"),
        ):
            wrong = 0
            for _ in range(300):
                drawn = random.choice((-1.0, 0.0, 1.0), size=12, p=probabilities)
                wrong += getattr(effect_of_shares(seeds(drawn), threshold), p_name) <= 0.05
            assert wrong <= 15 + 4 * math.sqrt(15)

    def test_the_interval_covers(self):
        random, missed = np.random.default_rng(2), 0
        for _ in range(300):
            drawn = random.choice((-1 / 3, 0.0, 1 / 3, 2 / 3, 1.0), size=6, p=(0.2, 0.3, 0.2, 0.1, 0.2))
            found = effect_of_shares(seeds(drawn), RULE, step=1 / 3)
            missed += not found.low <= 0.2 / 3 + 0.1 * 2 / 3 + 0.2 - 0.2 / 3 <= found.high
            assert -1 <= found.low <= found.value <= found.high <= 1
        assert missed <= 15

    def test_bad_input(self):
        for values, step in (([2.0], 1.0), ([], 1.0), ([0.5], 1.0), ([math.nan], 1.0), ([1.0], 0.0)):
            with pytest.raises(ValueError, match="per_seed"):
                effect_of_shares(seeds(values), RULE, step)
        with pytest.raises(ValueError, match="equal"):
            effect_of_shares(seeds([0.0, 1.0]), Rule(EQUAL, 0.1))
        assert effect_of_shares(seeds([1.0]), RULE).p_for is None


class TestResolution:
    def test_what_so_many_seeds_can_show(self):
        assert [smallest_p_for(RULE, n) for n in (3, 5, 6)] == [0.25, 0.0625, 0.03125]
        # 2 / 2^n <= 0.05 from six seeds on, <= 0.05 / 5 from eight on.
        assert (needed_seeds(RULE), needed_seeds(RULE, 5)) == (6, 8)
        assert needed_seeds(NOT_MORE) == 7

    @pytest.mark.parametrize(("count", "says"), [(3, "p = 0.25"), (5, "p = 0.062")])
    def test_a_collapse_claim_says_that_it_could_not_be_shown(self, count, says):
        found = effect_of_shares(seeds([1.0] * count), RULE)
        could = resolution(found, RULE, 5, COLLAPSE)
        assert could.detectable is None and could.text.startswith(
            f"nothing: no outcome of {count} seeds could show this"
        )
        assert says in could.text and "8 seeds" in could.text
        assert decide(RULE, found).verdict == INCONCLUSIVE

    def test_enough_for_one_claim_alone(self):
        text = resolution(effect_of_shares(seeds([1.0, 0, 0, 0, 0, 0]), RULE), RULE, 5, COLLAPSE).text
        assert "counts only where other claims" in text and "8 seeds" in text

    def test_an_impossible_effect_is_not_named(self):
        accuracy = get_claim("kpo-4-over-grpo")
        wide = effect_of_means({1: -0.4, 2: 0.6, 3: 0.1}, accuracy.rule)
        could = resolution(wide, accuracy.rule, 7, accuracy.effect)
        assert could.detectable is None and could.text == "no possible effect, with probability 0.8: none exceeds 1"
        narrow = effect_of_means({1: 0.01, 2: 0.03, 3: 0.02}, accuracy.rule)
        could = resolution(narrow, accuracy.rule, 7, accuracy.effect)
        assert could.detectable > 0.02 and could.text.startswith(f"an effect of {could.detectable:.3g} or more")

    def test_largest_effects(self):
        widening = minus(COLLAPSE, difference("collapse", cell("krpo", "grpo"), cell("krpo", "krpo")))
        assert (largest_effect(COLLAPSE), largest_effect(widening)) == (1.0, 2.0)
        assert largest_effect(difference("reward_late", cell("a", "b"), cell("a", "c"))) is None

    @pytest.mark.parametrize("rule", [Rule(EQUAL, 0.05, target=0.43), Rule(AT_MOST, 0.48)])
    def test_other_rules_ask_for_a_narrow_interval(self, rule):
        """Estimate 0.4: 0.02 from the lower end 0.38 of what is allowed, 0.08 from the upper bound 0.48."""
        found = effect_of_means({1: 0.3, 2: 0.4, 3: 0.5}, rule)
        could = resolution(found, rule, 1, ())
        room = "0.02" if rule.kind == EQUAL else "0.08"
        assert (
            could.detectable is None and f"reaching at most {room} from" in could.text and "reaches 0.25" in could.text
        )

    def test_outside_and_without_spread(self):
        outside = resolution(effect_of_means({1: 0.1, 2: 0.3, 3: 0.5}, NOT_MORE), NOT_MORE, 1, ())
        assert "estimate itself lies outside" in outside.text
        same = resolution(effect_of_means({1: 0.1, 2: 0.1, 3: 0.1}, RULE), RULE, 1, COLLAPSE)
        assert "no spread" in same.text
        assert resolution(None, RULE, 1, COLLAPSE).text == ""


@pytest.mark.parametrize(("seeds", "able"), [(3, False), (5, False), (6, True)])
def test_six_seeds_can_show_a_difference_of_shares(seeds, able):
    """The clearest outcome of n seeds has two-sided p = 2 / 2^n: 0.0625 with 5, 0.031 with 6."""
    rule = Rule(ABOVE, 0.0)
    clearest = effect_of_shares(dict.fromkeys(range(seeds), 1.0), rule)
    assert clearest.p_for == pytest.approx(2 / 2**seeds)
    assert can_be_shown(rule, clearest) is able
