"""The trainer of this project's runs: `kpo.trl.MethodTrainer` with checkpoints, fault handling, and records."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from kpo.advantages import informative_groups
from reproduction.sampling.decode import RELATIVE_ROTATIONS
from reproduction.training.agreement import EngineAgreement
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.faults import FaultMonitor
from reproduction.training.fsdp import keep_results_in_32_bits
from reproduction.training.least_length import hidden_states, log_probs_without_ends
from reproduction.training.processes import from_all
from reproduction.training.resume import ResumableTrainer

NOT_KEPT = {"clip_region_mean", "clip_low_mean", "clip_high_mean", "clip_low_min", "clip_high_max", "aux_loss"}
"""Metrics for TRL's log that rows of an update do without."""


ROWS_ON_A_CPU = 8
"""Responses in one pass: fewer pad less, more spread what a pass costs besides its arithmetic."""


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
        min_completion_length: the first so many tokens of a response are none that end it. The policy is the model
            without those tokens there, when it samples and in all log-probabilities; entropies are the model's.

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
        min_completion_length: int = 0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.min_completion_length = min_completion_length
        if min_completion_length and not self.use_vllm:  # for transformers' `generate`
            self.generation_kwargs["min_new_tokens"] = min_completion_length
            self.generation_config.min_new_tokens = min_completion_length
        self.faults = FaultMonitor() if faults is None else faults
        self.add_callback(_EachUpdate(self))
        self.checkpoints, self.companions = checkpoints, companions or {}
        self.agreement = agreement
        self.on_update, self.on_minibatch, self.on_rollout = on_update, on_minibatch, on_rollout
        self._rollout_batch = 0
        self._rollout_metrics: dict[str, float] = {}
        self._could_not_sample = False
        self._sampling_seconds = 0.0
        self._tokens = {"generated_tokens": 0, "update_tokens": 0}
        # Of the update under way: its tokens, its metrics, and what `on_minibatch` is called with, one a micro-batch.
        self._update_tokens = 0
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
            "tokens": self._tokens,
            "faults": self.faults.state_dict(),
            "companions": {name: companion.state_dict() for name, companion in self.companions.items()},
        }

    def load_method_state(self, state):
        super().load_method_state(state)
        self._rollout_batch, self._rollout_metrics = state["rollout_batch"], state["rollout_metrics"]
        self._could_not_sample, self._tokens = state["could_not_sample"], state["tokens"]
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
        self._could_not_sample, started = False, time.perf_counter()
        try:
            return self.sample(prompt_ids, *others, **keywords)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):  # torch.multinomial's words
                raise
            # The step needs some responses; the updates from these are left out.
            self._could_not_sample = True
            return [[self.eos_token_ids[0]] for _ in prompt_ids], None
        finally:
            self._sampling_seconds = time.perf_counter() - started

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
        self._tokens["generated_tokens"] += int(lengths_PG.sum())
        self._rollout_metrics = {
            **self._describe_rollout(output, rewards_PG, lengths_PG),
            "rollout_seconds": time.perf_counter() - self._rollout_started,
            "sampling_seconds": self._sampling_seconds,
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
        may_end = self.min_completion_length < self.max_completion_length
        return {
            "reward": graded.mean().item() if graded.numel() else None,
            "reward_std": graded.std().item() if graded.numel() > 1 else None,
            "ungraded": torch.isnan(rewards_PG).float().mean().item(),
            "informative_groups": informative_groups(rewards_PG).float().mean().item(),
            "response_length": lengths_PG.float().mean().item(),
            "truncation": 1.0 - ended.float().mean().item() if may_end else 0.0,
        }

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **others
    ):
        """TRL's, for rows of similar length together, without columns that are padding in all of them."""
        if any(others.values()) or not _positions_are_relative(model):
            return self._scored(model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others)
        rows, start = len(input_ids), input_ids.size(1) - logits_to_keep
        batch_size = min(batch_size or rows, ROWS_ON_A_CPU if input_ids.device.type == "cpu" else rows)
        order = attention_mask[:, start:].sum(dim=1).argsort(stable=True)
        log_probs, entropies = [], []
        for part in order.split(batch_size):
            mask = attention_mask[part]
            used = mask.any(dim=0).nonzero().flatten()
            first, last = (min(int(used[0]), start - 1), max(int(used[-1]), start)) if len(used) else (start - 1, start)
            kept = slice(first, last + 1)
            found, entropy, _ = self._scored(
                model, input_ids[part, kept], mask[:, kept], last + 1 - start, compute_entropy=compute_entropy
            )
            missing = (0, logits_to_keep - found.size(1))
            log_probs.append(torch.nn.functional.pad(found, missing))
            if compute_entropy:
                entropies.append(torch.nn.functional.pad(entropy, missing))
        back = order.argsort()
        return torch.cat(log_probs)[back], torch.cat(entropies)[back] if compute_entropy else None, None

    def _scored(self, model, input_ids, attention_mask, logits_to_keep, *others, **keywords):
        """TRL's, of the policy that cannot end a response before `min_completion_length` tokens."""
        inputs = model, input_ids, attention_mask, logits_to_keep
        if not self.min_completion_length:
            return super()._get_per_token_logps_and_entropies(*inputs, *others, **keywords)
        unwrapped = self.accelerator.unwrap_model(model)
        with hidden_states(unwrapped.get_decoder()) as hidden_BTH:
            log_probs, *rest = super()._get_per_token_logps_and_entropies(*inputs, *others, **keywords)
        tokens, hidden = input_ids[:, -logits_to_keep:], torch.cat(hidden_BTH)[:, -logits_to_keep - 1 : -1]
        head, first = unwrapped.get_output_embeddings().weight, slice(self.min_completion_length)
        own = log_probs_without_ends(log_probs[:, first], hidden[:, first], head, tokens[:, first], self.eos_token_ids)
        return torch.cat([own, log_probs[:, self.min_completion_length :]], dim=1), *rest

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
        own = self.own_loss(result.loss, log_probs, old_log_probs, advantages, counted, ref_log_probs)
        result = dataclasses.replace(result, loss=own)
        if wrong is not None:
            result = dataclasses.replace(result, loss=result.loss * math.nan)
        losses = self.accelerator.gather(result.loss.detach())
        if not bool(torch.isfinite(losses).all()):
            wrong = next((found for found in from_all(wrong) if found), "the loss is")
            self.faults.non_finite(self._next_update, f"{wrong} not finite")
        return result

    def own_loss(self, loss, log_probs, old_log_probs, advantages, mask, ref_log_probs):
        """What to minimise in training, by default the method's loss; the rest is what that was computed from."""
        return loss

    def observe_loss(self, loss, log_ratio, mask, advantages):
        self._update_tokens += int(mask.sum())
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
        self._tokens["update_tokens"] += sum(from_all(self._update_tokens))
        self._update_tokens, found = 0, self._update_metrics
        row = {
            **self._place_of_update(),
            "learning_rate": found.pop("learning_rate"),
            "gradient_norm": found.pop("gradient_norm"),
            **found,
            **self._rollout_metrics,
            **self._tokens,
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


def _positions_are_relative(model: torch.nn.Module) -> bool:
    """Whether log-probabilities do not depend on how much padding precedes a text, nor on the batch's length."""
    config = getattr(model, "config", None) or model.module.config
    rotation = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return rotation.get("rope_type") in RELATIVE_ROTATIONS


def _number(value):
    """None in place of what JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
