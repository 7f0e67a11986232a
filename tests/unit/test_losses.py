"""kpo.losses: golden values worked by hand, gradients, metrics, exact splitting into micro-batches, and refusals."""

import math

import numpy as np
import pytest
import torch

from kpo.checks import NonFiniteError
from kpo.losses import aggregate, merge_metrics, policy_loss
from kpo.methods import AGGREGATIONS, METHODS, get_method
from kpo.ratios import log_importance_ratio

# Ratios 1.5 and 0.5 with advantage 1; ratio 0.5 with advantage -2. The last place of the second row is padding.
RATIOS = torch.tensor([[1.5, 0.5], [0.5, 1e9]], dtype=torch.float64)
OLD = torch.full((2, 2), -1.0, dtype=torch.float64)
NEW = OLD + RATIOS.log()
ADVANTAGES = torch.tensor([1.0, -2.0], dtype=torch.float64)
MASK = torch.tensor([[1, 1], [1, 0]])

FAST = {"process_variance": 1.0, "observation_variance": 1.0}
# Q = V = 1 and P0 = 0: K = 1/2, 3/5. First row: rho = 0.5 ln 1.5, then rho + 0.6 (ln 0.5 - rho); second: 0.5 ln 0.5.
RHO = [0.5 * math.log(1.5), 0.5 * math.log(1.5) + 0.6 * (math.log(0.5) - 0.5 * math.log(1.5)), 0.5 * math.log(0.5)]
EMA = 0.5 * math.log(1.5) + 0.5 * (math.log(0.5) - 0.5 * math.log(1.5))
GOLDEN = {
    # -(min(1.5, 1.2) + 0.5) / 2 = -0.85; 2 max(0.5, 0.8) = 1.6.
    "grpo": ({}, (-0.85 + 1.6) / 2, 2 / 3),
    "grpo without clip": ({"clip_low": None, "clip_high": None}, (-1.0 + 1.0) / 2, 0),
    "grpo, token mean": ({"aggregation": "token-mean"}, (-1.2 - 0.5 + 1.6) / 3, 2 / 3),
    # The same sums over 2 sequences of 4 tokens' budget.
    "dr-grpo": ({"aggregation_length": 4}, (-1.2 - 0.5 + 1.6) / 8, 2 / 3),
    # s = sqrt(1.5 * 0.5) = 0.8660 is below its upper bound, so it stays; s = 0.5 is lifted to 0.9997.
    "gspo": ({}, (-math.sqrt(0.75) + 2 * 0.9997) / 2, 1 / 3),
    "gspo-sequence": ({}, (-math.sqrt(0.75) + 2 * 0.9997) / 2, 1 / 3),
    # ln 1.5 = 0.405 is cut to 0.4, ln 0.5 = -0.693 only in the row of negative advantage, to -0.4.
    "gmpo": ({}, (-math.exp((0.4 + math.log(0.5)) / 2) + 2 * math.exp(-0.4)) / 2, 2 / 3),
    # With bounds of which only one is passed.
    "gmpo, wide below": ({"clip_low": 0.8}, (-math.exp((0.4 + math.log(0.5)) / 2) + 2 * 0.5) / 2, 1 / 3),
    "gmpo, wide above": ({"clip_high": 0.5}, (-math.sqrt(0.75) + 2 * math.exp(-0.4)) / 2, 1 / 3),
    "kpo-unclipped": (FAST, (-(math.exp(RHO[0]) + math.exp(RHO[1])) / 2 + 2 * math.exp(RHO[2])) / 2, 0),
    # exp(rho) = 1.22, 0.715, 0.707: the first is cut to 1.0004, the last lifted to 0.9997.
    "kpo-clipped": (FAST, (-(1.0004 + math.exp(RHO[1])) / 2 + 2 * 0.9997) / 2, 2 / 3),
    "kpo-ema-scheduled": (FAST, (-(1.0004 + math.exp(RHO[1])) / 2 + 2 * 0.9997) / 2, 2 / 3),
    "kpo-ema": ({"gain": 0.5}, (-(1.0004 + math.exp(EMA)) / 2 + 2 * 0.9997) / 2, 2 / 3),
    "kpo-unit": ({}, (-1.0 + 2.0) / 2, 0),
    # These differ from grpo in the advantages, which are given here.
    "rloo": ({}, 0.375, 2 / 3),
    "opo": ({}, 0.375, 2 / 3),
}
GOLDEN |= {name: ({"kl_weight": 0.0}, 0.375, 2 / 3) for name in METHODS if name.startswith("krpo")}
GOLDEN["grpo-rescaled"] = ({"kl_weight": 0.0}, 0.375, 2 / 3)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values(case):
    overrides, expected, clip_share = GOLDEN[case]
    result = policy_loss(get_method(case.split(" ")[0].rstrip(","), **overrides), NEW, OLD, ADVANTAGES, MASK)
    assert result.loss.item() == pytest.approx(expected, rel=1e-12)
    assert result.metrics["clip_share"] == pytest.approx(clip_share, abs=1e-15)


def test_every_method_has_a_golden_value():
    assert set(METHODS) == {case.split(" ")[0].rstrip(",") for case in GOLDEN}


def test_kl_term_by_hand():
    # d = log pi_ref - log pi = ln 2, ln 3, ln 1/4: k3 = 2 - ln 2 - 1, 3 - ln 3 - 1, 1/4 + ln 4 - 1.
    reference = NEW + torch.tensor([[math.log(2), math.log(3)], [-math.log(4), 7.0]], dtype=torch.float64)
    first, second = [1 - math.log(2), 2 - math.log(3)], [math.log(4) - 0.75]
    plain = policy_loss("grpo", NEW, OLD, ADVANTAGES, MASK, ref_log_probs=reference)
    weighted = policy_loss(get_method("grpo", kl_weight=0.1), NEW, OLD, ADVANTAGES, MASK, reference)
    assert plain.loss.item() == pytest.approx(0.375)
    assert weighted.loss.item() == pytest.approx(0.375 + 0.1 * (sum(first) / 2 + second[0]) / 2, rel=1e-12)
    assert plain.metrics["kl"] == pytest.approx(sum(first + second) / 3) == weighted.metrics["kl"]
    assert "kl" not in policy_loss("grpo", NEW, OLD, ADVANTAGES, MASK).metrics


def test_kl_keeps_its_digits_near_the_reference():
    new = torch.full((1, 50), -2.0)
    reference = new + 1e-3
    delta = reference.double() - new.double()
    expected = (delta**2 / 2 + delta**3 / 6 + delta**4 / 24).mean().item()
    kl = policy_loss("krpo", new, new, torch.ones(1), torch.ones(1, 50), reference).metrics["kl"]
    assert kl == pytest.approx(expected, rel=1e-3)


def test_metrics_by_hand():
    metrics = policy_loss("grpo", NEW, OLD, ADVANTAGES, MASK).metrics
    z = [math.log(1.5), math.log(0.5), math.log(0.5)]
    mean = sum(z) / 3
    assert metrics["log_ratio_std"] == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in z) / 3))
    assert metrics["log_ratio_abs_max"] == pytest.approx(math.log(2))
    assert metrics["mean_ratio"] == pytest.approx(2.5 / 3)
    assert metrics["effective_sample_size"] == pytest.approx(2.5**2 / (3 * (1.5**2 + 0.5**2 + 0.5**2)))
    assert all(isinstance(value, float) for value in metrics.values())


def test_metrics_of_a_sequence_ratio_count_its_tokens():
    metrics = policy_loss("gspo-sequence", NEW, OLD, ADVANTAGES, MASK).metrics
    s = math.sqrt(0.75)
    assert metrics["mean_ratio"] == pytest.approx((2 * s + 0.5) / 3)
    assert metrics["effective_sample_size"] == pytest.approx((2 * s + 0.5) ** 2 / (3 * (2 * s**2 + 0.25)))


def random_batch(rows=6, tokens=11, seed=0, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(rows, tokens, generator=generator, dtype=torch.float64) * 3
    new = old + spread * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    reference = old + spread * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, tokens, generator=generator) < 0.7
    mask[2] = False
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return new, old, reference, advantages, mask


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("parts", [[1, 5], [2, 1, 3], [1] * 6])
def test_micro_batches_add_up(name, aggregation, parts):
    """Loss, gradient and metrics do not depend on the split; the third row, without tokens, is a part by itself."""
    method = get_method(name, aggregation=aggregation, aggregation_length=11)
    new, old, reference, advantages, mask = random_batch()
    whole_input = new.clone().requires_grad_()
    whole = policy_loss(method, whole_input, old, advantages, mask, reference)
    whole.loss.backward()
    split_input = new.clone().requires_grad_()
    totals = {"num_sequences": 6, "num_tokens": int(mask.sum())}
    pieces = [tensor.split(parts) for tensor in (split_input, old, advantages, mask, reference)]
    results = [policy_loss(method, *piece, **totals) for piece in zip(*pieces, strict=True)]
    total = sum(result.loss for result in results)
    total.backward()
    torch.testing.assert_close(total, whole.loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(split_input.grad, whole_input.grad, rtol=1e-12, atol=1e-14)
    merged = merge_metrics(results)
    assert merged == pytest.approx(whole.metrics, rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_padding_never_matters(name):
    new, old, reference, advantages, mask = random_batch()
    clean_input = new.clone().requires_grad_()
    clean = policy_loss(name, clean_input, old, advantages, mask, reference)
    clean.loss.backward()

    def padded(values, filling):
        return torch.nn.functional.pad(torch.where(mask, values, filling), (3, 2), value=filling)

    dirty_input = padded(new, torch.inf).requires_grad_()
    dirty_mask = torch.nn.functional.pad(mask, (3, 2))
    dirty = policy_loss(
        name, dirty_input, padded(old, torch.nan), advantages, dirty_mask, padded(reference, -torch.inf)
    )
    dirty.loss.backward()
    torch.testing.assert_close(dirty.loss, clean.loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(dirty_input.grad[:, 3:-2], clean_input.grad, rtol=1e-12, atol=1e-14)
    assert dirty.metrics == pytest.approx(clean.metrics, rel=1e-9)


@pytest.mark.parametrize("name", ["grpo", "gspo-sequence", "gmpo", "dr-grpo", "krpo"])
def test_gradient_against_finite_differences(name):
    """Methods whose gradient is that of their value. The clip cuts some terms and leaves some."""
    method = get_method(name, clip_low=0.1, clip_high=0.15)
    new, old, reference, advantages, mask = random_batch()
    loss = lambda log_probs: policy_loss(method, log_probs, old, advantages, mask, reference).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, new.requires_grad_())


@pytest.mark.parametrize("name", ["gspo", "kpo-clipped", "kpo-unclipped", "kpo-unit", "kpo-ema"])
def test_straight_through_gradient(name):
    """dL / d log pi_t = -r_hat_t A_t / (n_i B) if the clipped term is not the larger loss, else 0."""
    fast = {"process_variance": 0.3} if "process_variance" in METHODS[name].ratio_parameters else {}
    method = get_method(name, **fast)
    new, old, _, advantages, mask = random_batch()
    log_probs = new.clone().requires_grad_()
    policy_loss(method, log_probs, old, advantages, mask).loss.backward()
    ratio = log_importance_ratio(method.ratio, new, old, mask, **method.ratio_parameters).exp()
    expected = -ratio * advantages[:, None] / (mask.sum(dim=1, keepdim=True).clamp(min=1) * 6) * mask
    if method.clip_low is not None:
        positive = advantages[:, None] > 0
        clipped = (positive & (ratio > 1 + method.clip_high)) | (~positive & (ratio < 1 - method.clip_low))
        assert name == "kpo-unit" or clipped[mask].any() and not clipped[mask].all()
        expected = torch.where(clipped, 0.0, expected)
    torch.testing.assert_close(log_probs.grad, expected, rtol=1e-12, atol=1e-15)


def test_sequence_forms_of_gspo_agree_in_value_and_unclipped_gradient():
    """With one advantage for each sequence the stop-gradient token form has GSPO's own gradient (its section 4.3)."""
    new, old, _, advantages, mask = random_batch()
    gradients, losses = [], []
    for name in ("gspo", "gspo-sequence"):
        log_probs = new.clone().requires_grad_()
        loss = policy_loss(name, log_probs, old, advantages, mask).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(log_probs.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", METHODS)
def test_token_advantages_of_one_value_equal_a_sequence_advantage(name):
    new, old, reference, advantages, mask = random_batch()
    token_advantages = torch.where(mask, advantages[:, None], torch.nan)
    per_sequence = policy_loss(name, new, old, advantages, mask, reference)
    per_token = policy_loss(name, new, old, token_advantages, mask, reference)
    torch.testing.assert_close(per_token.loss, per_sequence.loss, rtol=1e-13, atol=0)
    assert per_token.metrics == per_sequence.metrics


@pytest.mark.parametrize("name", METHODS)
def test_on_policy_every_method_has_the_policy_gradient(name):
    """At pi = pi_old every ratio is 1, nothing is clipped, and all methods are the plain policy gradient."""
    _, old, _, advantages, mask = random_batch()
    method = get_method(name, aggregation="seq-mean-token-mean", kl_weight=0.0)
    log_probs = old.clone().requires_grad_()
    result = policy_loss(method, log_probs, old, advantages, mask)
    result.loss.backward()
    expected = -advantages[:, None] * mask / (mask.sum(dim=1, keepdim=True).clamp(min=1) * 6)
    torch.testing.assert_close(log_probs.grad, expected, rtol=1e-12, atol=1e-15)
    assert result.metrics["clip_share"] == 0 and result.metrics["effective_sample_size"] == 1


@pytest.mark.parametrize("name", METHODS)
def test_extreme_ratios_leave_finite_losses_and_gradients(name):
    log_probs = torch.tensor([[-1.0, -900.0, -1.0], [-1e-4, -3.0, -200.0]], requires_grad=True)
    old = torch.tensor([[-900.0, -1.0, -1.0], [-700.0, -700.0, -1e-4]])
    for advantages in (torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])):
        result = policy_loss(get_method(name, kl_weight=0.0), log_probs, old, advantages, torch.ones(2, 3))
        (gradient,) = torch.autograd.grad(result.loss, log_probs)
        assert torch.isfinite(result.loss) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_and_dtypes(name):
    new, old, reference, advantages, mask = random_batch()
    half = [tensor.to(torch.bfloat16) for tensor in (new, old, advantages, reference)]
    result = policy_loss(name, half[0], half[1], half[2], mask, half[3])
    exact = policy_loss(name, *(tensor.float() for tensor in half[:3]), mask, half[3].float())
    assert result.loss.dtype == torch.float32 and torch.equal(result.loss, exact.loss)


def test_only_the_policy_gets_a_gradient():
    new, old, reference, advantages, mask = random_batch()
    leaves = [tensor.clone().requires_grad_() for tensor in (new, old, advantages, reference)]
    policy_loss("krpo", leaves[0], leaves[1], leaves[2], mask, leaves[3]).loss.backward()
    assert leaves[0].grad is not None and all(leaf.grad is None for leaf in leaves[1:])


def test_a_part_without_tokens_is_zero_with_a_zero_gradient_and_undefined_metrics():
    log_probs = torch.full((2, 3), torch.nan).requires_grad_()
    result = policy_loss(
        "gmpo", log_probs, log_probs.detach(), torch.ones(2), torch.zeros(2, 3), num_sequences=8, num_tokens=40
    )
    result.loss.backward()
    assert result.loss == 0 and (log_probs.grad == 0).all()
    assert all(math.isnan(value) for value in result.metrics.values())


@pytest.mark.parametrize("name", ["grpo", "kpo-clipped", "gspo-sequence", "gmpo", "krpo", "dr-grpo"])
@pytest.mark.parametrize("by_token", [True, False])
def test_sampler_weights_multiply_the_clipped_loss_before_the_kl_term(name, by_token):
    """Against the formulas of verl's losses (`rollout_is_weights`), written out; GMPO has their geometric mean."""
    new, old, reference, advantages, mask = random_batch()
    generator = torch.Generator().manual_seed(9)
    weights = torch.rand(6, 11 if by_token else 1, generator=generator, dtype=torch.float64) * 2
    weights[0] = 0.0
    method = get_method(name, clip_low=0.1, clip_high=0.2, kl_weight=0.05)
    log_probs = new.clone().requires_grad_()
    dirty = (torch.where(mask, weights, torch.nan) if by_token else weights).requires_grad_()
    result = policy_loss(method, log_probs, old, advantages, mask, reference, sampler_weights=dirty)

    weights = weights.detach()
    other = new.clone().requires_grad_()
    clip = {"advantages": advantages, "clip": (0.1, 0.2)} if name == "gmpo" else {}
    ratio = log_importance_ratio(method.ratio, other, old, mask, **method.ratio_parameters, **clip).exp()
    losses = -advantages[:, None] * ratio
    if name == "gmpo":
        weights = ((weights.expand(6, 11) + 1e-10).log() * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        weights = weights.nan_to_num().exp()
    else:
        losses = torch.maximum(losses, -advantages[:, None] * ratio.clamp(0.9, 1.2))
    difference = reference - other
    losses = (losses * weights + 0.05 * (difference.exp() - difference - 1)) * mask
    count = 6 * 4096 if name == "dr-grpo" else 6 * mask.sum(dim=1, keepdim=True).clamp(min=1)
    expected = (losses / count).sum()
    torch.testing.assert_close(result.loss, expected, rtol=1e-12, atol=1e-15)
    result.loss.backward()
    torch.testing.assert_close(log_probs.grad, torch.autograd.grad(expected, other)[0], rtol=1e-12, atol=1e-15)
    assert dirty.grad is None
    # Weights of 1 change nothing, and metrics do not depend on them.
    plain = policy_loss(method, new, old, advantages, mask, reference)
    ones = policy_loss(method, new, old, advantages, mask, reference, sampler_weights=torch.ones(6, 1))
    torch.testing.assert_close(ones.loss, plain.loss, rtol=1e-9, atol=0)
    assert result.metrics == ones.metrics == plain.metrics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("difference", [11.0, 20.0, 89.0, 1e4, 1e30])
@pytest.mark.parametrize("name", METHODS)
def test_differences_of_any_size_leave_bounded_losses_gradients_and_metrics(name, dtype, difference):
    """One token far from the sampling policy or the reference, in either direction, with either advantage."""
    base = torch.full((2, 3), -1.0, dtype=dtype)
    far = base.clone()
    far[0, 1] -= difference
    method = get_method(name, kl_weight=0.01, aggregation="token-mean")
    for new, old, reference in ((far, base, base), (far, far, base), (base, far, base), (base, base, far)):
        for advantages in (torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])):
            log_probs = new.clone().requires_grad_()
            result = policy_loss(method, log_probs, old, advantages, torch.ones(2, 3), reference)
            result.loss.backward()
            # exp(10) bounds each ratio and each KL term; d of a reference far below grows only linearly.
            assert abs(result.loss.item()) < 22_027 * 1.01 + 0.01 * difference
            assert torch.isfinite(log_probs.grad).all() and log_probs.grad.abs().max() < 22_027 * 1.01
            assert all(math.isfinite(value) for value in result.metrics.values())
            assert result.metrics["kl"] < 22_027 + difference


def test_metrics_beyond_the_range_of_doubles_are_not_finite_but_raise_nothing():
    ones = torch.ones(1, 2, dtype=torch.float64)
    metrics = policy_loss("grpo", -1e200 * ones, ones, ones, ones).metrics
    assert metrics["clip_share"] == 0.0 and math.isnan(metrics["log_ratio_std"])


def test_the_kl_term_lets_go_of_a_token_beyond_its_bound():
    new = torch.tensor([[-1.0, -10.9, -11.1, -21.0]], requires_grad=True)
    method, reference = get_method("grpo", kl_weight=1.0), torch.full((1, 4), -1.0)
    result = policy_loss(method, new, new.detach(), torch.zeros(1), torch.ones(1, 4), reference)
    result.loss.backward()
    # d = 0, 9.9, 10.1, 20: d / d log pi = -(exp(d) - 1) / 4, and 0 beyond 10.
    torch.testing.assert_close(new.grad, torch.tensor([[0, -(math.exp(9.9) - 1) / 4, 0, 0]]), rtol=1e-4, atol=0)
    assert result.metrics["kl"] == pytest.approx((math.exp(9.9) - 10.9 + 2 * (math.exp(10) - 11)) / 4, rel=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["log_probs", "old_log_probs", "advantages", "ref_log_probs", "sampler_weights"])
def test_inputs_that_are_not_finite_raise_an_error_of_their_own(name, value):
    values = {key: torch.ones(2, 3) for key in ("log_probs", "old_log_probs", "mask", "ref_log_probs")}
    values |= {"advantages": torch.ones(2), "sampler_weights": torch.ones(2, 1)}
    values[name].view(-1)[1] = value
    with pytest.raises(NonFiniteError, match=f"^{name} "):
        policy_loss("krpo", **values)
    assert issubclass(NonFiniteError, ValueError)


def test_totals_may_be_tensors_and_numpy_numbers():
    new, old, _, advantages, mask = random_batch()
    for tokens, rows in ((mask.sum(), np.int64(6)), (np.int32(mask.sum()), torch.tensor(6))):
        result = policy_loss("grpo", new, old, advantages, mask, num_tokens=tokens, num_sequences=rows)
        assert result.loss == policy_loss("grpo", new, old, advantages, mask).loss


ONES = torch.ones(2, 3)
BAD = {
    "method": (("grpoo", ONES, ONES, torch.ones(2), ONES), {}, ValueError, "did you mean 'grpo'"),
    "method type": ((3, ONES, ONES, torch.ones(2), ONES), {}, TypeError, "method"),
    "logits": (("grpo", torch.ones(2, 3, 5), ONES, torch.ones(2), ONES), {}, ValueError, "log_probs"),
    "old shape": (("grpo", ONES, torch.ones(3, 2), torch.ones(2), ONES), {}, ValueError, "old_log_probs"),
    "advantages shape": (("grpo", ONES, ONES, torch.ones(3), ONES), {}, ValueError, "advantages"),
    "advantages column": (("grpo", ONES, ONES, torch.ones(2, 1), ONES), {}, ValueError, "advantages"),
    "advantages list": (("grpo", ONES, ONES, [1.0, 1.0], ONES), {}, TypeError, "advantages"),
    "advantages integers": (("grpo", ONES, ONES, torch.ones(2).long(), ONES), {}, TypeError, "advantages"),
    "advantages NaN": (("grpo", ONES, ONES, torch.ones(2) * torch.nan, ONES), {}, ValueError, "advantages"),
    "advantages device": (("grpo", ONES, ONES, torch.ones(2, device="meta"), ONES), {}, ValueError, "advantages"),
    "log_probs NaN": (("grpo", ONES * torch.nan, ONES, torch.ones(2), ONES), {}, ValueError, "^log_probs"),
    "old infinite": (("grpo", ONES, ONES - torch.inf, torch.ones(2), ONES), {}, ValueError, "^old_log_probs"),
    "reference NaN": (("krpo", ONES, ONES, torch.ones(2), ONES, ONES * torch.nan), {}, ValueError, "^ref_log_probs"),
    "reference shape": (("krpo", ONES, ONES, torch.ones(2), ONES, ONES[:1]), {}, ValueError, "ref_log_probs"),
    "reference missing": (("krpo", ONES, ONES, torch.ones(2), ONES), {}, ValueError, "ref_log_probs are missing"),
    "mask values": (("grpo", ONES, ONES, torch.ones(2), ONES * 2), {}, ValueError, "mask"),
    "mask of nothing": (("grpo", ONES, ONES, torch.ones(2), ONES * 0), {}, ValueError, "mask"),
    "few sequences": (("grpo", ONES, ONES, torch.ones(2), ONES), {"num_sequences": 1}, ValueError, "num_sequences"),
    "few tokens": (("grpo", ONES, ONES, torch.ones(2), ONES), {"num_tokens": 5}, ValueError, "num_tokens"),
    "weights shape": (("grpo", ONES, ONES, torch.ones(2), ONES), {"sampler_weights": ONES[0]}, ValueError, "sampler"),
    "weights rows": (("grpo", ONES, ONES, torch.ones(2), ONES), {"sampler_weights": ONES[:, 0]}, ValueError, "sampler"),
    "negative weights": (("grpo", ONES, ONES, torch.ones(2), ONES), {"sampler_weights": -ONES}, ValueError, "sampler"),
    "weights list": (("grpo", ONES, ONES, torch.ones(2), ONES), {"sampler_weights": [1.0]}, TypeError, "sampler"),
    "true total": (("grpo", ONES, ONES, torch.ones(2), ONES), {"num_tokens": True}, TypeError, "num_tokens"),
    "float total": (("grpo", ONES, ONES, torch.ones(2), ONES), {"num_sequences": 2.5}, TypeError, "num_sequences"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_name_the_argument(case):
    arguments, keywords, error, words = BAD[case]
    with pytest.raises(error, match=words):
        policy_loss(*arguments, **keywords)


def test_aggregate_refuses_unknown_kinds_and_a_missing_length():
    with pytest.raises(ValueError, match="did you mean 'token-mean'"):
        aggregate("token-means", ONES, ONES)
    with pytest.raises(ValueError, match="length"):
        aggregate("seq-mean-token-sum-norm", ONES, ONES)
    for values, mask in ((ONES[:, :1], ONES), (ONES, ONES[:, :2]), (ONES, ONES * torch.nan)):
        with pytest.raises(ValueError, match="^(values|mask) "):
            aggregate("token-mean", values, mask)
    for values, mask in ((ONES, [[1]]), (ONES.long(), ONES)):
        with pytest.raises(TypeError, match="^(values|mask) must be"):
            aggregate("token-mean", values, mask)
