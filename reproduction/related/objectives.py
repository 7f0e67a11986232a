"""Objectives in place of the usual loss, or around it: what a related method does in training, one class each.

An objective is made for a run and holds its state; `reproduction.related.trainer` asks it at fixed moments and is the
`trainer` that it is given. Its fields are the values that a configuration can override. Shape suffixes: P prompts,
G members of a group, N pairs, B sequences, T tokens.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from kpo.checks import check_integer, check_real
from reproduction.related import drafts, length_weights, preference_pairs, sequence_objectives, value_model


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
    clip: tuple[float, float] | None = None

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
    grades: whether it grades responses outside the rollout batch.
    """

    needs_base: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    grades: ClassVar[bool] = False

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


@dataclasses.dataclass
class Regression(Objective):
    """SPPO (arXiv 2405.00675): mean_i 1/2 (z_i - A_i)^2, z against the sampling policy, A the target [V]."""

    def loss(self, loss, batch):
        return sequence_objectives.regression(batch.log_ratio(batch.old_BT), batch.advantages)


@dataclasses.dataclass
class AllPairs(Objective):
    """REBEL (arXiv 2404.16767): mean over the pairs of a group of ((z_i - z_j) - (A_i - A_j))^2, A = eta r [V]."""

    needs_groups: ClassVar[bool] = True

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


@dataclasses.dataclass
class Pairs(Objective):
    """Losses of a chosen and a rejected response of each uneven group, marked by the advantages 1 and -1.

    A minibatch without any pair has loss 0.
    """

    needs_groups: ClassVar[bool] = True

    def loss(self, loss, batch):
        chosen, rejected = ((batch.advantages * sign > 0).nonzero().flatten() for sign in (1, -1))
        if not len(chosen):
            return 0.0 * batch.summed(batch.log_probs_BT).sum()
        return self.pair_loss(batch, chosen, rejected)

    def pair_loss(self, batch: Batch, chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
        """The mean loss over pairs, whose rows of the minibatch are given."""
        raise NotImplementedError


@dataclasses.dataclass
class RpoSum(Pairs):
    """RPO (arXiv 2405.16436), with the sum of the chosen response's log-probabilities as in the handbook code [V]."""

    beta: float = 0.01
    eta: float = 0.005

    needs_base: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    scaling: ClassVar[str] = "sum"

    def __post_init__(self):
        check_real("beta", self.beta, minimum=0.0, exclusive=True)
        check_real("eta", self.eta, minimum=0.0)

    def pair_loss(self, batch, chosen_N, rejected_N):
        relative_B = batch.log_ratio(batch.reference_BT)
        chosen_log_prob_N = batch.summed(batch.log_probs_BT)[chosen_N]
        tokens_N = batch.mask_BT.sum(dim=1)[chosen_N]
        values = {"beta": self.beta, "eta": self.eta, "scaling": self.scaling}
        return preference_pairs.rpo(
            relative_B[chosen_N] - relative_B[rejected_N], chosen_log_prob_N, tokens_N, **values
        )


@dataclasses.dataclass
class RpoMean(RpoSum):
    """RPO with the mean over the chosen tokens, as in the authors' second code base and in TRL [V]."""

    scaling: ClassVar[str] = "mean"


@dataclasses.dataclass
class SimPo(Pairs):
    """SimPO: -log sigmoid(beta (D - gamma / beta)), D the difference of mean log-probabilities; the control [V]."""

    beta: float = 2.5
    gamma_over_beta: float = 0.6

    def __post_init__(self):
        check_real("beta", self.beta, minimum=0.0, exclusive=True)
        check_real("gamma_over_beta", self.gamma_over_beta)

    @staticmethod
    def _difference(batch: Batch, log_probs_BT: Tensor, chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
        mean_B = batch.summed(log_probs_BT) / batch.mask_BT.sum(dim=1).clamp(min=1)
        return mean_B[chosen_N] - mean_B[rejected_N]

    def pair_loss(self, batch, chosen_N, rejected_N):
        difference_N = self._difference(batch, batch.log_probs_BT, chosen_N, rejected_N)
        values = {"beta": self.beta, "gamma_over_beta": self.gamma_over_beta, "alpha": 0.0}
        return preference_pairs.alpha_dpo(difference_N, torch.zeros_like(difference_N), **values)


@dataclasses.dataclass
class AlphaDpo(SimPo):
    """alpha-DPO (arXiv 2410.10148): SimPO with a margin adapted to the gap between policy and reference [V]."""

    alpha: float = 0.2

    needs_base: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_real("alpha", self.alpha)
        self.scale = preference_pairs.MarginScale()

    def pair_loss(self, batch, chosen_N, rejected_N):
        difference_N = self._difference(batch, batch.log_probs_BT, chosen_N, rejected_N)
        gap_N = difference_N.detach() - self._difference(batch, batch.reference_BT, chosen_N, rejected_N)
        self.scale.update(gap_N)
        values = {"beta": self.beta, "gamma_over_beta": self.gamma_over_beta, "alpha": self.alpha}
        return preference_pairs.alpha_dpo(difference_N, self.scale.adapted(gap_N), **values)

    def state_dict(self):
        return {"mean": self.scale.mean, "deviation": self.scale.deviation}

    def load_state_dict(self, state):
        self.scale = preference_pairs.MarginScale(state["mean"], state["deviation"])


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
        low, high = batch.clip
        ratio_BT = (batch.log_probs_BT - batch.old_BT).detach().exp()
        advantages_B1 = batch.rollout["advantages"][:, None]
        terms_BT = torch.maximum(-advantages_B1 * ratio_BT, -advantages_B1 * ratio_BT.clamp(1 - low, 1 + high))
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


@dataclasses.dataclass
class Refinement(Objective):
    """iGRPO (arXiv 2602.09000): GRPO on refinements of each prompt's best draft, half of a group each.

    Of a group of G, G / 2 are drafts from the current policy to the plain prompt, and G / 2 responses to the prompt
    with the best draft; only these are trained on, under that prompt. Drafts count as generated tokens. The base model
    has never seen a prompt with a draft.
    """

    best: ClassVar[bool] = True
    grades: ClassVar[bool] = True

    def check_training(self, method, training):
        if training.group_size % 2 or training.group_size < 4 or training.prompts_per_rollout % 2:
            raise ValueError(
                f"method {method.name!r} makes half of a group drafts, in a second sampling round: it needs an even "
                f"group_size of at least 4 and even prompts_per_rollout, found {training.group_size} and "
                f"{training.prompts_per_rollout}"
            )
        if training.sequences_per_rollout // 2 % training.minibatches:
            raise ValueError(
                f"method {method.name!r} trains on half of {training.sequences_per_rollout} responses, which do not "
                f"divide into {training.minibatches} minibatches; change training.minibatches"
            )

    def examples(self, trainer, examples):
        size = trainer.num_generations
        prompts = examples[::size]
        texts_PN, rewards_PN = trainer.drafts(prompts, size // 2)
        chosen = drafts.best_draft(rewards_PN).tolist() if self.best else [0] * len(prompts)
        refined = [
            {**prompt, "prompt": drafts.refinement_prompt(prompt["prompt"], texts[index], drafts.SEPARATOR)}
            for prompt, texts, index in zip(prompts, texts_PN, chosen, strict=True)
        ]
        return [example for example in refined for _ in range(size // 2)]


@dataclasses.dataclass
class RandomRefinement(Refinement):
    """The control of iGRPO: the first draft in place of the best one."""

    best: ClassVar[bool] = False


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


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with text as keys, as a checkpoint keeps it."""
    found = optimizer.state_dict()
    return {**found, "state": {str(index): part for index, part in found["state"].items()}}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from what `optimizer_state` gave."""
    optimizer.load_state_dict({**state, "state": {int(index): part for index, part in state["state"].items()}})


OBJECTIVES: dict[str, type[Objective]] = {
    "selection": Selection,
    "regression": Regression,
    "all-pairs": AllPairs,
    "optimal-value": OptimalValue,
    "rpo-sum": RpoSum,
    "rpo-mean": RpoMean,
    "simpo": SimPo,
    "alpha-dpo": AlphaDpo,
    "learned-length-weights": LearnedLengthWeights,
    "refinement": Refinement,
    "random-refinement": RandomRefinement,
    "frozen-value": FrozenValue,
    "frozen-value-with-reward": FrozenValueWithReward,
    "critic": Critic,
}
"""By the name under which methods declare them."""
