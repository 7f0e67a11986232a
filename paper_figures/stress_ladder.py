"""What growing off-policy stress does to each method: reward, collapse, entropy and gradient spikes."""

import sys

from paper_figures import style
from paper_figures.cells import draw_groups, seeds_text
from paper_figures.command import script
from paper_figures.measured import Claims, Measures
from paper_figures.results import Results
from reproduction.claims.kpo_training import COLLAPSES, LADDER

NAME = "stress_ladder"
METHODS = ("grpo", "gspo", "gmpo", "kpo-clipped", "kpo-unclipped", "kpo-ema", "kpo-unit")
PANELS = (
    ("reward_half", "reward, second half of training"),
    ("collapse", "share of collapsed runs"),
    ("entropy_fall", "fall of the entropy (log of a ratio)"),
    ("gradient_spikes", "share of updates with a gradient spike"),
)


def rungs(results: Results) -> list[str]:
    """The experiments of the ladder that the configuration has, from the mildest."""
    return [name for name in (*LADDER, COLLAPSES) if name in results.experiments]


def rung_label(results: Results, name: str) -> str:
    """Updates made from each rollout batch, and the learning rate, of a rung."""
    training = results.experiment(name)["training"]
    updates = training.get("minibatches", 1) * training.get("epochs", 1)
    rate = training.get("learning_rate")
    return f"{updates} updates" + ("" if rate is None else f"\nrate {rate:g}")


def table(results: Results, measures: Measures, measure: str) -> dict[tuple[int, str], dict[int, float]]:
    """{(rung, method): {seed: value}} of what is configured."""
    return {
        (index, method): measures.of(measure, (name, method))
        for index, name in enumerate(rungs(results))
        for method in METHODS
        if measures.has((name, method))
    }


def draw(results: Results) -> style.PaperFigure:
    """Two by two panels; along x the rungs, within each one mark a method."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    tables = {measure: table(results, measures, measure) for measure, _ in PANELS}
    methods = [method for method in METHODS if any(method == found for _, found in tables["reward_half"])]
    looks = {method: look for method, look in style.looks(METHODS).items() if method in methods}
    seeds = seeds_text((by_seed for part in tables.values() for by_seed in part.values()), measures.missing)
    caption = (
        "Rungs: updates from each batch of responses, and the learning rate; the first is the scale's own comparison, "
        "with as many updates as in KPO's paper. Runs of one seed start from one base model and see the same prompts. "
        "Reward: a stopped run counts 0 in the batches it lacks. Collapsed: right answers below half of the run's "
        "best, most responses cut off, or stopped. Fall of the entropy: logarithm of its mean over the first fifth of "
        "the updates over that of the last fifth; below 0 it rose. Spike: gradient norm above three times the run's "
        f"median. {seeds} {claims.notes_for(NAME)}"
    )
    title = f"Stability under growing off-policy stress ({results.scale} scale)"
    figure = style.new_figure(4.3, title, caption, looks, measures.missing)
    axes = figure.subplots(2, 2, sharex=True)
    labels = [rung_label(results, name) for name in rungs(results)]
    for panel, (measure, name) in zip(axes.flat, PANELS, strict=True):
        # A run has collapsed or not: the share has no range over seeds.
        draw_groups(panel, labels, tables[measure], methods, looks, seeds=measure != "collapse")
        panel.set_title(name, loc="left")
        if measure in ("reward_half", "collapse"):
            panel.set_ylim(-0.03, 1.03)
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
