"""Does the order of a group's rewards matter to KRPO? Accuracy under three other orders, and the advantages' change."""

import sys

from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures, accuracy_name
from paper_figures.results import Results

NAME = "krpo_order"
SAMPLED: Cell = ("krpo", "krpo")
ORDERS: dict[str, Cell] = {
    "random": ("krpo-order", "krpo-random-order"),
    "ascending": ("krpo-order", "krpo-sorted"),
    "descending": ("krpo-order", "krpo-reversed"),
}
ADVANTAGES = (("order_bias", "mean over\norders"), ("order_sensitivity", "one order"))
LOOK = style.Look(style.LOOKS["krpo"].colour, "none", "o")


def changes(measures: Measures, measure: str) -> dict[str, dict[int, float]]:
    """The measure under another order minus that in sampled order of the same seed, in points, by order and seed."""
    found = measures.shared(measure, [SAMPLED, *ORDERS.values()])
    sampled = found.get(SAMPLED, {})
    return {
        name: {seed: 100 * (value - sampled[seed]) for seed, value in found[cell].items()}
        for name, cell in ORDERS.items()
        if cell in found
    }


def draw(results: Results) -> style.PaperFigure:
    """Left the change of the accuracy, right the change of the advantages themselves."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    measure = claims.measure("krpo-5-random")
    table = changes(measures, measure)
    advantages = [measures.of(name, SAMPLED) for name, _ in ADVANTAGES]
    caption = (
        "Left: KRPO when each group's rewards are filtered in another order than the sampled one, minus KRPO in "
        f"sampled order, in points. {seeds_text([*table.values(), *advantages], measures.missing)} Right, on the "
        "rewards that KRPO's runs kept, relative to the size of its advantages: how far those in sampled order are "
        "from their mean over random orders, along that mean (krpo-5-advantages), and the root mean square change "
        "that one random order makes, which is noise. GRPO's would be 0. Shaded: counts as no change. The paper calls "
        f"the method robust to order (second-hand). {claims.notes_for(NAME)}"
    )
    title = f"The order of a group's rewards ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, missing=measures.missing)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    margins = 100 * claims["krpo-5-random"]["rule"]["margin"], claims["krpo-5-advantages"]["rule"]["margin"]
    # The one order is no claim, so that nothing is shaded behind it.
    for panel, margin, share in ((left, margins[0], 1.0), (right, margins[1], 0.5)):
        panel.axhspan(-margin, margin, 0, share, color="#0072B2", alpha=0.13, linewidth=0, zorder=0)
        panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
    for place, by_seed in enumerate(table.values()):
        draw_cell(left, place, by_seed, LOOK, spread=0.08)
    named_ticks(left, list(table))
    left.set_title(accuracy_name(measure), loc="left")
    left.set_ylabel("points above the sampled order")
    for place, by_seed in enumerate(advantages):
        draw_cell(right, place, by_seed, LOOK, spread=0.08)
    named_ticks(right, [name for _, name in ADVANTAGES])
    right.set_title("relative change of the advantages", loc="left")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
