"""Does the order of a group's rewards matter to KRPO? Accuracy under four orders, and the change of the advantages."""

import sys

from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text, which_seeds
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures
from paper_figures.results import Results

NAME = "krpo_order"
SAMPLED: Cell = ("krpo", "krpo")
ORDERS: tuple[tuple[Cell, str], ...] = (
    (("krpo-order", "krpo-random-order"), "random"),
    (("krpo-order", "krpo-sorted"), "ascending"),
    (("krpo-order", "krpo-reversed"), "descending"),
)
LEVELS = ("easy", "normal", "hard")
MARGIN_CLAIM = "krpo-5-random"
LOOKS = {
    "ascending": style.Look("#0072B2", "none", "^"),
    "random": style.Look("#777777", "none", "o"),
    "descending": style.Look("#D55E00", "none", "v"),
}


def changes(measures: Measures, level: str) -> dict[str, dict[int, float]]:
    """Accuracy under another order minus that in sampled order of the same seed, in points, by order and seed."""
    cells = [cell for cell, _ in ORDERS if measures.has(cell)]
    found = measures.shared(f"accuracy.{level}", [SAMPLED, *cells])
    sampled = found.get(SAMPLED, {})
    return {
        name: {seed: 100 * (value - sampled[seed]) for seed, value in found[cell].items()}
        for cell, name in ORDERS
        if cell in found
    }


def draw(results: Results) -> style.PaperFigure:
    """Left the change of accuracy on each level, right the change of the advantages themselves."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    tables = {level: changes(measures, level) for level in LEVELS}
    sensitivity = measures.of("order_sensitivity", SAMPLED)
    margin = 100 * claims[MARGIN_CLAIM]["rule"]["margin"]
    caption = (
        "Left: accuracy of KRPO when each group's rewards are filtered in another order than the sampled one, minus "
        "that in sampled order; shaded: counts as no change. "
        f"{seeds_text(tables['normal'].values(), measures.missing)} Right: root mean square change of KRPO's "
        "advantages under random orders of the rewards its runs kept, relative to their own size "
        f"({which_seeds([sensitivity])}); GRPO's would be 0. It is the change of one draw; krpo-5-advantages asks "
        "whether it vanishes on average. The paper calls the method robust to order (second-hand). "
        f"{claims.notes_for(NAME)}"
    )
    title = f"The order of a group's rewards ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, LOOKS, measures.missing)
    left, right = figure.subplots(1, 2, width_ratios=(2.6, 1))
    left.axhspan(-margin, margin, color="#0072B2", alpha=0.13, linewidth=0, zorder=0)
    left.axhline(0, color="#444444", linewidth=0.6, zorder=1)
    for place, level in enumerate(LEVELS):
        for index, (name, look) in enumerate(LOOKS.items()):
            draw_cell(left, place + 0.25 * (index - 1), tables[level].get(name, {}), look, spread=0.06)
    named_ticks(left, LEVELS)
    left.set_title("change of the accuracy (points)", loc="left")
    draw_cell(right, 0, sensitivity, style.LOOKS["krpo"], spread=0.12)
    named_ticks(right, ["random order"])
    right.set_ylim(0, max([0.1, *sensitivity.values()]) * 1.15)
    right.set_title("change of the advantages", loc="left")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
