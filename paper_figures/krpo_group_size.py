"""Our answer to KRPO's Figure 7a: accuracy, and the gap over GRPO, in small and large groups."""

import sys

from paper_figures import style
from paper_figures.cells import slopes, which_seeds
from paper_figures.command import script
from paper_figures.measured import Claims, Measures, accuracy_name
from paper_figures.results import Results

NAME = "krpo_group_size"
EXPERIMENTS = ("krpo-group4", "krpo")
METHODS = ("grpo", "krpo", "grpo-rescaled")
CLAIM = "krpo-2-groups"


def draw(results: Results) -> style.PaperFigure:
    """Left the accuracy, right the gap over GRPO."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    methods = [method for method in METHODS if all(measures.has((name, method)) for name in EXPERIMENTS)]
    cells = [(name, method) for name in EXPERIMENTS for method in methods]
    measure = claims.measure(CLAIM)
    table = measures.shared(measure, cells)
    sizes = [results.experiment(name)["training"]["group_size"] for name in EXPERIMENTS]
    looks = style.looks(METHODS)
    caption = (
        "The same number of responses in each rollout batch, in groups of two sizes. Right: a method's accuracy minus "
        "GRPO's with the same group size and seed, in points. The paper's Figure 7a (second-hand): the gap widens in "
        "smaller groups; its values were not found, so that no point of it can be drawn. GRPO rescaled: GRPO with "
        f"advantages as large as KRPO's. Large marks: mean over {which_seeds(table.values())}; thin lines: "
        f"each seed. {claims.notes_for(NAME)}"
    )
    title = f"Group size and the gap over GRPO, as in KRPO's Figure 7a ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, {name: looks[name] for name in methods}, measures.missing)
    axes = figure.subplots(1, 2)
    for index, method in enumerate(methods):
        places = [place + 0.06 * (index - 1) for place in range(len(EXPERIMENTS))]
        found = [table.get((name, method), {}) for name in EXPERIMENTS]
        slopes(axes[0], places, found, looks[method])
        if method != "grpo":
            slopes(axes[1], places, [gap(table, name, method) for name in EXPERIMENTS], looks[method])
    axes[0].set_title(accuracy_name(measure), loc="left")
    axes[1].axhline(0, color="#444444", linewidth=0.6, zorder=1)
    axes[1].set_title("the same in points above GRPO", loc="left")
    for panel in axes:
        panel.set_xticks(range(len(sizes)), sizes)
        panel.set_xlim(-0.4, len(sizes) - 0.6)
        panel.set_xlabel("group size")
    return figure


def gap(table: dict, experiment: str, method: str) -> dict[int, float]:
    """Points of accuracy above GRPO's in the same experiment, by seed."""
    own, baseline = table.get((experiment, method), {}), table.get((experiment, "grpo"), {})
    return {seed: 100 * (own[seed] - baseline[seed]) for seed in own if seed in baseline}


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
