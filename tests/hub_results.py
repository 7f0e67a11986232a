"""A made-up results folder of a scale with Hugging Face models, as its workflow leaves it before tables and report.

Every run has the files that its training and evaluation write, with numbers that follow from seeded formulas; the
figures are one grey pixel each. No model is in it.
"""

import dataclasses
import struct
import zlib
from pathlib import Path

import yaml
from safetensors.torch import save_file

from paper_figures import ENTRIES, FIGURES, figures_for
from reproduction.claims.record import write_claims
from reproduction.claims.runs import write_measures
from reproduction.evaluation.summary import write_summary
from reproduction.jobs.files import atomic_write, write_json, write_jsonl
from reproduction.settings.configuration import Configuration, dump, load, validate
from reproduction.settings.hub import ARITHMETIC
from tests.synthetic_results import generator, metrics_rows, structure_tensors

PROBLEMS = 4


def write_hub_results(results: Path, scale: str, **overrides) -> Configuration:
    """Write `results`/<scale> with every run of three short rollout batches; `overrides` as `load` takes them."""
    raw = load({"scale": scale, "results": str(results), **overrides}).model_dump()
    raw["evaluation"]["bootstrap_resamples"] = 100
    for experiment in raw["experiments"].values():
        experiment["training"] |= {"rollout_batches": 3, "minibatches": 2}
    configuration = validate(raw, "a made-up scale")
    atomic_write(configuration.folder / "config.yaml", dump(configuration))
    for run in configuration.untrained():
        _evaluate(configuration, *run)
    for run in configuration.runs():
        _train(configuration, *run)
        _evaluate(configuration, *run)
    write_summary(configuration)
    write_measures(configuration)
    write_claims(configuration)
    for name in figures_for({name: value.methods for name, value in configuration.experiments.items()}):
        if name != "pass_at_k":  # drawn for arithmetic only, see workflow/rules/figures.smk
            write_figure(configuration.folder / "figures", name, png(1, 1, 128))
    return configuration


def write_figure(folder: Path, name: str, picture: bytes) -> None:
    """A figure of the catalogue as its script leaves it, but for the PDF, with made-up words."""
    entry = ENTRIES[name]
    atomic_write(folder / f"{name}.png", picture)
    words = {"title": f"Title of {name}", "about": f"What {name} is about.", "caption": f"Caption of {name}."}
    record = {"name": name, "order": FIGURES.index(name), "claims": entry.claims, "files": entry.files, "missing": []}
    write_json(folder / f"{name}.json", record | words)


def png(width: int, height: int, shade: int) -> bytes:
    """A grey image, made by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes([shade]) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def splits_of(configuration: Configuration, experiment: str) -> list[str]:
    """The splits that an experiment's models are evaluated on."""
    names = configuration.experiments[experiment].pretrained.evaluation_sets
    return [split for name in names for split in (configuration.problems.levels if name == ARITHMETIC else [name])]


def _train(configuration: Configuration, experiment: str, label: str, seed: int) -> None:
    folder, settings = configuration.run_folder(experiment, label, seed), configuration.experiments[experiment]
    training = settings.training
    write_jsonl(folder / "metrics.jsonl", metrics_rows(experiment, label, seed, training.rollout_batches, 2))
    tensors = structure_tensors(experiment, label, seed, training.rollout_batches, 2, 2, 4, 16, 2)
    save_file(tensors, folder / "structure.safetensors")
    made_with = {
        "scale": configuration.scale, "experiment": experiment, "label": label, "seed": seed,
        "method": {key: dict(value) if hasattr(value, "keys") else value
                   for key, value in dataclasses.asdict(settings.method(label)).items()},
        "reward": settings.reward, "reward_noise": settings.reward_noise, "training": training.model_dump(),
        "problems": configuration.problems.model_dump(), "base_model": None,
        "pretrained": settings.pretrained.model_dump(),
    }  # fmt: skip
    atomic_write(folder / "config.yaml", yaml.safe_dump(made_with))
    record = {
        "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False, "source_hash": "a digest of the code",
        "versions": {"torch": "2.0"}, "hardware": {"cores": 2, "processor": "made-up processor"}, "seed": seed,
        "wall_seconds": 60.0, "peak_memory_bytes": 2**30, "stopped": None,
    }  # fmt: skip
    write_json(folder / "provenance.json", record)


def _evaluate(configuration: Configuration, experiment: str, label: str, seed: int) -> None:
    random, settings = generator("hub", experiment, label, seed), configuration.experiments[experiment].pretrained
    samples, splits = settings.sampling.samples_per_problem, {}
    for split in splits_of(configuration, experiment):
        correct = random.integers(0, samples + 1, size=PROBLEMS).tolist()
        share, some = sum(correct) / (samples * PROBLEMS), sum(count > 0 for count in correct) / PROBLEMS
        splits[split] = {
            "num_problems": PROBLEMS, "samples_per_problem": samples, "avg_at_k": share, "greedy": share,
            "avg_at_k_interval": [0.0, 1.0], "greedy_interval": [0.0, 1.0], "correct": correct,
            "pass_at": {"1": share, str(samples): some},
            "pass_at_interval": {"1": [0.0, 1.0], str(samples): [0.0, 1.0]},
        }  # fmt: skip
    write_json(
        configuration.run_folder(experiment, label, seed) / "evaluation.json",
        {
            "model": f"{experiment}/{label} seed {seed}",
            "sampling": {**settings.deciding_evaluation(), "top_k": 0, "temperature": 1.0},
            "confidence": 0.95,
            "splits": splits,
        },
    )
