"""Our losses and advantages equal verl's own, called on the same tensors."""

import numpy as np
import pytest
import torch
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

from kpo.advantages import group_advantages
from kpo.losses import policy_loss
from kpo.methods import get_method

pytestmark = pytest.mark.verl


@pytest.fixture(params=[0, 1, 2])
def batch(request):
    generator = torch.Generator().manual_seed(request.param)
    old = -torch.rand(8, 16, generator=generator, dtype=torch.float64) * 4
    log_probs = (old + 0.3 * torch.randn(8, 16, generator=generator, dtype=torch.float64)).requires_grad_()
    mask = torch.arange(16) < torch.randint(1, 17, (8, 1), generator=generator)
    advantages = torch.randn(8, generator=generator, dtype=torch.float64)
    return log_probs, old, advantages, mask


def actor_config(clip):
    return ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=clip[0], clip_ratio_high=clip[1]
    )


def assert_same_loss(batch, method, function, clip, aggregation, share_tolerance=1e-6, weights=None):
    log_probs, old, advantages, mask = batch
    token_advantages = advantages[:, None].expand(mask.shape)
    expected, metrics = function(
        old_log_prob=old,
        log_prob=log_probs,
        advantages=token_advantages,
        response_mask=mask.double(),
        loss_agg_mode=aggregation,
        config=actor_config(clip),
        rollout_is_weights=weights,
    )
    (expected_gradient,) = torch.autograd.grad(expected, log_probs)
    result = policy_loss(method, log_probs, old, advantages, mask, sampler_weights=weights)
    (gradient,) = torch.autograd.grad(result.loss, log_probs)
    # verl divides by a token count plus 1e-8.
    torch.testing.assert_close(result.loss, expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-10)
    assert gradient.abs().max() > 1e-4
    if share_tolerance is not None:
        assert result.metrics["clip_share"] == pytest.approx(metrics["actor/pg_clipfrac"], abs=share_tolerance)
        assert 0 < result.metrics["clip_share"] < 1


@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "token-mean"])
@pytest.mark.parametrize("clip", [(3e-4, 4e-4), (0.05, 0.03)])
def test_gspo(batch, aggregation, clip):
    method = get_method("gspo", clip_low=clip[0], clip_high=clip[1], aggregation=aggregation)
    assert_same_loss(batch, method, core_algos.compute_policy_loss_gspo, clip, aggregation)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clip", [(0.4, 0.4), (0.2, 0.3)])
def test_gmpo(batch, clip, weighted):
    """With rollout-correction weights too, of which GMPO takes each response's geometric mean."""
    method = get_method("gmpo", clip_low=clip[0], clip_high=clip[1])
    weights = (0.1 + 2 * torch.rand(8, 16, generator=torch.Generator().manual_seed(1))).double() if weighted else None
    # verl counts tokens outside either bound, also those that its one-sided clip leaves unchanged.
    function = core_algos.compute_policy_loss_geo_mean
    assert_same_loss(batch, method, function, clip, "token-mean", share_tolerance=None, weights=weights)


@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "token-mean", "seq-mean-token-sum-norm"])
def test_grpo(batch, aggregation):
    # verl's function also bounds the loss at ratio 3 for negative advantages; no ratio here comes near.
    method = get_method("grpo", clip_low=0.2, clip_high=0.28, aggregation=aggregation, aggregation_length=16)
    assert_same_loss(batch, method, core_algos.compute_policy_loss_vanilla, (0.2, 0.28), aggregation)


def test_kl(batch):
    log_probs, old, advantages, mask = batch
    reference = old + 0.1
    expected = core_algos.kl_penalty_forward(log_probs, reference, "low_var_kl")[mask].mean().item()
    kl = policy_loss("krpo", log_probs, old, advantages, mask, reference).metrics["kl"]
    assert kl == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("kind", "function", "keywords"),
    [
        ("grpo", "compute_grpo_outcome_advantage", {}),
        ("mean", "compute_grpo_outcome_advantage", {"norm_adv_by_std_in_grpo": False}),
        ("leave-one-out", "compute_rloo_outcome_advantage", {}),
        ("opo", "compute_opo_outcome_advantage", {}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_advantages(kind, function, keywords, dtype):
    generator = torch.Generator().manual_seed(5)
    rewards = torch.rand(6, 8, generator=generator).to(dtype)
    rewards[0] = (rewards[0] > 0.5).to(dtype)
    lengths = torch.randint(1, 12, (6, 8), generator=generator)
    mask = (torch.arange(12) < lengths.reshape(-1, 1)).to(dtype)
    # verl takes a reward for each token; the response's is at its last one.
    token_rewards = torch.zeros(48, 12, dtype=dtype)
    token_rewards[torch.arange(48), lengths.flatten() - 1] = rewards.flatten()
    index = np.repeat(np.arange(6), 8)
    expected, _ = getattr(core_algos, function)(token_rewards, mask, index, **keywords)
    ours = group_advantages(kind, rewards, **({"lengths": lengths} if kind == "opo" else {}))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours.reshape(-1, 1) * mask, expected, rtol=tolerance, atol=tolerance)
