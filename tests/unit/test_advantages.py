"""kpo.advantages: values by hand, KRPO against a plain recursion, properties, degenerate groups, and refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kpo.advantages import ADVANTAGE_KINDS, advantage_kind, group_advantages, informative_groups
from kpo.checks import Registry

NAN = math.nan
PRIOR_KINDS = (
    "krpo", "krpo-prior", "krpo-running-mean", "krpo-random-order", "krpo-sorted", "krpo-reversed", "krpo-adaptive",
)  # fmt: skip
CENTRED_KINDS = tuple(kind for kind in ADVANTAGE_KINDS if kind not in PRIOR_KINDS)


def advantages(kind, rewards, **parameters):
    rewards = torch.as_tensor(rewards, dtype=torch.float64)
    if kind == "opo":
        parameters.setdefault("lengths", torch.ones_like(rewards))
    return group_advantages(kind, rewards, **parameters)


def recursion(rewards, q=1e-5, r=1e-2, x=0.0, p=1.0):
    """KRPO's filter over one group in Python floats: rows of prior mean, variance, posterior mean, variance."""
    rows = []
    for reward in rewards:
        if math.isnan(reward):
            rows.append((x, p + q, x, p))
            continue
        prior = (x, p + q)
        gain = (p + q) / (p + q + r)
        x, p = x + gain * (reward - x), (1 - gain) * (p + q)
        rows.append((*prior, x, p))
    return np.array(rows)


def test_values_by_hand():
    # Mean 1/2, sample variance (4 * 1/4) / 3 = 1/3.
    group = [[1.0, 0.0, 0.0, 1.0]]
    a = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    torch.testing.assert_close(advantages("grpo", group), torch.tensor([[a, -a, -a, a]], dtype=torch.float64))
    half = torch.tensor([[0.5, -0.5, -0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(advantages("mean", group), half)
    # Mean of the others: 1/3 for a 1, 2/3 for a 0.
    torch.testing.assert_close(advantages("leave-one-out", group), half * 4 / 3)
    # Lengths 3, 1, 1, 5: baseline (3 + 5) / 10.
    lengths = torch.tensor([[3, 1, 1, 5]])
    expected = torch.tensor([[0.2, -0.8, -0.8, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(advantages("opo", group, lengths=lengths), expected)
    # Equal lengths make OPO the plain mean.
    torch.testing.assert_close(advantages("opo", group), half)


def test_krpo_by_hand():
    # Q = R = P0 = 1, x0 = 0, rewards 1, 0: K = 2/3, P = 2/3, x = 2/3; then K = (5/3)/(8/3) = 5/8, x = 1/4, P = 5/8.
    parameters = {"process_variance": 1.0, "observation_variance": 1.0}
    rewards = [[1.0, 0.0]]
    expected = [[(1 / 3) / math.sqrt(2 / 3), -0.25 / math.sqrt(5 / 8)]]
    torch.testing.assert_close(advantages("krpo", rewards, **parameters), torch.tensor(expected, dtype=torch.float64))
    # Sample standard deviation of (1, 0) is sqrt(1/2).
    expected = [[(1 / 3) / math.sqrt(0.5), -0.25 / math.sqrt(0.5)]]
    result = advantages("krpo-mean", rewards, **parameters)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))
    expected = [[0.5 / math.sqrt(2 / 3), -0.5 / math.sqrt(5 / 8)]]
    result = advantages("krpo-scale", rewards, **parameters)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))
    # Innovations 1 - 0 over sqrt(2 + 1) and 0 - 2/3 over sqrt(5/3 + 1).
    expected = [[1 / math.sqrt(3), -(2 / 3) / math.sqrt(8 / 3)]]
    result = advantages("krpo-prior", rewards, **parameters)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


def test_krpo_against_the_recursion_with_ungraded_rewards():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(7, 12, generator=generator, dtype=torch.float64)
    rewards[1, :3] = NAN
    rewards[2, 5] = NAN
    rewards[3, 9:] = NAN
    rewards[4] = NAN
    for kind in ("krpo", "krpo-prior"):
        result = advantages(kind, rewards)
        for row in range(7):
            prior_mean, prior_variance, mean, variance = recursion(rewards[row].tolist()).T
            values = rewards[row].numpy()
            if kind == "krpo":
                expected = (values - mean) / (np.sqrt(variance) + 1e-8)
            else:
                expected = (values - prior_mean) / np.sqrt(prior_variance + 1e-2)
            np.testing.assert_allclose(result[row].numpy(), np.nan_to_num(expected), rtol=1e-11, atol=1e-12)


def every_group_of_twelve():
    """All 2^12 groups of 0/1 rewards: averages over them are exact expectations under fair coin flips."""
    return torch.tensor([[(number >> bit) & 1 for bit in range(12)] for number in range(4096)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Figures computed elsewhere from the released code, to two digits.
        ("krpo", [0.05, 3.5, 5.8, 7.5, 8.9, 10.1, 11.2, 12.3, 13.2, 14.0, 14.8, 15.5]),
        ("krpo-prior", [0.5, 3.5, None, None, None, None, None, None, None, None, None, 4.8]),
    ],
)
def test_mean_size_by_index_for_coin_flips(kind, expected):
    sizes = advantages(kind, every_group_of_twelve()).abs().mean(dim=0).tolist()
    for size, value in zip(sizes, expected, strict=True):
        assert value is None or size == pytest.approx(value, rel=0.02)


def test_krpo_of_groups_of_equal_rewards_is_as_released():
    assert (advantages("krpo", torch.zeros(1, 12)) == 0).all()
    ones = advantages("krpo", torch.ones(1, 12))[0].tolist()
    assert round(ones[0], 2) == 0.10 and round(ones[1], 2) == 0.07 and round(ones[-1], 2) == 0.03
    assert ones == sorted(ones, reverse=True)


def test_running_mean_is_the_limit_of_a_flat_prior():
    generator = torch.Generator().manual_seed(1)
    rewards = torch.rand(3, 9, generator=generator, dtype=torch.float64)
    result = advantages("krpo-running-mean", rewards, initial_variance=1e12)
    steps = torch.arange(1, 10, dtype=torch.float64)
    running = rewards.cumsum(dim=1) / steps
    torch.testing.assert_close(result, (rewards - running) / (0.1 / steps.sqrt()), rtol=1e-5, atol=1e-6)


def test_random_order_is_krpo_of_the_permuted_group():
    """Among 3! = 6 orders of one group each result is one of six, and over many groups all six appear."""
    rewards = torch.tensor([1.0, 0.0, 0.4], dtype=torch.float64)
    possible = set()
    for order in itertools.permutations(range(3)):
        permuted = advantages("krpo", rewards[list(order)][None])[0]
        back = torch.empty(3, dtype=torch.float64)
        back[list(order)] = permuted
        possible.add(tuple(round(value, 9) for value in back.tolist()))
    result = advantages("krpo-random-order", rewards.expand(200, 3))
    assert {tuple(round(value, 9) for value in row) for row in result.tolist()} == possible
    assert torch.equal(result, advantages("krpo-random-order", rewards.expand(200, 3), seed=0))
    assert not torch.equal(result, advantages("krpo-random-order", rewards.expand(200, 3), seed=1))
    generator = torch.Generator().manual_seed(0)
    first = advantages("krpo-random-order", rewards.expand(200, 3), generator=generator)
    assert torch.equal(first, result)
    assert not torch.equal(advantages("krpo-random-order", rewards.expand(200, 3), generator=generator), result)


def test_sorted_and_reversed_are_krpo_of_the_ordered_group():
    rewards = torch.tensor([[0.4, 1.0, 0.0, 0.7]], dtype=torch.float64)
    ascending, descending = [2, 0, 3, 1], [1, 3, 0, 2]
    for kind, order in (("krpo-sorted", ascending), ("krpo-reversed", descending)):
        filtered = advantages("krpo", rewards[:, order])[0]
        expected = torch.empty(4, dtype=torch.float64)
        expected[order] = filtered
        torch.testing.assert_close(advantages(kind, rewards)[0], expected)
    # An ungraded reward stays out of the order.
    with_gap = torch.tensor([[0.4, float("nan"), 1.0, 0.0, 0.7]], dtype=torch.float64)
    found = advantages("krpo-sorted", with_gap)[0]
    assert found[1] == 0
    torch.testing.assert_close(found[[0, 2, 3, 4]], advantages("krpo-sorted", rewards)[0])


def test_rescaled_grpo_has_krpos_root_mean_square_and_grpos_direction():
    generator = torch.Generator().manual_seed(2)
    rewards = (torch.rand(16, 8, generator=generator) < 0.4).double()
    rewards[0, 0] = NAN
    rescaled, krpo, grpo = (advantages(kind, rewards) for kind in ("grpo-rescaled", "krpo", "grpo"))
    assert rescaled.square().mean().item() == pytest.approx(krpo.square().mean().item(), rel=1e-12)
    factor = (rescaled / grpo)[grpo != 0]
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))


def test_adaptive_without_values_uses_those_of_its_own_rewards():
    from kpo.adaptive import RewardNoiseEstimator

    generator = torch.Generator().manual_seed(3)
    rewards = (torch.rand(16, 8, generator=generator) < 0.4).double()
    estimator = RewardNoiseEstimator()
    estimator.update(rewards)
    variances = {
        "process_variance": estimator.process_variance,
        "observation_variance": estimator.observation_variance,
    }
    expected = advantages("krpo", rewards, **variances)
    assert torch.equal(advantages("krpo-adaptive", rewards), expected)
    assert torch.equal(advantages("krpo-adaptive", rewards, **variances), expected)
    assert not torch.allclose(expected, advantages("krpo", rewards))


finite_rewards = st.floats(-100, 100, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(finite_rewards | st.just(NAN), min_size=5, max_size=5), min_size=1, max_size=4))
def test_group_statistics_properties(rows):
    rewards = torch.tensor(rows, dtype=torch.float64)
    graded = ~rewards.isnan()
    spread = torch.where(graded, rewards, -1e9).amax(1) - torch.where(graded, rewards, 1e9).amin(1)
    grpo = advantages("grpo", rewards)
    # Each group's advantages sum to zero, and their sample standard deviation is s / (s + 1e-6).
    assert grpo.sum(dim=1).abs().max() < 1e-9
    assert (grpo[spread <= 1e-7] == 0).all()
    for kind in ("mean", "leave-one-out", "grpo-rescaled", "opo"):
        assert advantages(kind, rewards).sum(dim=1).abs().max() < 1e-9 * max(1, rewards.nan_to_num().abs().max())
    others = (rewards.nan_to_num().sum(1, keepdim=True) - rewards) / (graded.sum(1, keepdim=True) - 1)
    expected = torch.where(graded & (graded.sum(1, keepdim=True) > 1), rewards - others, 0.0)
    # Rewards that are equal up to rounding are equal.
    size = rewards.nan_to_num().abs().amax(dim=1, keepdim=True).clamp(min=0.1)
    expected = torch.where(spread[:, None] > 1e-6 * size, expected, 0.0)
    torch.testing.assert_close(advantages("leave-one-out", rewards), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ADVANTAGE_KINDS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 7.0, -1.1), (2e4, 1e4, 3e4), (1e-3, 2e-3, 1e-3)])
def test_rewards_equal_up_to_rounding_are_equal(kind, weights):
    """Float32 sums w_1 c_1 + w_2 c_2 + w_3 c_3 of random components whose exact value is 0.7 max |w|."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.tensor(weights)
    value = 0.7 * weights.abs().max()
    parts = value * torch.rand(64, 12, 2, generator=generator)
    parts = torch.cat((parts, value - parts.sum(dim=-1, keepdim=True)), dim=-1)
    rewards = (parts / weights * weights).sum(dim=-1)
    assert (rewards.amax(dim=1) > rewards.amin(dim=1)).any() and not informative_groups(rewards).any()
    if kind in PRIOR_KINDS:
        expected = advantages(kind, value.double().expand(64, 12))
        torch.testing.assert_close(advantages(kind, rewards), expected, rtol=1e-4, atol=0)
    else:
        assert (advantages(kind, rewards) == 0).all()


@pytest.mark.parametrize("kind", CENTRED_KINDS)
def test_components_that_cancel_leave_no_signal(kind):
    rewards = torch.tensor([[0.3, 0.7, 0.1]]) + torch.tensor([[0.6, 0.1, 0.2]]) - torch.tensor([[0.9, 0.8, 0.3]])
    assert 0 < rewards.abs().max() < 1e-7
    assert (advantages(kind, rewards) == 0).all() and not informative_groups(rewards).any()


def test_small_and_nearly_equal_rewards_keep_their_signal():
    """Differences ten times as large as the rounding that is let go."""
    for rewards in ([[1e-6, 3e-6, 0.0]], [[1.0, 1.0 + 1e-5, 1.0]], [[1e4, 1e4 + 0.1, 1e4]]):
        assert informative_groups(torch.tensor(rewards, dtype=torch.float64)).all()
        assert (advantages("mean", rewards) != 0).all()


def test_a_kind_may_ask_for_components(monkeypatch):
    """Each component's scores in its group, summed, as GDPO (arXiv 2601.05242) starts; values worked by hand."""
    monkeypatch.setattr("kpo.advantages.ADVANTAGE_KINDS", Registry("advantage kind"))

    @advantage_kind("summed-scores")
    def summed_scores(rewards_PG, graded_PG, *, components, epsilon: float = 1e-4):
        centred_PGK = components - components.nanmean(dim=1, keepdim=True)
        variance_PK = centred_PGK.square().nansum(dim=1) / (graded_PG.sum(dim=1, keepdim=True) - 1)
        return (centred_PGK / (variance_PK.sqrt()[:, None] + epsilon)).nansum(dim=2)

    components = torch.tensor([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [9.0, 9.0]]])
    rewards = torch.tensor([[2.0, 1.0, 1.0, 0.0, NAN]])
    result = group_advantages("summed-scores", rewards, components=components)
    torch.testing.assert_close(result, torch.tensor([[1.7318, 0, 0, -1.7318, 0]]), rtol=0, atol=5e-5)
    # A component that is equal up to rounding adds nothing.
    components[..., 1] = torch.tensor([[0.7, 0.70000005, 0.7, 0.7, 0.7]])
    assert components[0, :, 1].unique().numel() == 2
    result = group_advantages("summed-scores", rewards, components=components, epsilon=1e-12)
    a = math.sqrt(3) / 2
    torch.testing.assert_close(result, torch.tensor([[a, a, -a, -a, 0]]))
    for bad, words in (
        ({}, "missing"),
        ({"components": components[:, :2]}, "shape"),
        ({"lengths": rewards}, "lengths"),
    ):
        with pytest.raises(ValueError, match=words):
            group_advantages("summed-scores", rewards, **bad)


# The order that krpo-random-order draws depends on the group's size.
@pytest.mark.parametrize("kind", sorted(set(ADVANTAGE_KINDS) - {"krpo-random-order"}))
def test_ungraded_rewards_are_left_out(kind):
    """A group with gaps gives its graded members what the shorter group gives them, and the gaps exactly 0."""
    rewards = torch.tensor([[1.0, NAN, 0.0, 0.2, NAN]], dtype=torch.float64)
    short = torch.tensor([[1.0, 0.0, 0.2]], dtype=torch.float64)
    lengths, short_lengths = torch.tensor([[3, 9, 1, 2, 7]]), torch.tensor([[3, 1, 2]])
    parameters = [{"lengths": value} if kind == "opo" else {} for value in (lengths, short_lengths)]
    result = group_advantages(kind, rewards, **parameters[0])
    torch.testing.assert_close(result[0, [0, 2, 3]], group_advantages(kind, short, **parameters[1])[0])
    assert (result[0, [1, 4]] == 0).all()


@pytest.mark.parametrize("kind", ADVANTAGE_KINDS)
def test_a_group_without_any_graded_reward_gets_zero(kind):
    rewards = torch.tensor([[NAN, NAN], [1.0, 0.0]])
    result = group_advantages(kind, rewards, **({"lengths": torch.ones(2, 2)} if kind == "opo" else {}))
    assert (result[0] == 0).all() and result[1].abs().max() > 0 and torch.isfinite(result).all()


@pytest.mark.parametrize("kind", CENTRED_KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -7.3])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_equal_rewards_and_single_members_get_exactly_zero(kind, value, size):
    assert (advantages(kind, torch.full((2, size), value, dtype=torch.float64)) == 0).all()


@pytest.mark.parametrize("kind", PRIOR_KINDS)
def test_a_single_member_is_compared_with_the_prior(kind):
    q = 0.0 if kind == "krpo-running-mean" else 1e-5
    _, prior_variance, mean, variance = recursion([0.7], q=q)[0]
    expected = 0.7 / math.sqrt(prior_variance + 1e-2) if kind == "krpo-prior" else (0.7 - mean) / math.sqrt(variance)
    assert advantages(kind, [[0.7]]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ADVANTAGE_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_computed_in_float64(kind, dtype):
    rewards = torch.tensor([[0.1, 0.5, 0.9], [1e4, 1e4, 1e4 + 64]]).to(dtype)
    extra = {"lengths": torch.ones(2, 3)} if kind == "opo" else {}
    result = group_advantages(kind, rewards, **extra)
    assert result.dtype == dtype
    assert torch.equal(result, group_advantages(kind, rewards.double(), **extra).to(dtype))


def test_informative_groups():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0], [NAN, 1.0], [NAN, NAN]])
    assert informative_groups(rewards).tolist() == [False, True, False, False]


def test_rewards_and_their_gradient_are_left_alone():
    rewards = torch.tensor([[1.0, NAN, 0.0]], requires_grad=True)
    result = group_advantages("krpo", rewards)
    assert not result.requires_grad and rewards[0, 1].isnan()


R = torch.tensor([[1.0, 0.0]])
BAD = {
    "kind": (("grp", R), {}, ValueError, "did you mean 'grpo'"),
    "parameter": (("grpo", R), {"process_variance": 1.0}, ValueError, "process_variance"),
    "list": (("grpo", [[1.0]]), {}, TypeError, "rewards"),
    "integers": (("grpo", R.long()), {}, TypeError, "rewards"),
    "one dimension": (("grpo", R[0]), {}, ValueError, r"\(P, G\)"),
    "empty": (("grpo", R[:0]), {}, ValueError, r"\(P, G\)"),
    "infinite": (("grpo", R / 0.0), {}, ValueError, "infinity"),
    "negative variance": (("krpo", R), {"process_variance": -1.0}, ValueError, "process_variance"),
    "no noise at all": (("krpo", R), {"process_variance": 0.0, "observation_variance": 0.0}, ValueError, "variance"),
    "one of two estimates": (("krpo-adaptive", R), {"process_variance": 1.0}, ValueError, "both or neither"),
    "no lengths": (("opo", R), {}, ValueError, "lengths"),
    "lengths shape": (("opo", R), {"lengths": torch.ones(2)}, ValueError, "lengths"),
    "negative lengths": (("opo", R), {"lengths": -R - 1}, ValueError, "lengths"),
    "lengths list": (("opo", R), {"lengths": [[1, 1]]}, TypeError, "lengths"),
    "seed": (("krpo-random-order", R), {"seed": -1}, ValueError, "seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_name_the_argument(case):
    arguments, parameters, error, words = BAD[case]
    with pytest.raises(error, match=words):
        group_advantages(*arguments, **parameters)


def test_registering_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="exists already"):
        advantage_kind("grpo")(lambda rewards_PG, graded_PG: rewards_PG)
