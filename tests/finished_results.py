"""A made-up results folder as a finished workflow leaves it, except models, PDFs and the report: from
`tests.synthetic_results`, with a valid configuration and everything that is made from the runs.
"""

import dataclasses
import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from paper_figures.command import draw_to_files
from paper_figures.results import Results
from reproduction.claims.one_run import METHOD_FIELDS
from reproduction.claims.record import write_claims
from reproduction.claims.runs import write_measures
from reproduction.evaluation.summary import write_summary
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.notebook import NOTEBOOKS
from reproduction.publish.publish import END, START
from reproduction.settings.configuration import CONFIG_FOLDER, Configuration, dump, read_resolved, validate
from reproduction.settings.files import read_yaml
from tests.synthetic_results import write_results

METHODS = {"kpo": ("grpo", "kpo-clipped", "kpo-ema"), "krpo": ("grpo", "krpo")}
FIGURES = ("training_curves", "final_accuracy", "response_log_ratio", "structure", "group_advantages", "pass_at_k")
"""Figures that read runs themselves, between them every file of runs."""
README = f"# A title\n\n{START}\nwhat stood there\n{END}\n\nThe rest.\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def finished_results(
    results: Path,
    *,
    scale: str = "laptop",
    methods: Mapping[str, Sequence[str]] = METHODS,
    seeds: Sequence[int] = (1, 2, 3),
) -> Configuration:
    """Write `results`/<scale> up to its evaluations, with every method's runs of five rollout batches."""
    raw = read_yaml(CONFIG_FOLDER / f"{scale}.yaml") | {"results": str(results), "seeds": list(seeds), "study": None}
    raw["experiments"] = {name: raw["experiments"][name] for name in methods}
    for name, labels in methods.items():
        raw["experiments"][name]["methods"] = {label: {} for label in labels}
        raw["experiments"][name] |= {"late_evaluation": {}}  # the made-up runs keep no late checkpoints
        raw["experiments"][name]["training"] |= {"rollout_batches": 5}
    raw["evaluation"]["bootstrap_resamples"] = 100
    configuration = validate(raw, "a made-up configuration")
    minibatches = configuration.experiments["kpo"].training.minibatches
    write_results(configuration.folder, experiments=methods, seeds=seeds, rollout_batches=5, kept_every=2,
                  minibatches=minibatches, problems=20, samples=4, scale=scale)  # fmt: skip
    atomic_write(configuration.folder / "config.yaml", dump(configuration))
    for run in configuration.runs():
        text = yaml.safe_dump(run_config(configuration, *run))
        atomic_write(configuration.run_folder(*run) / "config.yaml", text)
    for path in configuration.folder.rglob("provenance.json"):
        facts = {"commit": COMMIT, "source_hash": "a digest of the code", "versions": {"torch": "2.0"}}
        machine = {"hardware": {"cores": 2, "processor": "made-up processor"}, "stopped": None}
        write_json(path, read_json(path) | facts | machine)
    return configuration


def make_the_rest(configuration: Configuration, figures: Sequence[str] = FIGURES) -> None:
    """Measures, verdicts, summary, figures, and stand-ins for what publishing only copies: tables and notebooks."""
    write_measures(configuration)
    write_claims(configuration)
    write_summary(configuration)
    draw(configuration.folder, figures)
    write_json(configuration.folder / "tables.json", {"scale": configuration.scale, "tables": []})
    atomic_write(configuration.folder / "tables.md", "# Tables\n")
    for name in NOTEBOOKS:
        cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"executed {name}"}
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        atomic_write(configuration.folder / "notebooks" / f"{name}.ipynb", json.dumps(notebook))


def draw(folder: Path, figures: Sequence[str] = FIGURES) -> None:
    """Draw figures of a results folder into it."""
    results = Results(folder)
    for name in figures:
        draw_to_files(name, importlib.import_module(f"paper_figures.{name}").draw, results, str(folder / "figures"))


def run_config(configuration: Configuration, experiment: str, label: str, seed: int) -> dict:
    """A run's config.yaml."""
    settings = configuration.experiments[experiment]
    method = dataclasses.asdict(settings.method(label))
    return {
        "experiment": experiment,
        "label": label,
        "seed": seed,
        "method": {name: method[name] for name in METHOD_FIELDS},
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
        "problems": configuration.problems.model_dump(),
        "base_model": configuration.base_model.model_dump(),
    }


def ready_to_publish(template: Path, folder: Path) -> tuple[Configuration, Path]:
    """A copy of complete results below `template`, and a repository without results, both in `folder`."""
    shutil.copytree(template / "results", folder / "results")
    configuration = read_resolved(folder / "results/laptop/config.yaml")
    atomic_write(folder / "repository/README.md", README)
    return configuration.model_copy(update={"results": str(folder / "results")}), folder / "repository"
