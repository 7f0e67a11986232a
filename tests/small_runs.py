"""Runs of a scale's small model from untrained weights, for tests of training."""

import json
from pathlib import Path
from typing import Any

import torch

from reproduction.data import Problem, make_splits
from reproduction.data.splits import levels
from reproduction.data.tokenizer import build_tokenizer
from reproduction.settings.configuration import Configuration
from reproduction.training.base_model import build_model
from reproduction.training.saving import save_model


def training_problems(configuration: Configuration) -> list[Problem]:
    """The problems that runs of the configuration are trained on."""
    settings = configuration.problems
    sizes = settings.train_per_level, 5, settings.seed, settings.one_digit_share
    return make_splits(levels(settings), *sizes)[0]


def save_untrained(configuration: Configuration, folder: Path) -> Path:
    """Save the configuration's base model, its weights drawn with seed 0, and return its folder."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    save_model(build_model(configuration.base_model, tokenizer), tokenizer, folder)
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, a row for each update."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
