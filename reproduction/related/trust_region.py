"""DPPO (arXiv 2602.04879): a token is dropped if the policies' divergence, not their ratio, is too large.

With mu the sampling probability of the token and pi the current one [V]:

    TV         d = |pi - mu|
    binary KL  d = mu (log mu - log pi) + (1 - mu) log((1 - mu + 1e-8) / (1 - pi + 1e-8))

    dropped    d > delta and pi has moved the way the advantage pushes: up for A > 0, down otherwise
    loss       -A sg[min(pi / mu, c)] log pi for every other token

delta 0.15 (TV) and 0.05 (KL), c = 20 [V]. In verl 0.9.1 and in the authors' repository the fallback c is never
reached, because the actor configuration always holds 3.0 there [V]. The authors anchor at the sampler's own
probabilities [V]; here mu is the old policy as the trainer computes it.
"""

import torch

from kpo.ratios import ratio_kind

DELTA_TV, DELTA_KL = 0.15, 0.05
LARGEST_RATIO = 20.0
_SMALL = 1e-8


def divergence_ratio(
    log_ratio_BT: torch.Tensor,
    old_log_probs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    *,
    kind: str,
    delta: float,
    largest_ratio: float = LARGEST_RATIO,
) -> torch.Tensor:
    """The log-ratio to use, (B, T): min(z, log c) in value, the token's own gradient, both cut off if it is dropped."""
    with torch.no_grad():
        mu = old_log_probs_BT.to(torch.float64).exp()
        log_pi = old_log_probs_BT.to(torch.float64) + log_ratio_BT.to(torch.float64)
        pi = log_pi.exp()
        if kind == "tv":
            distance = (pi - mu).abs()
        elif kind == "kl":
            rest = ((1.0 - mu + _SMALL) / (1.0 - pi + _SMALL).clamp(min=_SMALL)).log()
            distance = mu * -log_ratio_BT.to(torch.float64) + (1.0 - mu) * rest
        else:
            raise ValueError(f"kind must be 'tv' or 'kl', found {kind!r}")
        pushed = torch.where(advantages_BT > 0, pi > mu, pi < mu)
        dropped = (distance > delta) & pushed
        value = log_ratio_BT.clamp(max=float(torch.tensor(largest_ratio).log()))
    gradient = torch.where(dropped, log_ratio_BT.detach(), log_ratio_BT)
    return value + gradient - gradient.detach()


@ratio_kind("divergence-tv")
def divergence_tv(
    log_ratio_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    delta: float = DELTA_TV,
    largest_ratio: float = LARGEST_RATIO,
) -> torch.Tensor:
    """DPPO with the total variation of the token's probability."""
    return divergence_ratio(
        log_ratio_BT, old_log_probs, advantages, kind="tv", delta=delta, largest_ratio=largest_ratio
    )


@ratio_kind("divergence-kl")
def divergence_kl(
    log_ratio_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    delta: float = DELTA_KL,
    largest_ratio: float = LARGEST_RATIO,
) -> torch.Tensor:
    """DPPO with the binary KL divergence of the token's probability."""
    return divergence_ratio(
        log_ratio_BT, old_log_probs, advantages, kind="kl", delta=delta, largest_ratio=largest_ratio
    )
