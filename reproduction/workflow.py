"""What the Snakefile asks: a configuration checked whole before the first job, and what each job depends on."""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from reproduction.claims.design import design_of
from reproduction.data.catalogue import get_set
from reproduction.data.experiment_data import set_file
from reproduction.data.splits import readable_problems
from reproduction.jobs.devices import Device, visible_devices
from reproduction.jobs.files import atomic_write
from reproduction.jobs.sizing import planned_count
from reproduction.publish.published import (
    CHOICE,
    DRAWN_SEEDS,
    FOLDER,
    LARGE,
    REPOSITORY,
    UNPACKED,
    published_configuration,
    published_files,
)
from reproduction.settings.configuration import Configuration, ConfigurationError, dump, load
from reproduction.settings.hub import ARITHMETIC

RUN_FILES = ("metrics.jsonl", "evaluation.json", "structure.safetensors")
"""What figures read of a run."""


def prepare(overrides: dict[str, Any]) -> Configuration:
    """The validated configuration, its files read and its results folder tried, so that no job starts in vain.

    With ``results=published`` it is that of the published results, see `is_published`. Raises ConfigurationError with
    one line.
    """
    overrides = {key: _typed(value) for key, value in overrides.items()}
    if overrides.get("results") == CHOICE:
        configuration = published_configuration(overrides)
        _check_writable(configuration.folder)
        return configuration
    configuration = load(overrides)
    if Path(configuration.results) in (Path(UNPACKED), Path(FOLDER)):
        raise ConfigurationError(
            f"results: {configuration.results} is the folder of published results; say results={CHOICE} to work from "
            "them, or choose another folder"
        )
    # Refuses seeds of the pilot together with later ones, before any of them is run.
    design_of(configuration)
    _check_writable(configuration.folder)
    if configuration.arithmetic_file is not None:
        try:
            readable_problems(configuration, Path(configuration.arithmetic_file))
        except ValueError as error:
            raise ConfigurationError(f"arithmetic_file: {error}") from None
    return configuration


@functools.cache
def machine_devices() -> list[Device]:
    """This machine's devices, asked for once: Snakemake asks for every job."""
    return visible_devices()


def set_settings(configuration: Configuration, name: str) -> dict[str, Any]:
    """All that decides which problems a dataset has; if it changes, the dataset is loaded again."""
    declared = dataclasses.asdict(get_set(name))
    return declared | {str(key): value for key, value in configuration.data.pins.get(name, {}).items()}


def training_files(configuration: Configuration, experiment: str) -> list[str]:
    """The problem files that an experiment trains on."""
    settings = configuration.experiments[experiment].pretrained
    if settings.trains_on_arithmetic:
        return [f"{configuration.folder}/problems/train.jsonl"]
    return [str(set_file(configuration, name)) for name in settings.train_sets]


def evaluation_files(configuration: Configuration, experiment: str) -> list[str]:
    """The problem files that an experiment is evaluated on."""
    files = []
    for name in configuration.experiments[experiment].pretrained.evaluation_sets:
        if name != ARITHMETIC:
            files.append(str(set_file(configuration, name)))
            continue
        files.append(f"{configuration.folder}/problems/held_out.jsonl")
        files += [configuration.arithmetic_file] if configuration.arithmetic_file else []
    return files


def evaluation_settings(configuration: Configuration, experiment: str) -> dict[str, Any]:
    """All that decides the evaluation of a Hugging Face model or one trained from it."""
    settings = configuration.experiments[experiment]
    shared = configuration.evaluation
    return {
        **settings.pretrained.deciding_evaluation(),
        "reward": settings.reward,
        "seed": shared.seed,
        "bootstrap_resamples": shared.bootstrap_resamples,
        "confidence": shared.confidence,
    }


def job_devices(configuration: Configuration, experiment: str) -> int:
    """CUDA devices of a training or an evaluation as far as known before it runs; it refuses what does not fit."""
    try:
        return planned_count(configuration.experiments[experiment], machine_devices())
    except ValueError:
        return 1


def job_threads(cores: int | None, count: int) -> int:
    """Threads of a job with `count` devices: its share of the cores, so that no more start than find devices."""
    devices = len(machine_devices())
    if not count or not devices:
        return max(1, min(8 * count, cores or 8 * count))
    return max(1, (cores or 8 * devices) * min(count, devices) // devices)


def is_published(configuration: Configuration) -> bool:
    """Whether the workflow works from published results: it trains, evaluates and measures nothing then."""
    return configuration.results == UNPACKED


def update_configuration(path: Path, configuration: Configuration) -> None:
    """Write the resolved configuration to `path` if the file there differs."""
    text = dump(configuration)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def run_settings(configuration: Configuration, experiment: str, label: str) -> dict[str, Any]:
    """All of the configuration that decides a run, apart from its seed; if it changes, the run is repeated."""
    settings = configuration.experiments[experiment]
    method = settings.method(label)
    found = {
        "method": {"name": method.name, "advantage": method.advantage, "ratio": method.ratio, **method.parameters},
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
        "late_evaluation": settings.late_evaluation,
    }
    if settings.pretrained is not None:
        found["pretrained"] = settings.pretrained.deciding_training()
    return found


def run_files(configuration: Configuration, entries: Iterable[Any]) -> list[str]:
    """The files of runs that some figures read, each once; `entries` are theirs of `paper_figures.ENTRIES`.

    Of published results those that were published, which can lack runs.
    """
    paths: dict[str, None] = {}
    for entry in entries:
        names = [name for name in entry.files if name in RUN_FILES]
        shown = entry.runs or {}
        runs = [run for run in configuration.untrained() if run[0] in ("base", *shown)]
        runs = runs if "evaluation.json" in names else []
        paths.update({f"{configuration.run_folder(*run).as_posix()}/{name}": None for run in runs for name in names})
        for experiment, method, seed in configuration.runs():
            if experiment in shown and (not shown[experiment] or method in shown[experiment]):
                folder = configuration.run_folder(experiment, method, seed).as_posix()
                first = configuration.seeds_of(experiment, method)[:DRAWN_SEEDS]
                paths.update({f"{folder}/{name}": None for name in names if name not in LARGE or seed in first})
    if is_published(configuration):
        below = configuration.folder.as_posix()
        there = {f"{below}/{name}" for name in published_files(REPOSITORY / FOLDER / configuration.scale)}
        return [path for path in paths if path in there]
    return list(paths)


def _typed(value: Any, inside: bool = False) -> Any:
    """Numbers, true, false and null in what ``--config key={...}`` gives: Snakemake leaves them as text inside it."""
    if isinstance(value, dict):
        return {key: _typed(inner, True) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner, True) for inner in value]
    if inside and isinstance(value, str):
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):  # "2026-13-01" is no date
            return value
        return parsed if isinstance(parsed, int | float | None) else value
    return value


def _check_writable(folder: Path) -> None:
    """Try to write where the results will go, in the nearest folder that exists already."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigurationError(f"results: {existing} is a file, so {folder} cannot be made; choose another folder")
    try:
        if not os.access(existing, os.W_OK):
            raise PermissionError(f"no permission to write in {existing}")
        with tempfile.TemporaryDirectory(dir=existing, prefix=".writable."):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"results: cannot write in {existing} ({reason}); choose another folder with --config results=FOLDER"
        ) from None
