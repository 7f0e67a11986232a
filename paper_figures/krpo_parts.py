"""KRPO and its parts, only the baseline, only the scale and only the larger step, over GRPO."""

import sys

from paper_figures import style
from paper_figures.cells import GROUP_WIDTH, draw_groups, seeds_text
from paper_figures.command import script
from paper_figures.measured import Claims, Measures, accuracy_name
from paper_figures.results import Results
from reproduction.claims.paper_tables import KRPO_ARITHMETIC

NAME = "krpo_parts"
EXPERIMENT = "krpo"
METHODS = ("krpo", "krpo-mean", "krpo-scale", "grpo-rescaled")
LEVELS = tuple(KRPO_ARITHMETIC)
CURVES = (("reward_area", "over\ntraining"), ("reward_half", "second\nhalf"))


def over_grpo(measures: Measures, measure: str) -> dict[str, dict[int, float]]:
    """The measure minus GRPO's of the same seed, in points, by method and seed."""
    baseline = measures.of(measure, (EXPERIMENT, "grpo"))
    table = {}
    for method in METHODS:
        if measures.has((EXPERIMENT, method)):
            own = measures.of(measure, (EXPERIMENT, method))
            table[method] = {seed: 100 * (own[seed] - baseline[seed]) for seed in own if seed in baseline}
    return table


def draw(results: Results) -> style.PaperFigure:
    """Left accuracy by level, with the paper's gains of KRPO; right the training reward."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    accuracy = {level: over_grpo(measures, claims.measure(f"krpo-1-{level}")) for level in LEVELS}
    reward = {measure: over_grpo(measures, measure) for measure, _ in CURVES}
    methods = [method for method in METHODS if method in accuracy["normal"]]
    table = {method: style.looks(results.own_methods)[method] for method in methods}
    legend = {**table, "KRPO in the paper": style.Look("#222222", "none", "X")}
    caption = (
        "Differences from the GRPO run with the same seed, in points. KRPO mean: its baseline with the group's "
        "standard deviation; KRPO scale: its scale around the group's mean; GRPO rescaled: GRPO with advantages as "
        "large as KRPO's. Crosses: the paper's gains in accuracy of KRPO over GRPO on its own levels of arithmetic "
        "(second-hand); no ablation of the parts was found. "
        f"{seeds_text(accuracy['normal'].values(), measures.missing)} {claims.notes_for(NAME)}"
    )
    title = f"Which part of KRPO helps ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, legend, measures.missing)
    left, right = figure.subplots(1, 2, width_ratios=(len(LEVELS), len(CURVES)))
    found = {(place, method): accuracy[level][method] for place, level in enumerate(LEVELS) for method in methods}
    draw_groups(left, LEVELS, found, methods, table)
    aside = -GROUP_WIDTH * (0.5 - 0.5 / len(methods)) - 0.12  # left of KRPO's own mark
    for place, gain in enumerate(KRPO_ARITHMETIC.values()):
        left.plot(
            place + aside, gain.points, marker="X", markersize=5.5, color="#222222", linestyle="none",
            markeredgecolor="white", markeredgewidth=0.4, zorder=4,
        )  # fmt: skip
    found = {
        (place, method): reward[measure][method] for place, (measure, _) in enumerate(CURVES) for method in methods
    }
    draw_groups(right, [name for _, name in CURVES], found, methods, table)
    what = accuracy_name(claims.measure("krpo-1-easy")).rpartition(",")[0]
    for panel, name in ((left, f"{what}: points above GRPO"), (right, "reward: points above GRPO")):
        panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
        panel.set_title(name, loc="left")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
