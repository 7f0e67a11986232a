"""kpo.kalman.kalman_filter_group: KRPO's filter over the rewards of a group."""

import math

import numpy as np
import pytest
import torch

from kpo.kalman import GroupFilter, kalman_filter, kalman_filter_group, kalman_gains

KRPO = {"process_variance": 1e-5, "observation_variance": 1e-2}


def sequential_group(rewards, graded, process_variance, observation_variance, mean=0.0, variance=1.0):
    """One prompt as a textbook loop: posterior and prior mean and variance at every reward."""
    means, variances, prior_means, prior_variances = [], [], [], []
    for reward, counts in zip(rewards, graded, strict=True):
        predicted = variance + process_variance
        prior_means.append(mean)
        prior_variances.append(predicted)
        if counts:
            gain = predicted / (predicted + observation_variance)
            mean = mean + gain * (reward - mean)
            variance = (1 - gain) * predicted
        means.append(mean)
        variances.append(variance)
    return means, variances, prior_means, prior_variances


def test_by_hand():
    """P_0 = 1, Q = 0, R = 1: gains 1/2, 1/3, 1/4, so the state is a running mean that counts the prior 0 once."""
    states = kalman_filter_group(torch.tensor([[1.0, 1.0, 4.0]]), process_variance=0.0, observation_variance=1.0)
    torch.testing.assert_close(states.means, torch.tensor([[1 / 2, 2 / 3, 6 / 4]], dtype=torch.float64))
    torch.testing.assert_close(states.variances, torch.tensor([[1 / 2, 1 / 3, 1 / 4]], dtype=torch.float64))
    torch.testing.assert_close(states.prior_means, torch.tensor([[0, 1 / 2, 2 / 3]], dtype=torch.float64))
    torch.testing.assert_close(states.prior_variances, torch.tensor([[1, 1 / 2, 1 / 3]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("initial", [(0.0, 1.0), (0.5, 0.0), (-1.0, 30.0)])
def test_against_the_loop_with_ungraded_rewards(dtype, initial):
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(6, 12, generator=generator) < 0.4).to(dtype)
    graded = torch.rand(6, 12, generator=generator) < 0.7
    graded[4], graded[5] = False, True
    states = kalman_filter_group(rewards, graded, **KRPO, initial_mean=initial[0], initial_variance=initial[1])
    assert isinstance(states, GroupFilter)
    for prompt in range(6):
        expected = sequential_group(rewards[prompt].tolist(), graded[prompt].tolist(), 1e-5, 1e-2, *initial)
        for result, reference in zip(states, expected, strict=True):
            assert result.dtype == torch.float64 and result.shape == (6, 12)
            np.testing.assert_allclose(result[prompt].numpy(), np.array(reference, dtype=float), rtol=1e-12, atol=1e-15)


def test_ungraded_rewards_may_hold_anything_and_move_nothing():
    rewards = torch.tensor([[1.0, math.nan, 0.0, math.inf, 1.0]])
    graded = torch.tensor([[1, 0, 1, 0, 1]])
    states = kalman_filter_group(rewards, graded, **KRPO)
    short = kalman_filter_group(torch.tensor([[1.0, 0.0, 1.0]]), **KRPO)
    for whole, part in zip(states, short, strict=True):
        assert torch.equal(whole[:, graded[0].bool()], part)
    assert torch.equal(states.means[:, [1, 3]], short.means[:, [0, 1]])
    assert torch.equal(states.variances[:, [1, 3]], short.variances[:, [0, 1]])
    assert torch.equal(states.prior_means[:, [1, 3]], short.means[:, [0, 1]])


def test_the_same_filter_as_over_sequences():
    rewards = torch.rand(5, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = kalman_filter_group(rewards, **KRPO, initial_variance=1.0)
    torch.testing.assert_close(
        states.means, kalman_filter(rewards, **KRPO, initial_variance=1.0), rtol=1e-13, atol=1e-15
    )
    _, variances = kalman_gains(16, 1e-5, 1e-2, 1.0)
    torch.testing.assert_close(states.variances, variances.expand(5, 16), rtol=0, atol=0)


def test_prompts_do_not_touch_each_other_and_the_default_prior_is_krpos():
    rewards = torch.rand(4, 8, generator=torch.Generator().manual_seed(2))
    states = kalman_filter_group(rewards, **KRPO)
    for prompt in range(4):
        alone = kalman_filter_group(rewards[prompt : prompt + 1], **KRPO, initial_mean=0.0, initial_variance=1.0)
        for whole, part in zip(states, alone, strict=True):
            assert torch.equal(whole[prompt : prompt + 1], part)
    assert torch.equal(states.prior_means[:, 0], torch.zeros(4, dtype=torch.float64))
    assert states.prior_variances[0, 0].item() == 1.0 + 1e-5


def test_running_mean_in_the_limit_of_a_vague_prior():
    rewards = torch.rand(3, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    states = kalman_filter_group(rewards, process_variance=0.0, observation_variance=1e-2, initial_variance=1e12)
    torch.testing.assert_close(states.means, rewards.cumsum(1) / torch.arange(1, 21), rtol=1e-12, atol=0)
