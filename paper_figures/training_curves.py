"""Reward and accuracy over training: every method of every experiment, mean and range over seeds."""

import sys
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from paper_figures import style
from paper_figures.aggregate import band_phrase, over_seeds, per_rollout_batch
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results

NAME = "training_curves"
FILE = "metrics.jsonl"
TOGETHER = 5
"""The most methods that one panel can show legibly, each with its seeds; more get a small panel each."""


def curves(results: Results, experiment: str, key: str) -> dict[str, dict[int, np.ndarray]]:
    """`key` by method and seed, one value a rollout batch. A method without any seed has no entry."""
    table = {}
    for method in results.methods(experiment):
        by_seed = {seed: per_rollout_batch(rows, key) for seed, rows in results.metrics(experiment, method).items()}
        if by_seed:
            table[method] = by_seed
    return table


def measures(results: Results, experiment: str) -> list[tuple[str, str]]:
    """Keys and labels of one experiment's panels: reward and accuracy, or one if both are equal everywhere."""
    reward, accuracy = (curves(results, experiment, key) for key in ("reward", "accuracy"))
    same = all(
        np.array_equal(values, accuracy[method][seed], equal_nan=True)
        for method, by_seed in reward.items()
        for seed, values in by_seed.items()
    )
    if same:
        return [("reward", "mean reward = share of right answers")]
    return [("reward", "mean reward"), ("accuracy", "share of right answers")]


def draw(results: Results) -> style.PaperFigure:
    """One column per experiment; one panel for all its methods, or one per method if they are many."""
    results.require(NAME)
    experiments = results.own_experiments
    missing = results.missing_everywhere(FILE, base=False)
    looks = style.looks(results.own_methods)
    caption = (
        "Problems sampled for training at temperature 1, before the updates on them; a response is right when its "
        f"answer equals the exact one. {band_phrase(results.drawn_counts, missing)} {claims_text(NAME)}"
    )
    legend = {method: look for method, look in looks.items() if method != "base"}
    title = f"Reward and accuracy while training ({results.scale} scale)"
    crowded = [name for name in experiments if len(results.methods(name)) > TOGETHER]
    if crowded:
        height = "; ".join(dict.fromkeys(label for name in crowded for _, label in measures(results, name)))
        caption += f" Small panels ({height}): one method each, the means of the others of its experiment in grey."
    figure = style.new_figure(4.6 if crowded else 3.9, title, caption, legend, missing)
    # Many curves in one panel need the room more than two do.
    widths = [1.4 if len(results.methods(name)) > 3 else 1.0 for name in experiments]
    grid = figure.add_gridspec(2, len(experiments), width_ratios=widths)
    for column, experiment in enumerate(experiments):
        shown = measures(results, experiment)
        for row, (key, axis_label) in enumerate(shown):
            place = grid[row, column] if len(shown) > 1 else grid[:, column]
            table = curves(results, experiment, key)
            last = row == len(shown) - 1
            if len(table) > TOGETHER:
                _draw_apart(figure, place, table, looks, axis_label, f"experiment {experiment}: ", last)
                continue
            panel = figure.add_subplot(place)
            for index, (method, by_seed) in enumerate(table.items()):
                mean, low, high = over_seeds(by_seed)
                marked = style.marked_places(len(mean), index, len(table))
                style.draw_seeds(panel, np.arange(1, len(mean) + 1), by_seed, mean, low, high, looks[method], marked)
            panel.set_ylabel(axis_label)
            panel.set_ylim(0, max(1.0, panel.get_ylim()[1]))
            panel.tick_params(labelbottom=last)
            if row == 0:
                panel.set_title(f"experiment {experiment}", loc="left")
            style.count_axis(panel, "rollout batch" if last else "")
    return figure


def _draw_apart(
    figure: Figure, place: SubplotSpec, table: dict[str, dict[int, np.ndarray]], looks: Mapping[str, style.Look],
    axis_label: str, prefix: str, last: bool,
) -> None:  # fmt: skip
    """A small panel for each method, two per row, with the means of the others behind its own curves."""
    rows = -(-len(table) // 2)
    grid = place.subgridspec(rows, 2)
    means = {method: over_seeds(by_seed)[0] for method, by_seed in table.items()}
    first = None
    for index, (method, by_seed) in enumerate(table.items()):
        panel = first = figure.add_subplot(grid[index // 2, index % 2], sharex=first, sharey=first)
        batches = np.arange(1, len(means[method]) + 1)
        for other, mean in means.items():
            if other != method:
                panel.plot(np.arange(1, len(mean) + 1), mean, color="#c4c4c4", linewidth=0.6, zorder=1)
        style.draw_seeds(panel, batches, by_seed, *over_seeds(by_seed), looks[method])
        panel.set_ylim(0, 1)
        panel.set_yticks([0, 0.5, 1])
        under = last and index >= len(table) - 2
        panel.tick_params(labelbottom=under, labelleft=index % 2 == 0)
        panel.set_title(f"{prefix if index == 0 else ''}{style.label(method)}", loc="left", fontsize=style.FONT_SIZE)
        style.count_axis(panel, "rollout batch" if under else "")
        if index == 2 * ((rows - 1) // 2):
            panel.set_ylabel(axis_label.split(" = ")[0])  # the caption has the whole


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
