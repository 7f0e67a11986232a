"""DVPO (arXiv 2502.16944): a value model is trained first and frozen, then gives per-token advantages to PPO.

    delta_t = reward_t + gamma V_{t+1} - V_t    A_t = delta_t + gamma lambda A_{t+1}    (GAE, gamma 1, lambda .95 [V])

As released the policy stage has no terminal reward [V], so A_t = -V_t + (1 - lambda) sum_j lambda^(j-1) V_{t+j}: before
whitening, good endings get a negative advantage [C]. The paper's form is A_t = the value after token t [2H]. The
control adds the terminal reward. The paper conditions the value on a trajectory of the policy; the released code does
not [V vs 2H].

Its other control is actor-critic PPO (arXiv 1707.06347): a value model of the same architecture that learns along with
the policy.
"""

import copy
from typing import Any

import torch
from torch import nn

from kpo.checks import check_real

ROWS = 32
"""Texts in one pass, and in one minibatch of the fit."""


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


def whitened(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the counted tokens of the batch; 1e-8 under the root."""
    counted = mask_BT.bool()
    found = values_BT[counted]
    mean, variance = found.mean(), found.var(correction=1)
    return torch.where(counted, (values_BT - mean) * torch.rsqrt(variance + 1e-8), 0.0)


class ValueModel(nn.Module):
    """The trunk of a language model, copied, with one linear output that starts at 0: V before each token."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.trunk = copy.deepcopy(model.model).requires_grad_(True)
        self.head = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
        """V (B, T) before each of the last `length` tokens of the texts `ids`, from the tokens that precede it."""
        hidden = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head(hidden[:, -length - 1 : -1])[:, :, 0]


def values_of(model: ValueModel, rollout: dict[str, Any], training: bool = False) -> torch.Tensor:
    """V (B, T) of a rollout's responses as TRL holds them, 0 where not counted; with a gradient only in training."""
    ids, mask = (torch.cat([rollout[f"prompt_{part}"], rollout[f"completion_{part}"]], 1) for part in ("ids", "mask"))
    length, counted = rollout["completion_ids"].size(1), rollout["completion_mask"].bool()
    with torch.set_grad_enabled(training):
        parts = [model(*rows, length) for rows in zip(ids.split(ROWS), mask.split(ROWS), strict=True)]
    return torch.where(counted, torch.cat(parts), 0.0)


def squared_error(values_BT: torch.Tensor, returns_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean over counted tokens of 1/2 (V - return)^2."""
    counted = mask_BT.bool()
    return 0.5 * (values_BT[counted] - returns_BT[counted]).square().mean()


def padded(prompts: list[list[int]], completions: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Texts and their mask as tensors, each completion starting at the same column, and the columns from there on."""
    start, length = max(map(len, prompts)), max(map(len, completions))
    ids = torch.full((len(prompts), start + length), pad)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, start - len(prompt) : start + len(completion)] = torch.tensor([*prompt, *completion])
        mask[row, start - len(prompt) : start + len(completion)] = 1
    return ids, mask, length


def fit(
    model: ValueModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    length: int,
    rewards_B: torch.Tensor,
    *,
    decay: float,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    """Fit V to its own GAE returns, A + V, with each text's reward at its last token; AdamW on shuffled minibatches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    for _ in range(epochs):
        for rows in torch.randperm(len(ids), generator=generator).split(ROWS):
            counted = mask[rows, -length:]
            values = model(ids[rows], mask[rows], length)
            fixed = torch.where(counted.bool(), values.detach(), 0.0)
            returns = generalised_advantages(fixed, counted, rewards_B[rows], decay) + fixed
            optimizer.zero_grad()
            squared_error(values, returns, counted).backward()
            optimizer.step()
