"""What an experiment trains on and is evaluated on, as the data steps have left it."""

import dataclasses
import random
from pathlib import Path

from reproduction.data import Problem, read_problems
from reproduction.data.mathematics import MathProblem, load_set, pinned_set
from reproduction.data.splits import evaluation_splits
from reproduction.jobs.files import read_jsonl, write_json, write_jsonl
from reproduction.settings.configuration import Configuration, ConfigurationError
from reproduction.settings.experiment import ExperimentSettings
from reproduction.settings.hub import ARITHMETIC, ModelSettings


def needed_sets(configuration: Configuration) -> list[str]:
    """The Hugging Face datasets that a configuration's experiments need, each once."""
    names: dict[str, None] = {}
    for experiment in configuration.experiments.values():
        if experiment.pretrained is not None:
            names |= dict.fromkeys(experiment.pretrained.sets())
    return list(names)


def check_pins(configuration: Configuration) -> None:
    """Refuse a configuration that needs a set whose revision or rows are not pinned. Raises ConfigurationError."""
    for name in needed_sets(configuration):
        try:
            pinned_set(name, configuration.data.pins)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None


def model_file(configuration: Configuration, experiment: str) -> str:
    """The file that names the folder of an experiment's model."""
    return f"{configuration.folder}/models/{configuration.experiments[experiment].pretrained.model.id}.json"


def set_file(configuration: Configuration, name: str) -> Path:
    """The file of a dataset's checked problems; their origin is in a file next to it."""
    return configuration.folder / "mathematics" / f"{name}.jsonl"


def keep_set(configuration: Configuration, name: str) -> None:
    """Load a set, check it, and write its problems and their record."""
    found = load_set(name, configuration.data.pins, configuration.data.mirror)
    path = set_file(configuration, name)
    write_json(path.with_suffix(".record.json"), found.record)
    write_jsonl(path, map(dataclasses.asdict, found.problems))


def kept_set(configuration: Configuration, name: str) -> list[MathProblem]:
    """The problems that `keep_set` wrote."""
    path, step = set_file(configuration, name), f"`python -m reproduction mathematics --set {name}`"
    if not path.exists():
        raise ConfigurationError(f"{path} is missing; make it with {step}")
    try:
        return [MathProblem(**row) for row in read_jsonl(path)]
    except TypeError:
        raise ConfigurationError(f"{path}: is not what its step wrote; make it again with {step}") from None


def split_held_out(problems: list[MathProblem], count: int, seed: int) -> tuple[list[MathProblem], list[MathProblem]]:
    """(problems to train on, `count` to evaluate on): drawn by `seed`, each part in the order of `problems`.

    Raises ConfigurationError if nothing would be left to train on.
    """
    if count >= len(problems):
        raise ConfigurationError(
            f"held_out is {count}, but the set has {len(problems)} problems; lower pretrained.held_out"
        )
    chosen = set(random.Random(seed).sample(range(len(problems)), count))
    train = [problem for index, problem in enumerate(problems) if index not in chosen]
    return train, [problems[index] for index in sorted(chosen)]


def longest_window(configuration: Configuration, model: ModelSettings) -> int:
    """Tokens of the longest prompt and response together, over all experiments with this model."""
    sections = [(one.training, one.pretrained) for one in configuration.experiments.values() if one.pretrained]
    return max(
        hub.max_prompt_length + max(training.max_completion_length, hub.sampling.max_completion_length)
        for training, hub in sections
        if hub.model.id == model.id
    )


def training_problems(
    configuration: Configuration, experiment: ExperimentSettings
) -> list[Problem] | list[MathProblem]:
    """The problems to train on: generated ones with their levels, or those of the sets without what is held out."""
    settings = experiment.pretrained
    if settings is None or settings.trains_on_arithmetic:
        return read_problems(configuration.folder / "problems" / "train.jsonl")
    problems: list[MathProblem] = []
    for name in settings.train_sets:
        found = kept_set(configuration, name)
        if name in settings.evaluation_sets:
            found, _ = split_held_out(found, settings.held_out, configuration.problems.seed)
        problems += found
    return problems


def evaluation_problems(
    configuration: Configuration, experiment: ExperimentSettings | None
) -> dict[str, list[Problem] | list[MathProblem]]:
    """The problems to evaluate on by split: each dataset, each level of the generated ones, the given file.

    experiment: None for a small base model, which belongs to all experiments.
    """
    settings = None if experiment is None else experiment.pretrained
    splits: dict[str, list[Problem] | list[MathProblem]] = {}
    for name in [ARITHMETIC] if settings is None else settings.evaluation_sets:
        if name == ARITHMETIC:
            splits |= evaluation_splits(configuration)
        elif name in settings.train_sets:
            found = kept_set(configuration, name)
            splits[name] = split_held_out(found, settings.held_out, configuration.problems.seed)[1]
        else:
            splits[name] = kept_set(configuration, name)
    return splits
