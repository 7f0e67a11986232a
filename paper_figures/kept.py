"""structure.safetensors as the figures read it: token log-ratios of kept minibatches, and rewards of kept groups."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from paper_figures.errors import ResultsError


@dataclass(frozen=True)
class KeptUpdate:
    """Token log-ratios of one kept minibatch: log pi - log pi_old in nats; the mask is 1 on response tokens."""

    update: int
    minibatch: int
    log_ratio_BT: torch.Tensor
    mask_BT: torch.Tensor
    advantage_B: torch.Tensor


@dataclass(frozen=True)
class Structure:
    """What one run kept: minibatches, and rewards (P, G) in sampled order by rollout batch."""

    updates: list[KeptUpdate]
    rewards_PG: dict[int, torch.Tensor]

    @property
    def off_policy(self) -> list[KeptUpdate]:
        """The updates after the first of their rollout batch; in the first, every ratio is 1."""
        return [update for update in self.updates if update.minibatch > 1]


def read_structure(path: Path) -> Structure:
    """Read one structure.safetensors; wrong shapes and unknown keys raise `ResultsError`."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ResultsError(f"{path}: not a safetensors file ({error}); the run is partial") from None
    rewards, parts = {}, {}
    for key, tensor in sorted(tensors.items()):
        head, _, field = key.partition(".")
        if field == "rewards" and head.removeprefix("rollout").isdigit():
            rewards[int(head.removeprefix("rollout"))] = tensor
        elif head.isdigit():
            parts.setdefault(int(head), {})[field] = tensor
        else:
            raise ResultsError(f"{path}: unknown key {key!r}")
    updates = []
    for number, fields in sorted(parts.items()):
        for field in ("log_ratio", "mask", "advantage", "minibatch"):
            if field not in fields:
                raise ResultsError(f"{path}: update {number} has no {field}")
        if fields["log_ratio"].shape != fields["mask"].shape or fields["log_ratio"].ndim != 2:
            raise ResultsError(f"{path}: update {number} has a log_ratio and a mask of different shapes, or not (B, T)")
        updates.append(
            KeptUpdate(number, int(fields["minibatch"]), fields["log_ratio"], fields["mask"], fields["advantage"])
        )
    return Structure(updates, dict(sorted(rewards.items())))
