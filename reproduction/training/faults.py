"""Faults during training: detected, named, counted, and handled as the configuration says.

A fault that stops a run leaves its weights and metrics as a result: a collapse is a finding. One that does not is
recorded and training goes on. What ends the process itself (memory, a full disk, a bug) is written next to the
checkpoint, from which the same command continues.
"""

import errno
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError

from reproduction.training.fsdp import local_tensor
from reproduction.training.processes import from_all

NON_FINITE = "non-finite"
UNGRADED = "ungraded"
COLLAPSE = "collapse"
CHECKPOINT = "checkpoint"
KINDS = (NON_FINITE, UNGRADED, COLLAPSE, CHECKPOINT)
STOP_AT_NON_FINITE = MappingProxyType({NON_FINITE: "stop"})


class FaultMonitor:
    """Counts the faults of a run by kind; `stopped` is None, or says why training is to end early.

    actions: 'stop' or 'continue' for each of `KINDS`; those left out continue. collapse_after: rollout batches after
    which a collapse is said; None does not look for it.

    The first and the last update of each kind are kept with the message of the first.
    """

    def __init__(self, actions: Mapping[str, str] = STOP_AT_NON_FINITE, collapse_after: int | None = None):
        self.actions, self.collapse_after = dict(actions), collapse_after
        self.stopped: str | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self.current: str | None = None
        self._without_reward = self._without_end = 0
        self._lowest_reward = math.inf
        self._loss_is_finite = True

    def notice(self, kind: str, update: int, message: str) -> bool:
        """Record a fault of `update`; returns whether training goes on."""
        action = self.actions.get(kind, "continue")
        if kind != CHECKPOINT:  # a checkpoint follows the row of its update
            self.current = kind
        record = self.records.setdefault(
            kind, {"kind": kind, "message": message, "first_update": update, "count": 0, "action": action}
        )
        record["last_update"] = update
        record["count"] += 1
        if action == "stop" and self.stopped is None:
            self.stopped = f"update {update}: {message}"
        return action == "continue"

    def non_finite(self, update: int, message: str) -> None:
        """Record that an update's loss, or what it is computed from, is not finite: it is left out, and counted once.

        An infinite loss can have a finite gradient, if a clip cuts it off.
        """
        if self._loss_is_finite:
            self.notice(NON_FINITE, update, message)
        self._loss_is_finite = False

    def may_update(self, update: int, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Asked before gradients are applied. If False, they are dropped and no weight moves.

        That is if the loss or a gradient is not finite, whether the run then ends or goes on, or if the run is to end
        for another reason. The processes of a run decide together, since each may see only its own shard.
        """
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        finite = all(bool(torch.isfinite(local_tensor(parameter.grad)).all()) for parameter in parameters)
        finite = all(from_all(finite))
        if not finite and self._loss_is_finite:
            self.notice(NON_FINITE, update, "the gradient is not finite")
        sound = finite and self._loss_is_finite and self.stopped is None
        self._loss_is_finite = True
        if not sound:
            for parameter in parameters:
                parameter.grad = None
        return sound

    def rewards(self, update: int, rewards: torch.Tensor) -> torch.Tensor:
        """The rewards with every infinite one as NaN, which counts as ungraded; each kind of fault is recorded."""
        infinite = torch.isinf(rewards)
        if bool(infinite.any()):
            self.notice(NON_FINITE, update, f"{int(infinite.sum())} rewards of {rewards.numel()} are infinite")
        rewards = torch.where(infinite, torch.nan, rewards)
        if bool(torch.isnan(rewards).all()):
            self.notice(UNGRADED, update, "no response of the rollout batch could be graded")
        return rewards

    def rollout(self, update: int, rewards: torch.Tensor, truncation: float) -> None:
        """Look for a collapse: `collapse_after` rollout batches in a row without a reward, or all cut off.

        Without a reward are responses that all have the lowest reward of the run so far, if that is not positive.
        """
        graded = rewards[~torch.isnan(rewards)]
        self._lowest_reward = min([self._lowest_reward, *graded.flatten().tolist()])
        none_earned = graded.numel() > 0 and float(graded.max()) <= min(self._lowest_reward, 0.0)
        self._without_reward = self._without_reward + 1 if none_earned else 0
        self._without_end = self._without_end + 1 if truncation >= 1.0 else 0
        if self.collapse_after is None:
            return
        for count, what in (
            (self._without_reward, "no response earned a reward"),
            (self._without_end, "every response was cut off at the length limit"),
        ):
            if count >= self.collapse_after:
                self.notice(COLLAPSE, update, f"in {count} rollout batches in a row {what}")
                return

    def failed_checkpoint(self, update: int, error: OSError) -> bool:
        """Record a checkpoint that could not be written; returns whether training goes on without it."""
        return self.notice(CHECKPOINT, update, describe(error))

    def take_current(self) -> str | None:
        """The kind of the last fault since this was asked, for the row of metrics."""
        current, self.current = self.current, None
        return current

    def state_dict(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "stopped": self.stopped,
            "current": self.current,
            "without_reward": self._without_reward,
            "without_end": self._without_end,
            "lowest_reward": self._lowest_reward,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.records, self.stopped, self.current = state["records"], state["stopped"], state["current"]
        self._without_reward, self._without_end = state["without_reward"], state["without_end"]
        self._lowest_reward = state["lowest_reward"]


def as_os_error(error: BaseException) -> BaseException:
    """A SafetensorError that reports one of the operating system, such as a full disk, as that OSError."""
    found = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return error if found is None else OSError(int(found.group(1)), str(error))


def describe(error: BaseException) -> str:
    """One line for what ended a process: memory and disk by their names, all else in the error's own words."""
    error = as_os_error(error)
    text = " ".join(str(error).split()) or type(error).__name__
    short = text if len(text) <= 300 else text[:300] + "..."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({short}); free some space"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return f"memory ran out ({short}); give it more, or make prompts_per_rollout / minibatches smaller"
    return short
