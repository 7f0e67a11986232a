"""The metrics of a minibatch from its micro-batches, as `kpo.trl` logs them. Shape suffixes: B sequences, T tokens."""

import torch
from torch import Tensor

from kpo.losses import PolicyLoss, merge_metrics

LOGGED_AS = {name: name for name in ("entropy", "kl", "aux_loss")}
LOGGED_AS |= {f"clip_{of}": f"clip_ratio/{of}" for of in "region_mean low_mean high_mean low_min high_max".split()}
"""Names that TRL gives to metrics of `minibatch_metrics`; the others are logged as kpo/<name>."""

_OWN = 7  # entries of `token_statistics` before those of `PolicyLoss.sums`


@torch.no_grad()
def token_statistics(
    part: PolicyLoss, entropies_BT: Tensor, aux_loss: Tensor | None, advantages: Tensor, mask_BT: Tensor
) -> Tensor:
    """Of one micro-batch what `minibatch_metrics` needs, as one float64 row."""
    sign = advantages[:, None] if advantages.dim() == 1 else advantages
    clipped_BT = torch.zeros_like(mask_BT, dtype=torch.bool) if part.clipped is None else part.clipped
    low_B, high_B = ((clipped_BT & (sign * side > 0)).sum(dim=1) for side in (-1, 1))
    length_B = mask_BT.sum(dim=1).clamp(min=1)
    values = [part.loss, torch.where(mask_BT.bool(), entropies_BT, 0.0).sum(), low_B.sum(), high_B.sum()]
    values += [(low_B / length_B).min(), (high_B / length_B).max(), part.loss if aux_loss is None else aux_loss]
    return torch.cat([torch.stack([value.detach().to(part.sums) for value in values]), part.sums])


def minibatch_metrics(rows: Tensor) -> dict[str, float]:
    """Of the rows of all micro-batches in all processes: the loss, mean entropy, and those of `merge_metrics`.

    clip_region_mean is clip_share, clip_low_mean and clip_high_mean its parts at negative and at positive advantages,
    clip_low_min and clip_high_max the least and the largest such share of a sequence. aux_loss: of MoE routers.
    """
    loss, entropy, low, high = rows[:, :4].sum(dim=0).tolist()
    tokens = max(rows[:, _OWN].sum().item(), 1.0)
    merged = merge_metrics(PolicyLoss(row[0], row[_OWN:]) for row in rows)
    shares = {"region_mean": merged["clip_share"], "low_mean": low / tokens, "high_mean": high / tokens}
    shares |= {"low_min": rows[:, 4].min().item(), "high_max": rows[:, 5].max().item()}
    clip = {f"clip_{of}": share for of, share in shares.items()}
    return {"loss": loss, "entropy": entropy / tokens, **merged, **clip, "aux_loss": rows[:, 6].mean().item()}
