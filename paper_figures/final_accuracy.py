"""avg@k of every method and of the base models on held-out problems, by level, with intervals and each seed."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes

from paper_figures import style
from paper_figures.aggregate import seeds_phrase
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results, ResultsError

NAME = "final_accuracy"
FILE = "evaluation.json"
LEVELS = ("easy", "normal", "hard", "file")
GROUP_WIDTH = 0.8


@dataclass(frozen=True)
class Estimate:
    """What is drawn for one method on one level: mean over seeds, its interval, and each seed."""

    mean: float
    low: float
    high: float
    by_seed: dict[int, float]
    num_problems: int
    samples_per_problem: int


def estimates(results: Results, experiment: str) -> dict[str, dict[str, Estimate]]:
    """Estimates by level, then by method (the base models first).

    Mean and interval come from summary.json and are held against each run's evaluation.json: other seeds or other
    values mean that the summary is out of date and raise `ResultsError`, as do models that were evaluated on other
    numbers of problems or samples, or with other sampling, than the rest.
    """
    rows = results.summary_rows()
    samplings: dict[str, str] = {}
    table: dict[str, dict[str, Estimate]] = {}
    for method in ["base", *results.methods(experiment)]:
        evaluations = results.evaluations(experiment, method)
        for seed, evaluation in evaluations.items():
            # Models whose engine, versions or sampling differ cannot be compared.
            sampling = {key: value for key, value in evaluation["sampling"].items() if key != "seed"}
            samplings.setdefault(
                json.dumps(sampling, sort_keys=True), str(results.run_folder(experiment, method, seed))
            )
        levels = [set(evaluation["splits"]) for evaluation in evaluations.values()]
        if any(level != levels[0] for level in levels):
            raise ResultsError(f"{results.root}: the seeds of {experiment}/{method} were evaluated on different levels")
        for level in sorted(levels[0], key=_level_order) if levels else []:
            splits = {seed: evaluation["splits"][level] for seed, evaluation in evaluations.items()}
            row = rows.get(("base" if method == "base" and results.has_shared_base else experiment, method, level))
            where = f"{results.root / 'summary.json'}: {experiment}/{method} on level {level!r}"
            table.setdefault(level, {})[method] = estimate(splits, row, where)
    if len(samplings) > 1:
        raise ResultsError(
            f"evaluated with different sampling: {' and '.join(samplings.values())}; evaluate both alike"
        )
    for level, by_method in table.items():
        kinds = {(drawn.num_problems, drawn.samples_per_problem) for drawn in by_method.values()}
        if len(kinds) > 1:
            raise ResultsError(
                f"{results.root}: experiment {experiment!r}, level {level!r}: models evaluated on different numbers of "
                f"(problems, samples) {sorted(kinds)}; evaluate them again alike"
            )
    return table


def estimate(splits: Mapping[int, dict], row: dict | None, where: str) -> Estimate:
    """One method on one level: the summary's `row`, after checking it against each seed's split of evaluation.json."""
    by_seed = {seed: split["avg_at_k"] for seed, split in splits.items()}
    if row is None:
        raise ResultsError(f"{where} has no row; make the summary again")
    per_seed = {str(seed): value for seed, value in row["per_seed"].items()}
    if set(per_seed) != {str(seed) for seed in by_seed}:
        raise ResultsError(
            f"{where} is a mean over seeds {sorted(per_seed)}, found {sorted(by_seed)}; make the summary again"
        )
    for seed, value in by_seed.items():
        if not math.isclose(per_seed[str(seed)], value, abs_tol=1e-9):
            raise ResultsError(
                f"{where}, seed {seed}: {per_seed[str(seed)]}, but evaluation.json says {value}; make it again"
            )
    mean = math.fsum(by_seed.values()) / len(by_seed)
    if not math.isclose(row["avg_at_k"], mean, abs_tol=1e-9):
        raise ResultsError(
            f"{where}: avg_at_k {row['avg_at_k']} is not the mean {mean} of its seeds; make the summary again"
        )
    sizes = {(split["num_problems"], split["samples_per_problem"]) for split in splits.values()}
    if len(sizes) > 1:
        raise ResultsError(f"{where}: seeds evaluated on different numbers of (problems, samples) {sorted(sizes)}")
    low, high = row["avg_at_k_interval"]
    return Estimate(row["avg_at_k"], low, high, by_seed, *sizes.pop())


def _level_order(level: str) -> tuple[int, str]:
    return (LEVELS.index(level) if level in LEVELS else len(LEVELS), level)


def draw(results: Results) -> style.PaperFigure:
    """One panel an experiment; groups are levels, within a group one mark a method."""
    results.require(NAME)
    experiments = results.own_experiments
    by_experiment = {name: ["base", *results.methods(name)] for name in experiments}
    missing = results.missing_everywhere(FILE, base=True)
    looks = style.looks(results.own_methods)
    if len(results.seeds) == 1:
        marks = "the only seed, with its"
        caution = "The interval says nothing of other seeds."
    else:
        marks = f"mean over {seeds_phrase(results.seed_counts, missing)}, with its"
        caution = "Small circles: each seed."
        if len(results.seeds) < 10:
            caution += " With few seeds such an interval tends to be too narrow."
    late = "The claims compare the mean over the last third of training, on other problems. "
    if not any(results.configuration.experiments[name].late_evaluation for name in experiments):
        late = ""
    caption = (
        f"avg@k: mean share of right answers over k samples a problem at temperature 1. Large marks: {marks} "
        f"{results.confidence:.0%} interval from a bootstrap over seeds and problems. {caution} The dotted line "
        f"carries the base models' mean across its level. {late}{claims_text(NAME)}"
    )
    title = f"Accuracy on held-out problems after training ({results.scale} scale)"
    figure = style.new_figure(2.1 * len(experiments) + 0.3, title, caption, looks, missing)
    axes = figure.subplots(len(experiments), 1, squeeze=False)
    for panel, experiment in zip(axes[:, 0], experiments, strict=True):
        _draw_panel(panel, estimates(results, experiment), by_experiment[experiment], looks)
        panel.set_title(f"experiment {experiment}", loc="left")
    return figure


def _draw_panel(panel: Axes, table: dict, methods: list[str], looks: dict[str, style.Look]) -> None:
    labels = []
    for group, (level, by_method) in enumerate(table.items()):
        left = group - GROUP_WIDTH / 2
        for method, drawn in by_method.items():
            x = left + (methods.index(method) + 0.5) * GROUP_WIDTH / len(methods)
            if method == "base":
                panel.hlines(
                    drawn.mean,
                    left,
                    left + GROUP_WIDTH,
                    zorder=1,
                    colors=looks[method].colour,
                    linestyles=":",
                    linewidth=1.0,
                )
            style.draw_estimate(
                panel, x, drawn.mean, drawn.low, drawn.high, list(drawn.by_seed.values()), looks[method], spread=0.036
            )
        name = style.LEVEL_LABELS.get(level, level)
        labels.append(f"{name}\n{drawn.num_problems} problems, k = {drawn.samples_per_problem}")
    panel.set_xticks(range(len(labels)), labels)
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.5, len(labels) - 0.5)
    panel.set_ylim(-0.03, 1.03)  # marks at 0 and 1 are whole
    panel.set_ylabel("avg@k")


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
