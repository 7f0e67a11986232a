"""Which responses of a group are learned from: PODS, policy filtration, and unbiased pruning.

Each function gives weights (P, G): 0 for a response that is left out, otherwise what its advantage is multiplied by.
Ties are broken by the sampled order.

PODS (arXiv 2504.13818): of n responses keep the m whose rewards have the largest variance, then GRPO's advantages over
    the m that are kept [V]. The authors' main setting is 64 -> 16 [V]. Controls of the release: a random subset, the m
    of highest reward [V].
Policy filtration (PF-PPO, arXiv 2409.06957): learn from the ranks whose reward can be trusted, the best and the worst
    or the best and a random one [V]. The paper trains PPO with a critic [V]; here it is PF's selection on GRPO's
    advantages of the whole group. The exact best-random vector of the paper: [NF].
Unbiased pruning: a response whose |A| is below its group's mean |A| is dropped with probability q, and survivors get
    the weight 1 / (1 - q), so that the expected gradient is that of the whole group if sums are divided by the whole
    count (InfoBatch, arXiv 2303.04947 [V]). Named after InfoBatch, since the published pruning rule of arXiv 2603.04135
    was not found [NF].

As advantage kinds, a response that is left out has advantage 0, and the others are scaled by G / m, so that the
gradient of a mean over responses is that of the m only. In training the objective `selection` takes those left out from
the minibatches, so that an update costs m / G of what it did; those of unbiased pruning, whose number changes, keep
their place.
"""

import torch

from kpo.advantages import advantage_kind, grpo
from kpo.checks import check_integer, check_real


def max_variance(rewards_PG: torch.Tensor, keep: int) -> torch.Tensor:
    """The `keep` members of each group with the largest reward variance: the i highest and the keep - i lowest.

    Starts from i = `keep`, then tries i = 0, 1, ... and changes only to a larger variance, as the release does [V].
    """
    group_size = rewards_PG.shape[1]
    check_integer("keep", keep, minimum=1)
    if keep > group_size:
        raise ValueError(f"keep {keep} is more than the {group_size} responses of a group; lower it")
    order_PG = rewards_PG.argsort(dim=1, descending=True, stable=True)
    ranked_PG = rewards_PG.gather(1, order_PG).to(torch.float64)
    best, chosen = None, None
    for highest in (keep, *range(keep)):
        ranks = [*range(highest), *range(group_size - (keep - highest), group_size)]
        variance = ranked_PG[:, ranks].var(dim=1, correction=min(1, keep - 1))
        members = torch.zeros_like(rewards_PG).scatter(1, order_PG[:, ranks], 1.0)
        if best is None:
            best, chosen = variance, members
            continue
        better = variance > best + 1e-12
        chosen = torch.where(better[:, None], members, chosen)
        best = torch.where(better, variance, best)
    return chosen


def highest(rewards_PG: torch.Tensor, keep: int) -> torch.Tensor:
    """The `keep` members of highest reward; a control of PODS."""
    order_PG = rewards_PG.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros_like(rewards_PG).scatter(1, order_PG, 1.0)


def random_subset(rewards_PG: torch.Tensor, keep: int, generator: torch.Generator) -> torch.Tensor:
    """`keep` random members of each group; a control of PODS."""
    order_PG = torch.rand(rewards_PG.shape, generator=generator).argsort(dim=1)[:, :keep]
    return torch.zeros_like(rewards_PG).scatter(1, order_PG.to(rewards_PG.device), 1.0)


def best_and_worst(rewards_PG: torch.Tensor) -> torch.Tensor:
    """The member of highest reward and that of lowest; policy filtration BW."""
    members = torch.zeros_like(rewards_PG)
    members.scatter_(1, rewards_PG.argmax(dim=1, keepdim=True), 1.0)
    # argmin would take the first of equals, which may be the best one.
    last = rewards_PG.flip(1).argmin(dim=1, keepdim=True)
    return members.scatter(1, rewards_PG.shape[1] - 1 - last, 1.0)


def best_and_random(rewards_PG: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The member of highest reward and one other at random; policy filtration BR."""
    best = rewards_PG.argmax(dim=1, keepdim=True)
    draws = torch.rand(rewards_PG.shape, generator=generator).to(rewards_PG.device).scatter(1, best, -1.0)
    members = torch.zeros_like(rewards_PG).scatter(1, best, 1.0)
    return members.scatter(1, draws.argmax(dim=1, keepdim=True), 1.0)


def unbiased_pruning(advantages_PG: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """0 for a pruned response, 1 / (1 - q) for a survivor of those with a small |A|, 1 for the others."""
    check_real("probability", probability, minimum=0.0)
    if probability >= 1.0:
        raise ValueError(f"probability must be below 1, found {probability}: no response would survive")
    size_PG = advantages_PG.abs()
    small_PG = size_PG < size_PG.mean(dim=1, keepdim=True) * (1 - 1e-6)
    drawn_PG = torch.rand(advantages_PG.shape, generator=generator).to(advantages_PG.device)
    survives = torch.where(drawn_PG < probability, 0.0, 1.0 / (1.0 - probability)).to(advantages_PG.dtype)
    return torch.where(small_PG, survives, 1.0)


def _on_the_kept(rewards_PG: torch.Tensor, graded_PG: torch.Tensor, members_PG: torch.Tensor) -> torch.Tensor:
    """GRPO's advantages within the m kept members of each group, times G / m; 0 for the others."""
    group_size, kept = rewards_PG.shape[1], int(members_PG[0].sum())
    index_PM = members_PG.argsort(dim=1, descending=True, stable=True)[:, :kept]
    advantages_PM = grpo(rewards_PG.gather(1, index_PM), graded_PG.gather(1, index_PM))
    return torch.zeros_like(rewards_PG).scatter(1, index_PM, advantages_PM * (group_size / kept))


def _seeded(seed: int, generator: torch.Generator | None) -> torch.Generator:
    return torch.Generator().manual_seed(seed) if generator is None else generator


def _kept(keep: int, rewards_PG: torch.Tensor) -> int:
    """`keep`, or all of a smaller group, which is GRPO; before training an experiment with such a group is refused."""
    return min(check_integer("keep", keep, minimum=1), rewards_PG.shape[1])


@advantage_kind("max-variance")
def pods(rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, keep: int = 4) -> torch.Tensor:
    """GRPO on the `keep` responses of each group whose rewards vary most: PODS [V]."""
    return _on_the_kept(rewards_PG, graded_PG, max_variance(rewards_PG, _kept(keep, rewards_PG)))


@advantage_kind("highest-rewards")
def pods_highest(rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, keep: int = 4) -> torch.Tensor:
    """GRPO on the `keep` responses of highest reward: a control of PODS [V]."""
    return _on_the_kept(rewards_PG, graded_PG, highest(rewards_PG, _kept(keep, rewards_PG)))


@advantage_kind("random-subset")
def pods_random(
    rewards_PG: torch.Tensor,
    graded_PG: torch.Tensor,
    *,
    keep: int = 4,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """GRPO on `keep` random responses of each group: a control of PODS [V]."""
    chosen = random_subset(rewards_PG, _kept(keep, rewards_PG), _seeded(seed, generator))
    return _on_the_kept(rewards_PG, graded_PG, chosen)


@advantage_kind("best-and-worst")
def filtered_best_and_worst(rewards_PG: torch.Tensor, graded_PG: torch.Tensor) -> torch.Tensor:
    """GRPO's advantages of the whole group, for its best and its worst member: policy filtration BW."""
    members_PG = best_and_worst(rewards_PG)
    return grpo(rewards_PG, graded_PG) * members_PG * (rewards_PG.shape[1] / 2)


@advantage_kind("best-and-random")
def filtered_best_and_random(
    rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, seed: int = 0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """GRPO's advantages of the whole group, for its best member and one at random: policy filtration BR."""
    members_PG = best_and_random(rewards_PG, _seeded(seed, generator))
    return grpo(rewards_PG, graded_PG) * members_PG * (rewards_PG.shape[1] / 2)


@advantage_kind("unbiased-pruning")
def pruned(
    rewards_PG: torch.Tensor,
    graded_PG: torch.Tensor,
    *,
    probability: float = 0.5,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """GRPO's advantages after unbiased pruning; divided by the whole count, since pruned responses keep their place."""
    advantages_PG = grpo(rewards_PG, graded_PG)
    return advantages_PG * unbiased_pruning(advantages_PG, probability, _seeded(seed, generator))
