"""Each claim's interval as the study goes on: from the first interim analysis to the last."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from paper_figures import style
from paper_figures.catalogue import ENTRIES
from paper_figures.command import figure_main
from paper_figures.forest import VERDICTS
from paper_figures.measured import Claims
from paper_figures.results import Results

NAME = "looks"
COLUMNS = 6
FACTOR_OF_POINTS = 100.0
"""Effects are drawn in hundredths, which for accuracies and rewards are points."""


def looks_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The looks of a claim that have an interval."""
    return [look for look in record["looks"] if look["low_so_far"] is not None]


def thresholds(rule: Mapping[str, Any]) -> list[float]:
    """Where the rule's statements begin: what counts and the paper's size, or the margins of the other kinds."""
    if rule["kind"] == "equal":
        return [rule["target"] - rule["margin"], rule["target"] + rule["margin"]]
    return [rule["margin"], *([rule["paper"]] if rule["paper"] is not None else [])]


def draw(results: Results) -> style.PaperFigure:
    """One small panel a claim."""
    results.require(NAME)
    claims = Claims(results)
    records = [claims[claim_id] for claim_id in ENTRIES[NAME].claims]
    shown = [record for record in records if looks_of(record)]
    unseen = [record["id"] for record in records if not looks_of(record)]
    rows = max(1, math.ceil(len(shown) / COLUMNS))
    caption = (
        "One panel a claim, along the number of seeds: the point is the estimate, the bar the interval of all looks so "
        "far, which can only narrow; each end is a one-sided bound at 5%, whenever the study stops. Effects in "
        "hundredths of their unit (points of accuracy or reward). Dotted: no effect; blue: what counts; orange: the "
        "paper's size. Colour and mark: the verdict at that look; a claim stops at the look that decides it."
        + (f" Without a look: {', '.join(unseen)}." if unseen else "")
    )
    title = f"What the study's looks left of each claim ({results.scale} scale)"
    figure = style.new_figure(0.95 * rows + 0.2, title, caption, missing=claims.missing)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for panel, record in zip(panels, shown, strict=False):
        _draw_claim(panel, record)
    for panel in figure.axes[len(shown) :]:
        panel.set_axis_off()
    return figure


def _draw_claim(panel: Axes, record: Mapping[str, Any]) -> None:
    found, rule = looks_of(record), record["rule"]
    panel.set_title(record["id"], fontsize=style.CAPTION_SIZE - 1)
    panel.axhline(0, color="#444444", linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    for place, value in enumerate(thresholds(rule)):
        size = rule["kind"] == "above" and place == 1
        panel.axhline(FACTOR_OF_POINTS * value, color="#D55E00" if size else "#0072B2", linewidth=0.7, zorder=1)
    for look in found:
        colour, marker, filled = VERDICTS[look["verdict"]]
        ends = [FACTOR_OF_POINTS * look[end] for end in ("low_so_far", "high_so_far")]
        panel.plot([look["seeds"]] * 2, ends, color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        panel.plot(
            [look["seeds"]], [FACTOR_OF_POINTS * look["value"]], marker=marker or "o", markersize=3.2, color=colour,
            markerfacecolor=colour if filled else "white", linestyle="none", zorder=3,
        )  # fmt: skip
    sizes = [look["seeds"] for look in found]
    panel.set_xscale("log", base=2)
    panel.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    panel.xaxis.set_major_locator(FixedLocator(sizes))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=3))
    panel.tick_params(labelsize=style.CAPTION_SIZE - 1.5, length=2, pad=1.5)


def main(argv: Sequence[str] | None = None) -> int:
    return figure_main(NAME, draw, argv)


if __name__ == "__main__":
    sys.exit(main())
