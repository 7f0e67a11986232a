"""iGRPO's choice of a draft by enumeration, and its prompt."""

import itertools
import math

import pytest
import torch

from reproduction.related import drafts
from tests.by_hand import near


class TestDrafts:
    @pytest.mark.parametrize(("count", "expected"), [(1, 0.3), (2, 0.51), (4, 0.7599), (8, 0.9424)])
    def test_the_kept_draft_is_right_as_often_as_any_is(self, count, expected):
        total = 0.0
        for group in itertools.product((0.0, 1.0), repeat=count):
            probability = math.prod(0.3 if r else 0.7 for r in group)
            rewards = torch.tensor([group])
            total += probability * rewards[0, drafts.best_draft(rewards)[0]].item()
        near(total, expected, 1e-4)

    def test_prompt_ends_as_a_plain_prompt(self):
        assert drafts.refinement_prompt("1+2=", "4", ";") == "4;1+2="
