"""Two rounds of sampling, drafts and refinements: iGRPO, whose rules are in `reproduction.related.drafts`."""

import dataclasses
from typing import ClassVar

from reproduction.related import drafts
from reproduction.related.objectives.objective import Objective


@dataclasses.dataclass
class Refinement(Objective):
    """iGRPO (arXiv 2602.09000): GRPO on refinements of each prompt's best draft, half of a group each.

    Of a group of G, G / 2 are drafts from the current policy to the plain prompt, and G / 2 responses to the prompt
    with the best draft; only these are trained on, under that prompt. Drafts count as generated tokens. The base model
    has never seen a prompt with a draft.
    """

    best: ClassVar[bool] = True
    grades: ClassVar[bool] = True

    def check_training(self, method, training):
        if training.group_size % 2 or training.group_size < 4 or training.prompts_per_rollout % 2:
            raise ValueError(
                f"method {method.name!r} makes half of a group drafts, in a second sampling round: it needs an even "
                f"group_size of at least 4 and even prompts_per_rollout, found {training.group_size} and "
                f"{training.prompts_per_rollout}"
            )
        if training.sequences_per_rollout // 2 % training.minibatches:
            raise ValueError(
                f"method {method.name!r} trains on half of {training.sequences_per_rollout} responses, which do not "
                f"divide into {training.minibatches} minibatches; change training.minibatches"
            )

    def start(self, trainer):
        prompts = trainer._tokenize_prompts(list(dict.fromkeys(trainer.train_dataset["prompt"])))[0]
        longest = 2 * trainer.max_completion_length + len(drafts.SEPARATOR) + max(map(len, prompts))
        if longest > trainer.model.config.max_position_embeddings:
            raise ValueError(
                f"a draft, a problem and a response may have {longest} tokens, but the model holds "
                f"{trainer.model.config.max_position_embeddings}; lower training.max_completion_length"
            )

    def examples(self, trainer, examples):
        size = trainer.num_generations
        prompts = examples[::size]
        texts_PN, rewards_PN = trainer.drafts(prompts, size // 2)
        chosen = drafts.best_draft(rewards_PN).tolist() if self.best else [0] * len(prompts)
        refined = [
            {**prompt, "prompt": drafts.refinement_prompt(prompt["prompt"], texts[index], drafts.SEPARATOR)}
            for prompt, texts, index in zip(prompts, texts_PN, chosen, strict=True)
        ]
        return [example for example in refined for _ in range(size // 2)]


@dataclasses.dataclass
class RandomRefinement(Refinement):
    """The control of iGRPO: the first draft in place of the best one."""

    best: ClassVar[bool] = False
