"""pass@1 to pass@k of every method and of the base models on the normal level, from the counts of right samples."""

import sys
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from paper_figures import style
from paper_figures.aggregate import over_seeds, seeds_phrase
from paper_figures.command import script
from paper_figures.results import NotConfigured, Results, ResultsError
from reproduction.evaluation import pass_at_k

NAME = "pass_at_k"
FILE = "evaluation.json"
LEVEL = "normal"


def pass_curve(counts: Sequence[int], samples_per_problem: int) -> np.ndarray:
    """Unbiased pass@1 ... pass@n (n = `samples_per_problem`) from the number of right samples of each problem.

    pass@k depends only on a problem's count c (1 - C(n-c, k) / C(n, k); Chen et al. 2021), so any order of its
    samples will do.
    """
    if any(not 0 <= count <= samples_per_problem for count in counts):
        raise ResultsError(f"evaluation.json: a count of right samples lies outside 0 to {samples_per_problem}")
    correct = (np.arange(samples_per_problem)[None, :] < np.asarray(counts)[:, None]).astype(int)
    return np.array([float(pass_at_k(correct, k)) for k in range(1, samples_per_problem + 1)])


def curves(results: Results, experiment: str) -> dict[str, dict[int, np.ndarray]]:
    """pass@k curves by method (the base models first) and seed."""
    table = {}
    for method in ["base", *results.methods(experiment)]:
        by_seed = {}
        for seed, evaluation in results.evaluations(experiment, method).items():
            split = evaluation["splits"].get(LEVEL)
            if split is None:
                path = results.run_folder(experiment, method, seed) / FILE
                raise NotConfigured(f"{path}: no level {LEVEL!r}, which this figure shows")
            by_seed[seed] = pass_curve(split["correct"], split["samples_per_problem"])
        if by_seed:
            table[method] = by_seed
    sizes = {len(curve) for by_seed in table.values() for curve in by_seed.values()}
    if len(sizes) > 1:
        raise ResultsError(
            f"{results.root}: models of {experiment!r} have different numbers of samples a problem {sorted(sizes)}; "
            "evaluate them again alike"
        )
    return table


def draw(results: Results) -> style.PaperFigure:
    """One panel an experiment, k on a logarithmic axis."""
    results.require(NAME)
    experiments = results.own_experiments
    missing = results.missing_everywhere(FILE, base=True)
    looks = style.looks(results.own_methods)
    caption = (
        f"Level {LEVEL}, temperature 1. pass@k: chance that at least one of k samples is right, estimated without bias "
        "from all samples of a problem; at the largest k it is the share of problems with any right sample. "
        f"Lines: mean over {seeds_phrase(results.seed_counts, missing)}."
    )
    figure = style.new_figure(2.7, f"pass@k on held-out problems ({results.scale} scale)", caption, looks, missing)
    axes = figure.subplots(1, len(experiments), sharey=True, squeeze=False)
    for panel, experiment in zip(axes[0], experiments, strict=True):
        powers = []
        for method, by_seed in curves(results, experiment).items():
            mean, *_ = over_seeds(by_seed)
            powers = [2**power for power in range(len(mean).bit_length())]
            marked = [power - 1 for power in powers]
            style.draw_mean(panel, np.arange(1, len(mean) + 1), mean, looks[method], marked)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(powers))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_title(f"experiment {experiment}", loc="left")
        panel.set_xlabel("k")
    axes[0, 0].set_ylabel("pass@k")
    axes[0, 0].set_ylim(top=1.01)
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
