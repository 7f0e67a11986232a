"""lambda-GRPO's exponent as it is learned in training; its equation is in `reproduction.related.length_weights`."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from kpo.checks import check_real
from reproduction.related import length_weights
from reproduction.related.objectives.objective import Objective
from reproduction.training.fsdp import load_optimizer_state, optimizer_state


@dataclasses.dataclass
class LearnedLengthWeights(Objective):
    """lambda-GRPO (arXiv 2510.06870): advantages times f_i(lambda), lambda learned by lowering the same loss.

    lambda starts at 0, where f = 1. It has its own AdamW, whose learning rate is this project's choice ([NF] in the
    paper): at the model's 2e-4, lambda could move by 0.01 in 64 updates, while the controls have -1 and 1.
    """

    start_exponent: float = 0.0
    exponent_learning_rate: float = 0.01

    def __post_init__(self):
        check_real("start_exponent", self.start_exponent)
        check_real("exponent_learning_rate", self.exponent_learning_rate, minimum=0.0, exclusive=True)
        self.exponent = torch.tensor(float(self.start_exponent), requires_grad=True)

    def start(self, trainer):
        self.optimizer = torch.optim.AdamW([self.exponent], lr=self.exponent_learning_rate, weight_decay=0.0)

    def rollout(self, trainer, output, rewards_PG):
        lengths_PG = output["completion_mask"].sum(dim=1).view(rewards_PG.shape)
        relative_PG = length_weights.relative_lengths(lengths_PG).to(output["advantages"].dtype)
        output["relative_lengths"] = relative_PG.repeat_interleave(rewards_PG.shape[1], dim=0)
        output["member"] = torch.arange(rewards_PG.shape[1]).repeat(len(rewards_PG))

    def _weights(self, rollout: dict[str, Any]) -> Tensor:
        weights_BG = length_weights.length_weights(rollout["relative_lengths"], self.exponent)
        return weights_BG.gather(1, rollout["member"][:, None])[:, 0]

    def weighted(self, advantages, rollout):
        return advantages * self._weights(rollout).detach()

    def loss(self, loss, batch):
        ratio_BT = (batch.log_probs_BT - batch.old_BT).detach().exp()
        advantages_B1 = batch.rollout["advantages"][:, None]
        terms_BT = -advantages_B1 * ratio_BT
        if batch.clip is not None:
            low, high = batch.clip
            terms_BT = torch.maximum(terms_BT, -advantages_B1 * ratio_BT.clamp(1 - low, 1 + high))
        own = (self._weights(batch.rollout) * batch.summed(terms_BT)).sum() / batch.mask_BT.sum()
        if bool(torch.isfinite(own)):
            self.optimizer.zero_grad()
            own.backward()
            self.optimizer.step()
        return loss

    def metrics(self):
        return {"length_exponent": self.exponent.item()}

    def state_dict(self):
        return {"exponent": self.exponent.detach(), "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state):
        with torch.no_grad():
            self.exponent.copy_(state["exponent"])
        load_optimizer_state(self.optimizer, state["optimizer"])
