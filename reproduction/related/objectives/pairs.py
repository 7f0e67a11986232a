"""A right against a wrong response of each group: RPO, SimPO, alpha-DPO.

Their equations are in `reproduction.related.preference_pairs`.
"""

import abc
import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from kpo.checks import check_real
from reproduction.related import preference_pairs
from reproduction.related.objectives.objective import Batch, Objective


@dataclasses.dataclass
class Pairs(Objective, abc.ABC):
    """Losses of a chosen and a rejected response of each uneven group, marked by the advantages 1 and -1.

    A minibatch without any pair has loss 0.
    """

    needs_groups: ClassVar[bool] = True
    replaces_loss: ClassVar[bool] = True

    def loss(self, loss, batch):
        chosen, rejected = ((batch.advantages * sign > 0).nonzero().flatten() for sign in (1, -1))
        if not len(chosen):
            return 0.0 * batch.summed(batch.log_probs_BT).sum()
        return self.pair_loss(batch, chosen, rejected)

    @abc.abstractmethod
    def pair_loss(self, batch: Batch, chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
        """The mean loss over pairs, whose rows of the minibatch are given."""


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
