"""What the Snakefile asks: a configuration checked whole before the first job, and what each job depends on."""

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from kpo.config import Configuration, ConfigurationError, dump, load
from kpo.files import atomic_write
from kpo.steps import readable_problems


def prepare(overrides: dict[str, Any]) -> Configuration:
    """The validated configuration, its files read and its results folder tried, so that no job starts in vain.

    Raises ConfigurationError with one line.
    """
    configuration = load({key: _typed(value) for key, value in overrides.items()})
    _check_writable(configuration.folder)
    if configuration.arithmetic_file is not None:
        try:
            readable_problems(configuration, Path(configuration.arithmetic_file))
        except ValueError as error:
            raise ConfigurationError(f"arithmetic_file: {error}") from None
    return configuration


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
