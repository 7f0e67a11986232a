"""PODS, policy filtration and unbiased pruning by hand, by brute force and by their expectations."""

import itertools

import pytest
import torch

from kpo.advantages import group_advantages
from reproduction.related import selection
from tests.by_hand import near, rows


class TestSelection:
    def test_largest_variance_by_hand(self):
        chosen = selection.max_variance(rows([0, 0, 0.1, 0.2, 0.5, 1, 1, 1]), 4)[0]
        assert sorted(rows([0, 0, 0.1, 0.2, 0.5, 1, 1, 1])[0][chosen > 0].tolist()) == [0, 0, 1, 1]
        rewards = rows([1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0])
        kept = rewards[0][selection.max_variance(rewards, 4)[0] > 0]
        near(kept.sort().values, [0, 0.9, 0.9, 1])
        near(kept.var(), 0.22, 1e-3)

    def test_largest_variance_by_brute_force(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(300):
            size = int(torch.randint(2, 9, (), generator=generator))
            keep = int(torch.randint(1, size + 1, (), generator=generator))
            rewards = torch.randint(0, 4, (1, size), generator=generator).double() / 2
            kept = rewards[0][selection.max_variance(rewards, keep)[0] > 0]
            assert len(kept) == keep
            best = max(torch.tensor(subset).var(correction=0) for subset in itertools.combinations(rewards[0], keep))
            near(kept.var(correction=0), best, 1e-9)

    def test_of_equal_variances_the_fewest_of_the_highest_stay(self):
        """As in the release: all of the highest unless another choice varies more, then i = 0, 1, ... in turn."""
        assert (rows([1, 1, 0, 0]) * selection.max_variance(rows([1, 1, 0, 0]), 3)).sum() == 2
        rewards = rows([1, 1, 1, 0, 0, 0])
        assert (rewards * selection.max_variance(rewards, 3)).sum() == 1

    def test_half_and_half_of_binary_rewards_and_all_of_a_whole_group(self):
        rewards = rows([1, 1, 1, 1, 1, 0, 0, 0])
        assert (rewards * selection.max_variance(rewards, 4)).sum() == 2
        assert selection.max_variance(rewards, 8).all()
        with pytest.raises(ValueError, match="keep 9 is more than the 8 responses"):
            selection.max_variance(rewards, 9)

    def test_grpo_on_what_is_kept(self):
        rewards = rows([1, 0, 0, 0, 0, 0, 0, 0])
        kept = rewards[selection.max_variance(rewards, 4) > 0].view(1, 4)
        near(group_advantages("grpo", kept), [[1.4997, -0.4999, -0.4999, -0.4999]], 1e-3)

    def test_policy_filtration(self):
        rewards = rows([0.1, 0, 1, 0.5], [1, 1, 1, 1])
        near(selection.best_and_worst(rewards), [[0, 1, 1, 0], [1, 0, 0, 1]])
        drawn = torch.stack([selection.best_and_random(rewards, torch.Generator().manual_seed(n)) for n in range(3000)])
        assert (drawn.sum(dim=2) == 2).all() and (drawn[:, 0, 2] == 1).all() and (drawn[:, 1, 0] == 1).all()
        near(drawn[:, 0].mean(dim=0), [1 / 3, 1 / 3, 1, 1 / 3], 0.03)

    def test_controls_keep_as_many(self):
        rewards = rows([0, 1, 0, 1, 0, 1, 1, 0])
        near(selection.highest(rewards, 4), rewards)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([selection.random_subset(rewards, 4, generator)[0] for _ in range(2000)])
        assert (drawn.sum(dim=1) == 4).all()
        near(drawn.mean(dim=0), [0.5] * 8, 0.05)

    def test_pruning_is_unbiased(self):
        """The mean over all patterns of dropped responses, weighted by their probability, is the whole advantage."""
        advantages = rows([1.5, -0.5, -0.5, -0.5])
        found = {}
        for seed in range(400):
            weights = selection.unbiased_pruning(advantages, 0.5, torch.Generator().manual_seed(seed))
            found[tuple(weights[0].tolist())] = weights
        assert set(found) == {(1.0, *rest) for rest in itertools.product((0.0, 2.0), repeat=3)}
        near(torch.stack(list(found.values())).mean(dim=0) * advantages, advantages, 1e-12)
        assert selection.unbiased_pruning(advantages, 0.0, torch.Generator()).eq(1).all()
        with pytest.raises(ValueError, match="below 1"):
            selection.unbiased_pruning(advantages, 1.0, torch.Generator())
