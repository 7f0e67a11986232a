"""RAFT, RAFT++ and Reinforce-Rej by hand, and by enumeration of a two-armed bandit."""

import itertools
import math

import pytest

from kpo.advantages import group_advantages
from reproduction.related import positive_samples
from tests.by_hand import near, rows

assert positive_samples  # importing it registers its kinds


class TestPositiveSamples:
    def test_values(self):
        near(group_advantages("positive", rows([1, 0, -1, 1])), [[1, 0, 0, 1]])
        near(group_advantages("uneven-groups", rows([1, 0, 1, 0], [1, 1, 1, 1])), [[1, 0, 1, 0], [0, 0, 0, 0]])
        near(group_advantages("uneven-groups", rows([-1, 1, -1, -1])), [[-1, 1, -1, -1]])
        near(group_advantages("uneven-groups", rows([0.5])), [[0.5]])
        near(group_advantages("uneven-groups-signed", rows([1, 0, 0, 0], [0, 0, 0, 0])), [[1, -1, -1, -1], [0] * 4])

    @pytest.mark.parametrize("p", [0.5, 0.9])
    def test_expected_gradient_of_a_two_armed_bandit(self, p):
        """By enumeration of all groups; the closed forms are those of the geometric series."""
        size = 8
        grad = p * (1 - p)  # of the success probability with respect to its logit
        expected = {
            "positive": grad,
            "uneven-groups": (1 - p ** (size - 1)) * grad,
            "uneven-groups-signed": (2 - p ** (size - 1) - (1 - p) ** (size - 1)) * grad,
        }
        for kind, value in expected.items():
            total = 0.0
            for group in itertools.product((0.0, 1.0), repeat=size):
                probability = math.prod(p if r else 1 - p for r in group)
                advantages = group_advantages(kind, rows(group))[0].tolist()
                # d log pi / d logit is 1 - p for a success and -p for a failure.
                score = sum(a * ((1 - p) if r else -p) for a, r in zip(advantages, group, strict=True)) / size
                total += probability * score
            near(total, value, 1e-9)
