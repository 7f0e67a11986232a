"""The arithmetic generator: answers against Python's own parser, distributions, splits."""

import ast
import operator
import os
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.data import (
    LEVELS,
    Level,
    generate_problems,
    make_splits,
    normalise_question,
    read_problems,
)
from reproduction.data.expressions import evaluate_chain, parse_expression, strip_question
from reproduction.data.splits import levels
from reproduction.settings.configuration import load

LAPTOP_LEVELS = {level.name: level for level in levels(load({"scale": "laptop"}).problems)}
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def value_by_python(expression: str) -> int:
    """The exact value by Python's parser, independent of the package's."""

    def walk(node):
        if isinstance(node, ast.Expression):
            return walk(node.body)
        if isinstance(node, ast.BinOp):
            return _OPERATIONS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -walk(node.operand)
        assert isinstance(node, ast.Constant) and type(node.value) is int
        return node.value

    return walk(ast.parse(expression, mode="eval"))


def literals(question: str) -> list[str]:
    return re.findall(r"[0-9]+", question)


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(LEVELS)), laptop=st.booleans())
@settings(max_examples=60, deadline=None)
def test_answers_are_what_python_computes(seed, name, laptop):
    level = (LAPTOP_LEVELS if laptop else LEVELS)[name]
    for problem in generate_problems(level, 20, seed, one_digit_share=0.2):
        expression = re.sub("[^-+*()0-9]", "", problem.question)
        assert int(problem.answer) == value_by_python(expression)
        assert problem.num_terms == len(literals(problem.question)) and problem.num_terms in level.num_terms
        assert max(map(len, literals(problem.question))) <= problem.num_digits
        assert problem.num_digits in (1, *level.num_digits)
        assert level.brackets or "(" not in problem.question
        assert set(parse_expression(expression).operators) <= set(level.operators)
        assert abs(int(problem.answer)) >= level.min_answer
        assert level.max_answer is None or abs(int(problem.answer)) <= level.max_answer


expressions = st.recursive(
    st.integers(0, 10**9).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " *  "]), inner).map("".join),
        inner.map("( {} )".format),
        inner.map("-{}".format),
        inner.map("- ({} )".format),
    ),
    max_leaves=20,
)


@given(expression=expressions)
@settings(max_examples=300, deadline=None)
def test_parser_agrees_with_python(expression):
    parsed = parse_expression(expression)
    assert parsed.value == value_by_python(expression)
    assert parsed.num_terms == len(literals(expression))
    assert parsed.max_digits == max(map(len, literals(expression)))
    assert parsed.brackets == ("(" in expression)
    assert ("*" in parsed.operators) == ("*" in expression)


def test_precedence_by_hand():
    assert evaluate_chain([2, 3, 4, 5], "+*-") == 9
    assert evaluate_chain([2, 3, 4, 5], "-*+") == -5
    assert parse_expression("2 - -( 3 * -4 ) * -1").value == 14
    assert parse_expression("- - 3").operators == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no expression"),
        ("1 +", "breaks off"),
        ("( 1 + 2", "not closed"),
        ("1 + 2 )", "expected, found '\\)'"),
        ("1 2", "two numbers in a row"),
        ("1 / 2", "'/' is not part"),
        ("2 ** 3", "found '\\*'"),
        ("+ 3", "found '\\+'"),
        ("()", "found '\\)'"),
        ("__import__", "'_' is not part"),
        ("\u0663 + 1", "is not part"),
        ("(" * 200 + "1" + ")" * 200, "deep"),
        ("9" * 2000, "2000 digits"),
        ("1+" * 6000 + "1", "12001 characters"),
    ],
)
def test_parser_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse_expression(text)


@pytest.mark.parametrize(
    ("question", "normalised"),
    [
        ("What is   -11 - -79 - -69?", "-11--79--69="),
        ("Solve 53   +   -77", "53+-77="),
        ("  781 * -840 =", "781*-840="),
        ("-( -2 + 3 ) = ?", "-(-2+3)="),
        ("4", "4="),
    ],
)
def test_normalise_question(question, normalised):
    assert normalise_question(question) == normalised
    assert normalise_question(normalised) == normalised


@pytest.mark.parametrize("question", ["What is?", "", "1 2 + 3", "one + two", "3 apples + 4", "3 = 3"])
def test_normalise_question_refuses_what_is_no_expression(question):
    with pytest.raises(ValueError):
        normalise_question(question)


def test_generation_is_seeded():
    level = LEVELS["hard"]
    assert generate_problems(level, 50, 1) == generate_problems(level, 50, 1)
    assert generate_problems(level, 50, 1) != generate_problems(level, 50, 2)
    # The first problems do not depend on how many are asked for.
    assert generate_problems(level, 10, 1) == generate_problems(level, 50, 1)[:10]


def test_one_digit_share():
    level = LAPTOP_LEVELS["normal"]
    problems = generate_problems(level, 4000, 3, one_digit_share=0.2)
    declared = sum(problem.num_digits == 1 for problem in problems)
    # Five standard deviations of a binomial share.
    assert abs(declared / 4000 - 0.2) < 5 * (0.2 * 0.8 / 4000) ** 0.5
    assert all(max(map(len, literals(problem.question))) == 1 for problem in problems if problem.num_digits == 1)
    assert not any(problem.num_digits == 1 for problem in generate_problems(level, 500, 3))


def test_splits_are_disjoint_and_held_out_has_no_duplicates():
    train, held_out = make_splits(list(LAPTOP_LEVELS.values()), 2000, 150, seed=5, one_digit_share=0.5)
    assert Counter(problem.level for problem in train) == {"easy": 2000, "normal": 2000, "hard": 2000}
    assert Counter(problem.level for problem in held_out) == {"easy": 150, "normal": 150, "hard": 150}
    train_questions = {normalise_question(problem.question) for problem in train}
    held_out_questions = [normalise_question(problem.question) for problem in held_out]
    assert len(set(held_out_questions)) == 450
    assert not train_questions & set(held_out_questions)
    ids = [problem.id for problem in train + held_out]
    assert len(set(ids)) == len(ids)


def test_splits_stay_disjoint_where_levels_overlap():
    train, held_out = make_splits([Level("a", (2,), (1,)), Level("b", (2,), (1,))], 400, 200, seed=0)
    held_out_questions = [normalise_question(problem.question) for problem in held_out]
    assert len(set(held_out_questions)) == 400
    assert not {normalise_question(problem.question) for problem in train} & set(held_out_questions)


def test_another_level_changes_nothing_in_the_first():
    one, _ = make_splits([LAPTOP_LEVELS["easy"]], 100, 10, seed=9)
    two, _ = make_splits([LAPTOP_LEVELS["easy"], LEVELS["hard"]], 100, 10, seed=9)
    assert two[:100] == one


def test_a_level_that_is_too_small_is_an_error():
    # 19 * 19 sums of two one-digit numbers.
    level = Level("tiny", (2,), (1,), operators="+")
    assert len(generate_problems(level, 361, 0, unique=True)) == 361
    with pytest.raises(ValueError, match="'tiny' gave 361 of 362"):
        generate_problems(level, 362, 0, unique=True)
    with pytest.raises(ValueError, match="fewer problems"):
        make_splits([level], 1, 361, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_terms": (1,)}, "num_terms"),
        ({"num_digits": (0, 2)}, "num_digits"),
        ({"num_digits": ()}, "num_digits"),
        ({"num_terms": (2.0,)}, "num_terms"),
        ({"operators": "/"}, "operators"),
        ({"operators": ""}, "operators"),
        ({"operators": "++"}, "operators"),
        ({"min_answer": 5, "max_answer": 4}, "min_answer"),
        ({"name": ""}, "name"),
    ],
)
def test_level_refuses(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Level(**{"name": "x", "num_terms": (2,), "num_digits": (2,), **fields})


def test_generator_refuses():
    level = LAPTOP_LEVELS["easy"]
    with pytest.raises(ValueError, match="count"):
        generate_problems(level, -1, 0)
    with pytest.raises(ValueError, match="one_digit_share"):
        generate_problems(level, 1, 0, one_digit_share=1.5)
    with pytest.raises(ValueError, match="different names"):
        make_splits([level, level], 3, 1, 0)


def features(problems) -> dict[str, list[int]]:
    """Counts of what the published set varies, as one contingency row a feature."""
    rows: dict[str, Counter] = {
        name: Counter() for name in ("phrasing", "gap", "terms", "digits", "operator", "bracket")
    }
    for problem in problems:
        question = problem.question
        expression = strip_question(question)
        rows["phrasing"][question.replace(expression.strip(), "E").replace(" ", "")] += 1
        rows["gap"].update(min(len(gap), 5) for gap in re.findall(" +", expression.strip()))
        rows["terms"][problem.num_terms] += 1
        rows["digits"][problem.num_digits] += 1
        rows["operator"].update(re.findall(r" ([-+*]) ", re.sub(" +", " ", question)))
        rows["bracket"][problem.num_terms, min(question.count("("), 3)] += 1
    return {name: dict(counter) for name, counter in rows.items()}


def test_phrasings_and_spaces_as_stated():
    found = features(generate_problems(LEVELS["hard"], 4000, 11))
    assert set(found["phrasing"]) == {"E", "SolveE", "WhatisE?", "E=", "E=?"}
    assert all(abs(count - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5 for count in found["phrasing"].values())
    gaps = found["gap"]
    assert set(gaps) == {1, 3, 5}
    total = sum(gaps.values())
    assert abs(gaps[1] / total - 0.85) < 5 * (0.15 * 0.85 / total) ** 0.5


@pytest.mark.skipif(
    "KPO_ARITHMETIC_FILE" not in os.environ, reason="KPO_ARITHMETIC_FILE names no published problem file"
)
def test_published_rows_look_like_generated_ones():
    from scipy.stats import chi2_contingency

    published = read_problems(os.environ["KPO_ARITHMETIC_FILE"])
    generated = generate_problems(LEVELS["hard"], 20_000, 1)
    ours, theirs = features(generated), features(published)
    for name in ours:
        keys = sorted(set(ours[name]) | set(theirs[name]))
        table = [[row[name].get(key, 0) for key in keys] for row in (ours, theirs)]
        assert chi2_contingency(table).pvalue > 1e-4, (name, dict(zip(keys, zip(*table, strict=True), strict=True)))
