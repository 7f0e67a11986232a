"""Signs of stability or collapse in experiment kpo: entropy, gradient norm, clip share and log-ratio spread."""

import sys

import numpy as np

from paper_figures import style
from paper_figures.aggregate import over_seeds, per_rollout_batch, seeds_phrase
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results
from reproduction.publish.published import DRAWN_SEEDS

NAME = "entropy_gradient_norm"
FILE = "metrics.jsonl"
EXPERIMENT = "kpo"
# Key, label, logarithmic axis, off-policy minibatches only (in the first, every ratio is 1 and nothing is clipped).
PANELS = (
    ("entropy", "entropy (nats per token)", False, False),
    ("gradient_norm", "gradient norm before clipping", True, False),
    ("clip_share", "share of clipped tokens", False, True),
    ("log_ratio_std", "std of the token log-ratio (nats)", True, True),
)


def curves(results: Results, key: str, off_policy_only: bool) -> dict[str, dict[int, np.ndarray]]:
    """`key` by method and seed, the mean over the minibatches of each rollout batch."""
    table = {}
    for method in results.methods(EXPERIMENT):
        metrics = results.metrics(EXPERIMENT, method)
        if metrics:
            table[method] = {
                seed: per_rollout_batch(rows, key, off_policy_only=off_policy_only) for seed, rows in metrics.items()
            }
    return table


def draw(results: Results) -> style.PaperFigure:
    """Two by two panels; each shows every method."""
    results.require(NAME)
    methods = results.methods(EXPERIMENT)
    missing = results.missing_notes(EXPERIMENT, methods, FILE)
    looks = style.looks(results.own_methods)
    caption = (
        f"Experiment {EXPERIMENT}. Each value is the mean over the minibatches of a rollout batch; the lower two "
        f"panels leave out its first minibatch, in which every ratio is 1. "
        f"Lines: mean over {seeds_phrase(results.seed_counts, missing, DRAWN_SEEDS)}; a gap is a batch in which the "
        "value of a seed is undefined. The claims on entropy and gradient norm compare the whole ladder of stress, of "
        f"which this is the mildest rung. {claims_text(NAME)}"
    )
    title = f"Entropy, gradient norm, clipping and log-ratios while training ({results.scale} scale)"
    figure = style.new_figure(4.4, title, caption, {method: looks[method] for method in methods}, missing)
    axes = figure.subplots(2, 2, sharex=True)
    for panel, (key, axis_label, logarithmic, off_policy_only) in zip(axes.flat, PANELS, strict=True):
        table = curves(results, key, off_policy_only)
        for index, (method, by_seed) in enumerate(table.items()):
            mean, *_ = over_seeds(by_seed)
            marked = style.marked_places(len(mean), index, len(table))
            style.draw_mean(panel, np.arange(1, len(mean) + 1), mean, looks[method], marked)
        means = np.concatenate([line.get_ydata() for line in panel.lines])
        if logarithmic and (means[np.isfinite(means)] > 0).all():
            style.plain_log_axis(panel)
        else:
            panel.set_ylim(bottom=0)
        panel.set_title(axis_label, loc="left")
    for panel in axes[-1]:
        style.count_axis(panel, "rollout batch")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
