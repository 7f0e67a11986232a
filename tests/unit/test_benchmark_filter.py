"""benchmarks.filter runs, and its re-derivation of the published closed form is what it claims to be."""

import json

import numpy as np
import pytest
import torch

from benchmarks import filter as benchmark
from benchmarks.filters import float64_reference, published_closed_form, sequential_loop


def test_quick_run_writes_report_and_plots(tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        benchmark.main(["--quick", "--repeats", "1", "--output", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    assert {path.name for path in tmp_path.iterdir()} == {"filter.json", "filter.pdf", "filter.png"}
    report = json.loads((tmp_path / "filter.json").read_text())
    ours = [row["relative_error"] for row in report["errors"] if row["filter"] == benchmark.OURS]
    assert len(ours) == len(benchmark.ERROR_RATIOS) * len(benchmark.QUICK_TOKENS) and max(ours) < 2e-7
    assert {case["kind"] for case in report["cases"]} == {"headline", "tokens", "sequences"}
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize(("ratio", "num_tokens", "error"), [(1e-3, 1024, 1e-4), (1e-4, 4096, 1e-3), (1e-2, 256, 1e-5)])
def test_published_form_is_close_where_float32_allows(ratio, num_tokens, error):
    values = torch.randn(3, num_tokens, generator=torch.Generator().manual_seed(0))
    reference = float64_reference(values, ratio)
    assert benchmark.relative_error(published_closed_form(ratio)(values, None), reference) < error
    np.testing.assert_allclose(sequential_loop(ratio)(values, None).numpy(), reference, atol=1e-5)


@pytest.mark.parametrize(("ratio", "num_tokens"), [(1e-8, 256), (1e-3, 4096), (1e-2, 1024)])
def test_published_form_fails_where_the_release_does(ratio, num_tokens):
    values = torch.randn(2, num_tokens, generator=torch.Generator().manual_seed(0))
    assert not torch.isfinite(published_closed_form(ratio)(values, None)).all()


def test_masks_mean_the_same_in_all_filters():
    values = torch.randn(4, 200, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(200) < torch.tensor([[200], [1], [77], [150]])
    expected = sequential_loop(1e-3)(values, mask)
    for name, run in benchmark.filters(1e-3).items():
        if name != benchmark.CUMSUM:
            torch.testing.assert_close(run(values, mask), expected, rtol=1e-3, atol=1e-5)
