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
WEAKEST: Cell = ("kpo-q", "kpo-weakest")
BASELINE: Cell = ("kpo-stress-2", "grpo")
PANELS = (
    ("reward_half", "reward, second half of training"),
    ("reward_area", "reward over all of training"),
    ("accuracy.normal", "accuracy after training, normal"),
)
PAPER_STATED = 1e-6


def variance_ratio(results: Results, cell: Cell) -> float:
    """Q/V of a run of KPO: what the configuration gives, else that of the experiment's time constant."""
    experiment, label = cell
    given = results.experiment(experiment)["methods"][label] or {}
    return float(given.get("process_variance", results.time_constant(experiment) ** -2))


def multiple(ratio: float, stated: float) -> float:
    """How many times as large; configurations write a multiple of the stated ratio with three figures."""
    return float(f"{ratio / stated:.1g}")


def power(ratio: float) -> str:
    """`1e-6`."""
    return f"{ratio:.0e}".replace("e-0", "e-")


def draw(results: Results) -> style.PaperFigure:
    """One panel a measure; along x Q/V, with the paper's at the top."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    along = sorted((variance_ratio(results, cell), cell) for cell in (STATED, WEAKEST))
    used = [cell for _, cell in along] + [BASELINE]
    tables = {measure: measures.shared(measure, used) for measure, _ in PANELS}
    looks = style.looks(("kpo-clipped", "grpo"))
    paper = "; ".join(f"{power(ratio)} {says}" for ratio, says in KPO_SMOOTHING.items())
    caption = (
        "KPO with its clip: left Q/V as stated (the paper's 1e-6, fitted to the shorter responses here), right "
        f"{multiple(along[-1][0], along[0][0]):,.0f} times as large, which filters less; V = 1. Upper numbers: the "
        "paper's Q/V with the same multiple. The paper's Figure 4 (second-hand): training reward falls and is less "
        f"stable as Q/V grows ({paper}); its grid and values were not found, so that no point of it can be drawn. Blue "
        "line: mean of GRPO, no filter, clip 0.2. Large marks: mean over "
        f"{which_seeds(tables['reward_half'].values())}; thin lines: each seed. {claims.notes_for(NAME)}"
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
            panel.axhline(sum(baseline.values()) / len(baseline), color=looks["grpo"].colour, linewidth=1.2)
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
        panel.annotate(
            power(PAPER_STATED * multiple(ratio, ratios[0])), (ratio, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=style.CAPTION_SIZE,
            color="#555555",
        )  # fmt: skip


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
