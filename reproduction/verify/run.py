"""Checks of one run's folder: its files are unchanged and agree with each other."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from reproduction.claims.one_run import ClaimsError, measure_run
from reproduction.data import Problem
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.data.splits import FILE_SPLIT
from reproduction.evaluation.summary import summarise_split
from reproduction.jobs.checksums import check_files, read_checksums
from reproduction.jobs.files import read_json, read_jsonl
from reproduction.rewards import exact_reward
from reproduction.settings.configuration import Configuration
from reproduction.verify.derived import differences

BASE_FILES = (
    "metrics.jsonl",
    "provenance.json",
    "model/config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
)
RUN_FILES = (*BASE_FILES, "config.yaml", "structure.safetensors")
EVALUATION_FILES = ("evaluation.json", "samples.jsonl")


def verify_step(folder: Path, step: str, files: tuple[str, ...]) -> tuple[list[str], dict[str, Any] | None]:
    """Problems of the files that a step should have left, and its checksums if they can be read."""
    problems = [f"{folder / name}: is missing; make it again" for name in files if not (folder / name).is_file()]
    try:
        recorded = read_checksums(folder, step)
    except (ValueError, OSError) as error:
        return [*problems, str(error)], None
    unlisted = [name for name in files if name not in recorded["files"] and (folder / name).is_file()]
    problems += [f"{folder / name}: is not among the checksums of its step {step}" for name in unlisted]
    return list(dict.fromkeys([*problems, *check_files(folder, recorded)])), recorded


def verify_run(configuration: Configuration, experiment: str, label: str, seed: int) -> Iterator[str]:
    """A line for each thing that does not agree in a run's settings, metrics and kept log-ratios."""
    folder = configuration.run_folder(experiment, label, seed)
    try:
        measure_run(configuration, experiment, label, seed, wanted=())
    except (ClaimsError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        yield _line(folder, error)
    try:
        yield from _structure_problems(configuration, experiment, folder)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        yield f"{folder / 'structure.safetensors'}: cannot be read ({_text(error)})"


def verify_base(configuration: Configuration, seed: int) -> Iterator[str]:
    """A line for each thing that does not agree in a base model's record."""
    folder = configuration.run_folder("base", "base", seed)
    try:
        found = read_json(folder / "provenance.json").get("seed")
        if found != seed:
            yield f"{folder / 'provenance.json'}: made with seed {found}, not {seed}"
        steps = [row.get("step") for row in read_jsonl(folder / "metrics.jsonl")]
        if steps != list(range(1, configuration.base_model.steps + 1)):
            yield f"{folder / 'metrics.jsonl'}: {len(steps)} rows, not one for each of {configuration.base_model.steps}"
    except (OSError, ValueError, AttributeError) as error:
        yield _line(folder, error)


def verify_evaluation(
    configuration: Configuration, folder: Path, splits: dict[str, list[Problem] | None]
) -> Iterator[str]:
    """A line for each thing in which evaluation.json is not what samples.jsonl and the configuration give.

    Every average and interval is recomputed, from answers graded again; of a split whose problems are None, from the
    grades as they were kept.
    """
    try:
        evaluation, records = read_json(folder / "evaluation.json"), read_jsonl(folder / "samples.jsonl")
        yield from _evaluation_problems(configuration, folder, splits, evaluation, records)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        yield _line(folder / "evaluation.json", error)


def _evaluation_problems(configuration, folder, splits, evaluation, records) -> Iterator[str]:
    settings, path = configuration.evaluation, folder / "evaluation.json"
    for key in ("max_completion_length", "batch_size", "seed"):
        found = evaluation["sampling"][key]
        if found != getattr(settings, key):
            yield f"{path}: sampled with {key} {found}, the configuration says {getattr(settings, key)}"
    if evaluation["confidence"] != settings.confidence:
        yield f"{path}: has confidence {evaluation['confidence']}, the configuration says {settings.confidence}"
    summaries = evaluation["splits"]
    if set(summaries) != set(splits):
        yield f"{path}: has the splits {', '.join(sorted(summaries))}, the problems have {', '.join(sorted(splits))}"
    for number, record in enumerate(records, start=1):
        if record.get("split") not in splits:
            yield f"{folder / 'samples.jsonl'}, line {number}: split {record.get('split')!r} has no problems"
            return
    for split in [name for name in splits if name in summaries]:
        drawn = settings.file_samples_per_problem if split == FILE_SPLIT else settings.samples_per_problem
        tables = {}
        for greedy, samples in ((False, drawn), (True, 1)):
            own = [record for record in records if record["split"] == split and record["greedy"] is greedy]
            table = _graded(splits[split], own, samples)
            if isinstance(table, str):
                yield f"{folder / 'samples.jsonl'}: split {split!r}: {table}"
                break
            tables[greedy] = table
        else:
            expected = summarise_split(tables[False], tables[True], settings)
            for difference in differences(summaries[split], expected):
                yield f"{path}: split {split!r}: {difference}, as samples.jsonl gives it"


def _graded(problems: list[Problem] | None, records: list[dict], samples: int) -> np.ndarray | str:
    """(problems, samples) of 0/1, or what is wrong with the records; ungraded if the problems are not known."""
    ids = [problem.id for problem in problems] if problems else list(dict.fromkeys(record["id"] for record in records))
    place: dict[tuple[str, int], int | None] = {(one, sample): None for one in ids for sample in range(samples)}
    answers = {problem.id: problem.answer for problem in problems or []}
    for record in records:
        key = (record["id"], record["sample"])
        if key not in place:
            return f"problem {key[0]!r}, sample {key[1]} is not one of the configuration's"
        if place[key] is not None:
            return f"problem {key[0]!r}, sample {key[1]} occurs twice"
        right = record["correct"]
        if problems:
            right = int(exact_reward(record["response"], answers[key[0]], ANSWER_OPEN, ANSWER_CLOSE) == 1.0)
        if record["correct"] != right:
            return f"problem {key[0]!r}, sample {key[1]} is recorded as {record['correct']}, graded again it is {right}"
        place[key] = right
    missing = [key for key, value in place.items() if value is None]
    if missing or not place:
        return (
            f"{len(missing)} answers of {len(place)} are missing{f', the first to {missing[0][0]!r}' * bool(missing)}"
        )
    return np.array(list(place.values())).reshape(len(ids), samples)


def _structure_problems(configuration: Configuration, experiment: str, folder: Path) -> Iterator[str]:
    """Kept log-ratios against the metrics: the right updates are there, and their spread is the recorded one."""
    training, path = configuration.experiments[experiment].training, folder / "structure.safetensors"
    rows, tensors = read_jsonl(folder / "metrics.jsonl"), load_file(path)
    kept = [row for row in rows if (row["rollout_batch"] - 1) % training.keep_log_ratios_every == 0]
    expected = {f"{row['update']:05d}" for row in kept}
    found = {name.split(".")[0] for name in tensors if name.endswith(".log_ratio")}
    if expected != found:
        yield f"{path}: keeps {len(found)} updates, metrics.jsonl and the configuration ask for {len(expected)}"
    for row in kept:
        name = f"{row['update']:05d}"
        if name not in found:
            continue
        log_ratio = tensors[f"{name}.log_ratio"][tensors[f"{name}.mask"].bool()].double()
        spread = log_ratio.std(unbiased=False).item() if log_ratio.numel() else 0.0
        recorded = row["log_ratio_std"]
        if recorded is not None and not math.isclose(spread, recorded, rel_tol=1e-3, abs_tol=1e-6):
            yield f"{path}: log_ratio of update {row['update']} has spread {spread:.6g}, metrics {recorded:.6g}"
    for batch in dict.fromkeys(row["rollout_batch"] for row in kept):
        rewards = tensors[f"rollout{batch}.rewards"]
        mean = torch.nanmean(rewards.double()).item()
        recorded = next(row["reward"] for row in kept if row["rollout_batch"] == batch)
        if recorded is not None and not math.isclose(mean, recorded, rel_tol=1e-4, abs_tol=1e-5):
            yield f"{path}: rewards of rollout batch {batch} have mean {mean:.6g}, metrics {recorded:.6g}"


def _line(path: Path, error: BaseException) -> str:
    text = _text(error)
    return text if isinstance(error, ClaimsError) else f"{path}: {text}"


def _text(error: BaseException) -> str:
    name = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())
