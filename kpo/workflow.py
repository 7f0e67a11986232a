"""What the Snakefile asks: a configuration checked whole before the first job, and what each job depends on."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kpo.config import Configuration, ConfigurationError, dump, load
from kpo.files import atomic_write, read_json
from kpo.published import CHOICE, FOLDER, REPOSITORY, UNPACKED, published_configuration, published_files
from kpo.steps import readable_problems

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
    _check_writable(configuration.folder)
    if configuration.arithmetic_file is not None:
        try:
            readable_problems(configuration, Path(configuration.arithmetic_file))
        except ValueError as error:
            raise ConfigurationError(f"arithmetic_file: {error}") from None
    return configuration


def is_published(configuration: Configuration) -> bool:
    """Whether the workflow works from published results: it trains, evaluates and measures nothing then."""
    return configuration.results == UNPACKED


def update_configuration(path: Path, configuration: Configuration) -> None:
    """Write the resolved configuration to `path` where another stands there."""
    text = dump(configuration)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def run_settings(configuration: Configuration, experiment: str, label: str) -> dict[str, Any]:
    """All of the configuration that decides a run, apart from its seed; where it changes, the run is repeated."""
    settings = configuration.experiments[experiment]
    method = settings.method(label)
    return {
        "method": {"name": method.name, "advantage": method.advantage, "ratio": method.ratio, **method.parameters},
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
    }


def run_files(configuration: Configuration, entries: Iterable[Any]) -> list[str]:
    """The files of runs that some figures read, each once; `entries` are theirs of `paper_figures.ENTRIES`.

    Of published results those that were published, which can lack runs.
    """
    paths: dict[str, None] = {}
    for entry in entries:
        names = [name for name in entry.files if name in RUN_FILES]
        cells = [("base", "base")] if "evaluation.json" in names else []
        for experiment, methods in (entry.runs or {}).items():
            if experiment in configuration.experiments:
                known = configuration.experiments[experiment].methods
                cells += [(experiment, method) for method in known if not methods or method in methods]
        for cell in cells:
            folders = [configuration.run_folder(*cell, seed) for seed in configuration.seeds_of(cell[0])]
            paths.update({f"{folder.as_posix()}/{name}": None for folder in folders for name in names})
    if is_published(configuration):
        below = configuration.folder.as_posix()
        there = {f"{below}/{name}" for name in published_files(REPOSITORY / FOLDER / configuration.scale)}
        return [path for path in paths if path in there]
    return list(paths)


def notebook_source(path: Path) -> str:
    """A digest of a notebook's text and code without its outputs, which publishing brings up to date.

    The cell in which papermill has written the parameters of an execution is an output too.
    """
    notebook = read_json(path)
    cells = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in notebook["cells"]
        if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def _typed(value: Any, inside: bool = False) -> Any:
    """Numbers, true, false and null in what ``--config key={...}`` gives: Snakemake leaves them as text inside it."""
    if isinstance(value, dict):
        return {key: _typed(inner, True) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner, True) for inner in value]
    if inside and isinstance(value, str):
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
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
