"""related_methods.json and .md: the related methods side by side, with intervals, budgets and places.

Accuracy is the share of right answers over the checkpoints of the last third of training, the mean of the levels
(`late_accuracy` of `reproduction.claims.measures`). Only seeds that every measured method has count, so that all
differences are of the same seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reproduction.claims.comparable import check_comparable
from reproduction.claims.one_run import Run
from reproduction.claims.runs import read_measures
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import atomic_write, write_json
from reproduction.related.ranking import places, simultaneous_intervals
from reproduction.settings.configuration import Configuration

NAME = "related_methods"
PREFIX = "related"
"""The experiments whose name begins so are compared: one task, different groups or minibatches."""
CONTROL = ("related", "grpo")
BUDGETS = ("generated_tokens", "update_tokens")
CONFIDENCE = 0.95
LIMITS = (
    "One task, one small model, one learning rate for all: a method that needs another is at a disadvantage here, and "
    "its paper's own setting may rank it elsewhere.",
    "A method whose interval of the difference includes 0 was not told from GRPO, which does not make it as good. The "
    "order of methods whose places overlap is that of the estimates and nothing more.",
    "The intervals assume differences of seeds that are roughly normal: a collapse so rare that no seed here shows "
    "it is not in them.",
    "Equal numbers of responses are not equal costs: compare the two columns of tokens as well. They hold the policy's "
    "tokens only: value models, and passes of the model before training over the rollouts, cost time in addition.",
    "Methods of related-on-policy make one update from each rollout batch, a quarter of the others': compare them with "
    "each other.",
)


def write_comparison(configuration: Configuration) -> None:
    """Write related_methods.json and related_methods.md from measures.json."""
    record, page = related_record(configuration)
    write_json(configuration.folder / f"{NAME}.json", record)
    atomic_write(configuration.folder / f"{NAME}.md", page)
    written, read = [f"{NAME}.json", f"{NAME}.md"], [configuration.folder / "measures.json"]
    write_checksums(configuration.folder, "related", written, read)


def related_record(configuration: Configuration) -> tuple[dict[str, Any], str]:
    """What related_methods.json and related_methods.md hold.

    Raises ValueError if there is no such experiment, or GRPO or a seed that all methods share is missing.
    """
    names = [name for name in configuration.experiments if name.startswith(PREFIX)]
    if not names:
        raise ValueError(f"no experiment {PREFIX!r} is configured; add study=related")
    measured, not_run = _measured(configuration, names)
    if CONTROL not in measured:
        raise ValueError(f"{'/'.join(CONTROL)}, with which all are compared, has no measured run; make it first")
    seeds = sorted(set.intersection(*(set(runs) for runs in measured.values())))
    if not seeds:
        few = min(measured, key=lambda cell: len(measured[cell]))
        raise ValueError(f"no seed has a run of every method; {'/'.join(few)} has {sorted(measured[few])}")
    check_comparable([runs[seed] for runs in measured.values() for seed in seeds], timed=False, graded=False)
    accuracy_SM = np.array([[_accuracy(runs[seed]) for runs in measured.values()] for seed in seeds])
    rows = _rows(configuration, measured, seeds, accuracy_SM)
    record = {
        "scale": configuration.scale, "control": list(CONTROL), "seeds": seeds, "confidence": CONFIDENCE,
        "comparisons": len(measured) - 1, "not_run": not_run, "rows": rows, "limits": list(LIMITS),
    }  # fmt: skip
    return record, markdown(record)


def _measured(configuration: Configuration, names: Sequence[str]) -> tuple[dict[tuple[str, str], dict[int, Run]], list]:
    """The runs with an accuracy of each (experiment, label), and the runs that were not made or have none."""
    study, found, not_run = read_measures(configuration), {}, []
    for name in names:
        for label in configuration.experiments[name].methods:
            runs = study.runs.get((name, label), {})
            kept = {seed: run for seed, run in runs.items() if _accuracy(run) is not None}
            not_run += [
                f"{name}/{label}/seed{seed}" for seed in configuration.seeds_of(name, label) if seed not in kept
            ]
            if kept:
                found[name, label] = kept
    return found, not_run


def _accuracy(run: Run) -> float | None:
    """Mean of the levels' late accuracies; None if the run has none."""
    values = [value for name, value in run.values.items() if name.startswith("late_accuracy.")]
    return sum(values) / len(values) if values and None not in values else None


def _rows(configuration, measured, seeds: Sequence[int], accuracy_SM: np.ndarray) -> list[dict[str, Any]]:
    """A row for each method, from the highest mean accuracy to the lowest."""
    cells = list(measured)
    control = cells.index(CONTROL)
    others = [place for place in range(len(cells)) if place != control]
    difference_SM = accuracy_SM - accuracy_SM[:, [control]]
    ends = simultaneous_intervals(difference_SM[:, others], CONFIDENCE) if others else (np.empty(0), np.empty(0))
    interval = dict(zip(others, zip(*ends, strict=True), strict=True))
    best, worst = places(accuracy_SM, CONFIDENCE)
    rows = []
    for index, (experiment, label) in enumerate(cells):
        method, runs = configuration.experiments[experiment].method(label), measured[experiment, label]
        values = accuracy_SM[:, index]
        low, high = (end.item() for end in simultaneous_intervals(values[:, None], CONFIDENCE))
        rows.append({
            "experiment": experiment, "label": label, "method": method.name, "paper": method.paper,
            "accuracy": _estimate(values.mean(), low, high),
            "by_seed": values.tolist(),
            "difference": _estimate(difference_SM[:, index].mean(), *interval[index]) if index in interval else None,
            "place": [int(best[index]), int(worst[index])],
            **{name: _mean([runs[seed].values.get(name) for seed in seeds]) for name in BUDGETS},
            "collapsed": sum(bool(runs[seed].values.get("collapse")) for seed in seeds),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["accuracy"]["value"])


def _estimate(value: float, low: float, high: float) -> dict[str, float | None]:
    ends = {"low": low, "high": high}
    return {"value": float(value), **{name: float(end) if np.isfinite(end) else None for name, end in ends.items()}}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)


def markdown(record: dict[str, Any]) -> str:
    """The page for readers: table, what was not run, and what it cannot say."""
    seeds, share = ", ".join(map(str, record["seeds"])), f"{100 * record['confidence']:.0f}%"
    heads = ("place", "method", "paper", "accuracy", "minus GRPO", "generated", "updated on", "collapsed")
    lines = [
        f"# Related methods at {record['scale']} scale",
        "",
        f"Seeds {seeds}. Accuracy in percent, mean over seeds [{share} interval]; minus GRPO: difference of the same "
        f"seeds in points, with intervals that hold together for all {record['comparisons']} comparisons "
        f"({share}); place: where each method may be among all, {share} for each. Tokens are thousands in a run.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        best, worst = row["place"]
        cells = (
            f"{best}" if best == worst else f"{best} to {worst}",
            named(row),
            row["paper"],
            in_points(row["accuracy"]),
            "control" if row["difference"] is None else in_points(row["difference"]),
            *(thousands(row[name]) for name in BUDGETS),
            f"{row['collapsed']} of {len(record['seeds'])}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    better, worse = (", ".join(names) or "none" for names in told_apart(record["rows"]))
    together = f"Shown to differ from GRPO, all {record['comparisons']} comparisons together ({share})"
    lines += ["", f"{together}: better {better}; worse {worse}."]
    if record["not_run"]:
        lines += ["", f"Not run, so not in the table or only with fewer seeds: {', '.join(record['not_run'])}."]
    return "\n".join([*lines, "", "What this cannot say:", "", *(f"- {text}" for text in record["limits"]), ""])


def told_apart(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The methods whose interval of the difference is above 0, and those below it."""
    told = [row for row in rows if row["difference"] and row["difference"]["low"] is not None]
    better = [named(row) for row in told if row["difference"]["low"] > 0]
    return better, [named(row) for row in told if row["difference"]["high"] < 0]


def named(row: dict[str, Any]) -> str:
    """The label, and the experiment if it is not the main one."""
    return row["label"] if row["experiment"] == CONTROL[0] else f"{row['label']} ({row['experiment']})"


def in_points(estimate: dict[str, float | None]) -> str:
    """`71.2 [68.0, 74.4]`, from shares; without brackets if there is no interval."""
    text = f"{100 * estimate['value']:.1f}"
    if estimate["low"] is not None:
        text += f" [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def thousands(tokens: float | None) -> str:
    """Thousands of tokens; `not recorded` for None."""
    return "not recorded" if tokens is None else f"{tokens / 1000:,.0f}"
