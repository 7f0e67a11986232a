"""Learning from a part of each group: PODS and policy filtration; `reproduction.related.selection` has the rules."""

import dataclasses

import torch

from reproduction.related.objectives.objective import Objective


@dataclasses.dataclass
class Selection(Objective):
    """The usual loss on the responses that the advantage kind has kept: the others are left out of the minibatches.

    PODS and policy filtration. Their kinds multiply advantages by G / m for a mean over all G responses; here the mean
    is over the m that are kept, so that factor is taken out again.
    """

    def _number(self, method) -> int:
        return int(method.advantage_parameters.get("keep", 2))

    def check_training(self, method, training):
        number = self._number(method)
        if number > training.group_size:
            raise ValueError(
                f"method {method.name!r} keeps {number} responses of each group of {training.group_size}; lower keep"
            )
        if training.prompts_per_rollout * number % training.minibatches:
            raise ValueError(
                f"method {method.name!r} keeps {number} responses of each of {training.prompts_per_rollout} prompts, "
                f"which do not divide into {training.minibatches} minibatches; change one of the three"
            )

    def rollout(self, trainer, output, rewards_PG):
        output["advantages"] = output["advantages"] * (self._number(trainer.method) / rewards_PG.shape[1])

    def kept(self, trainer, advantages):
        # A response left out has advantage 0; if more have, some of them stay, and without a gradient they do no harm.
        number, size = self._number(trainer.method), trainer.num_generations
        members = advantages.view(-1, size).abs().argsort(dim=1, descending=True, stable=True)[:, :number]
        return (members.sort(dim=1).values + size * torch.arange(len(members))[:, None]).flatten()
