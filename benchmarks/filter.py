"""Time, memory and error of the Kalman filter: ``python -m benchmarks.filter``.

Prints tables and writes filter.json, filter.png and filter.pdf to a folder. Repetitions of all filters are interleaved
in an order drawn for each round, so that other load hits all alike; medians and minima are kept. The allocator keeps
freed memory, as in kpo's own jobs: page faults would hit one filter or another by chance.
"""

import argparse
import ctypes
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.filters import cumulative_sum, float64_reference, ours, published_closed_form, sequential_loop
from reproduction.jobs.allocator import keep_freed_memory
from reproduction.jobs.files import write_json

HEADLINE = (64, 4096)
GPU_HEADLINE = (512, 8192)
PAPER_RATIO = 1e-6
ERROR_RATIOS = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2)
TOKENS = (256, 1024, 4096, 16_384, 65_536, 131_072)
QUICK_TOKENS = (256, 1024)
SEQUENCES = (1, 8, 64, 256)
# The loop costs about 10 microseconds per token however few sequences there are; one run shows it.
LOOP = "sequential loop"
CLOSED_FORM = "published closed form"
CUMSUM = "torch.cumsum"
OURS = "kpo.kalman"


def filters(ratio: float) -> dict[str, Callable]:
    return {
        CUMSUM: cumulative_sum,
        OURS: ours(ratio),
        CLOSED_FORM: published_closed_form(ratio),
        LOOP: sequential_loop(ratio),
    }


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def extra_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Largest memory taken during one call beyond what was held before it; None if the system does not report it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        # Freed memory goes back to Linux, then the highest mark of the resident set is set to its present size.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def measure_case(
    num_sequences: int, num_tokens: int, masked: bool, repeats: int, loop: bool, device: torch.device
) -> dict[str, dict[str, float | int | None]]:
    """{filter: {median_seconds, minimum_seconds, extra_bytes}} at Q / V = 1e-6 and float32."""
    generator = torch.Generator().manual_seed(0)
    observations = (0.1 * torch.randn(num_sequences, num_tokens, generator=generator)).to(device)
    mask = None
    if masked:
        lengths = torch.randint(num_tokens // 4, num_tokens + 1, (num_sequences, 1), generator=generator)
        mask = (torch.arange(num_tokens) < lengths).to(device)
    calls = {name: lambda run=run: run(observations, mask) for name, run in filters(PAPER_RATIO).items()}
    slow = calls.pop(LOOP)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    order, shuffler = list(calls), random.Random(0)
    for _ in range(repeats):
        shuffler.shuffle(order)
        for name in order:
            seconds[name].append(seconds_of(calls[name], device))
    if loop:
        calls[LOOP], seconds[LOOP] = slow, [seconds_of(slow, device)]
    return {
        name: {
            "median_seconds": statistics.median(seconds[name]),
            "minimum_seconds": min(seconds[name]),
            "extra_bytes": extra_bytes(calls[name], device),
        }
        for name in calls
    }


def relative_error(result: torch.Tensor, reference: np.ndarray) -> float | None:
    """Largest error over the largest value; None if the result is not finite everywhere."""
    difference = np.abs(result.double().cpu().numpy() - reference).max()
    return float(difference / np.abs(reference).max()) if np.isfinite(difference) else None


def measure_errors(tokens: tuple[int, ...], device: torch.device) -> list[dict]:
    """Error of every filter in float32 against the float64 recursion, over Q / V and T."""
    observations = 0.1 * torch.randn(4, max(tokens), generator=torch.Generator().manual_seed(1))
    rows = []
    for ratio in ERROR_RATIOS:
        reference = float64_reference(observations, ratio)
        for num_tokens in tokens:
            part = observations[:, :num_tokens].to(device)
            for name, run in ((OURS, ours(ratio)), (CLOSED_FORM, published_closed_form(ratio))):
                error = relative_error(run(part, None), reference[:, :num_tokens])
                rows.append({"ratio": ratio, "tokens": num_tokens, "filter": name, "relative_error": error})
    return rows


def measure(device: torch.device, repeats: int, quick: bool) -> dict:
    tokens = QUICK_TOKENS if quick else TOKENS
    headline = (4, 512) if quick else GPU_HEADLINE if device.type == "cuda" else HEADLINE
    cases = []

    def add(kind: str, num_sequences: int, num_tokens: int, masked: bool, loop: bool) -> None:
        # Long cases vary less and cost more.
        rounds = max(3, min(repeats, repeats * 2**20 // (num_sequences * num_tokens)))
        results = measure_case(num_sequences, num_tokens, masked, rounds, loop, device)
        cases.append(
            {"kind": kind, "sequences": num_sequences, "tokens": num_tokens, "masked": masked, "filters": results}
        )

    add("headline", *headline, False, True)
    add("headline", *headline, True, True)
    for num_tokens in tokens:
        add("tokens", 8, num_tokens, False, True)
    for num_sequences in SEQUENCES[:2] if quick else SEQUENCES:
        add("sequences", num_sequences, 256 if quick else 4096, False, False)
    return {"hardware": hardware(device), "cases": cases, "errors": measure_errors(tokens, device)}


def hardware(device: torch.device) -> dict[str, str | int]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = platform.processor() or platform.machine()
        if os.path.exists("/proc/cpuinfo"):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def tables(report: dict) -> str:
    """The report as text."""
    machine = report["hardware"]
    lines = [
        f"{machine['device']}, {machine['threads']} thread(s), torch {machine['torch']}, float32, Q / V = 1e-6",
        "",
    ]
    heads = ("filter", "median ms", "min ms", "x cumsum", "x closed form", "extra MiB")
    for case in report["cases"]:
        padded = ", padded on the right" if case["masked"] else ""
        lines.append(f"{case['sequences']} x {case['tokens']}{padded}")
        lines.append("  {:<24}{:>12}{:>12}{:>12}{:>16}{:>12}".format(*heads))
        cumsum = case["filters"][CUMSUM]["median_seconds"]
        closed = case["filters"][CLOSED_FORM]["median_seconds"]
        for name, row in case["filters"].items():
            median = row["median_seconds"]
            memory = "-" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 2**20:.1f}"
            lines.append(
                f"  {name:<24}{median * 1e3:>12.3f}{row['minimum_seconds'] * 1e3:>12.3f}"
                f"{median / cumsum:>12.2f}{median / closed:>16.2f}{memory:>12}"
            )
        lines.append("")
    lines.append("largest error over largest value, against the float64 recursion")
    tokens = sorted({row["tokens"] for row in report["errors"]})
    lines.append(f"  {'Q / V':<10}{'filter':<24}" + "".join(f"{'T = ' + str(count):>14}" for count in tokens))
    for ratio in ERROR_RATIOS:
        for name in (OURS, CLOSED_FORM):
            errors = [r["relative_error"] for r in report["errors"] if (r["ratio"], r["filter"]) == (ratio, name)]
            cells = "".join(f"{'not finite' if error is None else format(error, '.1e'):>14}" for error in errors)
            lines.append(f"  {ratio:<10.0e}{name:<24}{cells}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time, memory and error of the Kalman filter.")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder to write to")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--repeats", type=int, default=100, help="repetitions of the small cases")
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that it runs")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    if options.threads < 1 or options.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    report = measure(device, options.repeats, options.quick)
    print(tables(report))
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "filter.json", report)
    from benchmarks.filter_figure import draw  # here, so that measuring needs no matplotlib until it is done

    for path in draw(report, options.output):
        print(path)


if __name__ == "__main__":
    main()
