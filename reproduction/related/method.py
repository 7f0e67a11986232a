"""What a related method may have besides advantage, ratio, clip and aggregation, and what it needs to be trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kpo.checks import check_parameters, known
from kpo.methods import Method
from reproduction.related.objectives import OBJECTIVES, Objective

KEPT_APART = ("krpo-parts",)
"""Reward rules with several reward functions."""


@dataclass(frozen=True)
class RelatedMethod(Method):
    """A `Method` with an objective of its own, and with needs that a configuration may not meet.

    objective: its name in `reproduction.related.objectives`; None if the loss is the usual one, ratio times advantage.
    objective_parameters: filled with the objective's defaults, so they show every value in use.
    needs_components: whether it takes several reward functions.

    Raises ValueError or TypeError naming the field.
    """

    objective: str | None = None
    objective_parameters: Mapping[str, Any] = field(default_factory=dict)
    needs_components: bool = False

    PARTS: ClassVar[tuple[str, ...]] = ("ratio", "advantage", "objective")

    def __post_init__(self):
        super().__post_init__()
        defaults: dict[str, Any] = {}
        if self.objective is not None:
            defaults = OBJECTIVES[known("objective", self.objective, OBJECTIVES)].defaults()
        filled = check_parameters(f"{self.name}, objective {self.objective!r}", defaults, self.objective_parameters)
        object.__setattr__(self, "objective_parameters", filled)
        if self.make_objective().replaces_loss:
            for name in ("clip_low", "clip_high", "aggregation", "kl_weight"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(f"{self.name}: {name} has no effect on its loss, which is its own; leave it out")

    def make_objective(self) -> Objective:
        """The objective of a run, with its state."""
        if self.objective is None:
            return Objective()
        try:
            return OBJECTIVES[self.objective](**self.objective_parameters)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}: {error}") from None

    def check_settings(self, settings) -> None:
        """ValueError in one line if an experiment with these settings cannot train this method."""
        if self.needs_components and settings.reward not in KEPT_APART:
            raise ValueError(
                f"method {self.name!r} needs several reward functions, but reward {settings.reward!r} is one; "
                f"set reward: {KEPT_APART[0]}"
            )
        objective = self.make_objective()
        if self.objective is None:
            return
        if settings.pretrained is not None:
            raise ValueError(
                f"method {self.name!r} trains the small models of this project only; leave `pretrained` out, or the "
                "method"
            )
        training = settings.training
        minibatch = training.sequences_per_rollout // training.minibatches
        if objective.needs_groups and minibatch % training.group_size:
            raise ValueError(
                f"method {self.name!r} compares the members of a group, but a minibatch of {minibatch} responses does "
                f"not hold whole groups of {training.group_size}; change training.minibatches or group_size"
            )
        if objective.grades and settings.reward_noise:
            raise ValueError(
                f"method {self.name!r} grades responses outside the rollout batch, to which reward_noise does not "
                "apply; set reward_noise: {}"
            )
        objective.check_training(self, training)
