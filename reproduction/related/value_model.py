"""DVPO (arXiv 2502.16944): a value model is trained first and frozen, then gives per-token advantages to PPO.

    delta_t = reward_t + gamma V_{t+1} - V_t    A_t = delta_t + gamma lambda A_{t+1}    (GAE, gamma 1, lambda .95 [V])

As released the policy stage has no terminal reward [V], so A_t = -V_t + (1 - lambda) sum_j lambda^(j-1) V_{t+j}: before
whitening, good endings get a negative advantage [C]. The paper's form is A_t = the value after token t [2H]. The
control adds the terminal reward. The paper conditions the value on a trajectory of the policy; the released code does
not [V vs 2H].
"""

import torch

from kpo.checks import check_real


def generalised_advantages(
    values_BT: torch.Tensor, mask_BT: torch.Tensor, terminal_reward_B: torch.Tensor | None = None, decay: float = 0.95
) -> torch.Tensor:
    """GAE (B, T) with gamma 1 over the counted tokens of each row, 0 elsewhere; no terminal reward means 0.

    values: V before each token. The value after the last token is 0, since the response has ended.
    """
    check_real("decay", decay, minimum=0.0, maximum=1.0)
    advantages = torch.zeros_like(values_BT)
    carried = torch.zeros_like(values_BT[:, 0])
    following = torch.zeros_like(carried)
    reward = torch.zeros_like(carried) if terminal_reward_B is None else terminal_reward_B.to(values_BT)
    for t in range(values_BT.shape[1] - 1, -1, -1):
        counted = mask_BT[:, t].bool()
        updated = reward + following - values_BT[:, t] + decay * carried
        carried = torch.where(counted, updated, carried)
        following = torch.where(counted, values_BT[:, t], following)
        reward = torch.where(counted, torch.zeros_like(reward), reward)
        advantages[:, t] = torch.where(counted, carried, 0.0)
    return advantages


def whitened(values_BT: torch.Tensor, mask_BT: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Mean 0 (unless `shift_mean` is False) and variance 1 over the counted tokens of the batch; 1e-8 under the
    root."""
    counted = mask_BT.bool()
    found = values_BT[counted]
    mean, variance = found.mean(), found.var(correction=1)
    scaled = (values_BT - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(counted, scaled if shift_mean else scaled + mean, 0.0)
