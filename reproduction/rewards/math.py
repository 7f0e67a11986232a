"""Grading mathematics: the response's last announced answer, compared with the gold answer in a killable process."""

import atexit
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reproduction.rewards.extraction import MARKERS, extract_answer
from reproduction.rewards.grading_pool import GradingPool

# The longest gold answers of the benchmarks have some 150 characters.
MAX_ANSWER_LENGTH = 2_000

# No process starts before the first comparison.
_shared_pool = GradingPool()
atexit.register(_shared_pool.close)


@dataclass(frozen=True)
class Grade:
    """Result of grading one response; true in a condition if the answer is right.

    correct: whether the answer equals the gold answer. reason: 'equal', 'unequal', 'no answer', 'timeout' or 'error';
    after the last two nothing is known about the answer. answer: what was extracted.
    detail: more about a timeout or an error.
    """

    correct: bool
    reason: str
    answer: str | None = None
    detail: str = ""

    def __bool__(self) -> bool:
        return self.correct


def grade_math(text: str, gold: str | int | float, timeout: float = 5.0, *, markers: Sequence[str] = MARKERS) -> Grade:
    r"""Grade a model's whole response against the gold answer.

    The answer is what `extract_answer` finds (the last ``\boxed{}`` or ``####``); equal strings are equal answers, all
    others are compared by math-verify in a separate process, which is killed after `timeout` seconds and may use 1 GiB.
    May be called from any thread.

    text: the response. gold: the right answer in LaTeX, with or without dollar signs or ``\boxed{}``, or a number.
    markers: as for `extract_answer`.

    Raises TypeError or ValueError if text, gold, timeout or markers are not usable: faults of the caller; nothing that
    a model can write raises. RuntimeError if no grading process can be started.
    """
    return _grade(text, gold, timeout, markers, "latex", _shared_pool)


def grade_math_strings(
    text: str, gold: str | int | float, timeout: float = 5.0, *, markers: Sequence[str] = MARKERS
) -> Grade:
    """Grade as `grade_math` does, but compare as KPO's release does (arXiv 2602.10609, released code).

    There, answers are equal if they are after normalisation, or if sympy finds that their difference vanishes; two
    fractions must be written alike and an integer is matched by an integer only. A second opinion on `grade_math`.
    """
    return _grade(text, gold, timeout, markers, "strings", _shared_pool)


def grade_math_many(
    pairs: Iterable[tuple[str, str | int | float]],
    timeout: float = 5.0,
    *,
    markers: Sequence[str] = MARKERS,
    pool: GradingPool | None = None,
    method: str = "latex",
) -> list[Grade]:
    """Grade pairs of (text, gold) with as many processes as the pool allows; the grades come in the pairs' order.

    pool: a pool of one's own, by default one that all calls share, with as many workers as there are cores.
    method: "latex", as `grade_math` compares, or "strings", as `grade_math_strings` does.
    """
    pool = _shared_pool if pool is None else pool
    pairs = list(pairs)
    with ThreadPoolExecutor(max_workers=pool.max_workers) as threads:
        return list(threads.map(lambda pair: _grade(pair[0], pair[1], timeout, markers, method, pool), pairs))


def _grade(text, gold, timeout, markers, method: str, pool: GradingPool) -> Grade:
    gold = checked_gold(gold)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive, finite number of seconds, got {timeout}")
    answer = extract_answer(text, markers)
    if answer is None:
        return Grade(False, "no answer")
    if len(answer) > MAX_ANSWER_LENGTH:
        detail = f"the answer has {len(answer)} characters; at most {MAX_ANSWER_LENGTH} are compared"
        return Grade(False, "error", answer[:MAX_ANSWER_LENGTH], detail)
    if answer == gold:
        return Grade(True, "equal", answer)
    comparison = pool.compare(answer, gold, timeout, method)
    return Grade(comparison.outcome == "equal", comparison.outcome, answer, comparison.detail)


def checked_gold(gold: str | int | float) -> str:
    """The gold answer as text that can be compared; TypeError or ValueError for what never can."""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise TypeError(f"gold must be a string or a number, got {type(gold).__name__}")
    gold = str(gold).strip()
    if gold.startswith(("\\boxed", "\\fbox")):
        gold = extract_answer(gold, ("boxed",)) or ""
    if len(gold) >= 2 and gold.startswith("$") and gold.endswith("$"):
        gold = gold.strip("$").strip()
    if not gold:
        raise ValueError("gold is empty; a problem without an answer cannot be graded")
    if len(gold) > MAX_ANSWER_LENGTH:
        raise ValueError(f"gold has {len(gold)} characters; at most {MAX_ANSWER_LENGTH} are compared")
    return gold
