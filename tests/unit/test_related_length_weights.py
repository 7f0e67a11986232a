"""lambda-GRPO's weights by hand, and their slope in the exponent."""

import pytest
import torch

from reproduction.related import length_weights
from tests.by_hand import near


class TestLengthWeights:
    LENGTHS = torch.tensor([[10, 20, 30, 40]])

    @pytest.mark.parametrize(
        ("exponent", "correction", "expected"),
        [
            (1, 0, (0.8562, 0.9457, 1.0445, 1.1536)),
            (-1, 0, (1.1689, 1.0337, 0.9357, 0.8617)),
            (2, 0, (0.7312, 0.8745, 1.0668, 1.3274)),
            (1, 1, (0.8748, 0.9535, 1.0392, 1.1326)),
            (0, 0, (1, 1, 1, 1)),
        ],
    )
    def test_values(self, exponent, correction, expected):
        relative = length_weights.relative_lengths(self.LENGTHS, correction)
        near(length_weights.length_weights(relative, exponent), [expected], 1e-4)

    def test_gradient_at_zero(self):
        relative = length_weights.relative_lengths(self.LENGTHS)
        exponent = torch.zeros((), dtype=torch.float64)
        slopes = torch.autograd.functional.jacobian(lambda e: length_weights.length_weights(relative, e)[0], exponent)
        near(slopes, [-0.1552, -0.0447, 0.0547, 0.1452], 1e-4)
        near(slopes, relative.log()[0] - relative.log().mean(), 1e-9)
