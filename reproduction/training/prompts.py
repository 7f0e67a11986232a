"""The prompts of a run, in the order in which they are sampled."""

import random
from collections.abc import Sequence
from typing import Any, cast

from reproduction.data.arithmetic import Problem, normalise_question
from reproduction.data.mathematics import MathProblem
from reproduction.data.prompts import prompt_messages, user_text, within_length
from reproduction.settings.experiment import ExperimentSettings, TrainingSettings


def choose_prompts(problems: Sequence[Problem], settings: TrainingSettings, seed: int) -> list[Problem]:
    """The problems of a run in order: the level of each drawn by its weight, each level's problems shuffled and cycled.

    They depend only on the seed, so that every method of an experiment sees the same prompts at the same update.
    """
    generator = random.Random(seed)
    by_level = {level: [problem for problem in problems if problem.level == level] for level in settings.level_weights}
    for level, found in by_level.items():
        if not found and settings.level_weights[level]:
            raise ValueError(f"no training problem is of level {level!r}; generate them again")
        generator.shuffle(found)
    levels = generator.choices(
        list(settings.level_weights),
        weights=list(settings.level_weights.values()),
        k=settings.rollout_batches * settings.prompts_per_rollout,
    )
    taken = dict.fromkeys(by_level, 0)
    chosen = []
    for level in levels:
        chosen.append(by_level[level][taken[level] % len(by_level[level])])
        taken[level] += 1
    return chosen


def chosen_prompts(
    settings: ExperimentSettings, problems: Sequence[Problem] | Sequence[MathProblem], tokenizer, seed: int
) -> list[dict[str, Any]]:
    """The prompts of a run in order, each with its answer, as TRL takes them.

    Generated problems are chosen by level; datasets are shuffled again for each pass. A small model is given the bare
    sum. For a Hugging Face model, problems with too long a prompt are left out, as in KPO's release.
    """
    hub, training = settings.pretrained, settings.training
    if hub is None:
        chosen = choose_prompts(cast(Sequence[Problem], problems), training, seed)
        return [{"prompt": normalise_question(problem.question), "answer": problem.answer} for problem in chosen]
    style = hub.train_prompt.style
    fits = within_length(tokenizer, [problem.question for problem in problems], style, hub.max_prompt_length)
    short: list[Any] = [problem for problem, fit in zip(problems, fits, strict=True) if fit]
    if not short:
        raise ValueError(f"no prompt has at most {hub.max_prompt_length} tokens; raise pretrained.max_prompt_length")
    if hub.trains_on_arithmetic:
        chosen = choose_prompts(short, training, seed)
    else:
        generator, chosen = random.Random(seed), []
        needed = training.rollout_batches * training.prompts_per_rollout
        while len(chosen) < needed:
            chosen += generator.sample(short, min(len(short), needed - len(chosen)))
    as_prompt = prompt_messages if style.template == "chat" else user_text
    return [{"prompt": as_prompt(problem.question, style), "answer": problem.answer} for problem in chosen]
