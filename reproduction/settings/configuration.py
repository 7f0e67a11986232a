"""What a configuration may say. Every refusal is one line that names the key and what to do.

A scale is one file in `config/`; what the user gives on top (``--config seeds=[1,2]`` or ``--configfile mine.yaml``) is
merged into it key by key. `load` returns the whole, validated, with nothing left to defaults in other places.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from kpo.checks import unknown_name
from kpo.methods import METHODS, Method, get_method
from reproduction.data.arithmetic import Level
from reproduction.rewards.perturb import RewardNoise
from reproduction.settings.files import ConfigurationError, expanded, first_error, listing, merge, read_yaml
from reproduction.settings.hub import DataSettings, PretrainedSettings
from reproduction.settings.study import add_study

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "config"
SCALES = ("smoke", "laptop", "desktop", "gpu", "paper")
DEFAULT_SCALE = "laptop"
"""On every machine: a scale that takes GPUs for days is only ever chosen by a person."""
OWN_NAMES = {
    "base", "benchmarks", "checksums", "claims.json", "claims.md", "config.yaml", "figures", "logs", "mathematics",
    "measures.json", "models", "notebooks", "problems", "provenance.json", "report.html", "summary.json", "summary.md",
    "tables.json", "tables.md",
}  # fmt: skip
"""What the workflow itself puts into the folder of a scale, next to the experiments."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
One = Annotated[float, Field(ge=1, le=1)]
FaultAction = Literal["stop", "continue"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]

# The tokens over which the paper's own filter forgets: sqrt(V / Q) of its Q = 1e-6, V = 1 (KPO, section 4 settings).
PAPER_TIME_CONSTANT = 1000.0


class Section(BaseModel):
    """A part of the configuration: no key but those declared, no value of another type, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LevelSettings(Section):
    """Which problems make a difficulty level. numbers: lowest and highest, in place of all of `num_digits`."""

    num_terms: Annotated[list[Annotated[int, Field(ge=2, le=6)]], Field(min_length=1)]
    num_digits: Annotated[list[Annotated[int, Field(ge=1, le=6)]], Field(min_length=1)]
    operators: Annotated[str, Field(pattern=r"^[-+*]+$")]
    brackets: bool
    numbers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _is_a_level(self):
        Level("level", tuple(self.num_terms), tuple(self.num_digits), numbers=self.numbers and tuple(self.numbers))
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
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}; change one")
        return self


class TrainingSettings(Section):
    """How a method is trained: the same for every method of an experiment."""

    learning_rate: Positive
    weight_decay: NonNegative
    gradient_clip: Positive
    prompts_per_rollout: Count
    group_size: Annotated[int, Field(ge=2)]
    minibatches: Count
    epochs: Count
    rollout_batches: Count
    max_completion_length: Count
    min_completion_length: Annotated[int, Field(ge=0)] = 0
    level_weights: dict[Name, NonNegative]
    keep_log_ratios_every: Count
    # Ratios are defined against the policy that sampled; any other temperature or a cut support breaks that.
    temperature: One
    top_p: One

    @property
    def sequences_per_rollout(self) -> int:
        """Responses of one rollout batch."""
        return self.prompts_per_rollout * self.group_size

    @property
    def updates(self) -> int:
        """Optimiser steps of a whole run."""
        return self.rollout_batches * self.minibatches * self.epochs

    @model_validator(mode="after")
    def _consistent(self):
        if self.sequences_per_rollout % self.minibatches:
            raise ValueError(
                f"{self.prompts_per_rollout} prompts x group_size {self.group_size} = {self.sequences_per_rollout} "
                f"responses do not divide into {self.minibatches} minibatches; change one of the three"
            )
        if self.min_completion_length > self.max_completion_length:
            raise ValueError(
                f"min_completion_length {self.min_completion_length} is above max_completion_length "
                f"{self.max_completion_length}; change one"
            )
        if self.level_weights and sum(self.level_weights.values()) <= 0:
            raise ValueError("level_weights are all 0, so there is nothing to train on; give one level a weight")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, dumped):
        # Runs made before this was a key keep their records.
        return {key: value for key, value in dumped(self).items() if (key, value) != ("min_completion_length", 0)}


class ExperimentSettings(Section):
    """One experiment: its methods, reward rule and training protocol."""

    methods: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    seeds: list[Seed] | dict[Name, list[Seed]] | None
    reward: Literal["exact", "krpo", "krpo-parts", "math", "math-strings"]
    reward_noise: dict[str, float]
    kalman_time_constant: Positive
    training: TrainingSettings
    late_evaluation: dict[Name, Count] = {}
    expected_seconds: Positive
    pretrained: PretrainedSettings | None = None

    @field_validator("methods", mode="before")
    @classmethod
    def _empty_means_defaults(cls, value):
        if isinstance(value, dict):
            return {name: {} if overrides is None else overrides for name, overrides in value.items()}
        return value

    @field_validator("reward_noise")
    @classmethod
    def _noise_is_known(cls, value):
        unknown = set(value) - {field.name for field in dataclasses.fields(RewardNoise)}
        if unknown:
            known = listing(field.name for field in dataclasses.fields(RewardNoise))
            raise ValueError(f"unknown key {min(unknown)!r}; known are {known}")
        try:
            RewardNoise(**value)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def late_batches(self) -> list[int]:
        """The rollout batches of the last third of training, after each of which the policy is evaluated."""
        count = self.training.rollout_batches
        return list(range(count - max(1, round(count / 3)) + 1, count + 1))

    @property
    def late_answers(self) -> dict[str, int]:
        """For each level of `late_evaluation` the answers of a whole run; a few more if they are not shared evenly."""
        batches = len(self.late_batches)
        return {level: batches * -(-count // batches) for level, count in self.late_evaluation.items()}

    @property
    def noise(self) -> RewardNoise:
        """What is done to the rewards before the method sees them."""
        return RewardNoise(**self.reward_noise)

    @model_validator(mode="after")
    def _methods_work(self):
        for label in self.methods:
            try:
                method = self.method(label)
            except TypeError as error:
                raise ValueError(f"methods.{label}: {error}") from None
            if method.uses_ratio and self.training.minibatches * self.training.epochs == 1:
                raise ValueError(
                    f"method {label!r} corrects for off-policy updates, but with minibatches 1 and epochs 1 every "
                    "ratio is exactly 1 and it does nothing; set training.minibatches or training.epochs above 1"
                )
            if hasattr(method, "check_settings"):  # a related method
                method.check_settings(self)
        if self.reward == "krpo-parts" and self.reward_noise:
            raise ValueError("reward_noise is for a single reward; set it to {}, or choose reward: krpo")
        return self

    @model_validator(mode="after")
    def _model_and_data_fit(self):
        training, pretrained = self.training, self.pretrained
        if (pretrained is None or pretrained.trains_on_arithmetic) != bool(training.level_weights):
            raise ValueError(
                "training.level_weights choose among the generated problems: give them if the experiment trains "
                "on those, and {} if it trains on Hugging Face datasets"
            )
        if pretrained is not None and self.late_evaluation:
            raise ValueError("late_evaluation is for small models only; leave it out")
        if pretrained is None:
            if self.reward.startswith("math"):
                raise ValueError(f"reward {self.reward!r} grades mathematics; an experiment on it says `pretrained`")
            return self
        if "base" in self.methods:
            raise ValueError("a method's label is 'base', which is the untrained model; choose another label")
        engine, trainer, devices = pretrained.engine, pretrained.trainer, pretrained.devices.count or 0
        if training.min_completion_length and (engine == "vllm" or trainer == "verl" or devices > 1):
            raise ValueError(
                "training.min_completion_length leaves the end tokens out of the policy, which engine decode or "
                f"transformers does with trainer trl in one process; found engine {engine!r}, trainer {trainer!r} and "
                f"devices.count {devices}; set it to 0, or change these"
            )
        minibatch = training.sequences_per_rollout // training.minibatches
        if minibatch % (pretrained.micro_batch * (pretrained.devices.count or 1)):
            raise ValueError(
                f"a minibatch has {minibatch} responses, which {pretrained.devices.count or 1} devices cannot take in "
                f"equal micro-batches of {pretrained.micro_batch}; change pretrained.micro_batch or devices.count "
                "(the minibatch is never changed to fit the devices)"
            )
        return self

    @model_validator(mode="after")
    def _verl_can(self):
        if self.pretrained is not None and self.pretrained.trainer == "verl":
            prompts, minibatches = self.training.prompts_per_rollout, self.training.minibatches
            if prompts % minibatches:
                raise ValueError(
                    f"trainer 'verl' takes whole groups in each minibatch, and {prompts} prompts do not divide into "
                    f"{minibatches} minibatches; change training.minibatches, or set trainer: trl"
                )
            if self.reward_noise:
                raise ValueError("trainer 'verl' adds no noise to rewards; set reward_noise: {}, or trainer: trl")
            for label in self.methods:
                if self.method(label).name not in METHODS:
                    raise ValueError(f"trainer 'verl' has no method {label!r}, which is related work; set trainer: trl")
        return self

    def method(self, label: str) -> Method:
        """The method under `label`, with the experiment's overrides and its filters fitted to the response length.

        An entry may name another method than its label (``grpo-narrow: {method: grpo, clip_low: 0.1}``). Every filter
        over tokens forgets faster by the same factor, so that the paper's time constant of 1,000 tokens becomes
        `kalman_time_constant`: process variances grow by the factor's square, a constant gain by the factor. A value
        that is given is taken as it is.
        """
        overrides = dict(self.methods[label])
        name = overrides.pop("method", label)
        if name in METHODS:
            method = get_method(name)
        else:
            from reproduction.related.declarations import RELATED

            if name not in RELATED:
                raise ValueError(unknown_name("method", name, [*METHODS, *RELATED]))
            method = RELATED[name]
        faster = PAPER_TIME_CONSTANT / self.kalman_time_constant
        fitted = {}
        if "process_variance" in method.ratio_parameters:
            fitted["process_variance"] = method.ratio_parameters["process_variance"] * faster**2
        if "gain" in method.ratio_parameters:
            fitted["gain"] = min(1.0, method.ratio_parameters["gain"] * faster)
        if method.aggregation_length is not None:
            fitted["aggregation_length"] = self.training.max_completion_length
        return get_method(method, **{**fitted, **overrides})


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
            if settings.pretrained is not None
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
    return validate(merge(raw, overrides), f"scale {scale}")


def _without_own_seeds(raw: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The raw configuration without a study's own seeds of methods if other seeds or methods are given."""
    given = overrides.get("experiments") or {}
    experiments = {
        name: {**settings, "seeds": None} if "seeds" in overrides or "methods" in (given.get(name) or {}) else settings
        for name, settings in raw["experiments"].items()
    }
    return {**raw, "experiments": experiments}


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
