"""Summaries of evaluations: one split's scores with their intervals, and one table over all evaluations of a scale."""

from pathlib import Path

import numpy as np

from reproduction.evaluation.bootstrap import hierarchical_bootstrap, question_bootstrap
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.settings.configuration import Configuration, EvaluationSettings


def summarise_split(correct: np.ndarray, greedy: np.ndarray, settings: EvaluationSettings) -> dict:
    """avg@k, pass@1 and pass@k, and greedy accuracy, each with its question-level bootstrap interval.

    correct: (problems, k) of 0/1, greedy: (problems, 1) of 0/1.
    """
    num_problems, samples = correct.shape

    def interval(table, statistic="avg_at_k", k=None):
        found = question_bootstrap(
            table,
            statistic,
            k,
            num_resamples=settings.bootstrap_resamples,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        return found.estimate, [found.low, found.high]

    average, average_interval = interval(correct)
    passes = {k: interval(correct, "pass_at_k", k) for k in (1, samples)}
    greedy_accuracy, greedy_interval = interval(greedy)
    return {
        "num_problems": num_problems,
        "samples_per_problem": samples,
        "avg_at_k": average,
        "avg_at_k_interval": average_interval,
        "pass_at": {str(k): estimate for k, (estimate, _) in passes.items()},
        "pass_at_interval": {str(k): bounds for k, (_, bounds) in passes.items()},
        "greedy": greedy_accuracy,
        "greedy_interval": greedy_interval,
        "correct": correct.sum(axis=1).tolist(),
    }


def write_summary(configuration: Configuration, allow_missing: bool = False) -> None:
    """Write summary.json and summary.md from the evaluation.json of every run and base model.

    allow_missing: take the evaluations that there are of each method and name those that are missing; every base model
    must still have been evaluated. Raises ValueError if an evaluation is missing, or if the seeds of a method answered
    other problems or other numbers of samples, so that nothing is averaged over in silence.
    """
    folder = configuration.folder
    rows, missing = _rows(configuration, allow_missing)
    text = summary_markdown(rows, configuration)
    if missing:
        text += f"\nRuns are missing. There are of {'; of '.join(missing)}.\n"
    write_json(folder / "summary.json", {"scale": configuration.scale, "rows": rows})
    atomic_write(folder / "summary.md", text)
    if not allow_missing:
        write_checksums(folder, "summarise", ["summary.json", "summary.md"])


def summary_rows(configuration: Configuration) -> list[dict]:
    """The table's rows, of every base model and method, as `write_summary` writes them."""
    return _rows(configuration, allow_missing=False)[0]


def _rows(configuration: Configuration, allow_missing: bool) -> tuple[list[dict], list[str]]:
    """The rows, and a note on each method of which seeds are missing."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for experiment, method, seed in [*configuration.untrained(), *configuration.runs()]:
        seeds.setdefault((experiment, method), []).append(seed)
    rows, missing = [], []
    for (experiment, method), wanted in seeds.items():
        there = wanted
        if allow_missing and method != "base":
            there = [seed for seed in wanted if _evaluation_file(configuration, experiment, method, seed).is_file()]
        if there != wanted:
            found = f"only the seeds {', '.join(map(str, there))}" if there else "no seed"
            missing.append(f"{experiment}/{method}: {found}")
        if there:
            rows += _rows_of(configuration, experiment, method, there)
    return rows, missing


def _evaluation_file(configuration: Configuration, experiment: str, method: str, seed: int) -> Path:
    return configuration.run_folder(experiment, method, seed) / "evaluation.json"


def summary_markdown(rows: list[dict], configuration: Configuration) -> str:
    """The table for readers: one block an experiment, one line a method, one column a split, accuracy in percent."""
    confidence = f"{configuration.evaluation.confidence:.0%}"
    first = {row["split"]: row for row in rows}
    seeds = ", ".join(map(str, configuration.seeds))
    sizes = [f"{name} {row['num_problems']} x {row['samples_per_problem']} samples" for name, row in first.items()]
    lines = [
        f"# Accuracy at scale {configuration.scale}",
        "",
        f"Share of right answers at temperature 1 in percent: the mean over the seeds {seeds} with its {confidence}",
        "interval (bootstrap over seeds and problems), and the greedy accuracy in round brackets.",
        f"Problems: {'; '.join(sizes)}.",
    ]
    for experiment in dict.fromkeys(row["experiment"] for row in rows if row["experiment"] != "base"):
        shown = [row for row in rows if row["experiment"] in ("base", experiment)]
        splits = list(dict.fromkeys(row["split"] for row in shown))
        lines += ["", f"## Experiment {experiment}", ""]
        lines.append("| method | " + " | ".join(splits) + " |")
        lines.append("|---|" + "---|" * len(splits))
        for method in dict.fromkeys(row["method"] for row in shown):
            cells = {row["split"]: _cell(row) for row in shown if row["method"] == method}
            name = "base (before training)" if method == "base" else method
            lines.append(f"| {name} | " + " | ".join(cells[split] for split in splits) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict) -> str:
    low, high = row["avg_at_k_interval"]
    return f"{100 * row['avg_at_k']:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({100 * row['greedy']:.0f})"


def _rows_of(configuration: Configuration, experiment: str, method: str, seeds: list[int]) -> list[dict]:
    """A method's rows of the table over these seeds, one for each split; method `base` is the untrained model.

    Raises ValueError if an evaluation is missing or the seeds' evaluations do not fit together.
    """
    by_seed = {}
    for seed in seeds:
        path = _evaluation_file(configuration, experiment, method, seed)
        if not path.exists():
            raise ValueError(f"{path} is missing; evaluate that run before summarising")
        by_seed[seed] = _splits_of(path)
    rows = []
    answered = by_seed[seeds[0]]
    for split in [
        *(name for name in configuration.problems.levels if name in answered),
        *(name for name in answered if name not in configuration.problems.levels),
    ]:
        found = {seed: splits[split] for seed, splits in by_seed.items()}
        shapes = {(summary["num_problems"], summary["samples_per_problem"]) for summary in found.values()}
        if len(shapes) > 1:
            raise ValueError(
                f"{experiment}/{method}: the seeds' evaluations of {split!r} have different numbers of problems and "
                f"samples {sorted(shapes)}; evaluate them with one configuration"
            )
        num_problems, samples = shapes.pop()
        interval = hierarchical_bootstrap(
            {seed: outcomes(summary) for seed, summary in found.items()},
            num_resamples=configuration.evaluation.bootstrap_resamples,
            seed=configuration.evaluation.seed,
            confidence=configuration.evaluation.confidence,
            levels=("seed", "question"),
        )
        rows.append(
            {
                "experiment": experiment,
                "method": method,
                "split": split,
                "seeds": seeds,
                "num_problems": num_problems,
                "samples_per_problem": samples,
                "avg_at_k": interval.estimate,
                "avg_at_k_interval": [interval.low, interval.high],
                "pass_at_k": float(np.mean([summary["pass_at"][str(samples)] for summary in found.values()])),
                "greedy": float(np.mean([summary["greedy"] for summary in found.values()])),
                "per_seed": {str(seed): summary["avg_at_k"] for seed, summary in found.items()},
            }
        )
    return rows


def _splits_of(path: Path) -> dict[str, dict]:
    evaluation = read_json(path)
    splits = evaluation.get("splits") if isinstance(evaluation, dict) else None
    needed = {"num_problems", "samples_per_problem", "correct", "avg_at_k", "pass_at", "greedy"}
    if not splits or not all(isinstance(summary, dict) and needed <= set(summary) for summary in splits.values()):
        raise ValueError(
            f"{path}: needs the section 'splits' with {', '.join(sorted(needed))}; evaluate the model again"
        )
    return splits


def outcomes(summary: dict) -> np.ndarray:
    """(problems, samples) of 0/1 with the counts of a split's summary; the order of samples carries no meaning."""
    counts = np.asarray(summary["correct"])[:, None]
    return (np.arange(summary["samples_per_problem"])[None, :] < counts).astype(int)
