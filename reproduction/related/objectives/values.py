"""Advantages of each token from a value model, frozen (DVPO) or trained along (PPO).

The model and the equations are in `reproduction.related.value_model`.
"""

import dataclasses
from typing import ClassVar

import torch

from kpo.checks import check_integer, check_real
from reproduction.related import value_model
from reproduction.related.objectives.objective import Objective
from reproduction.training.fsdp import load_optimizer_state, optimizer_state


@dataclasses.dataclass
class FrozenValue(Objective):
    """DVPO (arXiv 2502.16944), as released: advantages from a value model that was trained before and is frozen.

    The value model is the base model with a linear head, fitted to GAE returns of responses of the base model, whose
    reward of -1 (wrong) to 1 (right) comes at the last token [V]. In training its values are whitened over the batch,
    there is no terminal reward, and the advantages of GAE are whitened [V]. Left out: the reward of the release for
    staying near the reference, with its adaptive weight.
    """

    decay: float = 0.95
    base_prompts: int = 256
    base_samples: int = 8
    value_epochs: int = 2
    value_learning_rate: float = 1e-3

    needs_base: ClassVar[bool] = True
    grades: ClassVar[bool] = True
    terminal: ClassVar[bool] = False

    def __post_init__(self):
        check_real("decay", self.decay, minimum=0.0, maximum=1.0)
        check_real("value_learning_rate", self.value_learning_rate, minimum=0.0, exclusive=True)
        for name in ("base_prompts", "base_samples", "value_epochs"):
            check_integer(name, getattr(self, name), minimum=1)
        self.fitted = False

    def start(self, trainer):
        self.model = value_model.ValueModel(trainer.base)

    def examples(self, trainer, examples):
        if not self.fitted:
            prompts = {example["prompt"]: example for example in trainer.train_dataset}
            chosen = list(prompts.values())[: self.base_prompts]
            ids, completions, rewards_PN = trainer.base_responses(chosen, self.base_samples)
            value_model.fit(
                self.model,
                *value_model.padded(ids, completions, trainer.processing_class.pad_token_id),
                2.0 * rewards_PN.flatten() - 1.0,
                decay=self.decay,
                epochs=self.value_epochs,
                learning_rate=self.value_learning_rate,
                generator=trainer.objective_generator,
            )
            self.fitted = True
        return examples

    def rollout(self, trainer, output, rewards_PG):
        mask_BT = output["completion_mask"]
        values_BT = value_model.values_of(self.model, output)
        if self.terminal:
            rewards_B = torch.nan_to_num(2.0 * rewards_PG.flatten() - 1.0)
            found = value_model.generalised_advantages(values_BT, mask_BT, rewards_B, self.decay)
        else:
            found = value_model.generalised_advantages(
                value_model.whitened(values_BT, mask_BT), mask_BT, decay=self.decay
            )
        output["advantages"] = value_model.whitened(found, mask_BT)

    def state_dict(self):
        return {"fitted": self.fitted, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state):
        self.fitted = state["fitted"]
        self.model.load_state_dict(state["model"])


@dataclasses.dataclass
class FrozenValueWithReward(FrozenValue):
    """The control of DVPO: values as they are, and the reward of -1 to 1 at the last token."""

    terminal: ClassVar[bool] = True


@dataclasses.dataclass
class Critic(Objective):
    """Actor-critic PPO (arXiv 1707.06347): a value model trained along with the policy as its baseline.

    The critic is the base model with a linear head that starts at 0. GAE with gamma 1 and the reward at the last token,
    whitened over the batch; the critic's loss is half the squared error to the returns of the rollout, one step of its
    own AdamW for each update of the policy.
    """

    decay: float = 0.95
    value_learning_rate: float = 1e-3

    needs_base: ClassVar[bool] = True

    def __post_init__(self):
        check_real("decay", self.decay, minimum=0.0, maximum=1.0)
        check_real("value_learning_rate", self.value_learning_rate, minimum=0.0, exclusive=True)

    def start(self, trainer):
        self.model = value_model.ValueModel(trainer.base)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.value_learning_rate, weight_decay=0.0)

    def rollout(self, trainer, output, rewards_PG):
        mask_BT = output["completion_mask"]
        values_BT = value_model.values_of(self.model, output)
        rewards_B = torch.nan_to_num(rewards_PG.flatten())
        found = value_model.generalised_advantages(values_BT, mask_BT, rewards_B, self.decay)
        output["returns"] = found + values_BT
        output["advantages"] = value_model.whitened(found, mask_BT)

    def loss(self, loss, batch):
        values_BT = value_model.values_of(self.model, batch.rollout, training=True)
        error = value_model.squared_error(values_BT, batch.rollout["returns"], batch.mask_BT)
        self.optimizer.zero_grad()
        error.backward()
        self.optimizer.step()
        return loss

    def state_dict(self):
        return {"model": dict(self.model.state_dict()), "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, state["optimizer"])
