"""A run's measurements: a row of metrics per update, and the kept token log-ratios."""

import time
from typing import Any

import torch

from reproduction.jobs.progress import Progress
from reproduction.settings.experiment import TrainingSettings


class Recorder:
    """Collects what a run measures, says how far it is, and hands all of it to a checkpoint and back.

    rows: metrics of each update. tensors: by name, what structure.safetensors will hold. accuracy: share of exact
    answers in the last rollout batch. rollouts_scored: counts the reward's calls, from which its noise is drawn.
    seconds: time spent on the run, in earlier processes too.
    """

    def __init__(self, training: TrainingSettings, progress: Progress):
        self.training, self.progress = training, progress
        self.rows: list[dict] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.accuracy = 0.0
        self.rollouts_scored = 0
        self._rollout_batch = 0
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._started

    @property
    def _keeping(self) -> bool:
        return (self._rollout_batch - 1) % self.training.keep_log_ratios_every == 0

    def rollout(self, number: int, rewards_PG: torch.Tensor) -> None:
        self._rollout_batch = number
        if self._keeping:
            self.tensors[f"rollout{number}.rewards"] = rewards_PG.to(torch.float32).contiguous().clone()

    def minibatch(self, log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, advantage_B: torch.Tensor) -> None:
        if self._keeping:
            name = f"{len(self.rows) + 1:05d}"
            per_rollout = self.training.minibatches * self.training.epochs
            self.tensors[f"{name}.log_ratio"] = log_ratio_BT.to(torch.float32).contiguous().clone()
            self.tensors[f"{name}.mask"] = mask_BT.to(torch.uint8).contiguous().clone()
            self.tensors[f"{name}.advantage"] = advantage_B.to(torch.float32).contiguous().clone()
            self.tensors[f"{name}.minibatch"] = torch.tensor(len(self.rows) % per_rollout + 1)

    def update(self, row: dict) -> None:
        self.rows.append({**row, "accuracy": self.accuracy})
        self.progress.update(len(self.rows), reward=row["reward"], entropy=row["entropy"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "tensors": self.tensors,
            "accuracy": self.accuracy,
            "rollouts_scored": self.rollouts_scored,
            "rollout_batch": self._rollout_batch,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.tensors = state["rows"], state["tensors"]
        self.accuracy, self.rollouts_scored = state["accuracy"], state["rollouts_scored"]
        self._rollout_batch, self._earlier_seconds = state["rollout_batch"], state["seconds"]
        self._started = time.perf_counter()
        self.progress.begun_at = len(self.rows)
        self.progress.say(f"continues after update {len(self.rows)}")
