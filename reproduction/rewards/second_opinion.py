"""The same responses graded by both graders, and their disagreements.

The first is `grade_math` (math-verify), the second `grade_math_strings` (as in KPO's release: normalised
strings, else sympy). Both run in the same pool of killable processes. A disagreement is a fault of one of them, so its
share bounds what grading can do to a reported accuracy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reproduction.rewards.extraction import MARKERS
from reproduction.rewards.grading_pool import GradingPool
from reproduction.rewards.math import Grade, grade_math_many


@dataclass(frozen=True)
class SecondOpinion:
    """Grades of the same responses by the first and by the second grader, in the order of the responses."""

    first: list[Grade]
    second: list[Grade]

    @property
    def disagreements(self) -> list[int]:
        """Numbers of the responses that one grader calls right and the other does not."""
        return [
            number
            for number, (one, two) in enumerate(zip(self.first, self.second, strict=True))
            if one.correct != two.correct
        ]


def grade_math_twice(
    pairs: Iterable[tuple[str, str | int | float]],
    timeout: float = 5.0,
    *,
    markers: Sequence[str] = MARKERS,
    pool: GradingPool | None = None,
) -> SecondOpinion:
    """Grade pairs of (text, gold) by both graders; arguments and errors as for `grade_math_many`."""
    pairs = list(pairs)
    return SecondOpinion(
        first=grade_math_many(pairs, timeout, markers=markers, pool=pool),
        second=grade_math_many(pairs, timeout, markers=markers, pool=pool, method="strings"),
    )
