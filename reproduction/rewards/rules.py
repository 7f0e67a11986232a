"""The reward rules of experiments by name, for whole batches of responses."""

from collections.abc import Sequence

from reproduction.rewards.arithmetic import exact_reward, extract_tagged, krpo_reward
from reproduction.rewards.math import Grade, grade_math_many

_METHODS = {"math": "latex", "math-strings": "strings"}


def batch_rewards(
    rule: str,
    texts: Sequence[str],
    answers: Sequence[str],
    markers: Sequence[str] = (),
    tags: tuple[str, str] = ("<answer>", "</answer>"),
) -> list[float | None]:
    """The reward of each response: by `rule` "exact" or "krpo" (tags), "math" or "math-strings" (1 right, 0 wrong).

    None if the grader timed out or failed: nothing is known of that answer, so it must not count as wrong.
    """
    if rule in _METHODS:
        pairs = list(zip(texts, answers, strict=True))
        return [_known(grade) for grade in grade_math_many(pairs, markers=markers, method=_METHODS[rule])]
    function = {"exact": exact_reward, "krpo": krpo_reward}[rule]
    return [function(text, answer, *tags) for text, answer in zip(texts, answers, strict=True)]


def gradable_text(rule: str, text: str) -> str:
    """The response as the mathematics graders read it: with a tag rule, what is in the tag becomes a box."""
    if rule in _METHODS:
        return text
    content = extract_tagged(text)
    return "" if content is None else f"\\boxed{{{content.strip()}}}"


def _known(grade: Grade) -> float | None:
    return None if grade.reason in ("timeout", "error") else float(grade.correct)
