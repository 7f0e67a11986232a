"""Reward and accuracy over training: every method of every experiment, mean and range over seeds."""

import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from paper_figures import style
from paper_figures.aggregate import band_phrase, over_seeds, per_rollout_batch
from paper_figures.command import figure_main
from paper_figures.results import Results

NAME = "training_curves"
FILE = "metrics.jsonl"


def curves(results: Results, experiment: str, key: str) -> dict[str, dict[int, np.ndarray]]:
    """`key` by method and seed, one value a rollout batch. A method none of whose seeds is there has no entry."""
    table = {}
    for method in results.methods(experiment):
        by_seed = {seed: per_rollout_batch(rows, key) for seed, rows in results.metrics(experiment, method).items()}
        if by_seed:
            table[method] = by_seed
    return table


def measures(results: Results, experiment: str) -> list[tuple[str, str]]:
    """Keys and labels of one experiment's panels: reward and accuracy, or one where both are equal everywhere."""
    reward, accuracy = (curves(results, experiment, key) for key in ("reward", "accuracy"))
    same = all(
        np.array_equal(values, accuracy[method][seed], equal_nan=True)
        for method, by_seed in reward.items()
        for seed, values in by_seed.items()
    )
    if same:
        return [("reward", "mean reward = share of right answers")]
    return [("reward", "mean reward"), ("accuracy", "share of right answers")]


def draw(results: Results) -> Figure:
    """One column an experiment; each panel shows every method of it."""
    experiments = results.experiments
    missing = results.missing_everywhere(FILE, base=False)
    looks = style.looks(results.all_methods)
    caption = (
        "Problems sampled for training at temperature 1, before the updates on them; a response is right when its "
        f"answer equals the exact one. {band_phrase(len(results.seeds), missing)}"
    )
    legend = {method: look for method, look in looks.items() if method != "base"}
    title = f"Reward and accuracy while training ({results.scale} scale)"
    figure = style.new_figure(3.9, title, caption, legend, missing)
    # Many curves in one panel need the room more than two do.
    widths = [1.4 if len(results.methods(name)) > 3 else 1.0 for name in experiments]
    grid = figure.add_gridspec(2, len(experiments), width_ratios=widths)
    for column, experiment in enumerate(experiments):
        shown = measures(results, experiment)
        for row, (key, axis_label) in enumerate(shown):
            panel = figure.add_subplot(grid[row, column] if len(shown) > 1 else grid[:, column])
            table = curves(results, experiment, key)
            for index, (method, by_seed) in enumerate(table.items()):
                mean, low, high = over_seeds(by_seed)
                marked = style.marked_places(len(mean), index, len(table))
                style.draw_seeds(panel, np.arange(1, len(mean) + 1), by_seed, mean, low, high, looks[method], marked)
            panel.set_ylabel(axis_label)
            panel.set_ylim(0, max(1.0, panel.get_ylim()[1]))
            panel.tick_params(labelbottom=row == len(shown) - 1)
            if row == 0:
                panel.set_title(f"experiment {experiment}", loc="left")
        style.count_axis(panel, "rollout batch")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    return figure_main(NAME, draw, argv)


if __name__ == "__main__":
    sys.exit(main())
