"""The workflow's smaller steps, between the command line and the rooms that do the work."""

import hashlib
import json
from pathlib import Path

from kpo.checksums import write_checksums
from kpo.config import Configuration, ConfigurationError
from kpo.data import LEVELS, Level, Problem, normalise_question, read_problems, within_range
from kpo.files import only_process, write_json, write_jsonl
from kpo.progress import Progress
from kpo.provenance import Stopwatch, source_hash, versions

FILE_SPLIT = "file"
# The smallest and the largest magnitude of an answer in KRPO's published rows.
PUBLISHED_ANSWERS = (LEVELS["hard"].min_answer, LEVELS["hard"].max_answer)


def levels(configuration: Configuration) -> list[Level]:
    """The difficulty levels of a configuration; bracketed ones have answers in the range of the published rows."""
    return [
        Level(
            name,
            tuple(level.num_terms),
            tuple(level.num_digits),
            level.operators,
            level.brackets,
            min_answer=PUBLISHED_ANSWERS[0] if level.brackets else 0,
            max_answer=PUBLISHED_ANSWERS[1] if level.brackets else None,
        )
        for name, level in configuration.problems.levels.items()
    ]


def readable_problems(configuration: Configuration, path: Path) -> list[Problem]:
    """The rows of a file in KRPO's published format that the scale's model is trained to read.

    These are the rows within the range of the level that has the largest weight in training (at laptop scale: at most
    3 terms of at most 2 digits, + and - only). Raises ConfigurationError where there is none.
    """
    weights: dict[str, float] = {}
    for experiment in configuration.experiments.values():
        for name, weight in experiment.training.level_weights.items():
            weights[name] = weights.get(name, 0.0) + weight
    main = max(weights, key=lambda name: weights[name])
    level = next(level for level in levels(configuration) if level.name == main)
    found = [problem for problem in read_problems(path) if within_range(problem, level)]
    if not found:
        raise ConfigurationError(
            f"{path}: none of its problems has at most {max(level.num_terms)} terms of at most "
            f"{max(level.num_digits)} digits with only {' '.join(level.operators)}; name another arithmetic_file"
        )
    return found


def problems_by_level(configuration: Configuration, path: Path) -> dict[str, list[Problem]]:
    """The problems of a file by level, in the order of the configuration's levels.

    Raises ConfigurationError where a problem is of another level, or a level has none.
    """
    found: dict[str, list[Problem]] = {name: [] for name in configuration.problems.levels}
    for problem in read_problems(path):
        if problem.level not in found:
            raise ConfigurationError(
                f"{path}: problem {problem.id!r} is of level {problem.level!r}, but problems.levels has "
                f"{', '.join(found)}; generate the problems anew"
            )
        found[problem.level].append(problem)
    for name, problems in found.items():
        if not problems:
            raise ConfigurationError(f"{path}: holds no problem of level {name!r}; generate them anew")
    return found


def evaluation_splits(configuration: Configuration) -> dict[str, list[Problem]]:
    """The held-out problems by level, and the readable rows of `arithmetic_file` where one is named."""
    splits = problems_by_level(configuration, configuration.folder / "problems" / "held_out.jsonl")
    if configuration.arithmetic_file is not None:
        splits[FILE_SPLIT] = readable_problems(configuration, Path(configuration.arithmetic_file))
    return splits


def pretrain_base(configuration: Configuration, seed: int, progress_stream=None) -> None:
    """Pretrain the base model of a seed on the training problems; writes model/, metrics.jsonl and provenance.json.

    Killed at any moment and called again, it continues from its newest checkpoint and leaves the same bytes as if it
    had not been killed (times apart; on a CPU). `safety.checkpoint_every: null` keeps no checkpoints of it either.
    """
    from kpo.data.tokenizer import build_tokenizer
    from kpo.training.base_model import pretrain
    from kpo.training.checkpoint import CheckpointFolder
    from kpo.training.saving import save_model

    stopwatch = Stopwatch(seed)
    folder = configuration.run_folder("base", "base", seed)
    path = configuration.folder / "problems" / "train.jsonl"
    questions = {
        name: [normalise_question(problem.question) for problem in problems]
        for name, problems in problems_by_level(configuration, path).items()
    }
    progress = Progress(f"base model seed {seed}", configuration.base_model.steps, progress_stream)
    checkpoints = CheckpointFolder(folder / "checkpoint", _base_identity(configuration, seed, questions), progress.say)
    rows: list[dict] = []

    def report(row: dict) -> None:
        rows.append(row)
        progress.update(row["step"], loss=row["loss"])

    def go_on(earlier: list[dict]) -> None:
        rows.extend(earlier)
        progress.begun_at = len(rows)
        progress.say(f"continues after step {len(rows)}")

    def go_on_without(error: OSError) -> bool:
        progress.say(str(error))
        return configuration.safety.checkpoint == "continue"

    # A job whose workflow was killed may still be at work here; two would remove each other's checkpoints.
    with only_process(folder, lambda: progress.say("another process makes this model; waiting for its end")):
        tokenizer = build_tokenizer()
        keeps = configuration.safety.checkpoint_every is not None
        model = pretrain(
            questions,
            configuration.base_model,
            tokenizer,
            seed,
            report,
            checkpoints if keeps else None,
            on_continue=go_on,
            on_failed_checkpoint=go_on_without,
        )
        write_jsonl(folder / "metrics.jsonl", rows)
        save_model(model, tokenizer, folder / "model")
        history = checkpoints.history()
        write_json(
            folder / "provenance.json", {**stopwatch.record(), **({"interruptions": history} if history else {})}
        )
        write_checksums(folder, "pretrain", ["metrics.jsonl", "provenance.json", "model"], [path])
        checkpoints.remove()


def _base_identity(configuration: Configuration, seed: int, questions: dict[str, list[str]]) -> dict:
    """What decides every bit of a base model apart from the hardware."""
    return {
        "settings": configuration.base_model.model_dump(exclude={"expected_seconds"}),
        "seed": seed,
        "questions": hashlib.sha256(json.dumps(questions).encode()).hexdigest(),
        "code": source_hash(),
        "versions": {name: version for name, version in versions().items() if name != "snakemake"},
    }
