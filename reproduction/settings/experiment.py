"""An experiment: its methods, reward and training protocol. Refusals say which key does not fit and what to do."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from kpo.checks import unknown_name
from kpo.methods import METHODS, Method, get_method
from reproduction.rewards.perturb import RewardNoise
from reproduction.settings.files import listing
from reproduction.settings.hub import PretrainedSettings
from reproduction.settings.section import Count, CountOrZero, Name, NonNegative, One, Positive, Section, Seed

# The tokens over which the paper's own filter forgets: sqrt(V / Q) of its Q = 1e-6, V = 1 (KPO, section 4 settings).
PAPER_TIME_CONSTANT = 1000.0


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
    min_completion_length: CountOrZero = 0
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
