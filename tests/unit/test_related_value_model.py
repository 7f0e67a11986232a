"""Generalised advantages by hand, with padding, and whitened."""

import torch

from reproduction.related import value_model
from tests.by_hand import near


class TestValueModel:
    VALUES = torch.tensor([[0.2, 0.5, 0.8]], dtype=torch.float64)
    MASK = torch.ones(1, 3)

    def test_by_hand(self):
        found = value_model.generalised_advantages
        near(found(self.VALUES, self.MASK), [[-0.137, -0.46, -0.8]], 1e-4)
        reward = torch.ones(1, dtype=torch.float64)
        near(found(self.VALUES, self.MASK, reward), [[0.7655, 0.49, 0.2]], 1e-4)
        near(found(self.VALUES, self.MASK, reward, decay=1.0), [[0.8, 0.5, 0.2]], 1e-9)
        constant = torch.full((1, 4), 0.3, dtype=torch.float64)
        powers = [-0.3 * 0.95 ** (4 - t) for t in range(1, 5)]
        near(found(constant, torch.ones(1, 4)), [powers], 1e-9)

    def test_padding_and_holes_do_not_matter(self):
        padded = torch.tensor([[9.0, 0.2, 7.0, 0.5, 0.8, 5.0]], dtype=torch.float64)
        mask = torch.tensor([[0, 1, 0, 1, 1, 0]])
        found = value_model.generalised_advantages(padded, mask, torch.ones(1, dtype=torch.float64))
        near(found[mask.bool()], [0.7655, 0.49, 0.2], 1e-4)
        assert found[~mask.bool()].eq(0).all()

    def test_whitening(self):
        values = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        mask = (torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.7).double()
        found = value_model.whitened(values, mask)[mask.bool()]
        near([found.mean(), found.var()], [0, 1], 1e-6)
