"""TRL's GRPOTrainer with the advantages and the loss of a method of `kpo.methods`.

    args = GRPOConfig(steps_per_generation=4, gradient_accumulation_steps=1)
    MethodTrainer(method="kpo-clipped", model=..., reward_funcs=..., train_dataset=..., args=args).train()

TRL samples, scores, shuffles, splits, logs and saves. Images, tools, adapters, MoE models and the correction for vLLM
work as in TRL. Shape suffixes: P prompts, G group members, B sequences, T tokens.
"""

import copy
import inspect
import os
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from kpo.losses import PolicyLoss, policy_loss
from kpo.methods import Method, get_method
from kpo.trl_metrics import LOGGED_AS, minibatch_metrics, token_statistics
from kpo.trl_options import check_arguments, check_model


class MethodTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with `method`, a name or a `kpo.methods.Method`.

    Refuses options that it would not use (`kpo.trl_options`). Logs the entries of `kpo.losses.merge_metrics` as
    `kpo/...`, averaged over updates. Its checkpoints hold the method's state and the rollout batch, so that training
    resumes to the bit. Ends with an error at the first NaN. Subclasses may override the `observe_...` methods.
    """

    def __init__(self, model, reward_funcs=None, args=None, *others, method: str | Method, **kwargs):
        self.method = method if isinstance(method, Method) else get_method(method)
        check_arguments(self.method, GRPOConfig("unused") if args is None else args)
        super().__init__(model, reward_funcs, args, *others, **kwargs)
        check_model(self.model, self.args)
        self.advantage_estimator = self.method.make_estimator()
        seed = self.args.seed + self.method.advantage_parameters.get("seed", 0)
        self.advantage_generator = torch.Generator().manual_seed(seed)
        self._parts: list[torch.Tensor] = []  # `token_statistics` of the micro-batches of the update under way

    def observe_rollout(self, output: dict[str, Any], rewards_PG: torch.Tensor, lengths_PG: torch.Tensor) -> None:
        """Called with each training rollout batch: this process's part, and all rewards and counted tokens."""

    def observe_loss(self, loss: PolicyLoss, log_ratio_BT, mask_BT, advantages) -> None:
        """Called with each micro-batch of training, before its backward pass."""

    def observe_minibatch(self, metrics: dict[str, float]) -> None:
        """Called with the metrics of each update, before its last backward pass; the same in every process."""

    def observe_gradient(self, norm: float) -> None:
        """Called with the gradient's norm before clipping; here FloatingPointError unless finite, weights untouched."""
        if not torch.isfinite(torch.as_tensor(norm)) and self.accelerator.scaler is None:
            raise FloatingPointError(f"the gradient of update {self.state.global_step + 1} has norm {float(norm)}")

    def method_loss(self, *tensors: torch.Tensor, **keywords: Any) -> PolicyLoss:
        """`kpo.losses.policy_loss` of the method."""
        return policy_loss(self.method, *tensors, **keywords)

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.observe_gradient(norm)
        return norm

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards

    def _generate_and_score_completions(self, inputs):
        output, training = super()._generate_and_score_completions(inputs), self.model.training
        group = self.num_generations if training else self.num_generations_eval
        rewards = (self._rewards * self.reward_weights.to(self._rewards.device)).nansum(dim=1)
        rewards_PG = torch.where(self._rewards.isnan().all(dim=1), torch.nan, rewards).view(-1, group)
        lengths_PG = self.accelerator.gather(_loss_mask(output).sum(dim=1)).view(-1, group)
        # Evaluation leaves what the method has learnt about the rewards as it is.
        estimator = self.advantage_estimator if training else copy.deepcopy(self.advantage_estimator)
        state = {"generator": self.advantage_generator if training else None, "estimator": estimator}
        state |= {"lengths_PG": lengths_PG.cpu(), "component_weights_K": self.reward_weights.cpu()}
        state["components_PGK"] = self._rewards.view(*rewards_PG.shape, -1).cpu()
        advantages = self.method.advantages(rewards_PG.cpu(), **state).flatten()
        start = self.accelerator.process_index * len(inputs)
        output["advantages"] = advantages[start : start + len(inputs)].to(output["advantages"])
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())
        if training:
            self.observe_rollout(output, rewards_PG, lengths_PG)
        return output

    def _compute_loss(self, model, inputs):
        whole = (torch.cat([inputs[f"prompt_{part}"], inputs[f"completion_{part}"]], dim=1) for part in ("ids", "mask"))
        known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
        options = {name: inputs[name] for name in known if name in inputs}  # images
        options |= {"compute_entropy": True, "compute_aux_loss": self.aux_loss_enabled}
        length = inputs["completion_ids"].size(1)
        log_probs, entropies, aux_loss = self._get_per_token_logps_and_entropies(model, *whole, length, **options)
        mask, advantages = _loss_mask(inputs), inputs["advantages"]
        # TRL leaves the old log-probabilities out if sampling and updating policy are the same.
        old_log_probs = inputs.get("old_per_token_logps", log_probs.detach())
        micro_batches = self.current_gradient_accumulation_steps if model.training else 1
        tensors = (log_probs, old_log_probs, advantages, mask, inputs.get("ref_per_token_logps"))
        result = self.method_loss(
            *tensors,
            sampler_weights=inputs.get("importance_sampling_ratio"),
            num_sequences=len(mask) * micro_batches * self.accelerator.num_processes,
            num_tokens=self._minibatch_tokens(mask, micro_batches),
        )
        # The shares of all processes add up to the minibatch's loss, and the launcher averages gradients over them.
        loss = result.loss * self.accelerator.num_processes
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss / micro_batches
        part = PolicyLoss(result.loss.detach(), result.sums, result.clipped)
        self._parts.append(token_statistics(part, entropies, aux_loss, advantages, mask))
        if model.training:
            self.observe_loss(part, (log_probs - old_log_probs).detach(), mask, advantages)
        if len(self._parts) == micro_batches:
            self._log_minibatch("train" if model.training else "eval")
        return loss

    def _minibatch_tokens(self, mask_BT: torch.Tensor, micro_batches: int) -> int:
        """Counted tokens of the whole minibatch, over micro-batches and processes, if the loss is divided by them."""
        own = mask_BT.sum()
        if self.method.aggregation != "token-mean":
            return int(own)
        if micro_batches > 1:
            first = self._step % self.args.steps_per_generation // micro_batches * micro_batches
            own = sum(_loss_mask(batch).sum() for batch in self._buffered_inputs[first : first + micro_batches])
        return int(self.accelerator.reduce(own.to(torch.long), reduction="sum"))

    def _log_minibatch(self, mode: str) -> None:
        """Append the metrics of a minibatch, over its micro-batches and all processes, to those that TRL logs."""
        metrics = minibatch_metrics(self.accelerator.gather(torch.stack(self._parts)))
        self._parts.clear()
        if self.args.logging_strategy != "no":
            for name, value in metrics.items():
                if name != "loss" and (name != "aux_loss" or self.aux_loss_enabled):
                    self._metrics[mode][LOGGED_AS.get(name, f"kpo/{name}")].append(value)
        if mode == "train":
            self.observe_minibatch(metrics)

    def method_state(self) -> dict[str, Any]:
        """What the method has learnt or drawn, for a checkpoint: numbers, text and tensors."""
        estimator = self.advantage_estimator
        return {
            "advantage_generator": self.advantage_generator.get_state(),
            "advantage_estimator": None if estimator is None else estimator.state_dict(),
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Continue from what `method_state` gave."""
        self.advantage_generator.set_state(state["advantage_generator"].cpu())
        if self.advantage_estimator is not None:
            self.advantage_estimator.load_state_dict(state["advantage_estimator"])

    def _state_file(self, checkpoint: str) -> str:
        return os.path.join(checkpoint, f"kpo_state_{self.accelerator.process_index}.pt")

    def _made_with(self) -> dict[str, Any]:
        """What has to be the same for the rollout batch of a checkpoint to be of use."""
        names = ("per_device_train_batch_size", "steps_per_generation", "num_generations")
        shape = {name: getattr(self.args, name) for name in names}
        return {"method": repr(self.method), **shape, "number of processes": self.accelerator.num_processes}

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        state = {"made_with": self._made_with(), "step": self._step, "rollout": self._buffered_inputs}
        torch.save({**state, "own": self.method_state()}, self._state_file(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if not os.path.exists(self._state_file(checkpoint)):
            made_by = "another trainer, or another number of processes, made it; start from its weights by model=..."
            raise ValueError(f"{self._state_file(checkpoint)} is missing: {made_by}")
        state = torch.load(self._state_file(checkpoint), map_location=self.accelerator.device, weights_only=True)
        for name, value in self._made_with().items():
            if state["made_with"][name] != value:
                raise ValueError(f"{checkpoint} was made with {name} {state['made_with'][name]}; resume with the same")
        self._step, self._buffered_inputs = state["step"], state["rollout"]
        self.load_method_state(state["own"])


def _loss_mask(inputs: dict[str, Any]) -> torch.Tensor:
    mask_BT = inputs["completion_mask"]
    return mask_BT * inputs["tool_mask"] if "tool_mask" in inputs else mask_BT
