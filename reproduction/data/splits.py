"""The generated problems by difficulty level, as training and evaluation take them."""

from pathlib import Path

from reproduction.data import LEVELS, Level, Problem, read_problems, within_range
from reproduction.settings.configuration import Configuration, ConfigurationError, ProblemSettings

FILE_SPLIT = "file"
# The smallest and the largest magnitude of an answer in KRPO's published rows.
PUBLISHED_ANSWERS = (LEVELS["hard"].min_answer, LEVELS["hard"].max_answer)


def levels(settings: ProblemSettings) -> list[Level]:
    """The difficulty levels of generated problems; bracketed ones have answers in the range of the published rows."""
    return [
        Level(
            name,
            tuple(level.num_terms),
            tuple(level.num_digits),
            level.operators,
            level.brackets,
            min_answer=PUBLISHED_ANSWERS[0] if level.brackets else 0,
            max_answer=PUBLISHED_ANSWERS[1] if level.brackets else None,
            numbers=None if level.numbers is None else (level.numbers[0], level.numbers[1]),
        )
        for name, level in settings.levels.items()
    ]


def readable_problems(configuration: Configuration, path: Path) -> list[Problem]:
    """The rows of a file in KRPO's published format that the scale's model is trained to read.

    These are the rows within the range of the level that has the largest weight in training (at laptop scale: at most
    3 terms of at most 2 digits, + and - only). Raises ConfigurationError if there is none.
    """
    weights: dict[str, float] = {}
    for experiment in configuration.experiments.values():
        for name, weight in experiment.training.level_weights.items():
            weights[name] = weights.get(name, 0.0) + weight
    main = max(weights, key=lambda name: weights[name])
    level = next(level for level in levels(configuration.problems) if level.name == main)
    found = [problem for problem in read_problems(path) if within_range(problem, level)]
    if not found:
        raise ConfigurationError(
            f"{path}: no problem of it has at most {max(level.num_terms)} terms of at most "
            f"{max(level.num_digits)} digits with only {' '.join(level.operators)}; name another arithmetic_file"
        )
    return found


def problems_by_level(configuration: Configuration, path: Path) -> dict[str, list[Problem]]:
    """The problems of a file by level, in the order of the configuration's levels.

    Raises ConfigurationError if a problem is of another level, or a level has no problem.
    """
    found: dict[str, list[Problem]] = {name: [] for name in configuration.problems.levels}
    for problem in read_problems(path):
        if problem.level not in found:
            raise ConfigurationError(
                f"{path}: problem {problem.id!r} is of level {problem.level!r}, but problems.levels has "
                f"{', '.join(found)}; generate the problems again"
            )
        found[problem.level].append(problem)
    for name, problems in found.items():
        if not problems:
            raise ConfigurationError(f"{path}: holds no problem of level {name!r}; generate them again")
    return found


def evaluation_splits(configuration: Configuration) -> dict[str, list[Problem]]:
    """The held-out problems by level, and the readable rows of `arithmetic_file`, if given."""
    splits = problems_by_level(configuration, configuration.folder / "problems" / "held_out.jsonl")
    if configuration.arithmetic_file is not None:
        splits[FILE_SPLIT] = readable_problems(configuration, Path(configuration.arithmetic_file))
    return splits
