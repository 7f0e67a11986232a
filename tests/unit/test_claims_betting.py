"""Collapses by betting: the worked numbers, the error at the margin, an interval that covers, and consistency."""

import math

import numpy as np
import pytest

from reproduction.claims.betting import STAKES, effect_of_shares, p_at_most
from reproduction.claims.declare import ABOVE, AT_MOST, EQUAL, Rule
from reproduction.claims.design import SINGLE, Design
from reproduction.claims.needed import needed
from reproduction.claims.verdict import NOT_AT_SIZE, NOT_REPRODUCED, OPEN, REFUTED, REPRODUCED, SHOWN, decide, judge

RULE = Rule(ABOVE, 0.1, paper=0.2, paper_from="convention")
NOT_MORE = Rule(AT_MOST, 0.1)


def seeds(values):
    return dict(enumerate(values))


def test_the_formula_by_hand():
    """Two seeds with d = 1 against a mean of at most 0: mean over c of (1 + c)^2 is the e-value."""
    e_value = np.mean([(1 + c) ** 2 for c in (0.1, 0.25, 0.5, 0.75, 0.95)])
    assert p_at_most(np.ones(2), 0.0) == pytest.approx(1 / e_value)
    # The largest e-value so far counts: a later seed on the other side takes nothing back.
    assert p_at_most(np.array([1.0, 1.0, -1.0]), 0.0) == pytest.approx(1 / e_value)
    # Against a mean of at least .2, one seed with d = -.5: 1 + c (.2 + .5) / .8.
    e_value = np.mean([1 + c * 0.7 / 0.8 for c in STAKES])
    assert effect_of_shares({1: -0.5}, RULE).p_size == pytest.approx(1 / e_value)


@pytest.mark.parametrize(("margin", "count"), [(0.1, 41), (0.2, 20), (0.3, 12)])
def test_seeds_without_any_collapse_exclude_a_margin(margin, count):
    """41, 20 and 12 seeds exclude 10, 20 and 30 points; once such a claim was open for ever."""
    rule = Rule(ABOVE, margin)
    assert effect_of_shares(seeds([0.0] * count), rule).p_against <= 0.05
    assert effect_of_shares(seeds([0.0] * (count - 2)), rule).p_against > 0.05
    assert judge(effect_of_shares(seeds([0.0] * count), Rule(AT_MOST, margin)), Rule(AT_MOST, margin)) == SHOWN


def test_no_collapse_at_all_gets_a_verdict():
    assert judge(effect_of_shares(seeds([0.0] * 5), RULE), RULE) == OPEN
    assert decide(RULE, effect_of_shares(seeds([0.0] * 24), RULE)).verdict == NOT_AT_SIZE
    assert decide(RULE, effect_of_shares(seeds([0.0] * 48), RULE)).verdict == NOT_REPRODUCED


def test_every_seed_collapses_and_none_does():
    found = effect_of_shares(seeds([1.0] * 12), RULE)
    assert judge(found, RULE) == SHOWN and decide(RULE, found).verdict == REPRODUCED
    assert judge(effect_of_shares(seeds([1.0] * 12), NOT_MORE), NOT_MORE) == REFUTED


def test_a_collapse_in_four_of_five_runs_is_refuted():
    """Unclipped KPO, 80% on the top rung against none: once open for ever, when three rungs were averaged."""
    drawn = (np.random.default_rng(0).random((200, 12)) < 0.8).astype(float)
    assert np.mean([p_at_most(row, NOT_MORE.margin) <= 0.05 for row in drawn]) > 0.85


@pytest.mark.parametrize(
    ("probabilities", "sign", "threshold"),
    [
        ((0.1, 0.7, 0.2), -1, 0.1),  # at the margin of 0.1, from either side
        ((0.1, 0.7, 0.2), 1, 0.1),
        ((0.3, 0.4, 0.3), 1, 0.0),
        ((0.0, 0.9, 0.1), -1, 0.1),
        ((0.0, 0.8, 0.2), -1, 0.2),
    ],
)
def test_reading_at_every_seed_errs_as_rarely_as_said(probabilities, sign, threshold):
    """The mean exactly at the threshold; the p-value after 60 seeds is the smallest of all those on the way."""
    drawn = np.random.default_rng(1).choice((-1.0, 0.0, 1.0), size=(400, 60), p=probabilities)
    wrong = sum(p_at_most(sign * row, sign * threshold) <= 0.05 for row in drawn)
    assert wrong <= 20 + 3 * math.sqrt(20)


def test_skewed_differences_over_several_rungs():
    """d = 1 with .3 and -1/3 with .7 has mean .067 > 0: flipping signs showed "not more often" in 16.5% of draws."""
    drawn = np.where(np.random.default_rng(2).random((400, 6)) < 0.3, 1.0, -1 / 3)
    wrong = sum(p_at_most(-row, 0.0) <= 0.05 for row in drawn)
    assert wrong <= 20 + 3 * math.sqrt(20)


def test_the_interval_covers_and_shrinks():
    random, missed = np.random.default_rng(3), 0
    for _ in range(60):
        drawn = random.choice((-1 / 3, 0.0, 1 / 3, 2 / 3, 1.0), size=30, p=(0.2, 0.3, 0.2, 0.1, 0.2))
        few, many = (effect_of_shares(seeds(drawn[:count]), RULE) for count in (6, 30))
        mean = -0.2 / 3 + 0.2 / 3 + 0.1 * 2 / 3 + 0.2
        missed += not many.low <= mean <= many.high
        assert -1 <= few.low <= many.low + 1e-9 and many.low <= many.high <= few.high + 1e-9 <= 1 + 2e-9
    assert missed <= 6 + 3 * math.sqrt(6)


def test_ends_of_the_interval_have_the_significance():
    found = effect_of_shares(seeds([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), RULE)
    values = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert p_at_most(values, found.low) == pytest.approx(0.05, rel=1e-6)
    assert p_at_most(-values, -found.high) == pytest.approx(0.05, rel=1e-6)


def test_seeds_needed():
    found = effect_of_shares(seeds([0.0] * 5), RULE)
    assert needed(found, RULE, 1, Design(SINGLE)).seeds == pytest.approx(20, abs=1)


def test_bad_input():
    for values in ([2.0], [], [math.nan]):
        with pytest.raises(ValueError, match="per_seed"):
            effect_of_shares(seeds(values), RULE)
    with pytest.raises(ValueError, match="equal"):
        effect_of_shares(seeds([0.0, 1.0]), Rule(EQUAL, 0.1))
