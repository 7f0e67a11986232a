"""Points for measured runs: one mark a cell (experiment, method) with its seeds, and what captions say of them."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from paper_figures import style
from paper_figures.aggregate import over_seeds
from paper_figures.measured import show_seeds

PER_SEED = Mapping[int, float]
GROUP_WIDTH = 0.78


def which_seeds(tables: Iterable[PER_SEED], missing: Sequence[str] = ()) -> str:
    """`seeds 1, 2, 3`, or from how few to how many seeds if the cells differ."""
    found = {tuple(sorted(table)) for table in tables if table}
    if not found:
        return "no seed"
    if len(found) == 1:
        return show_seeds(found.pop())
    sizes = sorted(map(len, found))
    return f"{sizes[0]} to {sizes[-1]} seeds" + (" (some are missing)" if missing else "")


def seeds_text(tables: Iterable[PER_SEED], missing: Sequence[str] = ()) -> str:
    """What marks, bars and circles mean, and over which seeds."""
    which = which_seeds(tables, missing)
    if which.startswith("seed "):
        return f"One seed ({which}), so that no range can be given."
    return f"Large marks: mean over {which}; bars: lowest to highest seed; small circles: each seed."


def draw_cell(panel: Axes, x: float, by_seed: PER_SEED, look: style.Look, *, spread: float = 0.05) -> None:
    """A mark at the mean, a bar from the lowest to the highest seed, a circle for each; nothing without seeds."""
    if by_seed:
        mean, low, high = (float(part[0]) for part in over_seeds({seed: [value] for seed, value in by_seed.items()}))
        style.draw_estimate(panel, x, mean, low, high, list(by_seed.values()), look, spread=spread)


def draw_groups(
    panel: Axes, groups: Sequence[str], table: Mapping[tuple[int, str], PER_SEED], methods: Sequence[str],
    looks: Mapping[str, style.Look], *, seeds: bool = True,
) -> None:  # fmt: skip
    """Groups along x, within each one mark a method; a method keeps its place in every group.

    table: by (index of the group, method). seeds: whether to draw each seed and their range next to the mean.
    """
    step = GROUP_WIDTH / max(1, len(methods))
    for (group, method), by_seed in table.items():
        x = group - GROUP_WIDTH / 2 + (methods.index(method) + 0.5) * step
        if seeds or not by_seed:
            draw_cell(panel, x, by_seed, looks[method], spread=0.28 * step)
        else:
            mean = sum(by_seed.values()) / len(by_seed)
            style.draw_estimate(panel, x, mean, mean, mean, [mean], looks[method], spread=0.0)
    named_ticks(panel, groups)


def named_ticks(panel: Axes, names: Sequence[str]) -> None:
    """Names along x, one a whole number."""
    panel.set_xticks(range(len(names)), names)
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.5, len(names) - 0.5)


def slopes(panel: Axes, xs: Sequence[float], tables: Sequence[PER_SEED], look: style.Look) -> None:
    """One method along settings: marks with their seeds, their means joined, and a thin line for each seed."""
    places = [(x, table) for x, table in zip(xs, tables, strict=True) if table]
    common = set.intersection(*(set(table) for _, table in places)) if places else set()
    for seed in sorted(common) if len(common) > 1 else ():
        panel.plot(
            [x for x, _ in places], [table[seed] for _, table in places], color=look.colour, linewidth=0.4, alpha=0.5,
            zorder=1,
        )  # fmt: skip
    means = [sum(table.values()) / len(table) for _, table in places]
    panel.plot([x for x, _ in places], means, color=look.colour, linestyle=look.line, linewidth=1.0, zorder=2)
    panel.plot(
        [x for x, _ in places], means, color=look.colour, linestyle="none", marker=look.marker, markersize=4.8,
        markeredgecolor="white", markeredgewidth=0.4, zorder=3,
    )  # fmt: skip


def threshold(panel: Axes, value: float, text: str) -> None:
    """A dashed line where a rule decides, named at its right end."""
    panel.axhline(value, color="#0072B2", linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
    panel.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
        textcoords="offset points", va="bottom", fontsize=style.CAPTION_SIZE, color="#0060A0",
    )  # fmt: skip
