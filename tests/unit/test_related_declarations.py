"""Each declared method on eight responses, against its own equation in plain Python."""

import math

import pytest
import torch

from kpo.advantages import group_advantages
from kpo.losses import policy_loss
from kpo.methods import METHODS
from reproduction.related import length_weights
from reproduction.related.declarations import RELATED
from reproduction.settings.configuration import load
from tests.by_hand import near, rows

GRPO = (
    0.75 / (1.5 / 7) ** 0.5,
    *[-0.25 / (1.5 / 7) ** 0.5] * 2,
    0.75 / (1.5 / 7) ** 0.5,
    *[-0.25 / (1.5 / 7) ** 0.5] * 4,
)
REWARD = (1, 0, 0, 1, 0, 0, 0, 0)

BY_HAND = {
    "raft": REWARD,
    "raft-plus-plus": REWARD,
    "reinforce-rej": REWARD,
    "reinforce-rej-signed": (1, -1, -1, 1, -1, -1, -1, -1),
    # The baseline is (1 x 1 + 2 x 1) / 14 tokens.
    "opo-on-policy": (11 / 14, *[-3 / 14] * 2, 11 / 14, *[-3 / 14] * 4),
    # The highest four already have the largest variance, 1/3: 1/2 over sqrt(1/3), times 8 / 4.
    "pods": (3**0.5, -(3**0.5), -(3**0.5), 3**0.5, 0, 0, 0, 0),
    # The highest four in sampled order are members 0, 3, 1, 2.
    "pods-highest": (3**0.5, -(3**0.5), -(3**0.5), 3**0.5, 0, 0, 0, 0),
    # Mean 1/4, sample deviation sqrt(1.5 / 7); times 8 / 2.
    "pf-best-worst": (GRPO[0] * 4, *[0] * 6, GRPO[1] * 4),
    "dppo-tv": (0.75, -0.25, -0.25, 0.75, *[-0.25] * 4),
    "dppo-kl": (0.75, -0.25, -0.25, 0.75, *[-0.25] * 4),
    # Lengths 1 and 2: mean 1.75, deviation 0.433; h is 0.8075 and 1.0642, f their softmax (of inverses) times 8.
    "lambda-grpo-short": (GRPO[0] * 1.24009, *[GRPO[1] * 0.91997] * 2, GRPO[0] * 0.91997, GRPO[1] * 1.24009,
                          *[GRPO[1] * 0.91997] * 3),
    "lambda-grpo-long": (GRPO[0] * 0.82008, *[GRPO[1] * 1.05997] * 2, GRPO[0] * 1.05997, GRPO[1] * 0.82008,
                         *[GRPO[1] * 1.05997] * 3),
    "lambda-grpo": GRPO,
    "igrpo": GRPO,
    "igrpo-first-draft": GRPO,
    "multi-objective": GRPO,
    # Second reward: 1 for the first four. Its advantages are +-0.9352; the sums have mean 0 and deviation 1.7758.
    "gdpo": (1.43876, 0.22259, 0.22259, 1.43876, *[-0.83068] * 4),
    # The same sums with a mean of -0.0772 and a deviation of 1.6496 over tokens.
    "gdpo-tokens": (1.59602, 0.28644, 0.28644, 1.59602, *[-0.84769] * 4),
    "sppo": (375, -125, -125, 375, *[-125] * 4),
    "rebel": REWARD,
    "a-star-po": REWARD,
    "dvpo": REWARD,
    "dvpo-terminal": REWARD,
    "ppo": REWARD,
}  # fmt: skip
"""Advantages of the eight responses of `TestDeclarations`."""
DRAWN = {"pods-random", "pf-best-random", "unbiased-pruning", "rpo", "rpo-mean", "alpha-dpo", "simpo"}
"""Methods that draw, with tests of what they draw."""
OWN_LOSS = {
    "sppo", "rebel", "a-star-po", "rpo", "rpo-mean", "alpha-dpo", "simpo", "lambda-grpo", "dvpo", "dvpo-terminal",
    "ppo", "igrpo", "igrpo-first-draft", "pods", "pods-random", "pods-highest", "pf-best-worst", "pf-best-random",
}  # fmt: skip
"""Methods with an objective, each with a test of what it minimises or does in test_related_objectives.py."""


def test_every_method_has_golden_values():
    assert set(BY_HAND) | DRAWN == set(RELATED) and not set(BY_HAND) & DRAWN
    assert {name for name, method in RELATED.items() if getattr(method, "objective", None)} == OWN_LOSS


class TestDeclarations:
    """Each declared method on eight responses of one or two tokens, against its own equation in plain Python."""

    REWARDS = rows([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    LENGTHS = rows([1, 2, 2, 2, 1, 2, 2, 2])
    MASK = torch.tensor([[1.0, 0.0]] + [[1.0, 1.0]] * 3 + [[1.0, 0.0]] + [[1.0, 1.0]] * 3)
    OLD = torch.tensor([[-1.0, -0.5]] * 8, dtype=torch.float64)

    COMPONENTS = torch.stack([REWARDS, rows([1, 1, 1, 1, 0, 0, 0, 0])], dim=2)

    def loss(self, name, moved=0.0):
        method = RELATED[name]
        advantages = method.advantages(
            self.REWARDS,
            lengths_PG=self.LENGTHS,
            components_PGK=self.COMPONENTS,
            generator=torch.Generator().manual_seed(3),
        ).flatten()
        log_probs = (self.OLD + moved).requires_grad_()
        loss = policy_loss(method, log_probs, self.OLD, advantages, self.MASK).loss
        return advantages.tolist(), torch.autograd.grad(loss, log_probs)[0]

    @pytest.mark.parametrize("name", RELATED)
    def test_gradient_at_the_sampling_policy(self, name):
        """There every ratio is 1 and no clip acts, so the gradient is -A over the aggregation's divisor."""
        advantages, gradient = self.loss(name)
        tokens = self.MASK.sum(dim=1)
        for i, advantage in enumerate(advantages):
            divisor = {
                "seq-mean-token-mean": 8 * tokens[i].item(),
                "token-mean": tokens.sum().item(),
                "seq-mean-token-sum-norm": 8 * 4096,
            }[RELATED[name].aggregation]
            near(gradient[i], -advantage / divisor * self.MASK[i], 1e-7)

    @pytest.mark.parametrize(("name", "expected"), BY_HAND.items())
    def test_advantages_by_hand(self, name, expected):
        near(self.loss(name)[0], expected, 2e-4)

    @pytest.mark.parametrize("name", ["rpo", "rpo-mean", "alpha-dpo", "simpo"])
    def test_one_pair_of_an_uneven_group(self, name):
        """The chosen response is one of the two right ones, the rejected one of the six wrong; each comes at times."""
        generator, seen = torch.Generator().manual_seed(0), set()
        for _ in range(60):
            marks = RELATED[name].advantages(self.REWARDS, generator=generator)[0].tolist()
            assert sorted(marks) == [-1, *[0] * 6, 1]
            seen.add((marks.index(1), marks.index(-1)))
        assert {high for high, _ in seen} == {0, 3} and {low for _, low in seen} == {1, 2, 4, 5, 6, 7}
        assert not RELATED[name].advantages(torch.ones(2, 4), generator=generator).any()

    @pytest.mark.parametrize("name", ["pods-random", "pf-best-random", "unbiased-pruning"])
    def test_random_choices_follow_the_generator_and_average_to_grpo(self, name):
        method, total = RELATED[name], torch.zeros(1, 8, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        for _ in range(4000):
            total += method.advantages(self.REWARDS, generator=generator)
        again = [method.advantages(self.REWARDS, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
        assert torch.equal(*again)
        if name == "unbiased-pruning":
            near(total / 4000, group_advantages("grpo", self.REWARDS), 0.05)
        elif name == "pf-best-random":
            near(total[0, 0] / 4000, group_advantages("grpo", self.REWARDS)[0, 0] * 4, 1e-4)
        else:
            assert total[0, [0, 3]].min() > 0 > total[0, [1, 2, 4, 5, 6, 7]].max()

    @pytest.mark.parametrize(("name", "exponent"), [("lambda-grpo-short", -1), ("lambda-grpo-long", 1)])
    def test_length_weights(self, name, exponent):
        relative = length_weights.relative_lengths(self.LENGTHS)
        weights = length_weights.length_weights(relative, float(exponent))
        near(self.loss(name)[0], (weights * group_advantages("grpo", self.REWARDS))[0])
        assert (weights[0, 0] > weights[0, 1]) == (exponent < 0)

    def test_trust_region_drops_a_token_that_went_too_far(self):
        """Moved by +0.4: 0.368 -> 0.549 and 0.607 -> 0.905, beyond both regions for a positive advantage."""
        for name in ("dppo-tv", "dppo-kl"):
            advantages, gradient = self.loss(name, moved=0.4)
            right = [i for i, advantage in enumerate(advantages) if advantage > 0]
            wrong = [i for i, advantage in enumerate(advantages) if advantage < 0]
            assert gradient[right].eq(0).all()
            near(gradient[wrong], 0.25 * math.exp(0.4) / (8 * 4096) * self.MASK[wrong], 1e-7)

    def test_a_configuration_names_them(self):
        settings = load({"scale": "smoke", "experiments": {"krpo": {"methods": {"pods": {"keep": 2}, "raft": {}}}}})
        assert settings.experiments["krpo"].method("pods").advantage_parameters["keep"] == 2
        assert not METHODS.keys() & RELATED.keys()
        with pytest.raises(ValueError, match="unknown method 'pod', did you mean 'pods'"):
            load({"scale": "smoke", "experiments": {"krpo": {"methods": {"pod": {}}}}})
