"""`python -m reproduction verify results/<scale>`: is a folder complete, untampered, consistent, and made by one code?

Every problem is one line that names the file. Checked are the checksums of all steps, each run's settings, seed, rows
and kept log-ratios, each evaluation against its kept answers (graded again), the summary against the evaluations, the
measures, claims and tables against what they are made from, and that code and package versions are the same everywhere.
Notes say what a reader should know but is not an error.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.data import Problem, normalise_question, read_problems
from reproduction.data.splits import FILE_SPLIT, evaluation_splits
from reproduction.evaluation.summary import summary_markdown, summary_rows
from reproduction.jobs.checksums import checksums_path
from reproduction.jobs.files import read_json
from reproduction.jobs.provenance import source_hash
from reproduction.related.comparison import CONTROL
from reproduction.sampling.shards import FOLDER as SHARDS
from reproduction.settings.configuration import Configuration, ConfigurationError, read_resolved
from reproduction.verify.derived import verify_derived
from reproduction.verify.run import (
    BASE_FILES,
    EVALUATION_FILES,
    RUN_FILES,
    verify_base,
    verify_evaluation,
    verify_run,
    verify_step,
)

CHECKPOINT = "checkpoint"
PROBLEM_FILES = ("train.jsonl", "held_out.jsonl")
SUMMARY_FILES = ("summary.json", "summary.md")
OPTIONAL_STEPS = {
    "measure": ("measures.json",),
    "claims": ("claims.json", "claims.md"),
    "related": ("related_methods.json", "related_methods.md"),
}


@dataclass
class Verification:
    """What was found: `problems` and `notes`, a line each, and how many runs and files were looked at."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: int = 0
    made_by: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, problems: Iterable[str]) -> None:
        self.problems += [problem for problem in problems if problem not in self.problems]


def verify(folder: Path) -> Verification:
    """Check the results folder of one scale.

    Raises ConfigurationError if the folder or its config.yaml cannot be read, since nothing else can be judged then.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder; give the folder of one scale, such as results/laptop")
    configuration = read_resolved(folder / "config.yaml")
    if folder.resolve().name != configuration.scale:
        raise ConfigurationError(
            f"{folder / 'config.yaml'}: is of scale {configuration.scale!r}; rename the folder to {configuration.scale}"
        )
    strange = [name for name, settings in configuration.experiments.items() if settings.pretrained is not None]
    if strange:
        raise ConfigurationError(
            f"{folder / 'config.yaml'}: experiment {strange[0]!r} has a Hugging Face model, and only runs with base "
            "models of the workflow can be verified; compare their files with checksums/ in each folder"
        )
    # The folder may have been moved: its own place counts, not the one that the configuration names.
    configuration = configuration.model_copy(update={"results": str(folder.parent)})
    found = Verification()
    splits = _verify_problems(configuration, found)
    for seed in configuration.seeds:
        base = configuration.run_folder("base", "base", seed)
        _step(found, base, "pretrain", BASE_FILES)
        found.add(verify_base(configuration, seed))
        _verify_evaluation(configuration, found, base, splits)
        found.add(_under_way(base))
    for run in configuration.runs():
        place = configuration.run_folder(*run)
        _step(found, place, "train", RUN_FILES)
        found.add(verify_run(configuration, *run))
        _verify_evaluation(configuration, found, place, splits)
        found.add(_under_way(place))
        found.runs += 1
    _verify_summary(configuration, found)
    for step, files in OPTIONAL_STEPS.items():
        # A folder keeps the comparison of the related methods when another study is configured.
        if step == "related" and CONTROL[0] not in configuration.experiments:
            continue
        if any((folder / name).exists() for name in files):
            _step(found, folder, step, files)
    found.add(verify_derived(configuration))
    _verify_one_code(found)
    _verify_no_copies(configuration, found)
    found.add(f"{path}: half-written, left by a kill; remove it" for path in _leftovers(folder))
    return found


def _step(found: Verification, folder: Path, step: str, files: tuple[str, ...]) -> None:
    problems, recorded = verify_step(folder, step, files)
    found.add(problems)
    if recorded is not None and step not in OPTIONAL_STEPS:
        found.made_by[str(checksums_path(folder, step))] = {**recorded, "step": step}
    path = folder / "provenance.json"
    if step in ("pretrain", "train") and path.is_file():
        try:
            provenance = read_json(path)
            found.made_by[str(path)] = {"step": step, **{key: provenance[key] for key in ("source_hash", "versions")}}
            if provenance.get("dirty"):
                found.notes.append(f"{path}: made with uncommitted changes; its `diff` holds them")
            elif provenance.get("dirty", False) is None:
                found.notes.append(f"{path}: whether it was made with uncommitted changes is not known")
            if provenance.get("stopped"):
                found.notes.append(f"{path}: stopped early, {provenance['stopped']}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.add([f"{path}: not the record of a run ({' '.join(str(error).split())})"])


def _verify_problems(configuration: Configuration, found: Verification) -> dict[str, list[Problem] | None] | None:
    """The splits of the evaluation, or None if the problems cannot be read; None for a split whose file is gone."""
    folder, settings = configuration.folder / "problems", configuration.problems
    _step(found, folder, "problems", PROBLEM_FILES)
    try:
        train, held_out = (read_problems(folder / name) for name in PROBLEM_FILES)
        for name, problems, number in (
            ("train", train, settings.train_per_level),
            ("held_out", held_out, settings.held_out_per_level),
        ):
            for level in settings.levels:
                count = sum(problem.level == level for problem in problems)
                if count != number:
                    found.add(
                        [f"{folder / name}.jsonl: {count} problems of level {level!r}, config.yaml asks for {number}"]
                    )
        shared = set.intersection(*({normalise_question(p.question) for p in side} for side in (train, held_out)))
        if shared:
            found.add([f"{folder / 'held_out.jsonl'}: {len(shared)} problems occur in train.jsonl as well"])
        if configuration.arithmetic_file is None or Path(configuration.arithmetic_file).is_file():
            return evaluation_splits(configuration)
        found.notes.append(f"{configuration.arithmetic_file}: is not here, so answers to it are not graded again")
        return {**evaluation_splits(configuration.model_copy(update={"arithmetic_file": None})), FILE_SPLIT: None}
    except (ValueError, OSError, KeyError) as error:
        found.add([" ".join(str(error).split())])
        return None


def _verify_evaluation(
    configuration: Configuration, found: Verification, folder: Path, splits: dict[str, list[Problem] | None] | None
) -> None:
    _step(found, folder, "evaluate", EVALUATION_FILES)
    if splits is not None and all((folder / name).is_file() for name in EVALUATION_FILES):
        found.add(verify_evaluation(configuration, folder, splits))


def _verify_summary(configuration: Configuration, found: Verification) -> None:
    folder = configuration.folder
    _step(found, folder, "summarise", SUMMARY_FILES)
    if not all((folder / name).is_file() for name in SUMMARY_FILES):
        return
    try:
        recorded = read_json(folder / "summary.json")
        rows = json.loads(json.dumps(summary_rows(configuration)))
        if recorded != {"scale": configuration.scale, "rows": rows}:
            found.add([f"{folder / 'summary.json'}: is not what the evaluations give; summarise them again"])
        if (folder / "summary.md").read_text(encoding="utf-8") != summary_markdown(rows, configuration):
            found.add([f"{folder / 'summary.md'}: is not what the evaluations give; summarise them again"])
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        found.add([f"{folder / 'summary.json'}: cannot be compared ({' '.join(str(error).split())})"])


def _verify_one_code(found: Verification) -> None:
    """The code of each step and the versions of all steps, against those that most have."""
    for key, what in (("source_hash", "code"), ("versions", "package versions")):
        groups: dict[str, dict[str, str]] = {}
        for place, record in found.made_by.items():
            group = groups.setdefault(record["step"] if key == "source_hash" else "", {})
            group[place] = json.dumps(record[key], sort_keys=True)
        for step, values in groups.items():
            texts = list(values.values())
            usual = max(dict.fromkeys(texts), key=texts.count)
            found.add(
                f"{place}: made by other {what} than most of this folder; make it again with one version"
                for place, value in values.items()
                if value != usual
            )
            if key == "source_hash" and json.loads(usual) != source_hash(step):
                before, now = json.loads(usual)[:12], source_hash(step)[:12]
                found.notes.append(f"step {step}: made by other code ({before}) than the present ({now})")


def _verify_no_copies(configuration: Configuration, found: Verification) -> None:
    """No seed of a method left the same weights as another: it would be a copy, and no new evidence."""
    left: dict[tuple, Path] = {}
    for experiment, label, seed in configuration.runs():
        folder = configuration.run_folder(experiment, label, seed)
        recorded = found.made_by.get(str(checksums_path(folder, "train")))
        if recorded is None:
            continue
        place = (experiment, label, recorded["files"].get("model/model.safetensors"))
        if place in left:
            found.add(
                [f"{folder / 'model'}: has the same weights as {left[place] / 'model'}; make one of the two again"]
            )
        left.setdefault(place, folder)


def _under_way(folder: Path) -> list[str]:
    """What training and evaluation keep only until they have ended."""
    left = {CHECKPOINT: "the training", SHARDS: "the evaluation"}
    return [f"{folder / name}: {what} has not ended; run the same command again" for name, what in left.items()
            if (folder / name).exists()]  # fmt: skip


def _leftovers(folder: Path) -> list[Path]:
    inside = (path for path in folder.rglob(".*") if path.name != ".snakemake_timestamp")
    return sorted(path for path in inside if not {CHECKPOINT, SHARDS} & set(path.parts))
