"""Each method at a quarter, once and four times its stated clip, under the stress of the ladder's second rung."""

import sys

from paper_figures import style
from paper_figures.cells import slopes, which_seeds
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures
from paper_figures.results import Results

NAME = "clip_sweep"
STATED, SWEEP = "kpo-stress-2", "kpo-clips"
METHODS = ("grpo", "gspo", "gmpo", "kpo-clipped", "kpo-ema")
UNIT: Cell = (STATED, "kpo-unit")
FACTORS = (("narrow", 0.25), ("", 1.0), ("wide", 4.0))
PANELS = (("reward_late", "late training reward"), ("accuracy.normal", "held-out accuracy, normal level"))


def cells(method: str) -> list[Cell]:
    """The method's variants from the narrowest clip to the widest."""
    stem = method.removesuffix("-clipped")
    return [(SWEEP, f"{stem}-{suffix}") if suffix else (STATED, method) for suffix, _ in FACTORS]


def chosen(measures: Measures, method: str) -> int | None:
    """Which variant the claims take: the highest late reward on the seeds that all have; None if one is missing."""
    found = measures.shared("reward_late", cells(method))
    if len(found) < len(FACTORS):
        return None
    means = [sum(found[cell].values()) / len(found[cell]) for cell in cells(method)]
    return means.index(max(means))


def draw(results: Results) -> style.PaperFigure:
    """Left the reward that chooses the clip, right the accuracy that is compared."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    everything = [cell for method in METHODS for cell in cells(method)] + [UNIT]
    tables = {measure: measures.shared(measure, everything) for measure, _ in PANELS}
    looks = style.looks((*METHODS, "kpo-unit"))
    caption = (
        "Clips stated for this scale times 1/4, 1 and 4: each method gets the same number of tries. Ringed: the clip "
        "with the highest late reward, at which the claims compare the methods. KPO-unit has no ratio, hence nothing "
        "to clip: one dotted line. Large marks: means over the seeds that all have "
        f"({which_seeds(tables['reward_late'].values())}); thin lines: each seed. The papers state one clip a method "
        f"and not how it was chosen. {claims.notes_for(NAME)}"
    )
    title = f"Every method at three clips under off-policy stress ({results.scale} scale)"
    figure = style.new_figure(2.7, title, caption, looks, measures.missing)
    axes = figure.subplots(1, 2)
    for panel, (measure, name) in zip(axes, PANELS, strict=True):
        for index, method in enumerate(METHODS):
            shift = 0.05 * (index - (len(METHODS) - 1) / 2)
            found = [tables[measure].get(cell, {}) for cell in cells(method)]
            slopes(panel, [place + shift for place in range(len(FACTORS))], found, looks[method])
            best = chosen(measures, method)
            if best is not None and found[best]:
                mean = sum(found[best].values()) / len(found[best])
                panel.plot(
                    best + shift, mean, marker="o", markersize=9, markerfacecolor="none",
                    markeredgecolor=looks[method].colour, markeredgewidth=0.9, linestyle="none", zorder=4,
                )  # fmt: skip
        unit = tables[measure].get(UNIT, {})
        if unit:
            panel.axhline(sum(unit.values()) / len(unit), color=looks["kpo-unit"].colour, linestyle=":", linewidth=1.2)
        panel.set_xticks(range(len(FACTORS)), [f"{factor:g} x stated" for _, factor in FACTORS])
        panel.set_title(name, loc="left")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
