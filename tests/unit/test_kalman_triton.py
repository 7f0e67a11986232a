"""kpo.kalman_triton on the CPU, by Triton's interpreter, against the CPU filter.

The interpreter must be chosen before Triton is imported, so one child process computes all cases.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kpo
from kpo.kalman import kalman_filter, kalman_gains

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
)

RATIOS = (1e-12, 1e-6, 1e-2, 1.0, 1e6, 1e18)
# The interpreter takes a millisecond per five tokens, so blocks have 64 tokens here instead of 1,024 but for one case.
# Shorter than a block, one token more, and several blocks.
BLOCK = 64
WIDTHS = (1, 5, 65, 400)
TOLERANCE = {torch.float32: 2.5e-7, torch.float64: 1e-11, torch.bfloat16: 2**-7, torch.float16: 2**-10}
INITIAL_MEAN, INITIAL_VARIANCE = 0.2, 0.1

CHILD = """
import sys, torch
from kpo import kalman_triton
cases = torch.load(sys.argv[1])
results = {}
for name, (values, mask, gains, initial_mean, block) in cases.items():
    kalman_triton.BLOCK = block
    results[name] = kalman_triton.filter_rows_triton(values, mask, gains, initial_mean)
torch.save(results, sys.argv[2])
"""


def example(dtype, num_tokens):
    generator = torch.Generator().manual_seed(num_tokens)
    values = torch.randn(4, num_tokens, generator=generator).to(dtype)
    mask = torch.rand(4, num_tokens, generator=generator) < 0.7
    mask[1] = torch.arange(num_tokens) < (num_tokens + 1) // 2
    mask[2] = False
    values[~mask] = torch.nan
    return values, mask


def cases():
    made = {}
    for ratio in RATIOS:
        for width in WIDTHS:
            for dtype in TOLERANCE:
                # Every ratio and length at float32, the longest at three ratios, every dtype at one of them.
                if dtype != torch.float32 and (ratio, width) != (1e-2, 65):
                    continue
                if width == WIDTHS[-1] and ratio not in (RATIOS[0], 1e-2, RATIOS[-1]):
                    continue
                values, mask = example(dtype, width)
                gains, _ = kalman_gains(width, ratio, 1.0, INITIAL_VARIANCE)
                made[ratio, width, dtype, True] = (values, mask.view(torch.uint8), gains, INITIAL_MEAN, BLOCK)
                made[ratio, width, dtype, False] = (values.nan_to_num(0.5), None, gains, INITIAL_MEAN, BLOCK)
    return made


def kalman_triton_block():
    """The block length that `kpo.kalman_triton` ships with, read without importing Triton here."""
    source = (Path(kpo.__file__).parent / "kalman_triton.py").read_text()
    return int(re.search(r"^BLOCK = (\d+)$", source, re.MULTILINE).group(1))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    values, mask = example(torch.float32, 700)
    gains, _ = kalman_gains(700, 1e-2, 1.0)
    finite = values.nan_to_num(0.0)
    wrong = finite.clone()
    wrong[3, 650] = torch.inf
    made = cases()
    made["batch"] = (finite, mask.view(torch.uint8), gains, 0.0, BLOCK)
    made["alone"] = (finite[1:2], mask[1:2].view(torch.uint8), gains, 0.0, BLOCK)
    # Row 1 is padded on the right from token 350 on.
    made["cut"] = (finite[1:2, :350], None, gains, 0.0, BLOCK)
    made["strided"] = (finite.t().contiguous().t(), mask.view(torch.uint8), gains, 0.0, BLOCK)
    made["shipped block"] = (finite, mask.view(torch.uint8), gains, 0.0, kalman_triton_block())
    made["wrong"] = (wrong, None, gains, 0.0, BLOCK)
    torch.save(made, folder / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder / "cases.pt"), str(folder / "results.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_equals_the_cpu_filter(interpreted, case):
    ratio, _, dtype, _ = case
    values, mask = cases()[case][:2]
    expected = kalman_filter(
        values,
        None if mask is None else mask.bool(),
        process_variance=ratio,
        observation_variance=1.0,
        initial_mean=INITIAL_MEAN,
        initial_variance=INITIAL_VARIANCE,
    )
    result, finite = interpreted[case]
    assert finite and result.dtype == dtype
    torch.testing.assert_close(result, expected, rtol=TOLERANCE[dtype], atol=1e-37)
    if mask is not None:
        assert not result[mask == 0].any()


def test_the_same_bits_alone_batched_and_padded_on_the_right(interpreted):
    batch, alone, cut = (interpreted[name][0] for name in ("batch", "alone", "cut"))
    assert torch.equal(batch[1:2], alone)
    assert torch.equal(alone[:, :350], cut)
    assert torch.equal(interpreted["strided"][0], batch)


def test_the_shipped_block_length(interpreted):
    torch.testing.assert_close(interpreted["shipped block"][0], interpreted["batch"][0], rtol=2e-7, atol=1e-37)


def test_observations_that_are_not_finite_are_reported(interpreted):
    assert interpreted["batch"][1] and not interpreted["wrong"][1]
