"""kpo.kalman: the same bits for a single row, in a batch, padded, with holes; dtypes; refusals."""

import math

import pytest
import torch

from kpo.kalman import kalman_filter, kalman_filter_group, kalman_gains, linear_filter

RATIOS = (1e-12, 1e-6, 1e-3, 0.3, 50.0, 1e6, 1e18)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
UNIT = {"process_variance": 0.01, "observation_variance": 1.0}


def rows(lengths, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator).to(dtype) for length in lengths]


def spread(row, num_tokens, places):
    """The row's values at the given places among `num_tokens`, garbage elsewhere, and the mask."""
    values = torch.full((num_tokens,), math.nan, dtype=row.dtype)
    mask = torch.zeros(num_tokens, dtype=torch.bool)
    values[places], mask[places] = row, True
    return values, mask


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_alone_batched_padded_and_with_holes(ratio, dtype):
    lengths = [1, 2, 31, 32, 33, 517, 1025, 1500]
    width = 2100
    generator = torch.Generator().manual_seed(1)
    values, masks, alone = [], [], []
    for row in rows(lengths, dtype=dtype):
        alone.append(
            kalman_filter(row[None], process_variance=ratio, observation_variance=1.0, initial_variance=2.0)[0]
        )
        length = len(row)
        right, left = torch.arange(length), torch.arange(width - length, width)
        holes = torch.randperm(width, generator=generator)[:length].sort().values
        for places in (right, left, holes):
            value, mask = spread(row, width, places)
            values.append(value)
            masks.append(mask)
    together = kalman_filter(
        torch.stack(values),
        torch.stack(masks),
        process_variance=ratio,
        observation_variance=1.0,
        initial_variance=2.0,
    )
    assert together.dtype == dtype
    for index, (filtered, mask) in enumerate(zip(together, torch.stack(masks), strict=True)):
        assert torch.equal(filtered[mask], alone[index // 3])
        assert torch.equal(filtered[~mask], torch.zeros_like(filtered[~mask]))


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("ratio", [1e-6, 1.0])
def test_the_bits_of_the_recursion_for_any_number_of_rows(ratio, holes):
    """Rows are taken several at a time: each number of rows left over must give what the plain loop gives."""
    gains = kalman_gains(50, ratio, 1.0)[0].tolist()
    values = torch.stack(rows([50] * 9, dtype=torch.float64))
    mask = torch.rand(9, 50, generator=torch.Generator().manual_seed(3)) < 0.6 if holes else torch.ones(9, 50) == 1
    expected = torch.zeros_like(values)
    for row in range(9):
        state = 0.25
        for gain, t in zip(gains, mask[row].nonzero()[:, 0].tolist(), strict=False):
            state = (1.0 - gain) * state + gain * values[row, t].item()
            expected[row, t] = state
    kwargs = {"process_variance": ratio, "observation_variance": 1.0, "initial_mean": 0.25}
    for number in range(1, 10):
        result = kalman_filter(values[-number:], mask[-number:], **kwargs)
        assert torch.equal(result, expected[-number:])


def test_the_same_bits_with_more_threads_and_whatever_mode_made_the_tables():
    values, kwargs = torch.stack(rows([3000] * 40)), {"process_variance": 0.0123, "observation_variance": 1.0}
    # Tables are cached: those of an inference-mode call must serve later calls, with gradients too.
    with torch.inference_mode():
        first = kalman_filter(values, **kwargs)
    leaf = values.clone().requires_grad_(True)
    second = kalman_filter(leaf, **kwargs)
    second.sum().backward()
    assert torch.equal(first, second) and bool(leaf.grad.all())
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert torch.equal(kalman_filter(values, **kwargs), first)
    finally:
        torch.set_num_threads(threads)


def test_padding_on_the_right_may_hold_anything():
    values = torch.stack(rows([600] * 4))
    mask = torch.arange(600) < torch.tensor([[600], [1], [0], [333]])
    padded = kalman_filter(values.masked_fill(~mask, math.inf), mask, **UNIT)
    for row in range(4):
        length = int(mask[row].sum())
        if length:
            assert torch.equal(padded[row, :length], kalman_filter(values[row : row + 1, :length], **UNIT)[0])
        assert not padded[row, length:].any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.bfloat16])
def test_masks_of_any_dtype(dtype):
    values = torch.stack(rows([50] * 3))
    mask = torch.rand(3, 50, generator=torch.Generator().manual_seed(2)) < 0.5
    assert torch.equal(kalman_filter(values, mask.to(dtype), **UNIT), kalman_filter(values, mask, **UNIT))
    ones = torch.ones(3, 50).to(dtype)
    assert torch.equal(kalman_filter(values, ones, **UNIT), kalman_filter(values, **UNIT))


def test_an_all_masked_row_gives_zeros():
    values = torch.full((3, 8), math.nan)
    values[1] = 1.0
    mask = torch.zeros(3, 8)
    assert not kalman_filter(values, mask, **UNIT).any()
    mask[1, 3:5] = 1
    result = kalman_filter(values, mask, **UNIT, initial_mean=0.5)
    assert not result[[0, 2]].any() and int((result[1] != 0).sum()) == 2


def test_views_and_transposes_are_read_as_they_are_and_left_alone():
    base = torch.stack(rows([40] * 6)).t()  # (40, 6), strides reversed
    mask = (torch.arange(6) < 4).expand(40, 6)
    before = base.clone()
    expected = kalman_filter(base.contiguous(), mask.contiguous(), **UNIT)
    assert torch.equal(kalman_filter(base, mask, **UNIT), expected)
    assert torch.equal(base, before)
    every_other = torch.stack(rows([80] * 3))[:, ::2]
    assert torch.equal(kalman_filter(every_other, **UNIT), kalman_filter(every_other.clone(), **UNIT))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once_at_the_end(dtype):
    values = torch.stack(rows([900] * 2, dtype=dtype))
    assert torch.equal(kalman_filter(values, **UNIT), kalman_filter(values.double(), **UNIT).to(dtype))


def bad_calls():
    """(what is called, the error, a word of its message that names the argument)."""
    values, mask = torch.zeros(2, 5), torch.ones(2, 5)
    nan, infinite = values.clone(), values.clone()
    nan[1, 2], infinite[0, 4] = math.nan, -math.inf
    meta = torch.zeros(2, 5, device="meta")

    def call(observations=values, mask=None, **changes):
        return lambda: kalman_filter(observations, mask, **{**UNIT, **changes})

    def gains(*arguments):
        return lambda: kalman_gains(*arguments)

    def linear(gain, mask=None):
        return lambda: linear_filter(values, gain, mask)

    flat = torch.zeros(6)
    return [
        (call([[0.0]]), TypeError, "observations"),
        (call(values.long()), TypeError, "observations"),
        (call(values.to(torch.complex64)), TypeError, "observations"),
        (call(torch.zeros(5)), ValueError, "observations"),
        (call(torch.zeros(2, 5, 1)), ValueError, "observations"),
        (call(torch.zeros(0, 5)), ValueError, "observations"),
        (call(torch.zeros(2, 0), torch.zeros(2, 0)), ValueError, "observations"),
        (call(nan), ValueError, "observations"),
        (call(infinite, mask), ValueError, "observations"),
        (call(nan, mask.bool()), ValueError, "row 1, token 2"),
        (call(mask=[[1]]), TypeError, "mask"),
        (call(mask=torch.ones(2, 4)), ValueError, "mask"),
        (call(mask=torch.ones(5)), ValueError, "mask"),
        (call(mask=torch.ones(0)), ValueError, "mask"),
        (call(mask=mask * 2), ValueError, "mask"),
        (call(mask=-mask.long()), ValueError, "mask"),
        (call(mask=mask * 0.5), ValueError, "mask"),
        (call(mask=mask * math.nan), ValueError, "mask"),
        (call(mask=mask.to(torch.complex64)), TypeError, "mask"),
        (call(mask=meta), ValueError, "mask"),
        (call(process_variance=-1e-6), ValueError, "process_variance"),
        (call(process_variance=math.nan), ValueError, "process_variance"),
        (call(process_variance="1e-6"), TypeError, "process_variance"),
        (call(process_variance=[0.01]), TypeError, "process_variance"),
        (call(observation_variance=True), TypeError, "observation_variance"),
        (call(observation_variance=-1.0), ValueError, "observation_variance"),
        (call(observation_variance=math.inf), ValueError, "observation_variance"),
        (call(process_variance=0.0, observation_variance=0.0), ValueError, "observation_variance"),
        (call(initial_variance=-1.0), ValueError, "initial_variance"),
        (call(initial_mean=math.inf), ValueError, "initial_mean"),
        (call(initial_mean=[0.0]), TypeError, "initial_mean"),
        (gains(0, 1.0, 1.0), ValueError, "num_steps"),
        (gains(2.5, 1.0, 1.0), TypeError, "num_steps"),
        (gains(3, -1.0, 1.0), ValueError, "process_variance"),
        (gains(3, 0.0, 0.0, 1.0), ValueError, "observation_variance"),
        (linear(1.5), ValueError, "gains"),
        (linear(-0.1), ValueError, "gains"),
        (linear("fast"), TypeError, "gains"),
        (linear(torch.zeros(4)), ValueError, "gains"),
        (linear(torch.zeros(2, 5)), ValueError, "gains"),
        (linear(torch.zeros(5, dtype=torch.int64)), TypeError, "gains"),
        (linear(torch.full((5,), math.nan)), ValueError, "gains"),
        (linear(torch.zeros(5, requires_grad=True)), ValueError, "gains"),
        (linear(torch.zeros(5, device="meta")), ValueError, "gains"),
        (lambda: kalman_filter_group(nan, **UNIT), ValueError, "rewards_PG"),
        (lambda: kalman_filter_group(flat, **UNIT), ValueError, "rewards_PG"),
        (lambda: kalman_filter_group(values, torch.ones(2, 4), **UNIT), ValueError, "mask"),
        (lambda: kalman_filter_group(values, process_variance=0.0, observation_variance=0.0), ValueError, "variance"),
    ]


@pytest.mark.parametrize("number", range(len(bad_calls())))
def test_bad_input_is_refused_by_name(number):
    call, error, words = bad_calls()[number]
    with pytest.raises(error, match=words):
        call()
