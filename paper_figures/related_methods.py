"""The related methods: difference from GRPO with intervals that hold together, and accuracy against budget."""

import sys
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from paper_figures import style
from paper_figures.command import script
from paper_figures.measured import show_seeds
from paper_figures.results import Results, ResultsError
from reproduction.jobs.files import read_json
from reproduction.related.comparison import BUDGETS, CONTROL, NAME

ROW = 0.155
"""Inches of a method's row."""
OTHERS = "related methods and controls"
AXES = {"generated_tokens": "thousands of tokens\ngenerated", "update_tokens": "thousands of tokens\nupdated on"}


def draw(results: Results) -> style.PaperFigure:
    """Left each method's difference; right accuracy against the tokens that were generated and updated on."""
    results.require(NAME)
    record = _read(results)
    rows = record["rows"]
    own = [row["label"] for row in rows if row["label"] in style.LOOKS]
    looks = {label: style.LOOKS[label] for label in style.LOOKS if label in own}
    looks[OTHERS] = style.Look("#7d7d7d", "none", "s")
    share = f"{100 * record['confidence']:.0f}%"
    together = (
        f"the {record['comparisons']} intervals hold together ({share}, Bonferroni), so that a method was told from "
        "GRPO if its interval leaves out 0"
    )
    intervals = together if len(record["seeds"]) > 1 else "with one seed there is no interval"
    caption = (
        f"Held-out accuracy over the last third of training, mean of the levels and of {show_seeds(record['seeds'])}. "
        f"Left: difference from GRPO on the same seeds, in points; {intervals}; in brackets the places that a method "
        f"may have among all ({share} for each). Right: accuracy with each method's own {share} interval against the "
        "tokens of a run: sampled, and taken into updates. One task, one small model and one learning rate: see "
        f"{NAME}.md for what this cannot say."
    )
    title = f"The related methods on one task ({results.scale} scale)"
    figure = style.new_figure(max(2.6, ROW * len(rows) + 0.5), title, caption, looks, _unmade(record["not_run"]))
    forest, *budgets = figure.subplots(1, 1 + len(BUDGETS), width_ratios=(2.0, 1, 1))
    for place, row in enumerate(rows):
        _mark(forest, row["difference"] or {"value": 0.0, "low": None, "high": None}, place, looks, row)
    forest.axvline(0, color="#444444", linewidth=0.6, zorder=1)
    forest.set_yticks(range(len(rows)), [f"{style.label(row['label'])} [{_places(row)}]" for row in rows])
    forest.set_ylim(len(rows) - 0.4, -0.6)
    forest.grid(axis="x")
    forest.set_xlabel(f"points above {style.label(CONTROL[1])}")
    for panel, budget in zip(budgets, BUDGETS, strict=True):
        panel.set_xlabel(AXES[budget])
        # The papers' methods are drawn last, over the others.
        for row in sorted(rows, key=lambda row: row["label"] in looks):
            if row[budget] is not None:
                _mark(panel, row["accuracy"], row[budget] / 1000, looks, row, upright=True)
        panel.set_xlim(left=0)
        if all(row[budget] is None for row in rows):
            panel.text(0.5, 0.5, "not recorded", transform=panel.transAxes, ha="center", va="center")
    budgets[0].set_ylabel("accuracy, %")
    budgets[1].sharey(budgets[0])
    budgets[1].tick_params(labelleft=False)
    return figure


def _mark(
    panel: Axes, estimate: Mapping[str, Any], place: float, looks: Mapping[str, style.Look], row: Mapping[str, Any],
    *, upright: bool = False,
) -> None:  # fmt: skip
    """An estimate in points with its interval, along y if `upright`, at `place` on the other axis."""
    look = looks.get(row["label"], looks[OTHERS])
    value, bar = 100 * estimate["value"], None
    if estimate["low"] is not None:
        bar = [[max(0.0, value - 100 * estimate["low"])], [max(0.0, 100 * estimate["high"] - value)]]
    at, along = ((place, value), {"yerr": bar}) if upright else ((value, place), {"xerr": bar})
    panel.errorbar(
        *at, **along, color=look.colour, marker=look.marker, markersize=3.8, linestyle="none", capsize=1.5,
        capthick=0.7, elinewidth=0.8, markeredgecolor="white", markeredgewidth=0.3,
        zorder=3 if row["label"] in looks else 2,
    )  # fmt: skip


def _places(row: Mapping[str, Any]) -> str:
    best, worst = row["place"]
    return f"{best}" if best == worst else f"{best}\N{EN DASH}{worst}"


def _unmade(runs: list[str]) -> list[str]:
    """The runs that were not made, one phrase for each method."""
    cells: dict[str, list[str]] = {}
    for run in runs:
        cell, _, seed = run.rpartition("/seed")
        cells.setdefault(cell, []).append(seed)
    return [f"{cell} {show_seeds(map(int, seeds))}" for cell, seeds in cells.items()]


def _read(results: Results) -> dict[str, Any]:
    path = results.root / f"{NAME}.json"
    if not path.is_file():
        raise ResultsError(f"{path}: missing; compare the methods (python -m reproduction related) before drawing this")
    try:
        record = read_json(path)
    except ValueError as error:
        raise ResultsError(str(error)) from None
    if not isinstance(record, dict) or record.get("scale") != results.scale or not record.get("rows"):
        raise ResultsError(f"{path}: not what python -m reproduction related writes; compare the methods again")
    return record


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
