"""The same responses graded by both graders, and where they disagree.

The first is `grade_math` (math-verify), the second `grade_math_strings` (in the manner of KPO's release: normalised
strings, else sympy). Both run in the same pool of killable processes. A disagreement is a fault of one of them, so its
share bounds what grading can do to a reported accuracy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kpo.rewards.extraction import MARKERS
from kpo.rewards.grading_pool import GradingPool
from kpo.rewards.math import Grade, count_reasons, grade_math_many


@dataclass(frozen=True)
class SecondOpinion:
    """Grades of the same responses by the first and by the second grader, in the order of the responses."""

    golds: list[str]
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

    def report(self, examples: int = 20) -> dict[str, Any]:
        """Counts, the share of disagreements, each grader's reasons, and the first `examples` disagreements."""
        number = len(self.first)
        differing = self.disagreements
        return {
            "responses": number,
            "both": sum(one.correct and two.correct for one, two in zip(self.first, self.second, strict=True)),
            "only_math_verify": sum(self.first[index].correct for index in differing),
            "only_strings": sum(self.second[index].correct for index in differing),
            "disagreement": len(differing) / number if number else 0.0,
            "reasons_math_verify": count_reasons(self.first),
            "reasons_strings": count_reasons(self.second),
            "examples": [
                {
                    "response": index,
                    "answer": self.first[index].answer,
                    "gold": self.golds[index],
                    "math_verify": self.first[index].reason,
                    "strings": self.second[index].reason,
                }
                for index in differing[:examples]
            ],
        }


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
        golds=[str(gold) for _, gold in pairs],
        first=grade_math_many(pairs, timeout, markers=markers, pool=pool),
        second=grade_math_many(pairs, timeout, markers=markers, pool=pool, method="strings"),
    )
