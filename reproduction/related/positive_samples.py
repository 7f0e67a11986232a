"""RAFT, RAFT++ and Reinforce-Rej (arXiv 2504.11343): how far positive samples and filtering carry.

    RAFT           A = max(r, 0), no baseline; loss -A log pi                              [V]
    RAFT++         the same A with the token ratio, clip 0.2 / 0.2                         [V]
    Reinforce-Rej  A = r, and 0 for all members of a group whose rewards are all equal     [V]

A filtered response keeps its place in the token mean's denominator, as in the release [V]. The paper's own mean is over
responses [2H]. With rewards 0 and 1 wrong answers get A = 0 in Reinforce-Rej; with -1 and 1 they are pushed away [C].
"""

import torch

from kpo.advantages import advantage_kind, informative_groups


@advantage_kind("positive")
def positive(rewards_PG: torch.Tensor, graded_PG: torch.Tensor) -> torch.Tensor:
    """max(r, 0): RAFT (arXiv 2504.11343) [V]."""
    return rewards_PG.clamp(min=0.0)


@advantage_kind("uneven-groups")
def uneven_groups(rewards_PG: torch.Tensor, graded_PG: torch.Tensor) -> torch.Tensor:
    """r, and 0 in a group whose graded rewards are all equal; a group of one stays: Reinforce-Rej [V]."""
    uneven_P = informative_groups(torch.where(graded_PG, rewards_PG, torch.nan))
    return torch.where((uneven_P | (graded_PG.sum(dim=1) == 1))[:, None], rewards_PG, 0.0)


@advantage_kind("uneven-groups-signed")
def uneven_groups_signed(rewards_PG: torch.Tensor, graded_PG: torch.Tensor) -> torch.Tensor:
    """Reinforce-Rej on rewards of -1 and 1: 2 r - 1 for rewards in [0, 1], 0 in even groups."""
    uneven_P = informative_groups(torch.where(graded_PG, rewards_PG, torch.nan))
    return torch.where((uneven_P | (graded_PG.sum(dim=1) == 1))[:, None], 2.0 * rewards_PG - 1.0, 0.0)
