"""This project's trainer with the objective of a related method, for small models in one process."""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from trl.trainer.utils import split_tensor_dict

from reproduction.related.method import RelatedMethod
from reproduction.related.objectives.objective import Batch
from reproduction.sampling.decode import decode
from reproduction.training.rollouts import DecodingTrainer

ROWS, ROWS_SAMPLED = 32, 256
"""Responses in one pass of the model before training, and in one batch sampled from it."""


class ObjectiveTrainer(DecodingTrainer):
    """Samples, keeps and weighs as the method's objective says, and minimises its loss.

    grade: the reward, without noise, of texts to the answers of their problems.
    base: the model before training, frozen, if the objective uses it.
    objective_generator: for draws of the objective's own, so that those of the policy stay as they are.
    examples: those of the rollout under way, one for each response.
    """

    def __init__(
        self, *args, model, method: RelatedMethod, grade: Callable[[list[str], list[str]], list[float | None]], **kwargs
    ):
        self.objective, self.grade = method.make_objective(), grade
        self.base = copy.deepcopy(model).eval().requires_grad_(False) if self.objective.needs_base else None
        super().__init__(*args, model=model, method=method, **kwargs)
        self.objective_generator = torch.Generator().manual_seed(self.args.seed)
        self.examples: list[dict[str, Any]] = []
        self._inputs: dict[str, Any] = {}
        self.objective.start(self)

    def method_state(self):
        own = {"state": self.objective.state_dict(), "generator": self.objective_generator.get_state()}
        return {**super().method_state(), "objective": own}

    def load_method_state(self, state):
        super().load_method_state(state)
        self.objective_generator.set_state(state["objective"]["generator"].cpu())
        self.objective.load_state_dict(state["objective"]["state"])

    def base_responses(
        self, examples: list[dict[str, Any]], count: int
    ) -> tuple[list[list[int]], list[list[int]], torch.Tensor]:
        """Prompts and completions of `count` responses of the model before training to each example, and their rewards.

        Prompts and completions as token ids, P x N of each; rewards (P, N).
        """
        repeated = [example for example in examples for _ in range(count)]
        prompts = self._tokenize_prompts([example["prompt"] for example in repeated])[0]
        lengths = {"max_new_tokens": self.max_completion_length, "min_new_tokens": self.min_completion_length}
        completions: list[list[int]] = []
        for start in range(0, len(prompts), ROWS_SAMPLED):
            part = prompts[start : start + ROWS_SAMPLED]
            completions += decode(self.base, part, self.eos_token_ids, generator=self.objective_generator, **lengths)
        return prompts, completions, self._graded(repeated, completions)[1].view(-1, count)

    def drafts(self, examples: list[dict[str, Any]], count: int) -> tuple[list[list[str]], torch.Tensor]:
        """Texts of `count` responses of the current policy to each example, and their rewards (P, N)."""
        repeated = [example for example in examples for _ in range(count)]
        prompts = self._tokenize_prompts([example["prompt"] for example in repeated])[0]
        texts, rewards = self._graded(repeated, self._generate_single_turn(prompts, None, {}, count)[0])
        return [texts[start : start + count] for start in range(0, len(texts), count)], rewards.view(-1, count)

    def _graded(self, examples: list[dict[str, Any]], completions: list[list[int]]) -> tuple[list[str], torch.Tensor]:
        self._tokens["generated_tokens"] += sum(map(len, completions))
        texts = self.processing_class.batch_decode(completions, skip_special_tokens=True)
        found = self.grade(texts, [example["answer"] for example in examples])
        return texts, torch.tensor([0.0 if value is None else value for value in found])

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        started, whole = time.perf_counter(), self.num_generations
        self.examples = self.objective.examples(self, inputs)
        earlier = time.perf_counter() - started
        self.num_generations = whole * len(self.examples) // len(inputs)
        try:
            output = super()._generate_and_score_completions(self.examples)
            kept = self.objective.kept(self, output["advantages"])
        finally:
            self.num_generations = whole
        for name in ("rollout_seconds", "sampling_seconds"):  # with drafts, base responses and what is fitted to them
            self._rollout_metrics[name] += earlier
        return output if kept is None else _rows(output, kept)

    def observe_rollout(self, output, rewards_PG, lengths_PG):
        if self.objective.needs_reference:
            output["ref_per_token_logps"] = self._base_log_probs(output)
        if self.objective.needs_groups:
            output["row"] = torch.arange(len(output["completion_ids"]))
        self.objective.rollout(self, output, rewards_PG)
        super().observe_rollout(output, rewards_PG, lengths_PG)

    @torch.no_grad()
    def _base_log_probs(self, output: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (B, T) of the completions under the model before training."""
        ids, mask = (torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], 1) for part in ("ids", "mask"))
        length, found = output["completion_ids"].size(1), []
        for rows, counted in zip(ids.split(ROWS), mask.split(ROWS), strict=True):
            logits = self.base(input_ids=rows, attention_mask=counted).logits[:, -length - 1 : -1]
            logits[:, : self.min_completion_length, self.eos_token_ids] = -torch.inf
            found.append(logits.float().log_softmax(dim=-1).gather(2, rows[:, -length:, None])[:, :, 0])
        return torch.cat(found)

    def _prepare_inputs(self, generation_batch):
        before, inputs = self._buffered_inputs, super()._prepare_inputs(generation_batch)
        if not self.objective.needs_groups or self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = whole_groups(self._buffered_inputs, self.num_generations)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        self._inputs = inputs
        return super()._compute_loss(model, inputs)

    def method_loss(self, log_probs, old_log_probs, advantages, mask, ref_log_probs=None, **keywords):
        if self.model.training:
            advantages = self.objective.weighted(advantages, self._inputs)
        return super().method_loss(log_probs, old_log_probs, advantages, mask, ref_log_probs, **keywords)

    def record_update(self):
        self._update_metrics |= self.objective.metrics()
        super().record_update()

    def own_loss(self, loss, log_probs, old_log_probs, advantages, mask, ref_log_probs):
        place = {"rollout": self._inputs, "group_size": self.num_generations, "clip": self.method.clip}
        return self.objective.loss(loss, Batch(log_probs, old_log_probs, ref_log_probs, mask, advantages, **place))


def whole_groups(parts: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Shuffled minibatches rearranged so that each holds whole groups, members in sampled order.

    Rows carry their place "row" in the rollout. Groups come in the order in which the shuffled rows first show them.
    """
    row_B = torch.cat([part["row"] for part in parts])
    group_B = row_B // size
    first: dict[int, int] = {}
    for place, group in enumerate(group_B.tolist()):
        first.setdefault(group, place)
    key_B = torch.tensor([first[group] for group in group_B.tolist()]) * len(row_B) + row_B
    whole = {
        name: torch.cat([part[name] for part in parts]) if torch.is_tensor(value) and value.dim() else value
        for name, value in parts[0].items()
    }
    return split_tensor_dict(_rows(whole, key_B.argsort()), len(parts))


def _rows(rollout: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """These rows of every tensor that has rows."""
    return {name: value[rows] if torch.is_tensor(value) and value.dim() else value for name, value in rollout.items()}
