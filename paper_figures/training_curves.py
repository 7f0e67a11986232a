"""Mean reward while training: each method of the scale's own comparisons, over its rollout batches."""

import sys

import numpy as np
from matplotlib.ticker import MaxNLocator

from paper_figures import style
from paper_figures.aggregate import band_phrase, over_seeds, per_rollout_batch
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results
from reproduction.publish.published import DRAWN_SEEDS

NAME = "training_curves"
FILE = "metrics.jsonl"
COLUMNS = 5
OTHERS = "#c4c4c4"


def curves(results: Results, experiment: str) -> dict[str, dict[int, np.ndarray]]:
    """Reward by method and seed, one value a rollout batch. A method without any seed has no entry."""
    table = {}
    for method in results.methods(experiment):
        metrics = results.metrics(experiment, method)
        if metrics:
            table[method] = {seed: per_rollout_batch(rows, "reward") for seed, rows in metrics.items()}
    return table


def draw(results: Results) -> style.PaperFigure:
    """One panel a method, each experiment from a row of its own on."""
    results.require(NAME)
    tables = {experiment: curves(results, experiment) for experiment in results.own_experiments}
    missing = results.missing_everywhere(FILE, base=False)
    looks = style.looks(results.own_methods)
    caption = (
        "Problems sampled for training at temperature 1, before the updates on them. Grey: the means of the "
        f"experiment's other methods. {band_phrase(results.seed_counts, missing, DRAWN_SEEDS)} {claims_text(NAME)}"
    )
    title = f"Reward while training ({results.scale} scale)"
    rows = {experiment: -(-len(table) // COLUMNS) for experiment, table in tables.items()}
    figure = style.new_figure(1.15 * sum(rows.values()) + 0.2, title, caption, missing=missing)
    grid = figure.add_gridspec(sum(rows.values()), COLUMNS)
    top = 0
    for experiment, table in tables.items():
        means = {method: over_seeds(by_seed)[0] for method, by_seed in table.items()}
        first = None
        for place, (method, by_seed) in enumerate(table.items()):
            row, column = divmod(place, COLUMNS)
            panel = figure.add_subplot(grid[top + row, column], sharex=first, sharey=first)
            first = first or panel
            for other in means:
                if other != method:
                    panel.plot(np.arange(1, len(means[other]) + 1), means[other], color=OTHERS, linewidth=0.6, zorder=1)
            style.draw_seeds(panel, np.arange(1, len(means[method]) + 1), by_seed, *over_seeds(by_seed), looks[method])
            panel.set_ylim(0, max(1.0, panel.get_ylim()[1]))
            panel.set_title(style.label(method), loc="left", fontsize=style.FONT_SIZE)
            panel.tick_params(labelleft=column == 0, labelbottom=place + COLUMNS >= len(table))
            panel.set_xlabel("rollout batch" if place + COLUMNS >= len(table) else "")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if column == 0:
                panel.set_ylabel(f"experiment {experiment}\nreward" if row == 0 else "reward")
        top += rows[experiment]
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
