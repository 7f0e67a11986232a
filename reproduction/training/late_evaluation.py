"""The policy's accuracy late in training: fresh problems after each rollout batch of the last third.

The last checkpoint says little about a run: most of its deviation from the mean is gone two rollout batches later. The
mean over several checkpoints, each asked other problems, varies less at the same number of answers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from reproduction.data.arithmetic import Problem, generate_problems, normalise_question
from reproduction.data.mathematics import MathProblem
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.data.splits import levels
from reproduction.rewards import exact_reward
from reproduction.sampling.decode import decode
from reproduction.settings.configuration import ProblemSettings
from reproduction.settings.run import Run


class LateEvaluation:
    """Called with each row of metrics; adds `late_evaluation` to the last of a late rollout batch.

    That is {level: [right answers, answers]}, one answer a problem at temperature 1. The problems depend on the seed
    and the rollout batch only, so every method is asked the same; those of `trained_on` are not among them.
    model: gives the model as it is. torch's global generator is not touched.
    """

    def __init__(self, run: Run, trained_on: Iterable[Problem | MathProblem], tokenizer: Any, model: Callable[[], Any]):
        self.run, self.tokenizer, self.model = run, tokenizer, model
        settings = run.settings
        self.batches = set(settings.late_batches) if settings.late_evaluation else set()
        self.known = {normalise_question(problem.question) for problem in trained_on} if self.batches else set()
        self.updates = settings.training.minibatches * settings.training.epochs
        if self.batches:
            self.problems(min(self.batches))  # refuses a level with too few of them now, not late in training

    def added_to(self, row: dict) -> dict:
        """The row, with the evaluation if it is the last of a late rollout batch."""
        if row["rollout_batch"] not in self.batches or row["minibatch"] != self.updates:
            return row
        generator = torch.Generator().manual_seed(self.run.seed * 1_000 + row["rollout_batch"])
        asked = self.problems(row["rollout_batch"])
        return {**row, "late_evaluation": {level: self._right(own, generator) for level, own in asked.items()}}

    def problems(self, rollout_batch: int) -> dict[str, list[Problem]]:
        """The fresh problems after a rollout batch, by level."""
        settings = ProblemSettings.model_validate(self.run.resolved["problems"])
        by_name = {level.name: level for level in levels(settings)}
        return {
            name: generate_problems(
                by_name[name],
                answers // len(self.batches),
                settings.seed,
                self.known,
                settings.one_digit_share,
                id_prefix=f"late-{self.run.seed}-{rollout_batch}-{name}",
            )
            for name, answers in self.run.settings.late_answers.items()
        }

    def _right(self, problems: list[Problem], generator: torch.Generator) -> list[int]:
        """[right answers, answers]; a model whose logits are not finite answers nothing."""
        prompts = [self.tokenizer(normalise_question(problem.question)).input_ids for problem in problems]
        ends, length = [self.tokenizer.eos_token_id], self.run.evaluation.max_completion_length
        try:
            rows = decode(self.model(), prompts, ends, length, generator)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            return [0, len(problems)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        right = sum(
            exact_reward(text, problem.answer, ANSWER_OPEN, ANSWER_CLOSE) == 1.0
            for text, problem in zip(texts, problems, strict=True)
        )
        return [right, len(problems)]
