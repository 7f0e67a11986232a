"""The reward rules of experiments by name, for whole batches of responses."""

from collections.abc import Sequence

from reproduction.rewards.arithmetic import KRPO_PARTS, exact_reward, extract_tagged, krpo_reward
from reproduction.rewards.math import Grade, grade_math_many

_METHODS = {"math": "latex", "math-strings": "strings"}
_FUNCTIONS = {
    "exact": exact_reward,
    "krpo": krpo_reward,
    "krpo-parts": krpo_reward,
    **{name: test for name, (test, _) in KRPO_PARTS.items()},
}


def reward_weights(rule: str) -> dict[str, float]:
    """The rules of the reward functions whose weighted sum is the reward by `rule`; the last one tells right answers.

    Only "krpo-parts" has several.
    """
    return {name: weight for name, (_, weight) in KRPO_PARTS.items()} if rule == "krpo-parts" else {rule: 1.0}


def batch_rewards(
    rule: str,
    texts: Sequence[str],
    answers: Sequence[str],
    markers: Sequence[str] = (),
    tags: tuple[str, str] = ("<answer>", "</answer>"),
) -> list[float | None]:
    """The reward of each response by `rule`: "exact", "krpo" or one of its parts (tags), "math", "math-strings".

    None if the grader timed out or failed: nothing is known of that answer, so it must not count as wrong.
    """
    if rule in _METHODS:
        pairs = list(zip(texts, answers, strict=True))
        return [_known(grade) for grade in grade_math_many(pairs, markers=markers, method=_METHODS[rule])]
    return [_FUNCTIONS[rule](text, answer, *tags) for text, answer in zip(texts, answers, strict=True)]


def gradable_text(rule: str, text: str) -> str:
    """The response as the mathematics graders read it: with a tag rule, what is in the tag becomes a box."""
    if rule in _METHODS:
        return text
    content = extract_tagged(text)
    return "" if content is None else f"\\boxed{{{content.strip()}}}"


def _known(grade: Grade) -> float | None:
    return None if grade.reason in ("timeout", "error") else float(grade.correct)
