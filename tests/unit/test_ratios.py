"""kpo.ratios: values by hand and against a plain float64 recursion, gradients, controls, and refusals."""

import math

import pytest
import torch

from kpo.checks import Registry
from kpo.losses import policy_loss
from kpo.methods import Method
from kpo.ratios import (
    RATIO_KINDS,
    log_importance_ratio,
    ratio_kind,
    straight_through,
)

KALMAN = {"process_variance": 0.04, "observation_variance": 1.0}
PARAMETERS = {
    "token": {},
    "sequence": {},
    "sequence-token": {},
    "geometric-mean": {},
    "kalman": KALMAN,
    "unit": {},
    "ema": {"gain": 0.3},
    "ema-scheduled": KALMAN,
}
STRAIGHT_THROUGH = ("sequence-token", "kalman", "unit", "ema", "ema-scheduled")
SEQUENCE_SHAPED = ("sequence", "geometric-mean")


def batch(seed=0, rows=5, tokens=9, dtype=torch.float64):
    """Log-probabilities of two policies and a mask with left padding, right padding, a hole and an empty row."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(rows, tokens, generator=generator, dtype=torch.float64) * 3
    new = old + 0.3 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    mask = torch.ones(rows, tokens, dtype=torch.bool)
    mask[1, :3] = False
    mask[2, 5:] = False
    mask[3, 4] = False
    mask[4] = False
    return new.to(dtype), old.to(dtype), mask


def sequential_filter(values, process_variance, observation_variance, variance=0.0, gain=None):
    """The textbook recursion on a list of Python floats."""
    state, states = 0.0, []
    for value in values:
        variance += process_variance
        k = variance / (variance + observation_variance) if gain is None else gain
        state += k * (value - state)
        variance *= 1 - k
        states.append(state)
    return states


def test_every_kind_is_covered_here():
    own = {name for name, kind in RATIO_KINDS.items() if kind.function.__module__.startswith("kpo.")}
    assert set(PARAMETERS) == own


def test_values_by_hand():
    # z = (ln 2, ln 8) and, after a hole, (ln 4,): mean ln 4 in the first row.
    old = torch.zeros(2, 3, dtype=torch.float64)
    new = torch.tensor([[math.log(2), 7.0, math.log(8)], [-1.0, math.log(4), 5.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1], [0, 1, 0]])
    ratio = {kind: log_importance_ratio(kind, new, old, mask, **PARAMETERS[kind]).exp() for kind in PARAMETERS}
    expected = {
        "token": [[2, 1, 8], [1, 4, 1]],
        "sequence": [[4], [4]],
        "sequence-token": [[4, 1, 4], [1, 4, 1]],
        "geometric-mean": [[4], [4]],
        "unit": [[1, 1, 1], [1, 1, 1]],
    }
    for kind, values in expected.items():
        torch.testing.assert_close(ratio[kind], torch.tensor(values, dtype=torch.float64), msg=kind)
    # EMA, gain 1/2, from 0: (ln 2)/2, then half way to ln 8 = 3 ln 2, i.e. 1.75 ln 2.
    ema = log_importance_ratio("ema", new, old, mask, gain=0.5) / math.log(2)
    torch.testing.assert_close(ema, torch.tensor([[0.5, 0, 1.75], [0, 1, 0]], dtype=torch.float64))
    # Q = V = 1: K_1 = 1/2 leaves P = 1/2, K_2 = 1.5 / 2.5 = 0.6: 0.5 + 0.6 (3 - 0.5) = 2.
    filtered = log_importance_ratio("kalman", new, old, mask, process_variance=1, observation_variance=1) / math.log(2)
    torch.testing.assert_close(filtered, torch.tensor([[0.5, 0, 2.0], [0, 1, 0]], dtype=torch.float64))


def test_geometric_mean_clips_only_on_the_side_of_the_advantage():
    old = torch.zeros(3, 2, dtype=torch.float64)
    new = torch.tensor([[1.0, -1.0]] * 3, dtype=torch.float64)
    advantages = torch.tensor([2.0, -0.5, 0.0], dtype=torch.float64)
    mask = torch.ones(3, 2)
    result = log_importance_ratio("geometric-mean", new, old, mask, advantages=advantages, clip=(0.2, 0.4))
    # (0.4 - 1) / 2; (1 - 0.2) / 2; nothing is cut.
    torch.testing.assert_close(result, torch.tensor([[-0.3], [0.4], [0.0]], dtype=torch.float64))
    one_number = log_importance_ratio("geometric-mean", new, old, mask, advantages=advantages, clip=0.4)
    torch.testing.assert_close(one_number, torch.tensor([[-0.3], [0.3], [0.0]], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["kalman", "ema-scheduled", "ema"])
def test_filtered_kinds_equal_the_plain_recursion(kind):
    new, old, mask = batch()
    result = log_importance_ratio(kind, new, old, mask, **PARAMETERS[kind])
    for row in range(len(new)):
        values = (new - old)[row][mask[row]].tolist()
        states = sequential_filter(values, 0.04, 1.0, gain=PARAMETERS[kind].get("gain"))
        torch.testing.assert_close(result[row][mask[row]], torch.tensor(states, dtype=torch.float64))
    assert (result[~mask] == 0).all()


def test_initial_variance_reaches_the_filter():
    new, old, mask = batch()
    parameters = {**KALMAN, "initial_variance": 2.0}
    states = sequential_filter((new - old)[0].tolist(), 0.04, 1.0, variance=2.0)
    for kind in ("kalman", "ema-scheduled"):
        result = log_importance_ratio(kind, new, old, mask, **parameters)
        torch.testing.assert_close(result[0], torch.tensor(states, dtype=torch.float64))


@pytest.mark.parametrize("process_variance", [1e-8, 1e-6, 1e-4, 1e-2, 1.0])
def test_scheduled_average_is_kpo_over_a_long_response(process_variance):
    generator = torch.Generator().manual_seed(1)
    new = 0.05 * torch.randn(2, 3000, generator=generator)
    old, mask = torch.zeros_like(new), torch.ones_like(new)
    parameters = {"process_variance": process_variance, "observation_variance": 1.0}
    kalman = log_importance_ratio("kalman", new, old, mask, **parameters)
    scheduled = log_importance_ratio("ema-scheduled", new, old, mask, **parameters)
    torch.testing.assert_close(kalman, scheduled, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", STRAIGHT_THROUGH)
def test_straight_through_contract(kind):
    """d log r_t / d log pi_s is 1 if s = t is counted, else 0, whatever the value is."""
    new, old, mask = batch()
    jacobian = torch.autograd.functional.jacobian(
        lambda log_probs: log_importance_ratio(kind, log_probs, old, mask, **PARAMETERS[kind]), new
    ).reshape(new.numel(), new.numel())
    assert torch.equal(jacobian, torch.diag(mask.flatten().double()))


def test_straight_through_takes_no_gradient_from_its_value():
    log_ratio = torch.tensor([[0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    result = straight_through(log_ratio * 3, log_ratio)
    result.sum().backward()
    assert result.tolist() == [[1.5, -3.0]] and log_ratio.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("kind", ["token", *SEQUENCE_SHAPED])
def test_gradient_of_the_value_against_finite_differences(kind):
    new, old, mask = batch()
    parameters = {}
    if kind == "geometric-mean":
        parameters = {"advantages": torch.tensor([1.0, -1, 1, -1, 1], dtype=torch.float64), "clip": 0.2}
    function = lambda log_probs: log_importance_ratio(kind, log_probs, old, mask, **parameters)  # noqa: E731
    assert torch.autograd.gradcheck(function, new.requires_grad_())


@pytest.mark.parametrize("kind", PARAMETERS)
def test_shape_empty_row_and_no_gradient_to_the_sampling_policy(kind):
    new, old, mask = batch()
    old.requires_grad_()
    new.requires_grad_()
    result = log_importance_ratio(kind, new, old, mask, **PARAMETERS[kind])
    assert result.shape == ((5, 1) if kind in SEQUENCE_SHAPED else (5, 9))
    assert (result[4] == 0).all()
    result.sum().backward()
    assert old.grad is None and torch.isfinite(new.grad).all()


@pytest.mark.parametrize("kind", PARAMETERS)
def test_padding_content_never_matters(kind):
    new, old, mask = batch()
    expected = log_importance_ratio(kind, new, old, mask, **PARAMETERS[kind])
    dirty_new = torch.where(mask, new, torch.inf).requires_grad_()
    dirty_old = torch.where(mask, old, torch.nan)
    result = log_importance_ratio(kind, dirty_new, dirty_old, mask.long(), **PARAMETERS[kind])
    assert torch.equal(result, expected)
    result.sum().backward()
    assert torch.isfinite(dirty_new.grad).all() and (dirty_new.grad[~mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    new, old, mask = batch(dtype=dtype)
    result = log_importance_ratio("kalman", new, old, mask, **KALMAN)
    assert result.dtype == torch.float32
    assert torch.equal(result, log_importance_ratio("kalman", new.float(), old.float(), mask, **KALMAN))


ONE = torch.zeros(2, 3)
JAGGED = torch.nested.nested_tensor([ONE[0], ONE[1, :2]], layout=torch.jagged)
REFUSED = {
    "unknown kind": (("kalmann", ONE, ONE, ONE == 0), {}, ValueError, "did you mean 'kalman'"),
    "unknown parameter": (("token", ONE, ONE, ONE == 0), {"gain": 1.0}, ValueError, "gain"),
    "missing variance": (("kalman", ONE, ONE, ONE == 0), {"process_variance": 1.0}, ValueError, "observation_variance"),
    "negative variance": (
        ("kalman", ONE, ONE, ONE == 0),
        {"process_variance": -1.0, "observation_variance": 1.0},
        ValueError,
        "process_variance",
    ),
    "both variances 0": (
        ("kalman", ONE, ONE, ONE == 0),
        {"process_variance": 0.0, "observation_variance": 0.0},
        ValueError,
        "variance",
    ),
    "gain above 1": (("ema", ONE, ONE, ONE == 0), {"gain": 1.5}, ValueError, "gain"),
    "gain as text": (("ema", ONE, ONE, ONE == 0), {"gain": "1e-3"}, TypeError, "gain"),
    "logits": (("token", torch.zeros(2, 3, 7), ONE, ONE == 0), {}, ValueError, "log_probs"),
    "shapes": (("token", ONE, torch.zeros(2, 4), ONE == 0), {}, ValueError, "old_log_probs"),
    "mask shape": (("token", ONE, ONE, torch.ones(2, 1)), {}, ValueError, "mask"),
    "integers": (("token", ONE.long(), ONE, ONE == 0), {}, TypeError, "log_probs"),
    "list": (("token", [[0.0]], ONE, ONE == 0), {}, TypeError, "log_probs"),
    "mask list": (("token", ONE, ONE, [[1]]), {}, TypeError, "mask"),
    "mask weights": (("token", ONE, ONE, ONE + 0.5), {}, ValueError, "mask"),
    "empty": (("token", ONE[:0], ONE[:0], ONE[:0]), {}, ValueError, "empty"),
    "not finite": (("token", ONE - torch.inf, ONE, ONE == 0), {}, ValueError, "log_probs"),
    "old not finite": (("token", ONE, ONE * torch.nan, ONE == 0), {}, ValueError, "old_log_probs"),
    "device": (("token", ONE, ONE.to("meta"), ONE == 0), {}, ValueError, "old_log_probs is on meta"),
    "clip without advantages": (("geometric-mean", ONE, ONE, ONE == 0), {"clip": 0.4}, ValueError, "advantages"),
    "negative clip": (
        ("geometric-mean", ONE, ONE, ONE == 0),
        {"clip": -0.4, "advantages": torch.ones(2)},
        ValueError,
        "clip",
    ),
    "three bounds": (
        ("geometric-mean", ONE, ONE, ONE == 0),
        {"clip": (0.1, 0.2, 0.3), "advantages": torch.ones(2)},
        ValueError,
        "clip must be one number",
    ),
    "advantages NaN": (
        ("geometric-mean", ONE, ONE, ONE == 0),
        {"clip": 0.4, "advantages": ONE[:, 0] * torch.nan},
        ValueError,
        "advantages",
    ),
    "nested": (("token", JAGGED, ONE, ONE == 0), {}, TypeError, "log_probs must be a dense tensor"),
    "sparse": (("token", ONE, ONE.to_sparse(), ONE == 0), {}, TypeError, "old_log_probs must be a dense tensor"),
    "advantages shape": (
        ("geometric-mean", ONE, ONE, ONE == 0),
        {"clip": 0.4, "advantages": torch.ones(3)},
        ValueError,
        "advantages",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_argument(case):
    arguments, parameters, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        log_importance_ratio(*arguments, **parameters)


def test_a_kind_may_ask_for_old_log_probs_and_advantages(monkeypatch):
    """A trust region in total variation (arXiv 2602.04879): tokens that moved too far with their advantage drop."""
    registry = Registry("ratio kind")
    for module in ("ratios", "losses", "methods"):
        monkeypatch.setattr(f"kpo.{module}.RATIO_KINDS", registry)

    @ratio_kind("trust-region")
    def trust_region(log_ratio_BT, mask_BT, *, advantages, old_log_probs, delta: float = 0.15):
        moved_BT = (old_log_probs + log_ratio_BT).exp() - old_log_probs.exp()
        return torch.where(advantages.sign() * moved_BT > delta, log_ratio_BT.detach(), log_ratio_BT)

    old = torch.tensor([[0.01, 0.5, 0.5], [0.3, 0.9, 0.01]], dtype=torch.float64).log()
    new = torch.tensor([[0.02, 0.62, 0.66], [0.16, 0.7, 0.2]], dtype=torch.float64).log().requires_grad_()
    dropped = torch.tensor([[False, False, True], [False, True, False]])
    advantages, mask = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.ones(2, 3)
    # Square, with a masked token: an advantage (B,) must not be taken for one of each token.
    for columns, given in (([0, 1, 2], advantages), ([0, 2], advantages), ([0, 2], advantages[:, None].repeat(1, 2))):
        cut = [values[:, columns] for values in (new, old, mask)]
        result = log_importance_ratio("trust-region", *cut, advantages=given)
        (gradient,) = torch.autograd.grad(result.sum(), new)
        assert torch.equal(result, (new - old)[:, columns].detach())
        assert torch.equal(gradient[:, columns], (~dropped)[:, columns].double())
    # In the loss: d / d log pi = -A pi / mu of what is kept, by the published numbers.
    method = Method("dppo", "-", "-", "-", ratio="trust-region", aggregation="token-mean")
    expected = torch.tensor([[-2, -1.24, 0], [0.16 / 0.3, 0, 20]], dtype=torch.float64)
    for padding in (0, 2):
        padded = [torch.nn.functional.pad(values, (0, padding), value=torch.nan) for values in (new, old)]
        loss = policy_loss(method, *padded, advantages, torch.nn.functional.pad(mask, (0, padding))).loss
        torch.testing.assert_close(torch.autograd.grad(6 * loss, new)[0], expected)


def test_registering_a_taken_name_or_returning_a_wrong_shape_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="exists already"):
        ratio_kind("token")(lambda log_ratio_BT, mask_BT: log_ratio_BT)
    monkeypatch.setattr("kpo.ratios.RATIO_KINDS", Registry("ratio kind"))
    ratio_kind("flat")(lambda log_ratio_BT, mask_BT: log_ratio_BT.flatten())
    with pytest.raises(ValueError, match="must return"):
        log_importance_ratio("flat", ONE, ONE, ONE == 0)
