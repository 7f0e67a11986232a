"""Losses of pairs, one right and one wrong response to the same prompt: RPO, alpha-DPO and SimPO.

The pairs come from the policy's own groups, which is not the papers' offline setting: RPO "online" is this project's.
"""

import torch
from torch.nn.functional import logsigmoid

from kpo.advantages import advantage_kind
from kpo.checks import check_integer

AVERAGE_DECAY = 0.9
SMALLEST_DEVIATION = 1e-4
"""Below it, in nats, all gaps are 0 up to rounding: policy and reference are the same model."""


def pairs(rewards_PG: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, 3): prompt, member with a higher reward, member with a lower one; one random pair of each uneven group.

    The chosen member is one of the highest reward, the rejected one of the lowest. Even groups give none.
    """
    found = []
    for prompt, rewards_G in enumerate(rewards_PG):
        high, low = rewards_G.max(), rewards_G.min()
        if high > low:
            draws = [
                members[torch.randint(len(members), (), generator=generator)]
                for members in ((rewards_G == high).nonzero()[:, 0], (rewards_G == low).nonzero()[:, 0])
            ]
            found.append([prompt, *(int(member) for member in draws)])
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)


def rpo(
    margin_N: torch.Tensor,
    chosen_log_prob_N: torch.Tensor,
    chosen_tokens_N: torch.Tensor,
    *,
    beta: float,
    eta: float,
    scaling: str,
) -> torch.Tensor:
    """-log sigmoid(beta h) + SFT on the chosen response: RPO (arXiv 2405.16436), mean over pairs.

    margin: h = (log pi - log pi_ref)(chosen) - the same of rejected, sums over tokens. scaling `sum` is the authors'
    handbook code, -beta eta x the sum of the chosen log-probabilities; `mean` is eta x the negative log-probability per
    token, as in their other code base and in TRL, whose mean is over all tokens of the batch [V]. beta .01 or .05, eta
    .005 [V]; eta 0 is DPO.
    """
    if scaling == "sum":
        likelihood = -beta * eta * chosen_log_prob_N.mean()
    elif scaling == "mean":
        likelihood = -eta * chosen_log_prob_N.sum() / chosen_tokens_N.sum()
    else:
        raise ValueError(f"scaling must be 'sum' or 'mean', found {scaling!r}")
    return -logsigmoid(beta * margin_N).mean() + likelihood


class MarginScale:
    """Running mean and standard deviation of the gap between policy and reference: alpha-DPO's M.

    Both start at 0 and move by a factor of 0.9, without correction, as released [V]; M is 0 while the deviation is 0 up
    to rounding, as in the first minibatch; the release then divides 0 by 0 [C].
    """

    def __init__(self, mean: float = 0.0, deviation: float = 0.0):
        self.mean, self.deviation = mean, deviation

    def update(self, gap_N: torch.Tensor) -> None:
        """Take in the gaps of a batch; a single one has no deviation and moves only the mean."""
        self.mean = AVERAGE_DECAY * self.mean + (1 - AVERAGE_DECAY) * gap_N.mean().item()
        if len(gap_N) > 1:
            self.deviation = AVERAGE_DECAY * self.deviation + (1 - AVERAGE_DECAY) * gap_N.std().item()

    def adapted(self, gap_N: torch.Tensor) -> torch.Tensor:
        """M = (g - m) / s, detached."""
        if self.deviation < SMALLEST_DEVIATION:
            return torch.zeros_like(gap_N.detach())
        return (gap_N.detach() - self.mean) / self.deviation


def alpha_dpo(
    difference_N: torch.Tensor, adapted_N: torch.Tensor, *, beta: float, gamma_over_beta: float, alpha: float
) -> torch.Tensor:
    """-log sigmoid(beta (D - sg[alpha M + gamma / beta])): alpha-DPO (arXiv 2410.10148); alpha 0 is SimPO.

    D: mean log-probability per token of the chosen response minus that of the rejected one. In the release the adaptive
    part is multiplied by beta, so the paper's alpha is alpha beta here [V].
    """
    return -logsigmoid(beta * (difference_N - alpha * adapted_N.detach() - gamma_over_beta)).mean()


@advantage_kind("preference-pair")
def preference_pair(
    rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, seed: int = 0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """1 for the chosen and -1 for the rejected response of each uneven group, 0 for the others; see `pairs`."""
    if generator is None:
        generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0))
    marks_PG = torch.zeros_like(rewards_PG)
    for prompt, (rewards_G, graded_G) in enumerate(zip(rewards_PG, graded_PG, strict=True)):
        members = graded_G.nonzero()[:, 0]
        for _, high, low in pairs(rewards_G[None, members], generator).tolist() if len(members) else ():
            marks_PG[prompt, members[high]], marks_PG[prompt, members[low]] = 1.0, -1.0
    return marks_PG
