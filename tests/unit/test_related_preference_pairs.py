"""RPO, alpha-DPO and SimPO by hand."""

import math

import pytest
import torch

from reproduction.related import preference_pairs
from tests.by_hand import near, rows


class TestPairs:
    def test_pairs_come_from_uneven_groups(self):
        rewards = rows([1, 0, 1, 0], [1, 1, 1, 1], [0, 0.5, 1, 1])
        seen = {tuple(row) for seed in range(60) for row in self._pairs(rewards, seed).tolist()}
        assert seen == {(0, h, low) for h in (0, 2) for low in (1, 3)} | {(2, 2, 0), (2, 3, 0)}
        assert len(self._pairs(rows([0, 0], [1, 1]), 0)) == 0

    @staticmethod
    def _pairs(rewards, seed):
        return preference_pairs.pairs(rewards, torch.Generator().manual_seed(seed))

    def test_rpo(self):
        def loss(margin, eta, scaling):
            one = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
            log_prob, tokens = torch.tensor([-12.0], dtype=torch.float64), torch.tensor([40.0])
            return preference_pairs.rpo(one, log_prob, tokens, beta=0.01, eta=eta, scaling=scaling), one

        # The two SFT parts are .01 x .005 x 12 = .0006 and .005 x 12 / 40 = .0015.
        near(loss(0.5, 0.005, "sum")[0].detach(), 0.69125, 1e-5)
        near(loss(0.5, 0.005, "mean")[0].detach(), 0.69215, 1e-5)
        value, margin = loss(0.0, 0.0, "sum")
        near(value.detach(), math.log(2), 1e-12)
        near(torch.autograd.grad(value, margin)[0], [-0.01 / 2], 1e-12)
        with pytest.raises(ValueError, match="'sum' or 'mean'"):
            loss(0.0, 0.0, "total")

    def test_alpha_dpo_and_simpo(self):
        gap, difference = torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
        adapted = preference_pairs.MarginScale(0.05, 0.02).adapted(gap)
        near(adapted, [2.5], 1e-9)
        values = {"beta": 2.5, "gamma_over_beta": 0.6}
        near(preference_pairs.alpha_dpo(difference, adapted, alpha=0.2, **values), 1.9102, 1e-4)
        near(preference_pairs.alpha_dpo(difference, adapted, alpha=0.0, **values), 0.9741, 1e-4)

    def test_running_scale(self):
        scale = preference_pairs.MarginScale()
        gaps = torch.tensor([1.0, 3.0], dtype=torch.float64)
        assert scale.adapted(gaps).eq(0).all()
        scale.update(gaps)
        near([scale.mean, scale.deviation], [0.2, 0.1 * math.sqrt(2)], 1e-12)
        scale.update(torch.tensor([5.0]))
        near([scale.mean, scale.deviation], [0.68, 0.1 * math.sqrt(2)], 1e-12)
