"""kpo.adaptive: likelihood against innovations, maximum against a grid, recovery, forgetting, resumption."""

import json
import math
import time

import numpy as np
import pytest
import torch

from kpo.adaptive import RewardNoiseEstimator
from kpo.methods import get_method


def simulate(groups, size, q, r, seed, x0=0.0, p0=1.0):
    generator = np.random.default_rng(seed)
    states = x0 + math.sqrt(p0) * generator.standard_normal((groups, 1))
    states = states + np.cumsum(math.sqrt(q) * generator.standard_normal((groups, size)), axis=1)
    return torch.from_numpy(states + math.sqrt(r) * generator.standard_normal((groups, size)))


def innovations_likelihood(rewards, q, r, x0=0.0, p0=1.0):
    """-log L by the filter's one-step predictions, group by group, without n/2 log(2 pi); NaN is no observation."""
    total = 0.0
    for group in rewards.tolist():
        x, p = x0, p0
        for reward in group:
            if math.isnan(reward):
                continue
            variance = p + q + r
            total += 0.5 * (math.log(variance) + (reward - x) ** 2 / variance)
            x, p = x + (p + q) / variance * (reward - x), (p + q) * r / variance
    return total


def negative_log_likelihood(estimator, q, r):
    """What the estimator minimises, for all groups instead of one."""
    return estimator._objective(np.log([q / r, r]))[0] * sum(weight for weight, _ in estimator._moments.values())


@pytest.mark.parametrize(("q", "r"), [(1e-5, 1e-2), (0.1, 0.3), (0.5, 0.02)])
def test_likelihood_equals_that_of_the_innovations(q, r):
    rewards = simulate(20, 6, 0.05, 0.2, seed=0)
    rewards[3, 2] = math.nan
    rewards[4, :4] = math.nan
    estimator = RewardNoiseEstimator(initial_mean=0.3, initial_variance=0.7, memory=math.inf)
    estimator.update(rewards)
    expected = innovations_likelihood(rewards, q, r, x0=0.3, p0=0.7)
    assert negative_log_likelihood(estimator, q, r) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("q", "r"), [(0.02, 0.2), (0.3, 0.4), (1e-5, 0.05)])
def test_estimate_is_the_best_of_a_fine_grid(q, r, seed):
    estimator = RewardNoiseEstimator(memory=math.inf)
    estimator.update(simulate(64, 8, q, r, seed))
    best = negative_log_likelihood(estimator, estimator.process_variance, estimator.observation_variance)
    for log_ratio in np.linspace(math.log(1e-6), 0.0, 25):
        for log_r in np.linspace(math.log(1e-2), math.log(2.0), 25):
            observation = math.exp(log_r)
            assert best <= negative_log_likelihood(estimator, math.exp(log_ratio) * observation, observation) + 1e-6


def test_gradient_against_finite_differences():
    estimator = RewardNoiseEstimator()
    estimator.update(simulate(16, 5, 0.1, 0.3, seed=1))
    point = np.log([0.05, 0.2])
    _, gradient = estimator._objective(point)
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = 1e-5
        numeric = (estimator._objective(point + step)[0] - estimator._objective(point - step)[0]) / 2e-5
        assert gradient[axis] == pytest.approx(numeric, rel=1e-6)


def test_known_variances_are_recovered():
    estimator = RewardNoiseEstimator(memory=math.inf)
    for seed in range(40):
        estimator.update(simulate(64, 8, 0.05, 0.2, seed))
    # 20,480 rewards: the standard errors are about 2%.
    assert estimator.process_variance == pytest.approx(0.05, rel=0.08)
    assert estimator.observation_variance == pytest.approx(0.2, rel=0.05)


def test_rewards_of_0_and_1_give_their_own_variance_within_groups():
    """Exchangeable rewards: no drift, and R the within-group variance p (1 - p), about 0.21 here."""
    generator = torch.Generator().manual_seed(0)
    estimator = RewardNoiseEstimator(memory=math.inf)
    for _ in range(30):
        estimator.update((torch.rand(16, 8, generator=generator) < 0.3).double())
    assert estimator.observation_variance == pytest.approx(0.21, rel=0.1)
    assert estimator.process_variance < 0.01


def test_starts_as_released_and_stays_in_bounds():
    estimator = RewardNoiseEstimator()
    assert (estimator.process_variance, estimator.observation_variance) == (1e-5, 1e-2)
    estimator.update(torch.tensor([[1.0, math.nan], [math.nan, math.nan]]))
    assert (estimator.process_variance, estimator.observation_variance) == (1e-5, 1e-2)
    for rewards in (torch.zeros(4, 8), torch.ones(4, 8)):
        equal = RewardNoiseEstimator()
        equal.update(rewards)
        assert equal.observation_variance == pytest.approx(1e-2)
    wild = RewardNoiseEstimator()
    wild.update(1e6 * simulate(8, 8, 1.0, 1.0, seed=0))
    assert wild.observation_variance <= 1e4 * (1 + 1e-12)
    assert wild.process_variance <= wild.observation_variance * (1 + 1e-12)


def test_old_batches_are_forgotten():
    quick = RewardNoiseEstimator(memory=2.0)
    for seed in range(20):
        quick.update(simulate(16, 8, 1e-5, 1.0, seed))
    for seed in range(20):
        quick.update(simulate(16, 8, 1e-5, 0.05, seed))
    assert quick.observation_variance == pytest.approx(0.05, rel=0.3)


def test_a_drift_that_sets_in_late_is_noticed():
    """If there is none, Q is at its lower bound, where the likelihood hardly depends on log Q."""
    estimator = RewardNoiseEstimator(memory=5.0)
    for seed in range(20):
        estimator.update(simulate(16, 8, 1e-9, 0.2, seed))
    assert estimator.process_variance < 1e-2
    for seed in range(20, 45):
        estimator.update(simulate(16, 8, 0.1, 0.2, seed))
    assert estimator.process_variance == pytest.approx(0.1, rel=0.4)


def test_resumed_estimates_are_the_same_to_the_bit():
    batches = [simulate(16, 8, 0.05, 0.2, seed) for seed in range(6)]
    batches[1][0, 0] = math.nan
    whole, first, second = (RewardNoiseEstimator() for _ in range(3))
    for batch in batches:
        whole.update(batch)
    for batch in batches[:3]:
        first.update(batch)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in batches[3:]:
        second.update(batch)
    assert second.state_dict() == whole.state_dict()


def test_method_uses_estimates_of_earlier_batches_only():
    method = get_method("krpo-adaptive")
    estimator = method.make_estimator()
    rewards = (torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    first = method.advantages(rewards, estimator=estimator)
    assert torch.equal(first, get_method("krpo").advantages(rewards))
    assert estimator.observation_variance > 0.1
    variances = {
        "process_variance": estimator.process_variance,
        "observation_variance": estimator.observation_variance,
    }
    second = method.advantages(rewards, estimator=estimator)
    assert torch.equal(second, get_method("krpo", **variances).advantages(rewards))
    with pytest.raises(ValueError, match="estimator is missing"):
        method.advantages(rewards)


def test_an_update_is_cheap():
    """A rollout batch of 16 x 8 takes a few milliseconds of processor time."""
    estimator = RewardNoiseEstimator()
    batches = [simulate(16, 8, 0.01, 0.2, seed) for seed in range(30)]
    seconds = []
    for batch in batches:
        start = time.process_time()
        estimator.update(batch)
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.05


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"observation_variance": 0.0}, ValueError, "observation_variance"),
        ({"process_variance": -1.0}, ValueError, "process_variance"),
        ({"memory": 0.0}, ValueError, "memory"),
        ({"memory": "long"}, TypeError, "memory"),
        ({"initial_variance": -1.0}, ValueError, "initial_variance"),
    ],
)
def test_bad_settings(keywords, error, words):
    with pytest.raises(error, match=words):
        RewardNoiseEstimator(**keywords)


def test_bad_rewards_and_states():
    estimator = RewardNoiseEstimator()
    with pytest.raises(TypeError, match="rewards"):
        estimator.update([[1.0, 0.0]])
    with pytest.raises(ValueError, match="rewards"):
        estimator.update(torch.tensor([[1.0, torch.inf]]))
    with pytest.raises(ValueError, match="shape"):
        estimator.update(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="state"):
        estimator.load_state_dict({"process_variance": 1.0})
    with pytest.raises(ValueError, match="state"):
        estimator.load_state_dict(
            {"process_variance": 1.0, "observation_variance": 1.0, "moments": {"3": {"weight": 1, "matrix": [[1.0]]}}}
        )
