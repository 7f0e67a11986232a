"""Rewards made worse on purpose: shares and moments as stated, and the same for every method of a seed."""

import math

import numpy as np
import pytest

from reproduction.rewards.perturb import RewardNoise

PLACE = {"group_size": 4, "rollout_batch": 3, "seed": 7}


def test_clean_rewards_pass():
    assert RewardNoise().is_clean
    assert RewardNoise().apply([0.0, 1.0, 0.5, 0.01], **PLACE) == [0.0, 1.0, 0.5, 0.01]


def test_flips_have_their_share():
    rewards = [1.0, 0.0] * 20_000
    changed = np.array(RewardNoise(flips=0.2).apply(rewards, **PLACE)) != np.array(rewards)
    assert changed.mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 40_000))
    assert RewardNoise(flips=1.0).apply([1.0, 0.0, 0.5, 0.01], **PLACE) == pytest.approx([0.0, 1.0, 0.5, 0.99])


def test_gaussian_noise_has_its_deviation():
    noise = np.array(RewardNoise(gaussian=0.5).apply([0.3] * 40_000, **PLACE)) - 0.3
    assert noise.mean() == pytest.approx(0.0, abs=4 * 0.5 / 200)
    assert noise.std() == pytest.approx(0.5, rel=0.02)


def test_drift_by_hand():
    noise = RewardNoise(drift=0.4, drift_period=8.0, drift_in_group=0.3)
    # Batch 3 of a period of 8 is a quarter in: sin = 1. Members of a group of four get 0, .1, .2, .3 more.
    assert noise.apply([1.0] * 4 + [0.0] * 4, **PLACE) == pytest.approx([1.4, 1.5, 1.6, 1.7, 0.4, 0.5, 0.6, 0.7])
    assert noise.apply([0.0] * 4, **{**PLACE, "rollout_batch": 1}) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_draws_follow_seed_and_batch_alone():
    noise = RewardNoise(gaussian=0.5, flips=0.3)
    first = noise.apply([0.0] * 8, **PLACE)
    assert noise.apply([0.0] * 8, **PLACE) == first
    assert noise.apply([0.0] * 8, **{**PLACE, "seed": 8}) != first
    assert noise.apply([0.0] * 8, **{**PLACE, "rollout_batch": 4}) != first
    # Gaussian noise does not change which rewards are flipped.
    flipped = np.array(RewardNoise(flips=0.3).apply([0.0] * 8, **PLACE))
    without = np.array(first) - np.array(RewardNoise(gaussian=0.5).apply([0.0] * 8, **PLACE))
    assert without == pytest.approx(flipped)


def test_ungraded_stays_ungraded():
    assert math.isnan(RewardNoise(gaussian=1.0, flips=1.0).apply([math.nan, 1.0, 0.0, 0.0], **PLACE)[0])


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [("flips", 1.1, ValueError), ("flips", -0.1, ValueError), ("gaussian", -1.0, ValueError),
     ("drift_period", 0.0, ValueError), ("drift", "1e-3", TypeError)],
)  # fmt: skip
def test_bad_fields(field, value, error):
    with pytest.raises(error, match=field):
        RewardNoise(**{field: value})


def test_groups_must_divide_the_rewards():
    with pytest.raises(ValueError, match="groups of 4"):
        RewardNoise(flips=0.1).apply([1.0] * 6, **PLACE)
