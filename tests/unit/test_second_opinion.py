"""Both graders on the same responses: disagreements are counted and shown."""

import pytest

from reproduction.rewards import GradingPool, grade_math_twice


@pytest.fixture(scope="module")
def pool():
    with_one = GradingPool(max_workers=1)
    yield with_one
    with_one.close()


def test_disagreements_are_counted_by_hand(pool):
    pairs = [
        ("\\boxed{\\dfrac12}", "\\frac{1}{2}"),  # both right
        ("\\boxed{7, 5, 3}", "3, 5, 7"),  # equal in any order, but the second grader compares lists as strings
        ("\\boxed{\\frac{3}{4}}", "\\frac{6}{8}"),  # equal, but the second grader wants fractions written alike
        ("\\boxed{5}", "6"),  # both wrong
        ("I do not know", "6"),  # no answer
    ]
    opinion = grade_math_twice(pairs, pool=pool)
    assert opinion.disagreements == [1, 2]
    assert [(one.reason, two.reason) for one, two in zip(opinion.first, opinion.second, strict=True)] == [
        ("equal", "equal"), ("equal", "unequal"), ("equal", "unequal"), ("unequal", "unequal"),
        ("no answer", "no answer"),
    ]  # fmt: skip
    assert opinion.first[1].answer == "7, 5, 3"


def test_markers_reach_both_graders_and_nothing_has_no_disagreement(pool):
    opinion = grade_math_twice([("#### 5", "5")], markers=("boxed",), pool=pool)
    assert [grade.reason for grade in (*opinion.first, *opinion.second)] == ["no answer"] * 2
    assert grade_math_twice([], pool=pool).disagreements == []
