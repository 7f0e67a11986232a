"""The systems around KRPO, each against numbers worked by hand, its limits, and brute force."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from kpo.advantages import group_advantages
from kpo.losses import policy_loss
from kpo.methods import METHODS
from reproduction.related import (
    drafts,
    length_weights,
    positive_samples,
    preference_pairs,
    reward_components,
    selection,
    sequence_objectives,
    trust_region,
    value_model,
)
from reproduction.related.declarations import KINDS, RELATED
from reproduction.settings.configuration import load

assert positive_samples in KINDS  # importing the declarations registers their kinds


def near(found, expected, tolerance=6e-5):
    assert_close(
        torch.as_tensor(found, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=tolerance,
    )


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


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
