"""SPPO, REBEL and A*-PO by hand, by brute force and in their common limit."""

import itertools

import pytest
import torch

from reproduction.related import sequence_objectives
from tests.by_hand import near, rows


class TestSequenceObjectives:
    def test_win_rates(self):
        near(sequence_objectives.win_rates(rows([1, 1, 0, 0, 0])), [[0.8, 0.8, 0.3, 0.3, 0.3]])
        near(sequence_objectives.win_rates(rows([1] + [0] * 7))[0, :2], [0.9375, 0.4375])
        near(sequence_objectives.win_rates(rows([1] * 7 + [0]))[0, -2:], [0.5625, 0.0625])
        rewards = rows([1, 0, 0, 1, 1, 0])
        near(sequence_objectives.win_rates(rewards) - 0.5, (rewards - rewards.mean()) / 2, 1e-12)

    @pytest.mark.parametrize(("eta", "loss"), [(1, 0.065), (1000, 65000)])
    def test_sppo_pair_at_the_sampling_policy(self, eta, loss):
        """The published loss sums over the pair; the mean over its two members is half of that."""
        targets = sequence_objectives.sppo_targets(rows([1, 1, 0, 0, 0]), eta)[0, [0, 2]]
        near(2 * sequence_objectives.regression(torch.zeros(2), targets), loss, loss * 1e-6)

    def test_rebel_equals_the_mean_over_pairs(self):
        z = torch.tensor([[0.1, -0.2, 0.4, 0.0]], dtype=torch.float64, requires_grad=True)
        rewards = rows([1, 0, 0, 1])
        loss = sequence_objectives.rebel(z, rewards, 1.0)
        (gradient,) = torch.autograd.grad(loss, z)
        near(loss.detach(), 0.858333, 1e-6)
        near(gradient, [[-0.6333, 0.3, 1.1, -0.7667]], 1e-4)
        numbers, r = z[0].tolist(), rewards[0].tolist()
        pairs = [(numbers[i] - numbers[j] - (r[i] - r[j])) ** 2 for i, j in itertools.permutations(range(4), 2)]
        near(loss.detach(), sum(pairs) / len(pairs), 1e-9)
        near(sequence_objectives.rebel(torch.tensor([[0.3, 0.0]]), torch.tensor([[1.0, 0.0]]), 1.0), 0.49, 1e-6)
        near(sequence_objectives.rebel(z, rewards + 5, 1.0).detach(), loss.detach(), 1e-9)
        with pytest.raises(ValueError, match="at least 2 responses"):
            sequence_objectives.rebel(z[:, :1], rewards[:, :1], 1.0)

    def test_optimal_values(self):
        base = torch.tensor([[1.0] * k + [0.0] * (8 - k) for k in (0, 1, 4, 7, 8)])
        near(sequence_objectives.optimal_values(base, 0.5), [0, 0.2935, 0.7169, 0.9428, 1])
        near(sequence_objectives.optimal_values(base[2:3], 0.01), [0.9931], 1e-4)
        near(sequence_objectives.optimal_values(base[2:3], 100.0), [0.5012], 1e-4)

    def test_a_star_po_at_the_base_policy(self):
        z = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        values = sequence_objectives.optimal_values(torch.tensor([[1.0] * 4 + [0.0] * 4]), 0.5).expand(2)
        loss = sequence_objectives.a_star_po(z, torch.tensor([1.0, 0.0]), values, 1e-3)
        (gradient,) = torch.autograd.grad(loss, z)
        near(2 * gradient, [-0.000566, 0.001434], 1e-6)  # the loss is a mean over two responses

    def test_common_limit(self):
        """At pi = pi_0 with rewards 0 and 1 all three push by -(r - group mean), up to their own factor."""
        rewards = rows([1, 0, 0, 1, 0, 0, 0, 1])
        centred = (rewards - rewards.mean())[0]
        eta, beta2, n = 3.0, 1e-3, rewards.shape[1]

        def gradient(loss_of):
            z = torch.zeros(n, dtype=torch.float64, requires_grad=True)
            return torch.autograd.grad(loss_of(z), z)[0]

        rebel = gradient(lambda z: sequence_objectives.rebel(z[None], rewards, eta))
        near(rebel, -4 * eta / (n - 1) * centred, 1e-9)
        sppo = gradient(
            lambda z: n * sequence_objectives.regression(z, sequence_objectives.sppo_targets(rewards, eta)[0])
        )
        near(sppo, -eta / 2 * centred, 1e-9)
        values = sequence_objectives.optimal_values(rewards, 1e6).expand(n)
        star = gradient(lambda z: n * sequence_objectives.a_star_po(z, rewards[0], values, beta2))
        near(star, -2 * beta2 * centred, 1e-8)
