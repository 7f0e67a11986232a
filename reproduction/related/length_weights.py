"""lambda-GRPO (arXiv 2510.06870): a learned exponent decides how a response's length weighs it.

    z_i = (l_i - mu) / (sigma + eps)    h_i = 1 + r z_i    f_i = G softmax(h^lambda)_i       over a group   [2H]
    loss = sum_i f_i sum_t clipped term / sum_i l_i

r = 1/9 is fixed; lambda = 0 gives f = 1, the token mean; lambda < 0 favours short responses, > 0 long ones. The start
of lambda, its learning rate and the divisor of sigma: [NF]; here 0, 0.01, n.
"""

import torch

from kpo.advantages import advantage_kind, grpo

SPREAD = 1.0 / 9.0
EPSILON = 1e-6
SMALLEST = 1e-6


def relative_lengths(lengths_PG: torch.Tensor, correction: int = 0) -> torch.Tensor:
    """h (P, G) from the lengths in tokens; at least 1e-6 (h <= 0 needs z <= -9, impossible for G <= 12 [C])."""
    lengths_PG = lengths_PG.to(torch.float64)
    mean = lengths_PG.mean(dim=1, keepdim=True)
    deviation = lengths_PG.std(dim=1, keepdim=True, correction=correction)
    return (1.0 + SPREAD * (lengths_PG - mean) / (deviation + EPSILON)).clamp(min=SMALLEST)


def length_weights(relative_PG: torch.Tensor, exponent: torch.Tensor | float) -> torch.Tensor:
    """f (P, G), mean 1 in each group, differentiable in the exponent."""
    exponent = torch.as_tensor(exponent, dtype=relative_PG.dtype)
    return relative_PG.shape[1] * torch.softmax(relative_PG**exponent, dim=1)


@advantage_kind("length-weighted")
def fixed_exponent(
    rewards_PG: torch.Tensor,
    graded_PG: torch.Tensor,
    *,
    exponent: float = 0.0,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """f_i A_i with GRPO's A and a fixed lambda: the control of lambda-GRPO, whose lambda is learned."""
    if lengths is None:
        raise ValueError("lengths are missing: lambda-GRPO weighs responses by length; pass tokens as (P, G)")
    weights_PG = length_weights(relative_lengths(lengths.to(rewards_PG)), exponent)
    return grpo(rewards_PG, graded_PG) * weights_PG
