"""The page of verdicts of one paper: each claim's effect and interval with its rule and its controls."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from paper_figures import style
from paper_figures.catalogue import ENTRIES
from paper_figures.measured import Claims, number
from paper_figures.results import Results
from reproduction.claims.verdict import INCONCLUSIVE

TEXT = 7.0
LINE = TEXT * 1.28 / 72
"""Inches between lines of text; the unit of the vertical axis."""

PADDING = 0.45
WIDTHS = (2.45, 0.95, 1.7, 1.95)
LIMIT = 20.0
LINEAR = 2.0
# Dark enough for text on white; each verdict has a mark of its own as well.
VERDICTS = {
    "reproduced": ("#0060A0", "o", True),
    "reproduced, but the control does as well": ("#8A5A00", "D", True),
    "not reproduced at the paper's size": ("#7A3070", "v", True),
    "not reproduced": ("#B23C00", "X", True),
    "inconclusive": ("#555555", "o", False),
    "not tested at this scale": ("#777777", "", False),
}
CONTROL_COLOUR = "#8c8c8c"
PAPER_COLOUR = "#C2185B"
SHORT_NAMES = {"same tokens in shuffled order": "shuffled tokens", "grpo-rescaled at R = 1e-3's size": "grpo-rescaled"}
"""Names of controls that are too long for their column."""


@dataclass(frozen=True)
class Mark:
    """An effect in units of its rule's margin; low and high None without an interval."""

    value: float
    low: float | None
    high: float | None


def in_margins(estimate: Mapping[str, Any], rule: Mapping[str, Any]) -> Mark:
    """An estimate in units of the rule's margin, counted from the target if the rule has one."""
    unit = rule["margin"] or 1.0

    def scaled(value: float | None) -> float | None:
        return None if value is None else (value - rule["target"]) / unit

    return Mark(scaled(estimate["value"]), scaled(estimate["low"]), scaled(estimate["high"]))


def shown_where(rule: Mapping[str, Any]) -> tuple[float, float]:
    """From where to where, in units of the margin, an effect is as claimed."""
    return {"above": (1.0, LIMIT), "equal": (-1.0, 1.0), "at most": (-LIMIT, 1.0)}[rule["kind"]]


def rule_text(rule: Mapping[str, Any]) -> str:
    """The rule in a few characters, in the effect's own unit."""
    if rule["kind"] == "equal":
        return f"{rule['target']:g} \u00b1 {rule['margin']:g}"
    sign = "\u2265" if rule["kind"] == "above" else "\u2264"
    return f"{sign} {rule['margin']:g}"


def draw_verdicts(results: Results, name: str, title: str) -> style.PaperFigure:
    """The figure `name` of the catalogue: one row a claim."""
    results.require(name)
    claims = Claims(results)
    records = [claims[claim_id] for claim_id in ENTRIES[name].claims]
    # Missing runs of an experiment that no claim of this page uses do not concern it.
    used = {cell.split("/")[0] for record in records for side in _sides(record) for cell in side["cells"]}
    missing = [run for run in claims.missing if run.split("/")[0] in used]
    rows = [_Row(record) for record in records]
    height = sum(row.lines for row in rows) * LINE + 0.45
    levels = {record["rule"]["significance"] for record in records}
    caption = (
        "Each row is a claim: large mark and bar are its effect and interval "
        f"(over seeds, {' and '.join(f'{level:.0%}' for level in sorted(levels))} beyond each end) in "
        "units of the smallest effect that counts by its rule; the axis is logarithmic beyond "
        f"\u00b1{LINEAR:g}, arrows lie outside it. Shaded: as claimed. Red "
        "line: the paper's size. Small grey marks: what its controls, cheaper "
        "explanations, give. Numbers at the right: effect and interval in its own unit, and the rule. A verdict needs "
        "p-values corrected within the claim's family as well."
    )
    figure = style.new_figure(height, title, caption, missing=missing)
    figure.get_layout_engine().set(wspace=0.0, w_pad=0.0)
    panels = columns(figure, WIDTHS, sum(row.lines for row in rows), (2,))
    top = 0.0
    for index, row in enumerate(rows):
        if index % 2 == 0:
            for panel in panels:
                panel.axhspan(top, top + row.lines, color="#f4f4f4", linewidth=0, zorder=0)
        row.draw(panels, top)
        top += row.lines
    return figure


def columns(figure: style.PaperFigure, widths: Sequence[float], lines: float, forests: Sequence[int]) -> list[Axes]:
    """Columns of so many inches and lines; the `forests` among them have an axis of effects, the others hold text."""
    panels = list(figure.subplots(1, len(widths), sharey=True, width_ratios=widths))
    for place, panel in enumerate(panels):
        panel.set_ylim(lines, 0)
        panel.grid(False)
        panel.tick_params(left=False, labelleft=False)
        panel.spines["left"].set_visible(False)
        if place in forests:
            _margin_axis(panel)
            panel.set(zorder=1, facecolor="none")  # an arrow at its edge is above the next column
        else:
            panel.set_xlim(0, widths[place])
            panel.set_xticks([])
            panel.spines["bottom"].set_visible(False)
    return panels


class _Row:
    """One claim's texts, wrapped, and how many lines they and its marks take."""

    def __init__(self, record: Mapping[str, Any]):
        self.record = record
        self.colour = VERDICTS[record["verdict"]][0]
        self.indent = _width(record["id"], "bold") + 0.05
        self.statement = _wrapped(record["statement"], WIDTHS[0] - 0.12, self.indent)
        self.verdict = textwrap.wrap(record["verdict"], 26)
        self.marks = [("", record["effect"]["estimate"])] + [
            (SHORT_NAMES.get(control["name"], control["name"]), control["effect"]["estimate"])
            for control in record["controls"]
        ]
        self.lines = max(len(self.statement), len(self.verdict) + 1, len(self.marks)) + PADDING

    def draw(self, panels: Sequence[Axes], top: float) -> None:
        statement, names, forest, verdict = panels
        first = top + PADDING / 2 + 0.5
        write(statement, 0.06, first, self.record["id"], weight="bold")
        for number_of_line, text in enumerate(self.statement):
            write(statement, 0.06 if number_of_line else 0.06 + self.indent, first + number_of_line, text)
        draw_claimed(forest, top, top + self.lines, self.record["rule"])
        for place, (name, estimate) in enumerate(self.marks):
            write(names, WIDTHS[1] - 0.04, first + place, _cut(name or "measured", WIDTHS[1] - 0.04), ha="right",
                   color=CONTROL_COLOUR if name else self.colour)  # fmt: skip
            if estimate is None:
                write(forest, -0.9 * LIMIT, first + place, not_there(self.record), color=CONTROL_COLOUR)
            else:
                draw_mark(
                    forest, first + place, in_margins(estimate, self.record["rule"]), self.record["verdict"], bool(name)
                )
        for number_of_line, text in enumerate(self.verdict):
            write(verdict, 0.1, first + number_of_line, text, weight="bold", color=self.colour)
        estimate = self.record["effect"]["estimate"]
        measured = not_there(self.record) if estimate is None else number(estimate, "")
        text = f"{measured}; {rule_text(self.record['rule'])}"
        write(verdict, 0.1, first + len(self.verdict), text)


def draw_mark(panel: Axes, y: float, mark: Mark, verdict: str, control: bool = False) -> None:
    """An effect with its interval, in the colour and mark of its verdict; an arrow if it is outside the axis."""
    colour, marker, filled = VERDICTS[verdict]
    colour = CONTROL_COLOUR if control else colour
    if mark.low is not None and mark.high is not None:
        ends = [min(LIMIT, max(-LIMIT, end)) for end in (mark.low, mark.high)]
        panel.plot(ends, [y, y], color=colour, linewidth=0.9 if control else 1.5, solid_capstyle="butt", zorder=2)
    outside = abs(mark.value) > LIMIT
    shape = (">" if mark.value > 0 else "<") if outside else ("s" if control else marker or "o")
    panel.plot(
        [max(-LIMIT, min(LIMIT, mark.value))], [y], marker=shape, markersize=2.8 if control else 4.6,
        color=colour, markerfacecolor=colour if control or filled else "white", markeredgecolor=colour,
        linestyle="none", clip_on=False, zorder=3,
    )  # fmt: skip


def draw_claimed(panel: Axes, top: float, bottom: float, rule: Mapping[str, Any]) -> None:
    """Shade where an effect is as claimed, and mark the paper's size."""
    panel.fill_betweenx([top, bottom], *shown_where(rule), color="#0072B2", alpha=0.13, linewidth=0, zorder=0.5)
    if rule["paper"] is not None:
        size = in_margins({"value": rule["paper"], "low": None, "high": None}, rule).value
        if abs(size) <= LIMIT:
            panel.plot([size, size], [top, bottom], color=PAPER_COLOUR, linewidth=1.0, zorder=1)


def not_there(record: Mapping[str, Any]) -> str:
    """Why a claim has no number: its runs were not made, or not as many as a look takes."""
    return "no look yet" if record["verdict"] == INCONCLUSIVE else "not run"


def _margin_axis(panel: Axes) -> None:
    panel.set_xscale("symlog", linthresh=LINEAR, linscale=1.0)
    panel.set_xlim(-LIMIT, LIMIT)
    panel.xaxis.set_major_locator(FixedLocator([-10, -2, -1, 0, 1, 2, 10]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\u2212")))
    panel.axvline(0, color="#444444", linewidth=0.7, zorder=1)
    panel.axvline(1, color="#0072B2", linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
    panel.set_xlabel("effect / smallest that counts")


def _sides(record: Mapping[str, Any]):
    for part in (record["effect"], *(control["effect"] for control in record["controls"])):
        yield from part["sides"]


def write(panel: Axes, x: float, y: float, text: str, **options: Any) -> None:
    # Texts come from files: a dollar sign in one is a dollar sign, no formula.
    written = panel.text(x, y, text, va="center", **{"fontsize": TEXT, "parse_math": False, **options})
    written.set_in_layout(False)  # wrapped to its column already


def _width(text: str, weight: str = "normal") -> float:
    """Inches that a text takes in a row."""
    font = FontProperties(family=style.RC["font.family"], size=TEXT, weight=weight)
    return _RULER.get_text_width_height_descent(text, font, ismath=False)[0] / _RULER.dpi


_RULER = RendererAgg(1, 1, 720)  # fine, so that glyphs are not rounded to whole points


def _wrapped(text: str, room: float, indent: float) -> list[str]:
    """Lines of at most `room` inches; the first begins after `indent`."""
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(candidate) > room - (indent if len(lines) == 1 else 0.0):
            lines.append(word)
        else:
            lines[-1] = candidate
    return lines


def _cut(text: str, room: float) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if _width(text) <= room:
        return text
    while text and _width(text + "\u2026") > room:
        text = text[:-1]
    return text.rstrip() + "\u2026"
