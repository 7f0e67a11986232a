"""GDPO in TRL's and verl's forms, by hand."""

import torch

from kpo.advantages import group_advantages
from reproduction.related import reward_components
from tests.by_hand import near


class TestComponents:
    A = [[1, 1], [1, 0], [0, 1], [0, 0]]
    B = [[1, 1], [0, 1], [0, 1], [0, 1]]
    COMPONENTS = torch.tensor([A, B], dtype=torch.float64)
    ONES = torch.ones(2)

    def test_trl_form(self):
        sums = reward_components.normalised_sum(self.COMPONENTS, self.ONES)
        near(sums, [[1.7318, 0, 0, -1.7318], [1.4997, -0.4999, -0.4999, -0.4999]])
        found = reward_components.gdpo(self.COMPONENTS, self.ONES)
        near(found, [[1.5274, 0, 0, -1.5274], [1.3227, -0.4409, -0.4409, -0.4409]])

    def test_verl_form(self):
        lengths = torch.tensor([[10, 20, 30, 40], [10, 20, 30, 40]])
        found = reward_components.gdpo_by_token(self.COMPONENTS, self.ONES, lengths)
        near(found, [[2.3782, 0.4550, 0.4550, -1.4682], [2.1206, -0.1001, -0.1001, -0.1001]], 2e-4)

    def test_two_responses_where_the_sum_hides_a_component(self):
        pair = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [1, 1]]], dtype=torch.float64)
        near(reward_components.normalised_sum(pair, self.ONES), [[-0.7070, 0.7070], [-1.4140, 1.4140]], 1e-4)
        summed = pair.sum(dim=2)
        near(group_advantages("grpo", summed), [[-0.7071, 0.7071], [-0.7071, 0.7071]], 1e-4)

    def test_an_ungraded_component_is_left_out(self):
        whole = self.COMPONENTS.clone()
        whole[0, 3, 1] = torch.nan
        found = reward_components.normalised_sum(whole, self.ONES)
        alone = reward_components.normalised_sum(whole[:1, :3, 1:], torch.ones(1))
        first = reward_components.normalised_sum(whole[:1, :, :1], torch.ones(1))
        near(found[0, :3], first[0, :3] + alone[0])
        near(found[0, 3], first[0, 3])

    def test_weights(self):
        only_first = reward_components.normalised_sum(self.COMPONENTS, torch.tensor([2.0, 0.0]))
        near(only_first, 2 * reward_components.normalised_sum(self.COMPONENTS[:, :, :1], torch.ones(1)))
