"""DPPO's gradients by hand and in their limits."""

import math

import pytest
import torch

from reproduction.related import trust_region
from tests.by_hand import near


class TestTrustRegion:
    @pytest.mark.parametrize(
        ("mu", "pi", "advantage", "tv", "kl"),
        [
            (0.01, 0.02, 1, -2, -2),
            (0.5, 0.62, 1, -1.24, -1.24),
            (0.5, 0.66, 1, 0, 0),
            (0.3, 0.16, -1, 0.5333, 0),
            (0.9, 0.7, -1, 0, 0),
            (0.01, 0.2, -1, 20, 20),
        ],
    )
    def test_gradient_of_the_loss(self, mu, pi, advantage, tv, kl):
        for kind, expected in (("tv", tv), ("kl", kl)):
            delta = trust_region.DELTA_TV if kind == "tv" else trust_region.DELTA_KL
            near(self._gradient(mu, pi, advantage, kind, delta), expected, 1e-4)

    @pytest.mark.parametrize("kind", ["tv", "kl"])
    def test_limits(self, kind):
        near(self._gradient(0.2, 0.7, 1, kind, math.inf), -3.5, 1e-6)  # the unclipped token ratio
        near(self._gradient(0.3, 0.3, -1, kind, 0.01), 1.0, 1e-9)  # REINFORCE
        with pytest.raises(ValueError, match="'tv' or 'kl'"):
            self._gradient(0.2, 0.7, 1, "other", 0.1)

    @staticmethod
    def _gradient(mu, pi, advantage, kind, delta):
        old = torch.tensor([[mu]], dtype=torch.float64).log()
        log_pi = torch.tensor([[pi]], dtype=torch.float64).log().requires_grad_()
        advantages = torch.tensor([[float(advantage)]], dtype=torch.float64)
        used = trust_region.divergence_ratio(log_pi - old, old, advantages, kind=kind, delta=delta)
        loss = (-advantages * used.exp()).sum()
        return torch.autograd.grad(loss, log_pi)[0].item()
