"""GDPO (arXiv 2601.05242): each reward component is normalised in its group before the components are summed.

    A_k = (r_k - mean_g r_k) / (std_g r_k + eps)      within each group
    S   = sum_k w_k A_k
    A   = (S - mean_batch S) / (std_batch S + eps)    TRL: over responses; verl: over tokens        [V]

TRL 1.16.0 (`normalize_then_sum`): eps 1e-4, divisor n - 1, ungraded components left out [V]. verl whitens over tokens,
so that longer responses weigh more, with 1e-8 under the root [V]. With one component it is GRPO followed by batch
normalisation, not GRPO [C]. Its control, one GRPO on the weighted sum, is the multi-objective GRPO of arXiv 2503.21819.
"""

import torch

from kpo.advantages import advantage_kind

EPSILON = 1e-4
VERL_EPSILON = 1e-6
WHITENING_EPSILON = 1e-8


def normalised_sum(components_PGK: torch.Tensor, weights_K: torch.Tensor, epsilon: float = EPSILON) -> torch.Tensor:
    """S (P, G): the weighted sum of the components' advantages; NaN components are left out."""
    graded_PGK = ~torch.isnan(components_PGK)
    filled = torch.where(graded_PGK, components_PGK, 0.0).to(torch.float64)
    count = graded_PGK.sum(dim=1, keepdim=True)
    centred = torch.where(graded_PGK, filled - filled.sum(dim=1, keepdim=True) / count.clamp(min=1), 0.0)
    std = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return (centred / (std + epsilon) * weights_K.to(centred)).sum(dim=2)


def gdpo(components_PGK: torch.Tensor, weights_K: torch.Tensor) -> torch.Tensor:
    """A (P, G) as TRL computes it: S normalised over the responses of the batch."""
    sums_PG = normalised_sum(components_PGK, weights_K)
    graded = sums_PG[~torch.isnan(components_PGK).all(dim=2)]
    return (sums_PG - graded.mean()) / (graded.std() + EPSILON)


def gdpo_by_token(components_PGK: torch.Tensor, weights_K: torch.Tensor, lengths_PG: torch.Tensor) -> torch.Tensor:
    """A (P, G) as verl computes it: S whitened over the counted tokens of the batch."""
    sums_PG = normalised_sum(components_PGK, weights_K, VERL_EPSILON)
    tokens_PG = torch.where(torch.isnan(components_PGK).all(dim=2), 0.0, lengths_PG.to(sums_PG))
    mean = (sums_PG * tokens_PG).sum() / tokens_PG.sum()
    variance = ((sums_PG - mean).square() * tokens_PG).sum() / (tokens_PG.sum() - 1)
    return (sums_PG - mean) / (variance + WHITENING_EPSILON).sqrt()


def _weights(components: torch.Tensor, component_weights: torch.Tensor | None) -> torch.Tensor:
    return torch.ones(components.shape[2]) if component_weights is None else component_weights


@advantage_kind("gdpo")
def gdpo_kind(
    rewards_PG: torch.Tensor,
    graded_PG: torch.Tensor,
    *,
    components: torch.Tensor,
    component_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """GDPO as in TRL, of the rewards kept apart with the weights of their sum; without weights each counts once."""
    return gdpo(components, _weights(components, component_weights))


@advantage_kind("gdpo-tokens")
def gdpo_tokens_kind(
    rewards_PG: torch.Tensor,
    graded_PG: torch.Tensor,
    *,
    components: torch.Tensor,
    component_weights: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """GDPO as in verl, which whitens over tokens."""
    if lengths is None:
        raise ValueError("lengths are missing: verl's GDPO whitens over tokens; pass them as (P, G)")
    return gdpo_by_token(components, _weights(components, component_weights), lengths)
