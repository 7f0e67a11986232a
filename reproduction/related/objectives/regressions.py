"""Regression of whole responses' log-ratios on fixed targets: SPPO, REBEL, A*-PO.

Their equations are in `reproduction.related.sequence_objectives`.
"""

import dataclasses
from typing import ClassVar

import torch

from kpo.checks import check_integer, check_real
from reproduction.related import sequence_objectives
from reproduction.related.objectives.objective import Objective


@dataclasses.dataclass
class Regression(Objective):
    """SPPO (arXiv 2405.00675): mean_i 1/2 (z_i - A_i)^2, z against the sampling policy, A the target [V]."""

    replaces_loss: ClassVar[bool] = True

    def loss(self, loss, batch):
        return sequence_objectives.regression(batch.log_ratio(batch.old_BT), batch.advantages)


@dataclasses.dataclass
class AllPairs(Objective):
    """REBEL (arXiv 2404.16767): mean over the pairs of a group of ((z_i - z_j) - (A_i - A_j))^2, A = eta r [V]."""

    needs_groups: ClassVar[bool] = True
    replaces_loss: ClassVar[bool] = True

    def loss(self, loss, batch):
        z_PG = batch.log_ratio(batch.old_BT).view(-1, batch.group_size)
        return sequence_objectives.rebel(z_PG, batch.advantages.view_as(z_PG), 1.0)


@dataclasses.dataclass
class OptimalValue(Objective):
    """A*-PO (arXiv 2505.20686): mean_i (beta2 z_i - (r_i - V*))^2, z against the base model [V].

    V* comes from `base_samples` responses of the base model to a prompt, drawn when the prompt is first trained on and
    kept; they count as generated tokens. beta1 .5, beta2 1e-3, 8 samples [V]. The authors draw one response a prompt
    from a fixed pool [V]; here the groups of the configuration are used, on fresh prompts.
    """

    beta1: float = 0.5
    beta2: float = 1e-3
    base_samples: int = 8

    needs_base: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    grades: ClassVar[bool] = True
    replaces_loss: ClassVar[bool] = True

    def __post_init__(self):
        check_real("beta1", self.beta1, minimum=0.0, exclusive=True)
        check_real("beta2", self.beta2, minimum=0.0, exclusive=True)
        check_integer("base_samples", self.base_samples, minimum=1)
        self.values: dict[str, float] = {}

    def examples(self, trainer, examples):
        new = {example["prompt"]: example for example in examples if example["prompt"] not in self.values}
        if new:
            rewards_PN = trainer.base_responses(list(new.values()), self.base_samples)[2]
            found = sequence_objectives.optimal_values(rewards_PN, self.beta1).tolist()
            self.values |= dict(zip(new, found, strict=True))
        return examples

    def rollout(self, trainer, output, rewards_PG):
        values = [self.values[example["prompt"]] for example in trainer.examples]
        output["advantages"] = output["advantages"] - torch.tensor(values).to(output["advantages"])

    def loss(self, loss, batch):
        z_B, target_B = batch.log_ratio(batch.reference_BT), batch.advantages
        return sequence_objectives.a_star_po(z_B, target_B, torch.zeros_like(target_B), self.beta2)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]
