"""Every advantage kind through verl's `compute_advantage` equals `group_advantages` on the same groups."""

import itertools

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage

import kpo.verl
from kpo.advantages import group_advantages
from kpo.verl_settings import estimator_names

pytestmark = pytest.mark.verl
ORDERED = {"krpo-sorted", "krpo-reversed"}  # these take the order from the rewards


class Rollout:
    """Ragged groups with rewards of 0 and 1, one ungraded response, in any order of rows, with verl's padding rows."""

    def __init__(self, shuffle=0):
        draw = np.random.default_rng(3)
        uids = np.repeat(["q7", "a1", "m4", "b9"], [6, 4, 1, 6])
        rewards = draw.integers(0, 2, len(uids)) + draw.random(len(uids)).round(1)
        rewards[2] = np.nan
        lengths = draw.integers(1, 9, len(uids))
        order = np.random.default_rng(shuffle).permutation(len(uids)) if shuffle else np.arange(len(uids))
        self.uids = np.array([*uids[order], "pad-1", "pad-2"], dtype=object)
        self.rewards = torch.tensor([*rewards[order], 5.0, 7.0], dtype=torch.float32)
        self.lengths = torch.tensor([*lengths[order], 0, 0])
        self.back = torch.from_numpy(np.argsort(order))

    def data(self):
        mask = (torch.arange(9) < self.lengths[:, None]).long()
        token_rewards = torch.zeros(len(self.rewards), 9)
        token_rewards[torch.arange(len(self.rewards)), (self.lengths - 1).clamp(min=0)] = self.rewards
        tensors = {"token_level_rewards": token_rewards, "response_mask": mask}
        return DataProto.from_dict(tensors=tensors, non_tensors={"uid": self.uids})


def compute(estimator, rollout, algorithm=None, calls=1):
    """What verl's trainer gets at the last of some calls of an estimator that has not been called before."""
    config = OmegaConf.create({"adv_estimator": estimator} | ({"kpo": algorithm} if algorithm else {}))
    registry, fresh = core_algos.ADV_ESTIMATOR_REGISTRY, kpo.verl.estimator_function.__wrapped__(estimator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry, estimator, fresh)
        return [compute_advantage(rollout.data(), estimator, config=config).batch for _ in range(calls)][-1]


def values_of(estimator):
    return {"state_is_lost": True} if estimator == "krpo-adaptive" else None


@pytest.mark.parametrize(("estimator", "kind"), estimator_names().items())
def test_equals_group_advantages(estimator, kind):
    rollout = Rollout()
    batch = compute(estimator, rollout, values_of(estimator))
    places_PG = kpo.verl.group_places(rollout.rewards, rollout.lengths, rollout.uids, seed=0, call=0)
    assert sorted(places_PG[places_PG >= 0].tolist()) == list(range(17))
    assert (places_PG >= 0).sum(dim=1).sort().values.tolist() == [1, 4, 6, 6]
    # Group by group, without any padding, except for the kinds that look at the whole batch.
    for places_G in [places_PG] if kind == "grpo-rescaled" else places_PG:
        members = places_G[places_G >= 0]
        if kind == "grpo-rescaled":
            rewards = torch.where(places_G >= 0, rollout.rewards[places_G], torch.nan)
        else:
            rewards = rollout.rewards[members][None]
        extra = {"lengths": rollout.lengths[members][None]} if kind == "opo" else {}
        if kind == "krpo-adaptive":  # before the first batch: the released values
            extra = {"process_variance": 1e-5, "observation_variance": 1e-2}
        if kind == "krpo-random-order":
            continue
        expected = group_advantages(kind, rewards, **extra)
        expected = expected[places_G >= 0] if kind == "grpo-rescaled" else expected[0]
        mask = rollout.data().batch["response_mask"][members]
        torch.testing.assert_close(batch["advantages"][members], expected[:, None] * mask, rtol=1e-6, atol=1e-6)
    assert batch["returns"].equal(batch["advantages"]) and batch["advantages"].isfinite().all()
    assert not batch["advantages"][2].any() and not batch["advantages"][-2:].any()


@pytest.mark.parametrize("estimator", estimator_names())
def test_arrival_has_no_influence(estimator):
    """Neither the order of the rows, nor the uids, which verl draws again in every run."""
    plain = Rollout()
    expected = compute(estimator, plain, values_of(estimator))["advantages"][:-2]
    for shuffle in (1, 2):
        rollout = Rollout(shuffle)
        names = {uid: f"{hash(uid) + shuffle:x}" for uid in set(rollout.uids) if not uid.startswith("pad")}
        rollout.uids = np.array([names.get(uid, uid) for uid in rollout.uids], dtype=object)
        found = compute(estimator, rollout, values_of(estimator))["advantages"][:-2][rollout.back]
        # Equal responses of a group may change places: nothing tells them apart.
        torch.testing.assert_close(sorted_rows(found, plain), sorted_rows(expected, plain), rtol=0, atol=0)


def sorted_rows(advantages, rollout):
    keys = list(zip(rollout.uids, rollout.rewards.tolist(), rollout.lengths.tolist(), strict=True))
    rows = zip([tuple(map(str, key)) for key in keys], advantages.tolist(), strict=False)
    return torch.tensor([row for _, row in sorted(rows)])


def test_orders():
    """Another order at every call and for every seed, the same again in a new process; each place is equally likely."""
    rewards, lengths = torch.arange(5.0), torch.arange(5)

    def order(seed, call):
        return tuple(kpo.verl.group_places(rewards, lengths, ["x"] * 5, seed, call)[0].tolist())

    assert order(0, 3) == order(0, 3)
    assert len({order(seed, call) for seed, call in itertools.product(range(5), range(20))}) > 60
    places = np.array([order(0, call) for call in range(2000)])
    shares = (places == 0).mean(axis=0)
    assert np.abs(shares - 0.2).max() < 0.05
    rollout = Rollout()
    first = compute("krpo", rollout)["advantages"]
    second = compute("krpo", rollout, calls=2)["advantages"]
    assert not torch.equal(first, second)
    assert torch.equal(first, compute("krpo", rollout, {"seed": 0})["advantages"])
    assert not torch.equal(first, compute("krpo", rollout, {"seed": 1})["advantages"])


def test_values_reach_the_filter():
    rollout = Rollout()
    places_PG = kpo.verl.group_places(rollout.rewards, rollout.lengths, rollout.uids, seed=4, call=0)
    batch = compute("krpo", rollout, {"seed": 4, "observation_variance": 0.3, "initial_mean": 0.5})
    members = places_PG[-1][places_PG[-1] >= 0]
    expected = group_advantages("krpo", rollout.rewards[members][None], observation_variance=0.3, initial_mean=0.5)
    torch.testing.assert_close(batch["advantages"][members, 0], expected[0])


def test_adaptive_estimates_carry_over():
    """The second batch is scaled by what the first one's rewards say, so it differs from a first batch."""
    rollout = Rollout()
    first = compute("krpo-adaptive", rollout, {"state_is_lost": True})["advantages"]
    second = compute("krpo-adaptive", rollout, {"state_is_lost": True}, calls=2)["advantages"]
    assert second[first != 0].abs().mean() < 0.9 * first[first != 0].abs().mean()


def test_order_is_said(caplog):
    kpo.verl._say_once.cache_clear()
    with caplog.at_level("INFO", logger="kpo.verl"):
        compute("krpo", Rollout())
        compute("krpo", Rollout())
    assert [record.message.count("random order (seed 0)") for record in caplog.records] == [1]


def test_batch_of_padding_only():
    rollout = Rollout()
    rollout.uids = np.array(["pad"] * len(rollout.uids), dtype=object)
    assert not compute("krpo", rollout)["advantages"].any()


def test_no_uid():
    with pytest.raises(ValueError, match="krpo needs to know the prompt"):
        kpo.verl.estimator_function("krpo")(torch.zeros(2, 3), torch.ones(2, 3))
