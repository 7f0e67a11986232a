"""Training reward of every run along the ladder of off-policy stress, one panel a method and rung."""

import sys

import numpy as np
from matplotlib.ticker import MaxNLocator

from paper_figures import style
from paper_figures.aggregate import per_rollout_batch
from paper_figures.command import script
from paper_figures.measured import Claims
from paper_figures.results import Results
from paper_figures.stress_ladder import METHODS, rung_label, rungs
from reproduction.publish.published import DRAWN_SEEDS

NAME = "stress_curves"
FILE = "metrics.jsonl"
REFERENCE = "grpo"


def curves(results: Results, experiment: str, method: str) -> dict[int, np.ndarray]:
    """Reward of each rollout batch by seed; NaN if a stopped run has none."""
    return {seed: per_rollout_batch(rows, "reward") for seed, rows in results.metrics(experiment, method).items()}


def draw(results: Results) -> style.PaperFigure:
    """Rows are rungs, columns methods; each panel shows every seed, and GRPO's mean for comparison."""
    results.require(NAME)
    claims = Claims(results)
    names = rungs(results)
    methods = [method for method in METHODS if any(method in results.methods(name) for name in names)]
    missing = [
        note
        for name in names
        for note in results.missing_notes(name, [m for m in methods if m in results.methods(name)], FILE)
    ]
    looks = style.looks(METHODS)
    caption = (
        "Mean reward of the problems sampled for training, before the updates on them. Rows: rungs of growing stress, "
        f"the first being the scale's own comparison. Thin: each method's first {DRAWN_SEEDS} seeds; thick: their "
        "mean, up to where the first run stopped; cross: a run that was stopped because its numbers were no longer "
        f"finite; dotted grey: GRPO's mean on the same rung. {claims.notes_for(NAME)}"
    )
    title = f"Training reward under growing off-policy stress ({results.scale} scale)"
    figure = style.new_figure(1.15 * len(names) + 0.35, title, caption, missing=missing)
    axes = figure.subplots(len(names), len(methods), sharey=True, sharex="row", squeeze=False)
    for row, name in enumerate(names):
        reference = curves(results, name, REFERENCE) if REFERENCE in results.methods(name) else {}
        for panel, method in zip(axes[row], methods, strict=True):
            by_seed = curves(results, name, method) if method in results.methods(name) else {}
            _draw_panel(panel, by_seed, reference if by_seed and method != REFERENCE else {}, looks[method])
            if row == 0:
                panel.set_title(style.label(method), fontsize=style.FONT_SIZE)
            panel.set_ylim(0, 1.02)
            panel.set_yticks([0, 0.5, 1])
        axes[row, 0].set_ylabel(rung_label(results, name), fontsize=style.CAPTION_SIZE)
        axes[row, 0].xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes[-1, len(methods) // 2].set_xlabel("rollout batch")
    return figure


def _draw_panel(panel, by_seed: dict[int, np.ndarray], reference: dict[int, np.ndarray], look: style.Look) -> None:
    if reference:
        mean = np.mean(list(reference.values()), axis=0)
        panel.plot(np.arange(1, len(mean) + 1), mean, color="#777777", linestyle=(0, (1, 1.2)), linewidth=0.9, zorder=1)
    for values in by_seed.values():
        batches = np.arange(1, len(values) + 1)
        panel.plot(batches, values, color=look.colour, linewidth=0.5, alpha=0.65, zorder=2)
        defined = np.isfinite(values)
        if not defined.all() and defined.any():
            last = int(np.flatnonzero(defined)[-1])
            panel.plot(batches[last], values[last], marker="x", color=look.colour, markersize=4.5, zorder=4)
    if by_seed:
        mean = np.mean(list(by_seed.values()), axis=0)
        panel.plot(np.arange(1, len(mean) + 1), mean, color=look.colour, linewidth=1.6, zorder=3)
    else:
        panel.text(0.5, 0.5, "not run", transform=panel.transAxes, ha="center", fontsize=style.CAPTION_SIZE)


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
