"""Each claim's interval at every interim analysis (look) of the study: how it narrows, and when it is decided."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from paper_figures import style
from paper_figures.catalogue import ENTRIES
from paper_figures.command import script
from paper_figures.forest import LINE, PADDING, VERDICTS, columns, draw_claimed, draw_mark, in_margins, write
from paper_figures.measured import Claims
from paper_figures.results import Results

NAME = "looks"
WIDTHS = (1.75, 1.8, 1.75, 1.8)


def looks_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The looks of a claim that have an interval."""
    return [look for look in record["looks"] if look["low_so_far"] is not None]


def draw(results: Results) -> style.PaperFigure:
    """One row a claim and one line a look, in two columns."""
    results.require(NAME)
    claims = Claims(results)
    records = [claims[claim_id] for claim_id in ENTRIES[NAME].claims]
    shown = [record for record in records if looks_of(record)]
    unseen = [record["id"] for record in records if not looks_of(record)]
    halves = _halves(shown)
    lines = max(1.0, *(sum(map(_lines, half)) for half in halves))
    caption = (
        "Each row is a claim and each line in it a look, after the number of seeds that it has: the mark is the "
        "estimate, in the form of the verdict at that look, and the bar the interval of all looks so far, which can "
        "only narrow (each end a one-sided 5% bound, whenever the study stops). Unit: the smallest effect that counts "
        "by the claim's rule; the axis is logarithmic beyond \u00b12, arrows lie outside it. Shaded: as claimed. Red "
        "line: the paper's size. The look that decides a claim is its last."
    )
    caption += f" No look yet: {', '.join(unseen)}." if unseen else ""
    found = {look["verdict"] for record in shown for look in looks_of(record)}
    legend = {
        verdict: style.Look(colour, "none", mark) for verdict, (colour, mark, _) in VERDICTS.items() if verdict in found
    }
    title = f"Each claim at the looks of the study ({results.scale} scale)"
    figure = style.new_figure(lines * LINE + 0.45, title, caption, legend, missing=claims.missing)
    for drawn in figure.legends:
        for handle, verdict in zip(drawn.get_lines(), legend, strict=True):
            colour, _, filled = VERDICTS[verdict]
            handle.set(markeredgecolor=colour, markerfacecolor=colour if filled else "white")
    figure.get_layout_engine().set(wspace=0.0, w_pad=0.0)
    panels = columns(figure, WIDTHS, lines, (1, 3))
    for place, half in enumerate(halves):
        names, forest = panels[2 * place : 2 * place + 2]
        top = 0.0
        for index, record in enumerate(half):
            bottom = top + _lines(record)
            if index % 2 == 0:
                for panel in (names, forest):
                    panel.axhspan(top, bottom, color="#f4f4f4", linewidth=0, zorder=0)
            _draw_claim(names, forest, top, bottom, record)
            top = bottom
    return figure


def _lines(record: Mapping[str, Any]) -> float:
    return len(looks_of(record)) + PADDING


def _halves(records: Sequence[Mapping[str, Any]]) -> tuple[list, list]:
    """The records in order, cut so that both columns are about as high."""
    before = [sum(map(_lines, records[:cut])) for cut in range(len(records) + 1)]
    cut = min(range(len(before)), key=lambda place: abs(2 * before[place] - before[-1]))
    return list(records[:cut]), list(records[cut:])


def _draw_claim(names, forest, top: float, bottom: float, record: Mapping[str, Any]) -> None:
    rule = record["rule"]
    first = top + PADDING / 2 + 0.5
    write(names, 0.06, first, record["id"])
    draw_claimed(forest, top, bottom, rule)
    for place, look in enumerate(looks_of(record)):
        write(names, WIDTHS[0] - 0.05, first + place, f"{look['seeds']}", ha="right")
        estimate = {"value": look["value"], "low": look["low_so_far"], "high": look["high_so_far"]}
        draw_mark(forest, first + place, in_margins(estimate, rule), look["verdict"])


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
