"""What a related method does in training in place of the usual loss or around it: the base class of all objectives.

An objective is made for a run and holds its state; `reproduction.related.trainer` asks it at fixed moments and is the
`trainer` that it is given. Its fields are the values that a configuration can override. Shape suffixes, here and in the
objectives: P prompts, G members of a group, N pairs, B sequences, T tokens.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A minibatch: log-probabilities (B, T), of which only the first have a gradient, and what its rollout left.

    old: of the sampling policy. reference: of the model before training, if the objective needs it. advantages: as the
    loss used them. rollout: what belongs to these rows, by name; its own "advantages" are those of the rollout.
    group_size: members of a group, next to each other if the objective needs groups. clip: the method's.
    """

    log_probs_BT: Tensor
    old_BT: Tensor
    reference_BT: Tensor | None
    mask_BT: Tensor
    advantages: Tensor
    rollout: dict[str, Any]
    group_size: int
    clip: tuple[float, float] | None

    def summed(self, values_BT: Tensor) -> Tensor:
        """(B,): the sum over each response's counted tokens."""
        return torch.where(self.mask_BT.bool(), values_BT, 0.0).sum(dim=1)

    def log_ratio(self, before_BT: Tensor) -> Tensor:
        """z (B,): each response's summed log-ratio against the log-probabilities of another policy."""
        return self.summed(self.log_probs_BT - before_BT)


@dataclasses.dataclass
class Objective:
    """The usual loss with nothing around it; each subclass overrides what it changes.

    needs_base: whether it uses the model before training, frozen. needs_reference: whether it needs that model's
    log-probabilities of the rollout. needs_groups: whether minibatches hold whole groups, members in sampled order.
    grades: whether it grades responses outside the rollout batch. replaces_loss: whether it has a loss of its own, on
    which clip, aggregation and KL weight have no effect.
    """

    needs_base: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    grades: ClassVar[bool] = False
    replaces_loss: ClassVar[bool] = False

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values that a method may set."""
        return {field.name: field.default for field in dataclasses.fields(cls)}

    def check_training(self, method, training) -> None:
        """ValueError in one line if `method` cannot be trained with these settings."""

    def start(self, trainer) -> None:
        """Called once, when the trainer has been made and its model is still the one before training."""

    def examples(self, trainer, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rollout's examples, one for each response to be sampled, groups together; called before sampling."""
        return examples

    def rollout(self, trainer, output: dict[str, Any], rewards_PG: Tensor) -> None:
        """May change the rollout's tensors, those of one response in one row; called after grading."""

    def kept(self, trainer, advantages: Tensor) -> Tensor | None:
        """The rows of the rollout to learn from, the same number for each group; None for all."""
        return None

    def weighted(self, advantages: Tensor, rollout: dict[str, Any]) -> Tensor:
        """The advantages that the usual loss of a minibatch takes."""
        return advantages

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        """The loss of a minibatch, scalar; `loss` is the usual one."""
        return loss

    def metrics(self) -> dict[str, float]:
        """Numbers of its own for the row of the update just made."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
