"""Every method under verl's real `ppo_loss` equals `kpo.losses`: loss, gradient and metrics."""

import itertools
import logging
import math

import pytest
import torch
from batches import Batch, actor_config, model_output
from verl.workers.utils.losses import ppo_loss

import kpo.verl
from kpo.losses import policy_loss
from kpo.methods import AGGREGATIONS, METHODS, get_method
from kpo.verl_settings import loss_names

pytestmark = pytest.mark.verl


@pytest.fixture
def batch():
    return Batch()


def settings_of(method, aggregation, kl_weight=0.0):
    """verl's settings for the method's own values, with one aggregation; the trainer's own KL term has weight 0."""
    settings = {"loss_agg_mode": aggregation, "use_kl_loss": True, "kl_loss_coef": kl_weight}
    if method.clip is not None:
        settings |= {"clip_ratio_low": method.clip_low, "clip_ratio_high": method.clip_high}
    return settings


def own_loss(method, batch, leaf, aggregation, **options):
    length = 11 if aggregation == "seq-mean-token-sum-norm" else None
    method = get_method(method, kl_weight=0.0, aggregation=aggregation, aggregation_length=length)
    old, advantages = batch.old.to(leaf.dtype), batch.advantages.float()
    return policy_loss(method, leaf, old, advantages, batch.mask, **options)


def under_verl(config, batch, leaf, **options):
    output = {"log_probs": model_output(leaf), **options.pop("output", {})}
    return ppo_loss(config, output, batch.data(dtype=leaf.dtype, reference=True, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("loss_mode", "name"), loss_names().items())
def test_loss_and_gradient(batch, loss_mode, name, dtype):
    for aggregation, autocast in itertools.product(AGGREGATIONS, (False, True)):
        config = actor_config(loss_mode, **settings_of(METHODS[name], aggregation))
        leaf = batch.new.to(dtype).requires_grad_()
        expected = own_loss(name, batch, leaf, aggregation)
        (expected_gradient,) = torch.autograd.grad(expected.loss, leaf)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss, metrics = under_verl(config, batch, leaf)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-8)
        assert gradient.abs().max() > 1e-4 and not gradient[4].any() and not gradient[0, 2:4].any()
        values = {key: metric.aggregate() for key, metric in metrics.items() if key.startswith("actor/")}
        assert values["actor/pg_clipfrac"] == pytest.approx(expected.metrics["clip_share"])
        change = (batch.old.to(dtype).float() - leaf.detach().float())[batch.mask].mean().item()
        assert values["actor/ppo_kl"] == pytest.approx(change, abs=1e-6)
        for key in ("log_ratio_std", "mean_ratio", "effective_sample_size", "log_ratio_abs_max"):
            assert values[f"actor/{key}"] == pytest.approx(expected.metrics[key])


def numbers(metrics):
    return [getattr(metric, "aggregate", lambda value=metric: value)() for metric in metrics.values()]


def test_micro_batches_add_up(batch):
    """Two ranks with two micro-batches each: verl averages gradients over ranks, so the sum is twice the whole."""
    for aggregation in AGGREGATIONS:
        config = actor_config("kpo-clipped", **settings_of(METHODS["kpo-clipped"], aggregation))
        whole = batch.new.float().requires_grad_()
        total = own_loss("kpo-clipped", batch, whole, aggregation).loss
        total.backward()
        leaf = batch.new.float().requires_grad_()
        parts = []
        for rows in (slice(0, 4), slice(4, 5), slice(5, 7), slice(7, 8)):
            loss, metrics = ppo_loss(
                config, {"log_probs": model_output(leaf, rows)}, batch.data(rows, ranks=2, reference=True)
            )
            loss.backward()
            parts.append(loss.item())
            assert all(math.isfinite(number) for number in numbers(metrics))
        assert parts[1] == 0.0
        assert sum(parts) / 2 == pytest.approx(total.item(), rel=1e-5)
        torch.testing.assert_close(leaf.grad / 2, whole.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss_mode", loss_names())
def test_micro_batch_without_tokens(batch, loss_mode):
    """No token: a loss of 0 with a gradient of 0, and the same finite metrics as any other micro-batch."""
    method = METHODS[loss_names()[loss_mode]]
    config = actor_config(loss_mode, **settings_of(method, "seq-mean-token-mean"))
    leaf = batch.new.float().requires_grad_()
    empty = ppo_loss(config, {"log_probs": model_output(leaf, slice(4, 5))}, batch.data(slice(4, 5), reference=True))
    empty[0].backward()
    full = under_verl(config, batch, leaf)
    assert empty[0].item() == 0.0 and not leaf.grad.any()
    assert empty[1].keys() == full[1].keys()
    assert all(math.isfinite(number) for number in numbers(empty[1]))


@pytest.mark.parametrize("loss_mode", loss_names())
def test_rollout_correction(batch, loss_mode):
    """Weights are not negative, so weighing the advantages is the same, except for GMPO (see test_agreement.py)."""
    name = loss_names()[loss_mode]
    if name == "gmpo":
        return
    config = actor_config(loss_mode, **settings_of(METHODS[name], "token-mean"))
    leaf = batch.new.float().requires_grad_()
    unweighted = own_loss(name, batch, leaf, "token-mean").loss.item()
    batch.advantages = batch.advantages * batch.weights
    expected = own_loss(name, batch, leaf, "token-mean").loss
    (expected_gradient,) = torch.autograd.grad(expected, leaf)
    weighted = Batch()
    loss, _ = under_verl(config, weighted, leaf, weights=True)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-8)
    assert abs(loss.item() - unweighted) > 1e-3


def test_terms_that_the_trainer_adds(batch):
    """Entropy and KL come from verl, once, and the loss they are added to is not changed by that."""
    settings = settings_of(METHODS["krpo"], "token-mean", kl_weight=0.01) | {"entropy_coeff": 0.1}
    config = actor_config("krpo", **settings)
    leaf = batch.new.float().requires_grad_()
    loss, metrics = under_verl(config, batch, leaf, output={"entropy": model_output(batch.entropy)})
    policy = own_loss("krpo", batch, leaf, "token-mean").loss.item()
    difference = (batch.reference - batch.new)[batch.mask]
    kl = (torch.exp(difference) - difference - 1).mean().item()
    entropy = batch.entropy[batch.mask].mean().item()
    assert metrics["actor/pg_loss"].aggregate() == pytest.approx(policy, rel=1e-5)
    assert loss.item() == pytest.approx(policy - 0.1 * entropy + 0.01 * kl, rel=1e-5)


def test_half_precision_is_said_once(batch, caplog):
    config = actor_config("kpo-unclipped")
    leaf = batch.new.bfloat16().requires_grad_()
    kpo.verl._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="kpo.verl"):
        for _ in range(3):
            under_verl(config, batch, leaf)
    said = [record.message for record in caplog.records if "bfloat16" in record.message]
    assert len(said) == 1 and "param_dtype=fp32" in said[0]


def test_values_that_are_not_the_published_ones_are_said(batch, caplog):
    """verl's defaults, clip 0.2 and token-mean, make another method of kpo-clipped."""
    leaf = batch.new.float().requires_grad_()
    kpo.verl._say_once.cache_clear()
    kpo.verl._resolved_method.cache_clear()
    with caplog.at_level(logging.INFO, logger="kpo.verl"):
        under_verl(actor_config("kpo-clipped", loss_agg_mode="token-mean"), batch, leaf)
        under_verl(
            actor_config("kpo-clipped", **settings_of(METHODS["kpo-clipped"], "seq-mean-token-mean")), batch, leaf
        )
    first, second = caplog.records
    assert first.levelname == "WARNING" and "published: clip (0.0003, 0.0004), aggregation seq-mean" in first.message
    assert second.levelname == "INFO" and "published: the same" in second.message


def test_missing_totals_are_refused(batch):
    config = actor_config("kpo-clipped")
    loss = kpo.verl.policy_loss_function("kpo-clipped")
    leaf = batch.new.float()
    with pytest.raises(ValueError, match="totals of the minibatch"):
        loss(batch.old.float(), leaf, batch.advantages.float(), batch.mask, "token-mean", config)


def test_token_that_is_not_finite_is_named(batch):
    leaf = batch.new.float()
    leaf[3, 1] = math.nan
    with pytest.raises(ValueError, match="log_probs holds NaN"):
        under_verl(actor_config("kpo-clipped"), batch, leaf)


@pytest.mark.parametrize(("is_clip", "kalman_q", "kalman_r"), [(True, 1e-6, 1.0), (False, 1e-4, 1.0), (True, 0.1, 0.5)])
def test_release_of_kpo(batch, is_clip, kalman_q, kalman_r):
    """The equations of the released fork in plain Python, with its parameters mapped as docs/verl.md says."""
    clip_low, clip_high = 3e-4, 4e-4
    kpo_values = {"process_variance": kalman_q, "observation_variance": kalman_r, "clip": is_clip}
    config = actor_config("kpo-clipped", kpo_values, clip_ratio_low=clip_low, clip_ratio_high=clip_high)
    rows = []
    for i in range(len(batch.mask)):
        state, variance, losses = 0.0, 0.0, []
        for t in range(batch.mask.shape[1]):
            if not batch.mask[i, t]:
                continue
            predicted = variance + kalman_q
            gain = predicted / (predicted + kalman_r)
            state += gain * ((batch.new[i, t] - batch.old[i, t]).item() - state)
            variance = (1 - gain) * predicted
            ratio, advantage = math.exp(min(state, 10.0)), batch.advantages[i, t].item()
            bounded = min(max(ratio, 1 - clip_low), 1 + clip_high) if is_clip else ratio
            losses.append(max(-advantage * ratio, -advantage * bounded))
        rows.append(sum(losses) / len(losses) if losses else 0.0)
    loss, _ = under_verl(config, batch, batch.new.float().requires_grad_())
    assert loss.item() == pytest.approx(sum(rows) / len(rows), rel=1e-5)
