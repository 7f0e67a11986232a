"""Gains in held-out accuracy that the papers report, compared with those measured here and those of the controls."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from paper_figures import style
from paper_figures.cells import GROUP_WIDTH, named_ticks
from paper_figures.command import script
from paper_figures.measured import Claims, accuracy_name
from paper_figures.results import Results
from reproduction.claims.paper_tables import KPO_BENCHMARKS, KRPO_ARITHMETIC, kpo_gains

NAME = "accuracy_gains"
# Claim, name along x, and the methods whose difference the paper's table gives.
KPO_ROWS = (
    ("kpo-4-over-grpo", "over\nGRPO", ("kpo-clipped", "grpo")),
    ("kpo-4-over-gspo", "over\nGSPO", ("kpo-clipped", "gspo")),
    ("kpo-4-over-gmpo", "over\nGMPO", ("kpo-clipped", "gmpo")),
    ("kpo-4-unclipped", "unclipped\nover GRPO", ("kpo-unclipped", "grpo")),
    ("kpo-4-tuned-over-grpo", "best clip,\nover GRPO", None),
    ("kpo-4-tuned-over-gspo", "best clip,\nover GSPO", None),
    ("kpo-4-tuned-over-gmpo", "best clip,\nover GMPO", None),
)
KRPO_ROWS = (("krpo-1-easy", "easy"), ("krpo-1-normal", "normal"), ("krpo-1-hard", "hard"))
PAPER_COLOUR, PAPER_MARK = "#222222", "X"
BENCHMARK_MARKS = {"AIME'24": "^", "AIME'25": "v", "MATH-500": "s", "Minerva": "H"}
CONTROLS = {"kpo": ("kpo-ema", "kpo-unit"), "krpo": ("grpo-rescaled",)}
VERDICT_MARKS = {
    "reproduced": "reproduced",
    "reproduced, but the control does as well": "control\nas well",
    "not reproduced at the paper's size": "not at the\npaper's size",
    "not reproduced": "not\nreproduced",
    "inconclusive": "incon-\nclusive",
    "not tested at this scale": "not tested",
}


def gains(record: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The estimates (in points) of a claim's effect, under "claim", and of its controls by their name."""
    parts = {"claim": record["effect"], **{control["name"]: control["effect"] for control in record["controls"]}}
    return {name: part["estimate"] and _points(part["estimate"]) for name, part in parts.items()}


def _points(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if estimate[key] is None else 100 * estimate[key] for key in ("value", "low", "high")}


def draw(results: Results) -> style.PaperFigure:
    """Left KPO over its baselines, right KRPO over GRPO by level."""
    results.require(NAME)
    claims = Claims(results)
    looks = {**style.CONTROLS, **style.LOOKS}
    groups = [(row[0], (row[2][0] if row[2] else "kpo-clipped", *CONTROLS["kpo"])) for row in KPO_ROWS]
    groups += [(row[0], ("krpo", *CONTROLS["krpo"])) for row in KRPO_ROWS]
    measured = {
        method
        for claim_id, methods in groups
        for method, estimate in zip(methods, gains(claims[claim_id]).values(), strict=True)
        if estimate
    }
    legend = {method: look for method, look in looks.items() if method in measured}
    legend |= {
        f"paper, {name}": style.Look(PAPER_COLOUR, "none", marker)
        for name, marker in BENCHMARK_MARKS.items()
        if any(name in kpo_gains(*pair) for *_, pair in KPO_ROWS if pair)
    }
    legend["paper, arithmetic"] = style.Look(PAPER_COLOUR, "none", PAPER_MARK)
    margins = {claims[claim_id]["rule"]["margin"] for claim_id, _ in groups}
    sizes = ", ".join(f"{item.name} {item.problems}" for item in KPO_BENCHMARKS if item.problems)
    caption = (
        f"Coloured marks: measured here ({accuracy_name(claims.measure(KPO_ROWS[0][0]))}, and KRPO's levels), on "
        "problems held out from all training, mean over seeds with the interval of the claims; the controls' marks "
        "give the same difference with the control in the method's place. Dark marks without bars: the papers', "
        "second-hand, KPO's of avg@16 on mathematics benchmarks that a model of 4 billion parameters answers (another "
        f"task; problems: {sizes}), KRPO's on arithmetic whose levels it does not define publicly. 'Best clip': under "
        "stress, each method at the best of three clips. Dashed: the smallest effect that counts. Below the marks: the "
        "verdict."
    )
    title = f"Gains in accuracy: the papers' and ours ({results.scale} scale)"
    figure = style.new_figure(3.3, title, caption, legend, _missing(claims))
    left, right = figure.subplots(1, 2, width_ratios=(7, 3.2))
    papers = [kpo_gains(*pair) if pair else {} for *_, pair in KPO_ROWS]
    papers += [{"": KRPO_ARITHMETIC[level].points} for _, level in KRPO_ROWS]
    for place, ((claim_id, methods), paper) in enumerate(zip(groups, papers, strict=True)):
        panel, inside = (left, place) if place < len(KPO_ROWS) else (right, place - len(KPO_ROWS))
        _draw_group(panel, inside, claims[claim_id], methods, looks, paper)
    for panel, shown, name in ((left, KPO_ROWS, "KPO"), (right, KRPO_ROWS, "KRPO over GRPO")):
        rows: list[tuple] = list(shown)
        panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
        for margin in margins:
            panel.axhline(100 * margin, color="#0072B2", linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
        named_ticks(panel, [row[1] for row in rows])
        panel.set_title(name, loc="left")
        low, high = panel.get_ylim()
        panel.set_ylim(low - 0.22 * (high - low), high)
        for place, row in enumerate(rows):
            verdict = VERDICT_MARKS[claims[row[0]]["verdict"]]
            panel.annotate(
                verdict, (place, 0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=style.CAPTION_SIZE, linespacing=1.1,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    left.set_ylabel("points of accuracy")
    return figure


def _draw_group(
    panel: Axes, place: int, record: Mapping[str, Any], methods: Sequence[str], looks: Mapping[str, style.Look],
    paper: Mapping[str, float],
) -> None:  # fmt: skip
    found = gains(record)
    columns = len(methods) + (1 if paper else 0)
    step = GROUP_WIDTH / (len(methods) + 1)
    for index, (method, estimate) in enumerate(zip(methods, found.values(), strict=True)):
        x = place + (index - (columns - 1) / 2) * step
        look = looks[method]
        if estimate is None:
            continue
        bar = None
        if estimate["low"] is not None:
            bar = [[max(0.0, estimate["value"] - estimate["low"])], [max(0.0, estimate["high"] - estimate["value"])]]
        panel.errorbar(
            x, estimate["value"], bar, color=look.colour, marker=look.marker, markersize=4.5, capsize=2, capthick=0.9,
            elinewidth=1.1, zorder=3,
        )  # fmt: skip
    x = place + (len(methods) - (columns - 1) / 2) * step
    for benchmark, value in paper.items():
        panel.plot(
            [x], [value], marker=BENCHMARK_MARKS.get(benchmark, PAPER_MARK), color=PAPER_COLOUR, linestyle="none",
            markersize=5.5, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )  # fmt: skip


def _missing(claims: Claims) -> list[str]:
    return [run for run in claims.missing if run.split("/")[0] in ("kpo", "krpo", "kpo-clips", "kpo-stress-2")]


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
