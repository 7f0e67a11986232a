"""One run as the steps take it: its settings, its seed and where its results go, chosen once from a configuration."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kpo.methods import Method
from reproduction.data.splits import FILE_SPLIT
from reproduction.settings.configuration import Configuration, ConfigurationError, EvaluationSettings, SafetySettings
from reproduction.settings.experiment import ExperimentSettings
from reproduction.settings.hub import PretrainedSettings, SamplingSettings


@dataclass(frozen=True)
class Run:
    """What is trained, or evaluated: a method with one seed, or an untrained model (method None).

    name: as progress lines and records show it. settings: the experiment's; None for a small base model, which belongs
    to all experiments. folder: where the results go. resolved: all that decides the training, JSON-ready; config.yaml.
    generated: the splits whose answers are integers, compared as text.
    """

    name: str
    settings: ExperimentSettings | None
    method: Method | None
    seed: int
    folder: Path
    safety: SafetySettings
    evaluation: EvaluationSettings
    resolved: Mapping[str, Any]
    generated: frozenset[str]

    @property
    def hub(self) -> PretrainedSettings | None:
        """Settings of the Hugging Face model; None if the model is a small one that this project pretrains."""
        return None if self.settings is None else self.settings.pretrained

    @property
    def resolved_text(self) -> str:
        """`resolved` as the YAML of config.yaml."""
        return yaml.safe_dump(self.resolved, sort_keys=False)

    def sampling(self, split: str) -> SamplingSettings:
        """How a split is sampled for evaluation. A small model's whole vocabulary is sampled at temperature 1."""
        if self.hub is not None:
            return self.hub.sampling
        shared, from_file = self.evaluation, split == FILE_SPLIT
        return SamplingSettings(
            samples_per_problem=shared.file_samples_per_problem if from_file else shared.samples_per_problem,
            temperature=1.0,
            top_p=1.0,
            max_completion_length=shared.max_completion_length,
            batch_size=shared.batch_size,
            shard_problems=shared.batch_size,
        )


def get_run(configuration: Configuration, experiment: str, label: str, seed: int, folder: Path | None = None) -> Run:
    """The run of that experiment, method label and seed; the base model of a seed is experiment and label ``base``.

    folder: where its results go, if not where the configuration says. Raises ConfigurationError with one line if the
    configuration has no such run.
    """
    settings = method = None
    if experiment == "base":
        _known(label, {"base": None}, "experiment 'base' is the untrained model and has no method {!r}; it has {}")
        if configuration.base_model is None:
            raise ConfigurationError("this configuration has no base model (base_model: null); name an experiment")
    else:
        settings = _known(experiment, configuration.experiments, "unknown experiment {!r}; known are {}")
        if label != "base" or settings.pretrained is None:
            _known(label, settings.methods, f"experiment {experiment!r} has no method {{!r}}; it has {{}}")
            method = settings.method(label)
    seeds = configuration.seeds_of(experiment, label)
    _known(seed, dict.fromkeys(seeds), "--seed {} is not in this configuration (seeds: {})")
    return Run(
        name=f"{'base' if experiment == 'base' else f'{experiment}/{label}'} seed {seed}",
        settings=settings,
        method=method,
        seed=seed,
        folder=configuration.run_folder(experiment, label, seed) if folder is None else folder,
        safety=configuration.safety,
        evaluation=configuration.evaluation,
        resolved={} if settings is None else _resolved(configuration, experiment, label, seed, method),
        generated=frozenset({FILE_SPLIT, *configuration.problems.levels}),
    )


def _known(name, known: Mapping, message: str):
    if name not in known:
        raise ConfigurationError(message.format(name, ", ".join(map(str, known))))
    return known[name]


def _resolved(configuration: Configuration, experiment: str, label: str, seed: int, method: Method | None) -> dict:
    settings = configuration.experiments[experiment]
    return {
        "scale": configuration.scale,
        "experiment": experiment,
        "label": label,
        "seed": seed,
        "method": method and dataclasses.asdict(method),
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
        "late_evaluation": settings.late_evaluation,
        "problems": configuration.problems.model_dump(),
        "base_model": configuration.base_model and configuration.base_model.model_dump(),
        **({} if settings.pretrained is None else {"pretrained": settings.pretrained.model_dump()}),
    }
