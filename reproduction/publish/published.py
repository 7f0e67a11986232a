"""Published results: the compact form of a finished scale, in the layout of a results folder, and its way back.

`results_published/<scale>/` has what figures, tables, verdicts and notebooks read and no more, so that the same
code reads it as reads a results folder:

    config.yaml, summary.json, summary.md, measures.json, provenance.json (what all runs share, and each one's times)
    base/seed<n>/evaluation.json    Hugging Face models: <experiment>/base/seed<n>/evaluation.json
    <experiment>/<method>/seed<n>/  evaluation.json; of the experiments in `EXPERIMENTS` also metrics.jsonl with what
                                    figures draw, provenance.json, and for two methods parts of structure.safetensors
    claims.*, tables.*, figures/    as they were made from these; `unpack` leaves them out, to be remade
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.jobs.files import atomic_path, atomic_write, read_json, read_jsonl
from reproduction.settings.configuration import (
    CONFIG_FOLDER,
    Configuration,
    ConfigurationError,
    dump,
    load,
    read_resolved,
)

REPOSITORY = CONFIG_FOLDER.parent
FOLDER = "results_published"
UNPACKED = "results/published"
CHOICE = "published"
"""What `--config results=` is given to work from published results."""

EXPERIMENTS = ("kpo", "kpo-stress-2", "kpo-stress-3", "kpo-stress-4", "krpo")
"""The experiments whose runs figures look at; of all others accuracies and measures are kept."""
LARGE = ("metrics.jsonl", "structure.safetensors")
DRAWN_SEEDS = 3
"""Figures draw curves and log-ratios of so many seeds of a method, the first: a study can have a hundred, whose files
would be too large to publish. Measures, accuracies and verdicts are of all seeds."""
LOG_RATIOS_OF = (("kpo", "grpo"),)
REWARDS_OF = (("kpo", "grpo"), ("krpo", "grpo"))
METRICS = ("reward", "accuracy", "entropy", "gradient_norm", "clip_share", "log_ratio_std")
"""The metrics that the figures draw."""
PLACE = ("update", "rollout_batch", "minibatch")
SPLIT_KEYS = (
    "num_problems", "samples_per_problem", "avg_at_k", "avg_at_k_interval", "pass_at", "pass_at_interval", "greedy",
    "greedy_interval", "correct",
)  # fmt: skip
COPIED = ("summary.json", "summary.md", "measures.json")
REMADE = ("figures", "claims.json", "claims.md", "tables.json", "tables.md")


def write_compact(
    configuration: Configuration, missing: list[str], target: Path, copied: tuple[str, ...] = COPIED
) -> None:
    """Write configuration, summary, measures and the compact runs of a finished scale into `target`.

    missing: runs, as `experiment/method/seed<n>`, that are left out. copied: files of the scale itself. Raises
    ValueError or OSError naming the file if a run lacks something.
    """
    source = configuration.folder
    for name in copied:
        copy(source / name, target / name)
    atomic_write(target / "config.yaml", dump(without_machine_paths(configuration)))
    for untrained in configuration.untrained():
        name = configuration.run_folder(*untrained).relative_to(source).as_posix()
        if name not in missing:
            evaluation = compact_evaluation(read_json(source / name / "evaluation.json"))
            write_lines_of_numbers(target / name / "evaluation.json", evaluation)
    for experiment, method, seed in configuration.runs():
        folder = configuration.run_folder(experiment, method, seed)
        name = folder.relative_to(source).as_posix()
        if name not in missing:
            first = configuration.seeds_of(experiment, method)[:DRAWN_SEEDS]
            drawn = experiment in EXPERIMENTS and seed in first
            _write_compact_run(folder, target / name, (experiment, method), drawn)


def _write_compact_run(source: Path, target: Path, cell: tuple[str, str], drawn: bool) -> None:
    """drawn: whether figures draw the run's curves and log-ratios, whose files are large."""
    write_lines_of_numbers(target / "evaluation.json", compact_evaluation(read_json(source / "evaluation.json")))
    if not drawn:
        return
    rows = compact_metrics(read_jsonl(source / "metrics.jsonl"), source / "metrics.jsonl")
    lines = [json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n" for row in rows]
    atomic_write(target / "metrics.jsonl", "".join(lines))
    write_lines_of_numbers(target / "provenance.json", compact_provenance(read_json(source / "provenance.json")))
    if cell in LOG_RATIOS_OF + REWARDS_OF:
        from safetensors.torch import load_file, save_file

        kept = compact_structure(load_file(source / "structure.safetensors"), log_ratios=cell in LOG_RATIOS_OF)
        with atomic_path(target / "structure.safetensors") as temporary:
            save_file(kept, temporary)


def compact_metrics(rows: list[dict], path: Path) -> list[dict]:
    """The rows with their place and the metrics that figures draw, unrounded, so that figures come out the same."""
    keys = (*PLACE, *METRICS)
    for number, row in enumerate(rows, start=1):
        if absent := [key for key in keys if key not in row]:
            raise ValueError(f"{path}, row {number}: no {absent[0]!r}; make the run again")
    return [{key: row[key] for key in keys} for row in rows]


def compact_evaluation(evaluation: dict) -> dict:
    """An evaluation.json with the keys that are read; its versions are in measures.json."""
    splits = {
        split: {key: summary[key] for key in SPLIT_KEYS if key in summary}
        for split, summary in evaluation["splits"].items()
    }
    sampling = {key: value for key, value in evaluation["sampling"].items() if key != "versions"}
    kept = {"model": evaluation["model"], "confidence": evaluation["confidence"], "sampling": sampling}
    return {**kept, "splits": splits}


def compact_provenance(record: dict) -> dict:
    """A run's provenance.json without what all runs share, which the scale's own holds."""
    return {key: record.get(key) for key in ("stopped", "seed", "source_hash", "wall_seconds")}


def compact_structure(tensors: Mapping[str, Any], *, log_ratios: bool) -> dict[str, Any]:
    """The rewards of kept rollout batches, and with `log_ratios` the kept minibatches after the first of their batch.

    In the first, every ratio is 1.
    """
    kept = {key: tensor for key, tensor in tensors.items() if key.endswith(".rewards")}
    if log_ratios:
        updates = [key.removesuffix(".minibatch") for key in tensors if key.endswith(".minibatch")]
        for update in updates:
            if int(tensors[f"{update}.minibatch"]) > 1:
                names = [f"{update}.{field}" for field in ("log_ratio", "mask", "advantage", "minibatch")]
                kept |= {name: tensors[name] for name in names}
    return kept


def write_lines_of_numbers(path: Path, value: Any) -> None:
    """Write JSON as `reproduction.jobs.files.write_json` does, but each list of numbers on one line."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # Line breaks are only between values: in a string JSON writes them as two characters.
    text = re.sub(r"\[\n([-+.,eE\d\s]+)\]", lambda found: f"[{''.join(found[1].split())}]", text)
    atomic_write(path, text + "\n")


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes, whole or not at all."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def without_machine_paths(configuration: Configuration) -> Configuration:
    """The configuration without the folders of one machine, which tell others nothing; file names stay."""
    file, data = configuration.arithmetic_file, configuration.data
    return configuration.model_copy(
        update={
            "results": FOLDER,
            "arithmetic_file": None if file is None else Path(file).name,
            "data": data.model_copy(update={"mirror": None}),
        }
    )


def unfinished(scale: str) -> str:
    """The folder next to a scale's published results that holds what a study has made so far."""
    return f"{scale}-study"


def set_aside(folder: Path) -> Path:
    """Where `python -m reproduction publish` puts a published folder for the moment between two renames."""
    return folder.with_name(f".{folder.name}.old")


def published_configuration(overrides: Mapping[str, Any], repository: Path = REPOSITORY) -> Configuration:
    """The configuration of a scale's published results, with its results folder below `UNPACKED`.

    overrides: what the user gave; apart from `results` it may only repeat what the results were made with.
    Raises ConfigurationError with one line if there are no such results or something else is asked of them.
    """
    scale = load({key: value for key, value in overrides.items() if key == "scale"}).scale
    folder = repository / FOLDER / scale
    where = f"results={CHOICE}: {FOLDER}/{scale}"
    if not folder.is_dir():
        if set_aside(folder).is_dir():
            raise ConfigurationError(
                f"{where} was left in {set_aside(folder).name} by an interrupted `python -m reproduction publish`; "
                "publish again, or rename it back"
            )
        there = sorted(path.parent.name for path in (repository / FOLDER).glob("*/config.yaml"))
        raise ConfigurationError(
            f"{where} does not exist; published are the scales {', '.join(there) or '(none)'}; "
            "choose one of them with scale=, or leave out results= to make the results"
        )
    for name in ("config.yaml", "provenance.json", *COPIED):
        if not (folder / name).is_file():
            raise ConfigurationError(
                f"{where} has no {name}; publish that scale again (python -m reproduction publish)"
            )
    found = read_resolved(folder / "config.yaml")
    made_with = found.model_dump()
    for key, value in overrides.items():
        if key != "results" and (key not in made_with or made_with[key] != value):
            raise ConfigurationError(
                f"{where} was made with another {key!r} than {value!r}; leave it out: results={CHOICE} takes its "
                f"whole configuration from {FOLDER}/{scale}/config.yaml"
            )
    return found.model_copy(update={"results": UNPACKED})


def published_files(folder: Path) -> list[str]:
    """The files that `unpack` copies, relative to the published folder, in order."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in paths if path.parts[0] not in REMADE]


def missing_runs(folder: Path) -> list[str]:
    """The runs of the configuration that were published as missing."""
    return list(read_json(folder / "provenance.json").get("missing", []))


def unpack(configuration: Configuration, source: Path, results: Path) -> None:
    """Copy the published folder `source` to `results`/<scale>, whose config.yaml then names that folder.

    configuration: that of the published folder. What is remade from the copies (`REMADE`) is left out.
    Raises ValueError if `source` is not a published folder.
    """
    target = results / configuration.scale
    if not (source / "provenance.json").is_file() or target.resolve() == source.resolve():
        raise ValueError(f"{source} holds no published results; name the config.yaml of a folder in {FOLDER}/")
    for name in published_files(source):
        if name == "config.yaml":
            atomic_write(target / name, dump(configuration.model_copy(update={"results": results.as_posix()})))
        else:
            copy(source / name, target / name)
