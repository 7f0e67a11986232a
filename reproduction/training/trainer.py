"""TRL's GRPOTrainer with the advantages and the loss of a method of `kpo.methods`.

Of TRL's trainer little is overridden and nothing of it is copied: `_generate_and_score_completions` has its
advantages replaced by the method's, `_compute_loss` calls `kpo.losses.policy_loss`, and `log` hands one row for each
update to `on_update`. TRL samples, scores, keeps the old log-probabilities, shuffles and splits into minibatches.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from kpo.advantages import informative_groups
from kpo.losses import PolicyLoss, merge_metrics, policy_loss
from kpo.methods import Method
from reproduction.training.agreement import EngineAgreement
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.faults import FaultMonitor
from reproduction.training.fsdp import keep_results_in_32_bits
from reproduction.training.resume import ResumableTrainer


class MethodTrainer(ResumableTrainer):
    """Trains with `method`; otherwise used as `trl.GRPOTrainer` is.

    Args:
        method: what advantages and loss to use; its KL weight must be the `beta` of `args`.
        on_update: called with the metrics of each update (a dict of numbers, None where one is not defined).
        on_minibatch: called with the log-ratio (B, T), mask (B, T) and advantages (B,) of each whole minibatch; every
            process is given all of it.
        on_rollout: called with the number of the rollout batch and its rewards (P, G).
        faults: what to do about faults; without it a run ends at the first loss, gradient or reward that is not finite.
        checkpoints: where to keep checkpoints; `args` says how often (save_strategy, save_steps). Train with `run`.
        agreement: the gate between engine and trainer, and its figures; only with a vLLM engine.
        companions: what else is kept in them, by name: objects with `state_dict` and `load_state_dict`.

    `stopped` is None, or says why training ended early. A gradient that is not finite is never applied.
    """

    def __init__(
        self,
        *args,
        method: Method,
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
        if self.beta != method.kl_weight:
            raise ValueError(
                f"method {method.name!r} has KL weight {method.kl_weight}, but the trainer's beta is {self.beta}; "
                "set GRPOConfig(beta=method.kl_weight) so that TRL keeps a reference model exactly when it is needed"
            )
        if self.temperature != 1.0:
            raise ValueError(
                f"temperature is {self.temperature}: ratios are defined for responses sampled at temperature 1"
            )
        self.method = method
        self.faults = FaultMonitor() if faults is None else faults
        self.add_callback(_ApplyOnlySoundGradients(self))
        self.checkpoints, self.companions = checkpoints, companions or {}
        self.agreement = agreement
        self.on_update, self.on_minibatch, self.on_rollout = on_update, on_minibatch, on_rollout
        self.advantage_estimator = method.make_estimator()
        self.advantage_generator = torch.Generator().manual_seed(self.args.seed)
        self._rollout_batch = 0
        self._rollout_metrics: dict[str, float] = {}
        # Of each micro-batch of the update under way: the loss's parts, the sum of its token entropies, and what
        # `on_minibatch` is called with.
        self._losses: list[PolicyLoss] = []
        self._entropy_sums: list[torch.Tensor] = []
        self._minibatch: list[tuple[torch.Tensor, ...]] = []
        self._update_started = time.perf_counter()

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        keep_results_in_32_bits(self.accelerator)

    @property
    def stopped(self) -> str | None:
        return self.faults.stopped

    def own_state(self):
        return {
            "advantage_generator": self.advantage_generator.get_state(),
            "advantage_estimator": None if self.advantage_estimator is None else self.advantage_estimator.state_dict(),
            "rollout_batch": self._rollout_batch,
            "rollout_metrics": self._rollout_metrics,
            "faults": self.faults.state_dict(),
            "companions": {name: companion.state_dict() for name, companion in self.companions.items()},
        }

    def load_own_state(self, state):
        self.advantage_generator.set_state(state["advantage_generator"])
        if self.advantage_estimator is not None:
            self.advantage_estimator.load_state_dict(state["advantage_estimator"])
        self._rollout_batch, self._rollout_metrics = state["rollout_batch"], state["rollout_metrics"]
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

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_function = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            rewards_per_function = self.faults.rewards(self._next_update, rewards_per_function)
        weighted = rewards_per_function * self.reward_weights.to(rewards_per_function.device)
        ungraded = torch.isnan(rewards_per_function).all(dim=1)
        self._rewards = torch.where(ungraded, torch.nan, weighted.nansum(dim=1))
        return rewards_per_function

    def _generate_and_score_completions(self, inputs):
        started = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            # Evaluation must not move what the method has learnt about the rewards; its advantages train nothing.
            return output
        rewards_PG = self._rewards.view(-1, self.num_generations)
        lengths = self.accelerator.gather(output["completion_mask"].sum(dim=1))
        advantages_PG = self.method.advantages(
            rewards_PG.cpu(),
            lengths_PG=lengths.view(-1, self.num_generations).cpu(),
            generator=self.advantage_generator,
            estimator=self.advantage_estimator,
        )
        start = self.accelerator.process_index * len(inputs)
        own = advantages_PG.reshape(-1)[start : start + len(inputs)]
        output["advantages"] = own.to(output["advantages"])
        self._rollout_batch += 1
        self._rollout_metrics = {
            **self._describe_rollout(output, rewards_PG, lengths),
            "rollout_seconds": time.perf_counter() - started,
        }
        if self.agreement is not None:
            self._rollout_metrics |= self.agreement.rollout(self, output)
        self.faults.rollout(self._next_update, rewards_PG, self._rollout_metrics["truncation"])
        if self.on_rollout is not None:
            self.on_rollout(self._rollout_batch, rewards_PG)
        self._update_started = time.perf_counter()
        return output

    def _describe_rollout(self, output, rewards_PG, lengths) -> dict[str, float]:
        ended = torch.isin(output["completion_ids"], torch.tensor(self.eos_token_ids, device=rewards_PG.device))
        ended = self.accelerator.gather((ended & output["completion_mask"].bool()).any(dim=1))
        graded = rewards_PG[~torch.isnan(rewards_PG)]
        return {
            "reward": graded.mean().item() if graded.numel() else None,
            "reward_std": graded.std().item() if graded.numel() > 1 else None,
            "ungraded": torch.isnan(rewards_PG).float().mean().item(),
            "informative_groups": informative_groups(rewards_PG).float().mean().item(),
            "response_length": lengths.float().mean().item(),
            "truncation": 1.0 - ended.float().mean().item(),
        }

    def _compute_loss(self, model, inputs):
        prompt_ids, prompt_mask = inputs["prompt_ids"], inputs["prompt_mask"]
        completion_ids, completion_mask = inputs["completion_ids"], inputs["completion_mask"]
        mask = completion_mask if "tool_mask" not in inputs else completion_mask * inputs["tool_mask"]
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([prompt_ids, completion_ids], dim=1),
            torch.cat([prompt_mask, completion_mask], dim=1),
            completion_ids.size(1),
            compute_entropy=True,
        )
        # TRL leaves the old log-probabilities out where sampling and updating policy are the same.
        old_log_probs = inputs.get("old_per_token_logps", log_probs.detach())
        num_sequences, num_tokens = self._minibatch_totals(mask)
        result = policy_loss(
            self.method,
            log_probs,
            old_log_probs,
            inputs["advantages"],
            mask,
            ref_log_probs=inputs.get("ref_per_token_logps"),
            num_sequences=num_sequences,
            num_tokens=num_tokens,
        )
        # The shares of all processes add up to the minibatch's loss, and the launcher averages gradients over them.
        loss = result.loss * self.accelerator.num_processes
        if model.training:
            self.faults.loss(self._next_update, self.accelerator.gather(loss.detach()))
            self._losses.append(PolicyLoss(result.loss.detach(), result.sums))
            self._entropy_sums.append(torch.where(mask.bool(), entropies.detach(), 0.0).sum())
            if self.agreement is not None:
                self.agreement.minibatch(log_probs - old_log_probs, mask)
            if self.on_minibatch is not None:
                self._minibatch.append(((log_probs - old_log_probs).detach(), mask, inputs["advantages"]))
        return loss

    def _minibatch_totals(self, mask) -> tuple[int, int]:
        """Sequences and tokens of the whole minibatch, over its micro-batches and all processes."""
        micro_batches = self.current_gradient_accumulation_steps if self.model.training else 1
        if micro_batches == 1:
            own = mask.sum()
        else:
            first = self._step % self.args.steps_per_generation // micro_batches * micro_batches
            window = self._buffered_inputs[first : first + micro_batches]
            own = sum(
                (
                    batch["completion_mask"] * batch["tool_mask"] if "tool_mask" in batch else batch["completion_mask"]
                ).sum()
                for batch in window
            )
        tokens = self.accelerator.reduce(own.to(torch.long), reduction="sum")
        return mask.size(0) * micro_batches * self.accelerator.num_processes, int(tokens)

    def log(self, logs, start_time=None):
        # The training loop logs each update with its gradient norm; the summary at the end has none.
        if "grad_norm" in logs and self._losses:
            if self.agreement is not None:
                self._rollout_metrics |= self.agreement.take_floor(self)
            row = {
                **self._place_of_update(),
                "learning_rate": logs.get("learning_rate"),
                "gradient_norm": logs["grad_norm"],
                **self._update_metrics(),
                **self._rollout_metrics,
                "update_seconds": time.perf_counter() - self._update_started,
                "fault": self.faults.take_current(),
            }
            if self.on_minibatch is not None:
                self.on_minibatch(*self._whole_minibatch())
            for parts in (self._losses, self._entropy_sums, self._minibatch):
                parts.clear()
            self._update_started = time.perf_counter()
            if self.on_update is not None:
                self.on_update({name: _number(value) for name, value in row.items()})
        super().log(logs, start_time)

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

    def _update_metrics(self) -> dict[str, float]:
        """Metrics of the update over its micro-batches and all processes, as of one undivided batch."""
        losses = self.accelerator.gather(torch.stack([part.loss for part in self._losses]))
        sums = self.accelerator.gather(torch.stack([part.sums for part in self._losses]))
        entropies = self.accelerator.gather(torch.stack(self._entropy_sums))
        metrics = merge_metrics(PolicyLoss(loss, row) for loss, row in zip(losses, sums, strict=True))
        tokens = sums[:, 0].sum().item()
        return {"loss": losses.sum().item(), "entropy": entropies.sum().item() / max(tokens, 1.0), **metrics}


class _ApplyOnlySoundGradients(TrainerCallback):
    """Drops a NaN or infinite gradient before the optimiser sees it, and ends a run that is to end."""

    def __init__(self, trainer: MethodTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.faults.may_update(state.global_step + 1, kwargs["model"].parameters())
        control.should_training_stop = control.should_training_stop or self.trainer.stopped is not None


def _number(value):
    """None in place of what JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
