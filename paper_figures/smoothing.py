"""Our answer to KPO's Figure 4: training reward against the filter's Q/V, under off-policy stress."""

import sys

from matplotlib.axes import Axes

from paper_figures import style
from paper_figures.cells import slopes, which_seeds
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures
from paper_figures.results import Results
from reproduction.claims.paper_tables import KPO_SMOOTHING

NAME = "smoothing"
STATED: Cell = ("kpo-stress-2", "kpo-clipped")
WEAKER: tuple[Cell, ...] = (("kpo-q", "kpo-weaker"), ("kpo-q", "kpo-weakest"))
BASELINE: Cell = ("kpo-stress-2", "grpo")
PANELS = (
    ("reward_late", "late training reward"),
    ("reward_area", "mean reward over training"),
    ("accuracy.normal", "held-out accuracy, normal level"),
)
PAPER_STATED = 1e-6


def variance_ratio(results: Results, cell: Cell) -> float:
    """Q/V of a run of KPO: what the configuration gives, else that of the experiment's time constant."""
    experiment, label = cell
    given = results.experiment(experiment)["methods"][label] or {}
    return float(given.get("process_variance", results.time_constant(experiment) ** -2))


def power(ratio: float) -> str:
    """`1e-6`."""
    return f"{ratio:.0e}".replace("e-0", "e-")


def draw(results: Results) -> style.PaperFigure:
    """One panel a measure; along x Q/V, with the paper's at the top."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    along = sorted((variance_ratio(results, cell), cell) for cell in (STATED, *WEAKER) if measures.has(cell))
    used = [cell for _, cell in along] + [BASELINE]
    tables = {measure: measures.shared(measure, used) for measure, _ in PANELS}
    looks = style.looks(("kpo-clipped", "grpo"))
    paper = "; ".join(f"{power(ratio)} {says}" for ratio, says in KPO_SMOOTHING.items())
    caption = (
        "KPO with its clip, filtered ever less from left to right: Q/V as stated (the paper's 1e-6, fitted to the "
        "shorter responses here) and multiplied; V = 1. Upper numbers: the paper's Q/V with the same multiple. The "
        f"paper's Figure 4 (second-hand): training reward falls and is less stable as Q/V grows ({paper}); its grid "
        "and values were not found, so that no point of it can be drawn. Dotted line: GRPO, no filter, clip 0.2. Large "
        f"marks: mean over {which_seeds(tables['reward_late'].values())}; thin lines: each seed. "
        f"{claims.notes_for(NAME)}"
    )
    title = f"Weaker smoothing, as in KPO's Figure 4 ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, looks, measures.missing)
    axes = figure.subplots(1, len(PANELS))
    for panel, (measure, name) in zip(axes, PANELS, strict=True):
        slopes(
            panel,
            [ratio for ratio, _ in along],
            [tables[measure].get(cell, {}) for _, cell in along],
            looks["kpo-clipped"],
        )
        baseline = tables[measure].get(BASELINE, {})
        if baseline:
            panel.axhline(
                sum(baseline.values()) / len(baseline), color=looks["grpo"].colour, linestyle=":", linewidth=1.2
            )
        _ratio_axis(panel, [ratio for ratio, _ in along])
        panel.set_title(name, loc="left", pad=18)
    return figure


def _ratio_axis(panel: Axes, ratios: list[float]) -> None:
    panel.set_xscale("log")
    panel.set_xlim(ratios[0] / 4, ratios[-1] * 4)
    panel.set_xticks(ratios, [f"{ratio:.2g}" for ratio in ratios])
    panel.minorticks_off()
    panel.set_xlabel("Q/V here")
    for ratio in ratios:
        # Sweeps multiply the stated ratio; three figures are as exact as the configuration writes them.
        multiple = float(f"{ratio / ratios[0]:.1g}")
        panel.annotate(
            power(PAPER_STATED * multiple), (ratio, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=style.CAPTION_SIZE,
            color="#555555",
        )  # fmt: skip


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
