"""Our losses equal those of TRL's own trainers, called on the same log-probabilities.

`_compute_loss` of TRL's GRPOTrainer and GMPOTrainer runs as it is, on a stand-in for the trainer that gives it our
tensors instead of a model's and the attributes it reads.
"""

import collections
from types import SimpleNamespace

import pytest
import torch

from kpo.losses import policy_loss
from kpo.methods import get_method

trl = pytest.importorskip("trl", reason="TRL is not installed (it comes with the extra `train`)")


class StandIn(SimpleNamespace):
    """What `_compute_loss` reads of a trainer, with `log_probs` in place of a model's forward pass."""

    def __init__(self, log_probs, **settings):
        super().__init__(
            model=SimpleNamespace(training=True),
            accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            use_vllm=False,
            current_gradient_accumulation_steps=1,
            _entropy_bonus_enabled=False,
            _metrics={"train": collections.defaultdict(list)},
            **settings,
        )
        self.log_probs = log_probs

    def _get_per_token_logps_and_entropies(self, *arguments, **keywords):
        return self.log_probs, torch.zeros_like(self.log_probs), None


def trl_loss(
    log_probs, old, reference, advantages, mask, clip, beta, level="token", loss_type="grpo", trainer=None, weights=None
):
    """(loss, clip share) of TRL; the trainer's own arithmetic."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    stand_in = StandIn(
        log_probs,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        beta=beta,
        epsilon_low=clip[0],
        epsilon_high=clip[1],
        importance_sampling_level=level,
        loss_type=loss_type,
        max_completion_length=64,
    )
    ids = torch.zeros_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    if weights is not None:
        stand_in.use_vllm = stand_in.vllm_importance_sampling_correction = True
        inputs["importance_sampling_ratio"] = weights
    stand_in.args.steps_per_generation = 1
    loss = (trainer or GRPOTrainer)._compute_loss(stand_in, None, inputs)
    return loss, stand_in._metrics["train"]["clip_ratio/region_mean"][0]


@pytest.fixture(params=[0, 1, 2])
def batch(request):
    generator = torch.Generator().manual_seed(request.param)
    old = -torch.rand(24, 16, generator=generator, dtype=torch.float64) * 4
    log_probs = (old + 0.3 * torch.randn(24, 16, generator=generator, dtype=torch.float64)).requires_grad_()
    reference = old + 0.2 * torch.randn(24, 16, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 17, (24, 1), generator=generator)
    mask = torch.arange(16) < lengths
    advantages = torch.randn(24, generator=generator, dtype=torch.float64)
    return log_probs, old, reference, advantages, mask


def assert_same(batch, method, expected, expected_clip_share):
    log_probs, old, reference, advantages, mask = batch
    (expected_gradient,) = torch.autograd.grad(expected, log_probs)
    result = policy_loss(method, log_probs, old, advantages, mask, reference)
    (gradient,) = torch.autograd.grad(result.loss, log_probs)
    torch.testing.assert_close(result.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)
    assert gradient.abs().max() > 1e-4
    assert result.metrics["clip_share"] == pytest.approx(expected_clip_share, abs=1e-6)
    assert 0 < result.metrics["clip_share"] < 1


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [("grpo", "seq-mean-token-mean"), ("bnpo", "token-mean"), ("dapo", "token-mean"), ("dr_grpo", None)],
)
def test_grpo(batch, beta, loss_type, aggregation):
    changes = {"clip_low": 0.2, "clip_high": 0.28, "kl_weight": beta}
    if aggregation:
        method = get_method("grpo", aggregation=aggregation, **changes)
    else:
        method = get_method("dr-grpo", aggregation_length=64, **changes)
    assert_same(batch, method, *trl_loss(*batch, (0.2, 0.28), beta, loss_type=loss_type))


@pytest.mark.parametrize("columns", [1, 16])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_weights_of_the_sampler(batch, columns, level):
    log_probs, old, reference, advantages, mask = batch
    weights = torch.rand(24, columns, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2
    weights[3] = 0.0
    expected, _ = trl_loss(*batch, (0.2, 0.28), 0.04, level=level, weights=weights)
    name = "grpo" if level == "token" else "gspo-sequence"
    method = get_method(name, clip_low=0.2, clip_high=0.28, kl_weight=0.04)
    loss = policy_loss(method, log_probs, old, advantages, mask, reference, sampler_weights=weights).loss
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, log_probs)[0], rtol=1e-10, atol=1e-14)
    assert not torch.allclose(loss, policy_loss(method, log_probs, old, advantages, mask, reference).loss)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("clip", [(0.02, 0.03), (0.03, 0.01)])
def test_gspo(batch, beta, clip):
    method = get_method("gspo-sequence", clip_low=clip[0], clip_high=clip[1], kl_weight=beta)
    expected, _ = trl_loss(*batch, clip, beta, level="sequence")
    # TRL counts clipped sequences; we count their tokens, so the shares are compared over equal lengths below.
    log_probs, old, reference, advantages, mask = batch
    (expected_gradient,) = torch.autograd.grad(expected, log_probs)
    result = policy_loss(method, log_probs, old, advantages, mask, reference)
    (gradient,) = torch.autograd.grad(result.loss, log_probs)
    torch.testing.assert_close(result.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)
    full = (log_probs, old, reference, advantages, torch.ones_like(mask))
    assert_same(full, method, *trl_loss(*full, clip, beta, level="sequence"))


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_gmpo(batch, beta):
    from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer

    method = get_method("gmpo", clip_low=0.4, clip_high=0.3, kl_weight=beta)
    assert_same(batch, method, *trl_loss(*batch, (0.4, 0.3), beta, trainer=GMPOTrainer))
