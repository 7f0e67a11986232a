"""The trainer of this project's runs: `kpo.trl.MethodTrainer` with checkpoints, answers to faults, and records."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from kpo.advantages import informative_groups
from reproduction.training.agreement import EngineAgreement
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.faults import FaultMonitor
from reproduction.training.fsdp import keep_results_in_32_bits
from reproduction.training.processes import from_all
from reproduction.training.resume import ResumableTrainer

NOT_KEPT = {"clip_region_mean", "clip_low_mean", "clip_high_mean", "clip_low_min", "clip_high_max", "aux_loss"}
"""Metrics for TRL's log that rows of an update do without."""


class MethodTrainer(ResumableTrainer):
    """Trains with `method`; otherwise used as `trl.GRPOTrainer` is.

    Args:
        on_update: called with the metrics of each update (a dict of numbers, None if one is not defined).
        on_minibatch: called with the log-ratio (B, T), mask (B, T) and advantages (B,) of each whole minibatch; every
            process is given all of it.
        on_rollout: called with the number of the rollout batch and its rewards (P, G).
        faults: what to do about faults; without it a run ends at the first loss, gradient or reward that is not finite.
        checkpoints: the folder for checkpoints; `args` says how often (save_strategy, save_steps). Train with `run`.
        agreement: the gate between engine and trainer, and its figures; only with a vLLM engine.
        companions: what else is kept in checkpoints, by name: objects with `state_dict` and `load_state_dict`.

    `stopped` is None, or says why training ended early. A gradient that is not finite is never applied.
    """

    def __init__(
        self,
        *args,
        on_update: Callable[[dict], None] | None = None,
        on_minibatch: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] | None = None,
        on_rollout: Callable[[int, torch.Tensor], None] | None = None,
        faults: FaultMonitor | None = None,
        checkpoints: CheckpointFolder | None = None,
        companions: dict[str, Any] | None = None,
        agreement: EngineAgreement | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.faults = FaultMonitor() if faults is None else faults
        self.add_callback(_EachUpdate(self))
        self.checkpoints, self.companions = checkpoints, companions or {}
        self.agreement = agreement
        self.on_update, self.on_minibatch, self.on_rollout = on_update, on_minibatch, on_rollout
        self._rollout_batch = 0
        self._rollout_metrics: dict[str, float] = {}
        self._could_not_sample = False
        # Of the update under way: its metrics, and what `on_minibatch` is called with, one a micro-batch.
        self._update_metrics: dict[str, float] = {}
        self._minibatch: list[tuple[torch.Tensor, ...]] = []
        self._update_started = time.perf_counter()

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        keep_results_in_32_bits(self.accelerator)

    @property
    def stopped(self) -> str | None:
        return self.faults.stopped

    def method_state(self):
        return {
            **super().method_state(),
            "rollout_batch": self._rollout_batch,
            "rollout_metrics": self._rollout_metrics,
            "could_not_sample": self._could_not_sample,
            "faults": self.faults.state_dict(),
            "companions": {name: companion.state_dict() for name, companion in self.companions.items()},
        }

    def load_method_state(self, state):
        super().load_method_state(state)
        self._rollout_batch, self._rollout_metrics = state["rollout_batch"], state["rollout_metrics"]
        self._could_not_sample = state["could_not_sample"]
        self.faults.load_state_dict(state["faults"])
        for name, companion in self.companions.items():
            companion.load_state_dict(state["companions"][name])

    def on_failed_checkpoint(self, error):
        return self.faults.failed_checkpoint(self.state.global_step, error)

    def _save_checkpoint(self, model, trial):
        # A run that is to end leaves its results at once; continued from here it would have to end again.
        if self.stopped is None:
            super()._save_checkpoint(model, trial)

    @property
    def _next_update(self) -> int:
        return self.state.global_step + 1

    def _calculate_rewards(self, *arguments):
        rewards_per_function = super()._calculate_rewards(*arguments)
        if self.model.training:
            self._rewards = rewards_per_function = self.faults.rewards(self._next_update, rewards_per_function)
        return rewards_per_function

    def _generate_single_turn(self, prompt_ids, *others, **keywords):
        if not self.model.training:
            return super()._generate_single_turn(prompt_ids, *others, **keywords)
        self._could_not_sample = False
        try:
            return self.sample(prompt_ids, *others, **keywords)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):  # torch.multinomial's words
                raise
            # Something has to stand for the responses; the updates from it are left out.
            self._could_not_sample = True
            return [[self.eos_token_ids[0]] for _ in prompt_ids], None

    def sample(self, prompt_ids, *others, **keywords):
        """Token ids of the completions, and their log-probabilities or None; a subclass may sample itself."""
        return super()._generate_single_turn(prompt_ids, *others, **keywords)

    def _generate_and_score_completions(self, inputs):
        self._rollout_started = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        self._update_started = time.perf_counter()
        return output

    def observe_rollout(self, output, rewards_PG, lengths_PG):
        self._could_not_sample = any(from_all(self._could_not_sample))
        self._rollout_batch += 1
        self._rollout_metrics = {
            **self._describe_rollout(output, rewards_PG, lengths_PG),
            "rollout_seconds": time.perf_counter() - self._rollout_started,
        }
        if self.agreement is not None:
            self._rollout_metrics |= self.agreement.rollout(self, output)
        self.faults.rollout(self._next_update, rewards_PG, self._rollout_metrics["truncation"])
        if self.on_rollout is not None:
            self.on_rollout(self._rollout_batch, rewards_PG)

    def _describe_rollout(self, output, rewards_PG, lengths_PG) -> dict[str, float]:
        ended = torch.isin(output["completion_ids"], torch.tensor(self.eos_token_ids, device=rewards_PG.device))
        ended = self.accelerator.gather((ended & output["completion_mask"].bool()).any(dim=1))
        graded = rewards_PG[~torch.isnan(rewards_PG)]
        return {
            "reward": graded.mean().item() if graded.numel() else None,
            "reward_std": graded.std().item() if graded.numel() > 1 else None,
            "ungraded": torch.isnan(rewards_PG).float().mean().item(),
            "informative_groups": informative_groups(rewards_PG).float().mean().item(),
            "response_length": lengths_PG.float().mean().item(),
            "truncation": 1.0 - ended.float().mean().item(),
        }

    def method_loss(self, log_probs, old_log_probs, advantages, mask, ref_log_probs=None, **keywords):
        tensors = {"log_probs": log_probs, "old_log_probs": old_log_probs, "ref_log_probs": ref_log_probs}
        counted, wrong = mask.bool(), "the logits while sampling are" if self._could_not_sample else None
        for name, values in tensors.items():
            finite = torch.ones_like(counted) if values is None else torch.isfinite(values)
            if bool((~finite & counted).any()):
                # The other tokens give the metrics; the update is left out, in every process.
                counted, wrong = counted & finite, wrong or f"{name} are"
        result = super().method_loss(log_probs, old_log_probs, advantages, counted, ref_log_probs, **keywords)
        if not self.model.training:
            return result
        if wrong is not None:
            result = dataclasses.replace(result, loss=result.loss * math.nan)
        losses = self.accelerator.gather(result.loss.detach())
        if not bool(torch.isfinite(losses).all()):
            wrong = next((found for found in from_all(wrong) if found), "the loss is")
            self.faults.non_finite(self._next_update, f"{wrong} not finite")
        return result

    def observe_loss(self, loss, log_ratio, mask, advantages):
        finite = torch.isfinite(log_ratio)
        log_ratio, mask = torch.where(finite, log_ratio, 0.0), mask * finite
        if self.agreement is not None:
            self.agreement.minibatch(log_ratio, mask)
        if self.on_minibatch is not None:
            self._minibatch.append((log_ratio, mask, advantages))

    def observe_minibatch(self, metrics):
        self._update_metrics = {name: value for name, value in metrics.items() if name not in NOT_KEPT}

    def observe_gradient(self, norm):
        # The fault monitor answers for a norm that is not finite.
        self._update_metrics["gradient_norm"] = float(norm)
        self._update_metrics["learning_rate"] = self._get_learning_rate()

    def record_update(self) -> None:
        """Hand the metrics of the update just made to `on_update`."""
        if self.agreement is not None:
            self._rollout_metrics |= self.agreement.take_floor(self)
        found = self._update_metrics
        row = {
            **self._place_of_update(),
            "learning_rate": found.pop("learning_rate"),
            "gradient_norm": found.pop("gradient_norm"),
            **found,
            **self._rollout_metrics,
            "update_seconds": time.perf_counter() - self._update_started,
            "fault": self.faults.take_current(),
        }
        if self.on_minibatch is not None:
            self.on_minibatch(*self._whole_minibatch())
            self._minibatch.clear()
        self._update_started = time.perf_counter()
        if self.on_update is not None:
            self.on_update({name: _number(value) for name, value in row.items()})

    def _whole_minibatch(self) -> list[torch.Tensor]:
        """Log-ratio, mask and advantages of the update's micro-batches in all processes, padded to one length."""
        columns = (torch.cat(column) for column in zip(*self._minibatch, strict=True))
        return [
            self.accelerator.gather(self.accelerator.pad_across_processes(column, dim=min(1, column.dim() - 1)))
            for column in columns
        ]

    def _place_of_update(self) -> dict[str, int]:
        updates = self.args.steps_per_generation * self.num_iterations // self.args.gradient_accumulation_steps
        return {
            "update": self.state.global_step,
            "rollout_batch": self._rollout_batch,
            "minibatch": (self.state.global_step - 1) % updates + 1,
        }


class _EachUpdate(TrainerCallback):
    """Drops a NaN or infinite gradient before the optimiser sees it, ends a run that is to end, and records updates."""

    def __init__(self, trainer: MethodTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.faults.may_update(state.global_step + 1, kwargs["model"].parameters())
        control.should_training_stop = control.should_training_stop or self.trainer.stopped is not None

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.record_update()


def _number(value):
    """None in place of what JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
