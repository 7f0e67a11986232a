"""The plot of `benchmarks.filter`: time over tokens and sequences, and the error that each filter makes."""

import math
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.filter import CLOSED_FORM, CUMSUM, ERROR_RATIOS, LOOP, OURS
from paper_figures import style

LOOKS = {
    OURS: style.Look("#0072B2", "-", "o"),
    CUMSUM: style.Look("#777777", "--", "s"),
    CLOSED_FORM: style.Look("#D55E00", "-.", "D"),
    LOOP: style.Look("#009E73", ":", "^"),
}
# A result that is not finite is marked on this line.
NOT_FINITE = 30.0


def draw_times(axes: Axes, cases: list[dict], by: str, label: str) -> None:
    for name, look in LOOKS.items():
        rows = [(case[by], case["filters"][name]["median_seconds"]) for case in cases if name in case["filters"]]
        if rows:
            places, seconds = zip(*rows, strict=True)
            axes.plot(
                places, [second * 1e3 for second in seconds], color=look.colour, linestyle=look.line, marker=look.marker
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("milliseconds")


def draw_errors(axes: Axes, errors: list[dict]) -> None:
    shades = {ratio: 0.35 + 0.65 * index / (len(ERROR_RATIOS) - 1) for index, ratio in enumerate(ERROR_RATIOS)}
    for ratio in ERROR_RATIOS:
        for name in (OURS, CLOSED_FORM):
            look = LOOKS[name]
            rows = [row for row in errors if row["ratio"] == ratio and row["filter"] == name]
            values = [NOT_FINITE if row["relative_error"] is None else row["relative_error"] for row in rows]
            tokens = [row["tokens"] for row in rows]
            axes.plot(tokens, values, color=look.colour, linestyle=look.line, marker=look.marker, alpha=shades[ratio])
            if name == CLOSED_FORM:
                axes.annotate(
                    f"$10^{{{math.log10(ratio):.0f}}}$",
                    (tokens[0], values[0]),
                    xytext=(-5, 0),
                    textcoords="offset points",
                    ha="right",
                    va="bottom" if values[0] == NOT_FINITE else "center",  # next to the line, not on it
                    fontsize=style.CAPTION_SIZE - 1,
                    color=look.colour,
                )
    axes.axhline(NOT_FINITE, color="#a00000", linewidth=0.6)
    axes.text(0.99, NOT_FINITE * 2.5, "not finite", color="#a00000", fontsize=style.CAPTION_SIZE, ha="right",
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.axhline(1e-6, color="#777777", linewidth=0.6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(top=NOT_FINITE * 20)
    counts = [row["tokens"] for row in errors]
    axes.set_xlim(min(counts) / 9, max(counts) * 1.6)
    axes.set_xlabel("tokens")
    axes.set_ylabel("largest error / largest value")


@style.applied()
def draw(report: dict, folder: Path) -> list[Path]:
    """Write filter.pdf and filter.png into the folder and return their paths."""
    machine = report["hardware"]
    figure = style.new_figure(
        2.6,
        "The Kalman filter: time and exactness",
        f"Float32, Q/V = 1e-6, {machine['device']}, {machine['threads']} thread(s), torch {machine['torch']}; medians. "
        "Left: 8 sequences. Middle: one length. Right: error against the float64 recursion for the Q/V written at "
        "the published closed form's lines; the grey line is 1e-6.",
        LOOKS,
    )
    by_tokens, by_sequences, errors = figure.subplots(1, 3)
    draw_times(by_tokens, [case for case in report["cases"] if case["kind"] == "tokens"], "tokens", "tokens")
    draw_times(by_sequences, [c for c in report["cases"] if c["kind"] == "sequences"], "sequences", "sequences")
    draw_errors(errors, report["errors"])
    return style.save(figure, folder, "filter")
