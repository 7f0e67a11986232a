"""One look for every figure: sizes for print, colours that colour-blind readers can tell apart, reproducible bytes."""

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from reproduction.jobs.files import atomic_path

WIDTH = 7.2
"""Width of every figure in inches: two columns of a journal page, so that font sizes are the sizes on paper."""

FONT_SIZE = 8.0
CAPTION_SIZE = 7.0
TITLE_SIZE = 9.5
_MARGIN = 0.01
_HANDLE = 0.53  # inches of a legend's line and of the room around an entry

RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same glyphs
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 0.5,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE - 0.5,
    "ytick.labelsize": FONT_SIZE - 0.5,
    "legend.fontsize": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays text
    "savefig.dpi": 200,
    "figure.dpi": 100,
    "svg.hashsalt": "kpo",
}


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one method; methods differ in all three, so that colour is never the only carrier."""

    colour: str
    line: str | tuple
    marker: str


# Okabe and Ito's palette (2008), made for the common forms of colour blindness; its yellow is too pale on white paper.
LOOKS = {
    "base": Look("#6e6e6e", (0, (1, 1.5)), "X"),
    "grpo": Look("#0072B2", "-", "o"),
    "gspo": Look("#E69F00", (0, (5, 1.5)), "s"),
    "gmpo": Look("#009E73", (0, (6, 1.5, 1, 1.5)), "^"),
    "kpo-clipped": Look("#D55E00", (0, (8, 1)), "D"),
    "kpo-unclipped": Look("#CC79A7", (0, (2, 1)), "v"),
    "krpo": Look("#000000", (0, (4, 1, 1, 1, 1, 1)), "P"),
}
# The controls that a study adds, in colours that stay apart from those above.
CONTROLS = {
    "kpo-ema": Look("#56B4E9", (0, (3, 1)), "<"),
    "kpo-unit": Look("#882255", (0, (1, 1)), ">"),
    "grpo-rescaled": Look("#332288", (0, (9, 2, 2, 2)), "h"),
    "krpo-mean": Look("#44AA99", (0, (5, 1, 1, 1)), "d"),
    "krpo-scale": Look("#8A5A00", (0, (2, 2)), "p"),
    "krpo-adaptive": Look("#999933", (0, (7, 2)), "*"),
}
# Methods that neither table names (a user's own) take these in the order in which they are asked for.
_SPARE = [
    Look(colour, line, marker)
    for (line, marker), colour in zip(
        itertools.product([(0, (3, 2)), (0, (1, 2)), (0, (9, 1, 2, 1))], ["1", "2", "3", "4", "8", "H"]),
        itertools.cycle(["#56B4E9", "#882255", "#117733", "#999933", "#332288"]),
        strict=False,
    )
]
LABELS = {
    "base": "base",
    "grpo": "GRPO",
    "gspo": "GSPO",
    "gmpo": "GMPO",
    "kpo-clipped": "KPO clipped",
    "kpo-unclipped": "KPO unclipped",
    "krpo": "KRPO",
    "kpo-ema": "KPO-EMA",
    "kpo-unit": "KPO-unit",
    "grpo-rescaled": "GRPO rescaled",
    "krpo-mean": "KRPO mean",
    "krpo-scale": "KRPO scale",
    "krpo-adaptive": "KRPO adaptive",
}
LEVEL_LABELS = {"file": "published set"}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Inside, matplotlib draws in this style, whatever the user's matplotlibrc says; that is restored afterwards.

    Also usable as a decorator of a drawing function. No window, no pyplot: the caller's backend stays what it is.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """The look of each of `methods`: fixed for the papers' and their controls, else a spare one, never one twice."""
    spare = iter(_SPARE)
    table = {}
    for method in methods:
        look = LOOKS.get(method) or CONTROLS.get(method) or next(spare, None)
        if look is None:
            raise ValueError(
                f"{len(methods)} methods in one figure: only {len(_SPARE)} have no look of their own; draw fewer"
            )
        table[method] = look
    return table


def label(method: str) -> str:
    """The name of a method as readers of the papers know it."""
    return LABELS.get(method, method)


class PaperFigure(Figure):
    """A figure that keeps its words for the JSON file, and is saved in the common look."""

    title: str
    caption: str
    missing: tuple[str, ...]

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As matplotlib's, with `RC` in force: ticks are created when a figure is drawn."""
        with applied():
            super().savefig(*arguments, **options)


def new_figure(
    height: float, title: str, caption: str, methods: Mapping[str, Look] | None = None, missing: Sequence[str] = ()
) -> PaperFigure:
    """An empty figure of the common width, with `height` inches for its axes.

    Above them room is added for the title and the legend of `methods`, below them for the caption and, in red, for what
    is `missing` from the figure, so that nothing can cover data.
    """
    figure = PaperFigure(figsize=(WIDTH, height), layout="constrained")
    figure.title, figure.caption, figure.missing = title, caption, tuple(missing)
    FigureCanvasAgg(figure)
    methods = methods or {}
    lines = _wrapped(figure, caption)
    warnings = _wrapped(figure, f"Not in this figure: {'; '.join(missing)}.") if missing else []
    columns = _legend_columns(figure, methods)
    legend_rows = -(-len(methods) // columns)
    bottom = ((len(lines) + len(warnings)) * CAPTION_SIZE * 1.35 + 6 + 4 * bool(warnings)) / 72
    title_height = (TITLE_SIZE * 1.35 + 4) / 72
    top = title_height + (legend_rows * FONT_SIZE * 1.6 + 4 * bool(legend_rows)) / 72
    total = height + bottom + top
    figure.set_size_inches(WIDTH, total)
    figure.get_layout_engine().set(
        rect=(0, bottom / total, 1, height / total), w_pad=0.05, h_pad=0.05, wspace=0.03, hspace=0.05
    )
    figure.text(_MARGIN, 1 - 4 / 72 / total, title, fontsize=TITLE_SIZE, fontweight="bold", va="top")
    figure.text(
        _MARGIN, 4 / 72 / total, "\n".join(lines), fontsize=CAPTION_SIZE, va="bottom", color="#333333", linespacing=1.25
    )
    if warnings:
        figure.text(
            _MARGIN, bottom / total, "\n".join(warnings), fontsize=CAPTION_SIZE, va="top", color="#a00000",
            linespacing=1.25,
        )  # fmt: skip
    if methods:
        _method_legend(figure, methods, columns, 1 - title_height / total)
    return figure


def _legend_columns(figure: Figure, methods: Mapping[str, Look]) -> int:
    """As many columns as fit the figure's width: each takes its longest label."""
    font = FontProperties(family=RC["font.family"], size=FONT_SIZE)
    measure = figure.canvas.get_renderer().get_text_width_height_descent
    widths = [measure(label(method), font, ismath=False)[0] / figure.dpi + _HANDLE for method in methods]
    # Matplotlib fills columns from top to bottom, the first ones with one entry more if they are unequal.
    for columns in range(len(widths), 1, -1):
        rows, longer = divmod(len(widths), columns)
        ends = [rows * (place + 1) + min(place + 1, longer) for place in range(columns)]
        if sum(max(widths[start:end]) for start, end in zip([0, *ends], ends, strict=False)) <= WIDTH * (1 - _MARGIN):
            return columns
    return 1


def _method_legend(figure: Figure, methods: Mapping[str, Look], columns: int, top: float) -> None:
    handles = [
        Line2D(
            [], [], color=look.colour, linestyle=look.line, marker=look.marker, markeredgecolor="white",
            markeredgewidth=0.4, label=label(method),
        )
        for method, look in methods.items()
    ]  # fmt: skip
    legend = figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, top), ncols=columns, columnspacing=1.2,
        handletextpad=0.5, borderaxespad=0.3, borderpad=0.2,
    )  # fmt: skip
    legend.set_in_layout(False)


def _wrapped(figure: Figure, text: str) -> list[str]:
    """Lines of `text` that fit the figure's width, measured with the font that draws them."""
    renderer, font = figure.canvas.get_renderer(), FontProperties(family=RC["font.family"], size=CAPTION_SIZE)
    room = (1 - 2 * _MARGIN) * figure.bbox.width
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if renderer.get_text_width_height_descent(candidate, font, ismath=False)[0] <= room:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines


def draw_seeds(
    axes: Axes, x: Sequence[float], by_seed: dict, mean, low, high, look: Look, marked: Sequence[int] = ()
) -> None:
    """One method's thin line per seed, the band from `low` to `high`, and the mean as `draw_mean` draws it."""
    if len(by_seed) > 1:
        for values in by_seed.values():
            axes.plot(x, values, color=look.colour, linewidth=0.4, alpha=0.4, zorder=2)
        axes.fill_between(x, low, high, color=look.colour, alpha=0.10, linewidth=0, zorder=1)
    draw_mean(axes, x, mean, look, marked)


def draw_mean(axes: Axes, x: Sequence[float], mean: Sequence[float], look: Look, marked: Sequence[int] = ()) -> None:
    """A line in a method's look with its marker at the positions `marked`."""
    axes.plot(
        x, mean, color=look.colour, linestyle=look.line, marker=look.marker, markevery=list(marked),
        markeredgecolor="white", markeredgewidth=0.4, zorder=3,
    )  # fmt: skip


def draw_estimate(
    axes: Axes, x: float, mean: float, low: float, high: float, seeds: Sequence[float], look: Look, *, spread: float
) -> None:
    """A mark at `mean` with a bar from `low` to `high`, and `spread` to the right of it a circle for each of the seeds.

    One seed is its own mean and gets no circle.
    """
    # The mean of equal numbers may lie a rounding error outside them; matplotlib refuses bars of negative length.
    bar = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
    left = x - spread / 3 if len(seeds) > 1 else x
    axes.errorbar(
        left, mean, bar, color=look.colour, marker=look.marker, markersize=4.5, capsize=2.5, capthick=0.9,
        elinewidth=1.1, zorder=3,
    )  # fmt: skip
    if len(seeds) > 1:
        axes.plot(
            [left + spread] * len(seeds), seeds, linestyle="none", marker="o", markersize=2.4, markerfacecolor="white",
            markeredgecolor=look.colour, markeredgewidth=0.7, zorder=2,
        )  # fmt: skip


def marked_places(points: int, index: int, methods: int, marks: int = 6) -> list[int]:
    """Where the `index`-th of `methods` lines has its markers: each method elsewhere, so that lines that lie upon
    each other can still be told apart. Short lines have a marker at each point."""
    if points <= 2 * marks:
        return list(range(points))
    every = points / marks
    return [int(every * (mark + (index + 0.5) / methods)) for mark in range(marks)]


def count_axis(axes: Axes, label: str) -> None:
    """An x axis that counts: whole numbers only."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_log_axis(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers (0.05, 0.1, 0.2) in place of powers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def save(figure: Figure, output: str | Path, name: str) -> list[Path]:
    """Write `<name>.pdf` and `<name>.png` into `output`, each whole or not at all; returns the paths.

    No date and no file name goes into the files: the same data give the same bytes. The PNG has a palette of 256
    colours, which is a third of the size and looks the same for drawings.
    """
    pdf, png = (Path(output) / f"{name}.{suffix}" for suffix in ("pdf", "png"))
    with atomic_path(pdf) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None, "ModDate": None})
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with atomic_path(png) as temporary, Image.open(drawn) as picture:
        few_colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few_colours.save(temporary, format="png", optimize=True, dpi=picture.info["dpi"])
    return [pdf, png]
