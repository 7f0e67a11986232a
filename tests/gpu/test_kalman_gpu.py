"""The filter on a CUDA device: chosen by itself, equal to the CPU's, and within three times torch.cumsum."""

import math

import pytest
import torch

from kpo import kalman
from kpo.kalman import kalman_filter, kalman_filter_group, linear_filter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOLERANCE = {torch.float32: 2.5e-7, torch.float64: 1e-11, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def example(dtype=torch.float32, num_rows=5, num_tokens=3000):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(num_rows, num_tokens, generator=generator).to(dtype)
    mask = torch.rand(num_rows, num_tokens, generator=generator) < 0.8
    mask[0] = torch.arange(num_tokens) < 1111
    mask[1] = torch.arange(num_tokens) >= 1111
    mask[2] = False
    return values, mask


@pytest.fixture(params=["triton", "cpu"])
def path(request, monkeypatch):
    """Both ways to filter a tensor on a device: the kernel there, and the CPU's if Triton is missing."""
    if request.param == "triton" and not kalman.HAS_TRITON:
        pytest.skip("Triton is not installed")
    monkeypatch.setattr(kalman, "HAS_TRITON", request.param == "triton")


@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-2, 1.0, 1e6, 1e18])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.usefixtures("path")
def test_equals_the_cpu(ratio, dtype):
    values, mask = example(dtype)
    values[~mask] = math.nan
    kwargs = {"process_variance": ratio, "observation_variance": 1.0, "initial_variance": 0.1, "initial_mean": 0.2}
    result = kalman_filter(values.cuda(), mask.cuda(), **kwargs)
    assert result.is_cuda and result.dtype == dtype
    expected = kalman_filter(values, mask, **kwargs)
    torch.testing.assert_close(result.cpu(), expected, rtol=TOLERANCE[dtype], atol=1e-37)
    clean = values.nan_to_num(0.5)
    torch.testing.assert_close(
        kalman_filter(clean.cuda(), **kwargs).cpu(), kalman_filter(clean, **kwargs), rtol=TOLERANCE[dtype], atol=1e-37
    )


@pytest.mark.usefixtures("path")
def test_group_and_linear():
    values, mask = example(torch.float64)
    unit = {"process_variance": 1e-2, "observation_variance": 1.0}
    for gains in (0.1, torch.rand(3000, generator=torch.Generator().manual_seed(1))):
        on_device = gains.cuda() if isinstance(gains, torch.Tensor) else gains
        result = linear_filter(values.cuda(), on_device, mask.cuda())
        torch.testing.assert_close(result.cpu(), linear_filter(values, gains, mask), rtol=1e-10, atol=1e-15)
    states = kalman_filter_group(values[:, :12].cuda(), mask[:, :12].cuda(), **unit)
    for result, expected in zip(states, kalman_filter_group(values[:, :12], mask[:, :12], **unit), strict=True):
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.usefixtures("path")
def test_the_same_bits_alone_batched_and_padded_on_the_right():
    values, _ = example()
    unit = {"process_variance": 1e-4, "observation_variance": 1.0}
    batch = kalman_filter(values.cuda(), **unit)
    assert torch.equal(kalman_filter(values[3:4].cuda(), **unit), batch[3:4])
    assert torch.equal(kalman_filter(values[3:4, :500].cuda(), **unit), batch[3:4, :500])


@pytest.mark.usefixtures("path")
def test_refusals_and_gradient():
    values, mask = example(torch.float64, 2, 60)
    unit = {"process_variance": 1e-2, "observation_variance": 1.0}
    wrong = values.clone()
    wrong[1, 7] = math.nan
    with pytest.raises(ValueError, match="row 1, token 7"):
        kalman_filter(wrong.cuda(), **unit)
    with pytest.raises(ValueError, match="mask"):
        kalman_filter(values.cuda(), mask, **unit)
    leaf = values.cuda().requires_grad_(True)
    kalman_filter(leaf, mask.cuda(), **unit).square().sum().backward()
    other = values.clone().requires_grad_(True)
    kalman_filter(other, mask, **unit).square().sum().backward()
    torch.testing.assert_close(leaf.grad.cpu(), other.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.skipif(not kalman.HAS_TRITON, reason="Triton is not installed")
def test_within_three_times_cumsum():
    values = torch.randn(512, 8192, device="cuda")

    def milliseconds(call):
        for _ in range(5):
            call()
        times = []
        for _ in range(30):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        return sorted(times)[len(times) // 2]

    ours = milliseconds(lambda: kalman_filter(values, process_variance=1e-6, observation_variance=1.0))
    floor = milliseconds(lambda: values.cumsum(dim=1))
    assert ours <= 3 * floor, f"{ours:.3f} ms, cumsum {floor:.3f} ms"
