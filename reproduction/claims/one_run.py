"""One run's files, checked and turned into measures."""

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from kpo.methods import Method
from reproduction.claims.measures import (
    BENCHMARKS,
    MEASURES,
    curve_measures,
    late_counts,
    mean_of_benchmarks,
    order_bias,
    order_sensitivity,
    structure_measures,
)
from reproduction.jobs.checksums import checksums_path
from reproduction.jobs.files import read_json, read_jsonl
from reproduction.settings.configuration import Configuration
from reproduction.training.faults import CHECKPOINT, NON_FINITE, UNGRADED

METHOD_FIELDS = (
    "name", "advantage", "ratio", "clip_low", "clip_high", "aggregation", "aggregation_length", "kl_weight",
    "advantage_parameters", "ratio_parameters",
)  # fmt: skip
ORDER_MEASURES = {"order_sensitivity": order_sensitivity, "order_bias": order_bias}
NOT_THE_METHOD = (UNGRADED, CHECKPOINT)
"""Faults that end a run for no doing of its method: grader or disk. Such a run has no measures."""
FILES = ("metrics.jsonl", "evaluation.json", "provenance.json", "config.yaml")
STRUCTURE = "structure.safetensors"
# libyaml reads hundreds of small files ten times faster; wheels for uncommon machines come without it.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ClaimsError(ValueError):
    """Results that no verdict can be given from; the message names the file and says what to do."""


@dataclass(frozen=True)
class Run:
    """One measured run. `correct`: for each split the counts of right samples by problem; `samples`: of how many.

    late: for each level (right answers, answers) of the checkpoints of the last third, if the run evaluated them.
    code: what identifies the code that trained it; graded_by: that of its evaluation, "" if it was not recorded.
    """

    experiment: str
    label: str
    seed: int
    values: dict[str, float | None]
    correct: dict[str, list[int]]
    samples: dict[str, int]
    code: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    sampling: dict[str, Any]
    training: dict[str, Any]
    fingerprint: str
    stopped: str | None = None
    graded_by: str = ""
    late: dict[str, list[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.label}/seed{self.seed}"


def measure_run(
    configuration: Configuration, experiment: str, label: str, seed: int, wanted: Collection[str] = tuple(MEASURES)
) -> Run:
    """Read one run's files and compute its measures; those from kept log-ratios only if they are `wanted`."""
    folder = configuration.run_folder(experiment, label, seed)
    settings = configuration.experiments[experiment]
    provenance = _checked(read_json, folder / "provenance.json")
    if provenance.get("seed") != seed:
        raise ClaimsError(f"{folder / 'provenance.json'}: made with seed {provenance.get('seed')}, not {seed}")
    _check_settings(configuration, experiment, label, seed, folder / "config.yaml")
    stopped = provenance.get("stopped")
    rows = _read_metrics(folder / "metrics.jsonl", settings.training.updates, bool(stopped))
    values = curve_measures(rows, settings.training.rollout_batches, stopped=bool(stopped))
    evaluation = _checked(read_json, folder / "evaluation.json")
    correct, samples = _read_counts(evaluation, folder / "evaluation.json")
    accuracies = {split: sum(counts) / (len(counts) * samples[split]) for split, counts in correct.items()}
    values |= {f"accuracy.{split}": value for split, value in accuracies.items() if f"accuracy.{split}" in MEASURES}
    late = late_counts(rows, settings.late_answers, stopped=bool(stopped))
    if late is None:
        raise ClaimsError(f"{folder / 'metrics.jsonl'}: lacks the evaluation of a late checkpoint; make the run again")
    values |= {f"late_accuracy.{level}": right / answers for level, (right, answers) in late.items()}
    on_benchmarks = mean_of_benchmarks(accuracies)
    if on_benchmarks is not None:
        values[BENCHMARKS] = on_benchmarks
    if needs_structure(wanted):
        values |= _structure_values(folder / STRUCTURE, settings.kalman_time_constant, seed, wanted)
    if stopped and _stopped_by(provenance) in NOT_THE_METHOD:
        values = dict.fromkeys(values, math.nan)
    return Run(
        experiment=experiment,
        label=label,
        seed=seed,
        values={name: value if math.isfinite(value) else None for name, value in values.items()},
        correct=correct,
        samples=samples,
        code=code_of(provenance),
        versions=provenance["versions"],
        hardware=provenance["hardware"],
        sampling=evaluation["sampling"],
        training=settings.training.model_dump(),
        fingerprint=_fingerprint(rows),
        stopped=None if not stopped else json.dumps(stopped, sort_keys=True),
        graded_by=_graded_by(folder),
        late=late,
    )


def method_fields(method: Method) -> tuple[str, ...]:
    """The fields of a method that decide what a run computes; a related method has more than `METHOD_FIELDS`."""
    own = ("objective", "objective_parameters")
    return METHOD_FIELDS + tuple(name for name in own if hasattr(method, name))


def code_of(provenance: dict) -> str:
    """What identifies a run's code: its source hash if one was recorded, else its commit and if it was dirty."""
    if provenance.get("source_hash"):
        return str(provenance["source_hash"])
    return f"commit {provenance.get('commit')}{' with changes' if provenance.get('dirty') else ''}"


def _stopped_by(provenance: dict) -> str:
    """The kind of fault that ended a run."""
    return next((fault["kind"] for fault in provenance.get("faults", []) if fault.get("action") == "stop"), NON_FINITE)


def _graded_by(folder: Path) -> str:
    """The source hash of the step that evaluated a run; "" if that was not recorded."""
    path = checksums_path(folder, "evaluate")
    found = _checked(read_json, path) if path.is_file() else {}
    return str(found.get("source_hash") or "") if isinstance(found, dict) else ""


def needs_structure(wanted: Collection[str]) -> bool:
    """Whether one of the measures is computed from kept log-ratios or rewards."""
    return any(MEASURES[name].source == STRUCTURE for name in wanted)


def differing(own: object, other: object) -> str:
    """The two values, or those of the first key in which two mappings differ, for a message."""
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}, key=str):
            if own.get(key) != other.get(key):
                return f"{key} {own.get(key)!r} and {other.get(key)!r}"
    return f"{own!r} and {other!r}"


def _check_settings(configuration: Configuration, experiment: str, label: str, seed: int, path: Path) -> None:
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClaimsError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    settings = configuration.experiments[experiment]
    method = settings.method(label)
    expected = {
        "experiment": experiment,
        "label": label,
        "seed": seed,
        "method": {name: _plain(getattr(method, name)) for name in method_fields(method)},
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
        "late_evaluation": settings.late_evaluation,
        "problems": configuration.problems.model_dump(),
        "base_model": configuration.base_model and configuration.base_model.model_dump(exclude={"expected_seconds"}),
    }
    if settings.pretrained is not None:
        expected["pretrained"] = settings.pretrained.deciding_training()
    found = found if isinstance(found, dict) else {}
    for key, value in expected.items():
        other = found.get(key, {} if key == "late_evaluation" else None)
        if isinstance(value, dict) and isinstance(other, dict):
            # Of the noise only what is there is named, so that a kind of noise too many is a difference as well.
            names = {**value, **other} if key == "reward_noise" else value
            differing = [name for name in names if other.get(name) != value.get(name)]
            if differing:
                name = differing[0]
                raise ClaimsError(
                    f"{path}: made with {key}.{name} {other.get(name)!r}, the configuration says {value.get(name)!r}; "
                    "make the run again"
                )
        elif other != value:
            raise ClaimsError(f"{path}: made with {key} {other!r}, the configuration says {value!r}; make it again")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) or hasattr(value, "keys") else value


def _read_metrics(path: Path, planned: int, stopped: bool) -> list[dict]:
    rows = _checked(read_jsonl, path)
    for number, row in enumerate(rows, start=1):
        if row.get("update") != number:
            raise ClaimsError(f"{path}, row {number}: is update {row.get('update')!r}; the run is partial or damaged")
    if not rows or (len(rows) < planned and not stopped) or len(rows) > planned:
        raise ClaimsError(f"{path}: {len(rows)} updates of the {planned} configured; finish the run or remove it")
    return rows


def _read_counts(evaluation: dict, path: Path) -> tuple[dict[str, list[int]], dict[str, int]]:
    correct, samples = {}, {}
    for split, summary in evaluation.get("splits", {}).items():
        counts, drawn = summary.get("correct", []), summary.get("samples_per_problem", 0)
        if not counts or len(counts) != summary.get("num_problems") or not all(0 <= count <= drawn for count in counts):
            raise ClaimsError(
                f"{path}: split {split!r} needs one count of at most samples_per_problem for each problem; "
                "evaluate the model again"
            )
        correct[split], samples[split] = counts, drawn
    if not correct or "sampling" not in evaluation:
        raise ClaimsError(f"{path}: needs the sections 'sampling' and 'splits'; evaluate the model again")
    return correct, samples


def _structure_values(path: Path, time_constant: float, seed: int, wanted: Collection[str]) -> dict[str, float]:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ClaimsError(f"{path}: not a safetensors file ({error}); the run is partial") from None
    values: dict[str, float] = {}
    rewards = [tensors[key] for key in sorted(tensors) if key.endswith(".rewards")]
    values |= {name: measure(rewards, seed) for name, measure in ORDER_MEASURES.items() if name in wanted}
    if set(wanted) & {name for name in MEASURES if MEASURES[name].source == STRUCTURE} - set(ORDER_MEASURES):
        updates = sorted(key.removesuffix(".minibatch") for key in tensors if key.endswith(".minibatch"))
        off_policy = [update for update in updates if int(tensors[f"{update}.minibatch"]) > 1]
        if not off_policy:
            raise ClaimsError(
                f"{path}: no off-policy minibatch was kept; set keep_log_ratios_every lower and run again"
            )
        width = max(tensors[f"{update}.mask"].shape[1] for update in off_policy)

        def stacked(name: str) -> torch.Tensor:
            parts = [tensors[f"{update}.{name}"] for update in off_policy]
            return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])

        mask_BT = stacked("mask").bool()
        values |= structure_measures(stacked("log_ratio").masked_fill(~mask_BT, 0.0), mask_BT, time_constant, seed)
    return values


def _fingerprint(rows: list[dict]) -> str:
    """A hash of all metrics but times: two seeds cannot agree in it unless one is a copy."""
    kept = [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _checked(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except ValueError as error:
        raise ClaimsError(str(error)) from None
