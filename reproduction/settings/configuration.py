"""What a configuration may say. Every refusal is one line that names the key and what to do.

A scale is one file in `config/`; what the user gives on top (``--config seeds=[1,2]`` or ``--configfile mine.yaml``) is
merged into it key by key. `load` returns the whole, validated, with nothing left to defaults in other places.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_serializer, model_validator

from kpo.checks import unknown_name
from reproduction.data.arithmetic import Level
from reproduction.settings.experiment import ExperimentSettings
from reproduction.settings.files import ConfigurationError, expanded, first_error, listing, merge, read_yaml
from reproduction.settings.hub import DataSettings
from reproduction.settings.section import Count, FaultAction, Name, NonNegative, Positive, Section, Seed, Share
from reproduction.settings.study import add_study

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "config"
SCALES = ("smoke", "laptop", "desktop", "gpu", "paper")
DEFAULT_SCALE = "laptop"
"""On every machine: a scale that takes GPUs for days is only ever chosen by a person."""
SMALL_WINDOW = 512
"""Tokens (characters) of a question and its solution that the small base model can hold."""
OWN_NAMES = {
    "base", "benchmarks", "checksums", "claims.json", "claims.md", "config.yaml", "figures", "logs", "mathematics",
    "measures.json", "models", "notebooks", "problems", "provenance.json", "report.html", "summary.json", "summary.md",
    "tables.json", "tables.md",
}  # fmt: skip
"""What the workflow itself puts into the folder of a scale, next to the experiments."""


class LevelSettings(Section):
    """Which problems make a difficulty level. numbers: lowest and highest, in place of all of `num_digits`."""

    num_terms: Annotated[list[Annotated[int, Field(ge=2, le=6)]], Field(min_length=1)]
    num_digits: Annotated[list[Annotated[int, Field(ge=1, le=6)]], Field(min_length=1)]
    operators: Annotated[str, Field(pattern=r"^[-+*]+$")]
    brackets: bool
    numbers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _is_a_level(self):
        numbers = self.numbers and tuple(self.numbers)
        Level("level", tuple(self.num_terms), tuple(self.num_digits), self.operators, self.brackets, numbers=numbers)
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, dumped):
        # Runs made before `numbers` was a key keep their records.
        return {key: value for key, value in dumped(self).items() if (key, value) != ("numbers", None)}


class ProblemSettings(Section):
    """The arithmetic problems and how many are held out from all training."""

    seed: Seed
    train_per_level: Count
    held_out_per_level: Count
    one_digit_share: Share
    levels: Annotated[dict[Name, LevelSettings], Field(min_length=1)]


class BaseModelSettings(Section):
    """The small model that reinforcement starts from, and its pretraining on worked solutions."""

    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    steps: Count
    batch_size: Count
    muon_learning_rate: Positive
    muon_weight_decay: NonNegative
    adamw_learning_rate: Positive
    decay_from: Share
    forgetful_from: Share
    forgetting: Share
    expected_seconds: Positive

    @model_validator(mode="after")
    def _heads_divide(self):
        # Rotary embeddings turn pairs of a head's dimensions.
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not an even multiple of heads {self.heads}; change one"
            )
        return self


class EvaluationSettings(Section):
    """Sampling of the held-out problems, at temperature 1 over the whole vocabulary, and greedy."""

    samples_per_problem: Annotated[int, Field(ge=2)]
    file_samples_per_problem: Annotated[int, Field(ge=2)]
    max_completion_length: Count
    batch_size: Count
    bootstrap_resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    expected_seconds: Positive


class SafetySettings(Section):
    """How a run survives an interruption, and what it does about faults. It does not affect a run without a fault."""

    checkpoint_every: Count | None
    non_finite: FaultAction
    ungraded: FaultAction
    collapse: FaultAction
    collapse_after: Count
    checkpoint: FaultAction


class Configuration(Section):
    """Everything that decides what a run of the workflow does."""

    scale: Literal["smoke", "laptop", "desktop", "gpu", "paper"]
    study: Name | None
    results: Annotated[str, Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    arithmetic_file: str | None
    problems: ProblemSettings
    base_model: BaseModelSettings | None
    experiments: Annotated[dict[Name, ExperimentSettings], Field(min_length=1)]
    evaluation: EvaluationSettings
    safety: SafetySettings
    data: DataSettings = DataSettings()

    @field_validator("results", "arithmetic_file")
    @classmethod
    def _home_is_expanded(cls, value):
        return expanded(value)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value):
        if len(set(value)) != len(value):
            raise ValueError(f"seeds {value} repeat one another; a repeated seed is no new evidence")
        return value

    @model_validator(mode="after")
    def _seeds_and_levels_exist(self):
        for name, experiment in self.experiments.items():
            if name in OWN_NAMES:
                raise ValueError(
                    f"experiments: {name!r} is a name of the workflow's own in the results folder; choose another"
                )
            if experiment.pretrained is None and self.base_model is None:
                raise ValueError(f"experiments.{name} has no model: say `pretrained`, or give base_model")
            own = experiment.seeds
            if isinstance(own, dict) and set(own) - set(experiment.methods):
                raise ValueError(
                    f"experiments.{name}.seeds: {min(set(own) - set(experiment.methods))!r} is no method of this "
                    f"experiment; it has {listing(experiment.methods)}"
                )
            for seeds in own.values() if isinstance(own, dict) else [own] if own is not None else []:
                # A study's method may have no run yet.
                empty = not seeds and not isinstance(own, dict)
                if empty or set(seeds) - set(self.seeds) or len(set(seeds)) < len(seeds):
                    raise ValueError(
                        f"experiments.{name}.seeds {seeds} must be different ones of the seeds {self.seeds}; "
                        "add them there, or write null for all"
                    )
            named = {
                "training.level_weights": experiment.training.level_weights,
                "late_evaluation": experiment.late_evaluation,
            }
            for key, level in ((key, level) for key, found in named.items() for level in found):
                if level not in self.problems.levels:
                    raise ValueError(
                        f"experiments.{name}.{key}: unknown level {level!r}; "
                        f"problems.levels has {listing(self.problems.levels)}"
                    )
        return self

    @model_validator(mode="after")
    def _small_models_can(self):
        if self.base_model is None:
            return self
        for name, level in self.problems.levels.items():
            if level.brackets or "*" in level.operators:
                raise ValueError(
                    f"problems.levels.{name} has products or brackets, which the small base model cannot read; set "
                    "operators to '+-' and brackets to false"
                )
        levels = self.problems.levels.values()
        # A sign and an operator with each number, and "=" in place of the last operator.
        question = max(max(level.num_terms) * (max(level.num_digits) + 2) for level in levels)
        lengths = {"evaluation": self.evaluation.max_completion_length} | {
            f"experiments.{name}.training": one.training.max_completion_length
            for name, one in self.experiments.items()
            if one.pretrained is None
        }
        for key, length in lengths.items():
            if question + length > SMALL_WINDOW:
                raise ValueError(
                    f"{key}.max_completion_length {length} and a question of up to {question} characters are more than "
                    f"the {SMALL_WINDOW} that the small base model holds; set it to {SMALL_WINDOW - question} or less"
                )
        return self

    @property
    def folder(self) -> Path:
        """The results of the scale."""
        return Path(self.results) / self.scale

    def run_folder(self, experiment: str, method: str, seed: int) -> Path:
        """Where a run leaves its results; the base model of a seed counts as experiment and method ``base``."""
        if experiment == "base":
            return self.folder / "base" / f"seed{seed}"
        return self.folder / experiment / method / f"seed{seed}"

    def runs(self) -> list[tuple[str, str, int]]:
        """All (experiment, method label, seed) in the order of the file."""
        return [
            (experiment, label, seed)
            for experiment, settings in self.experiments.items()
            for label in settings.methods
            for seed in self.seeds_of(experiment, label)
        ]

    def methods_run(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The methods of each experiment that have a run; a study may not have come to some yet."""
        found = {
            name: {label: value for label, value in experiment.methods.items() if self.seeds_of(name, label)}
            for name, experiment in self.experiments.items()
        }
        return {name: methods for name, methods in found.items() if methods}

    def untrained(self) -> list[tuple[str, str, int]]:
        """What is evaluated untrained: the base model of each seed, and each experiment's Hugging Face model once."""
        own = [("base", "base", seed) for seed in self.seeds] if self.base_model is not None else []
        return own + [
            (name, "base", self.seeds_of(name)[0])
            for name, settings in self.experiments.items()
            if settings.pretrained is not None and self.seeds_of(name)
        ]

    def seeds_of(self, experiment: str, label: str | None = None) -> list[int]:
        """The seeds of a method's runs, or of any method of an experiment: all, unless it names its own.

        ``base`` has all.
        """
        own = None if experiment == "base" else self.experiments[experiment].seeds
        if isinstance(own, dict):
            named = own.get(label, []) if label in self.experiments[experiment].methods else sum(own.values(), [])
            return [seed for seed in self.seeds if seed in named]
        return self.seeds if own is None else own


def load(overrides: dict[str, Any] | None = None) -> Configuration:
    """The scale's file with `overrides` merged into it, validated.

    Raises ConfigurationError with one line that names the key, what is wrong and what to do.
    """
    overrides = dict(overrides or {})
    scale = overrides.get("scale", DEFAULT_SCALE)
    if scale not in SCALES:
        raise ConfigurationError(unknown_name("scale", scale, SCALES))
    path = CONFIG_FOLDER / f"{scale}.yaml"
    if not path.exists():
        available = [name for name in SCALES if (CONFIG_FOLDER / f"{name}.yaml").exists()]
        raise ConfigurationError(f"the scale {scale!r} has no configuration yet; choose one of {listing(available)}")
    raw = read_yaml(path)
    study = overrides.get("study", raw["study"])
    if study is not None and raw["base_model"] is None:
        raise ConfigurationError(f"study {study!r} extends the laptop scale; the scale {scale!r} has its own sweeps")
    if study is not None:
        raw = _without_own_seeds({**_with_study(raw, study), "study": study}, overrides)
    return validate(merge(raw, overrides, Configuration), f"scale {scale}")


def _without_own_seeds(raw: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The raw configuration without a study's own seeds of methods if other seeds or methods are given."""
    given = _mapping(overrides.get("experiments"))
    experiments = {
        name: {**settings, "seeds": None}
        if "seeds" in overrides or "methods" in _mapping(given.get(name))
        else settings
        for name, settings in raw["experiments"].items()
    }
    return {**raw, "experiments": experiments}


def _mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping; what else it may be is refused where it is merged."""
    return value if isinstance(value, dict) else {}


def _with_study(raw: dict[str, Any], study: Any) -> dict[str, Any]:
    known = sorted(path.stem for path in (CONFIG_FOLDER / "study").glob("*.yaml"))
    if study not in known:
        raise ConfigurationError(unknown_name("study", study, known))
    path = CONFIG_FOLDER / "study" / f"{study}.yaml"
    try:
        return add_study(raw, read_yaml(path))
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def validate(raw: dict[str, Any], source: str) -> Configuration:
    """Check a whole configuration; `source` names it in the error."""
    try:
        return Configuration.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {first_error(error)}") from None


def dump(configuration: Configuration) -> str:
    """The configuration as YAML text, in a fixed order."""
    return yaml.safe_dump(configuration.model_dump(), sort_keys=False, allow_unicode=True)


def read_resolved(path: Path) -> Configuration:
    """Read a configuration that a workflow has written."""
    return validate(read_yaml(path), str(path))
