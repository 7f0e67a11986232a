"""Reading problem files in KRPO's published format, with every row checked against exact arithmetic."""

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from typing import Any

from reproduction.data.arithmetic import Level, Problem
from reproduction.data.expressions import Expression, parse_expression, strip_question
from reproduction.jobs.files import jsonl_rows, write_jsonl

_FIELDS = {"id": str, "question": str, "answer": str, "num_terms": int, "num_digits": int}
_INTEGER = re.compile(r"-?[0-9]{1,1000}")


def read_problems(path: str | os.PathLike) -> list[Problem]:
    """Read a JSONL file of problems: one object a line with id, question, answer, num_terms and num_digits.

    A row without a "level" is of level "file"; other fields are ignored. Answers are kept as `str(int(...))`.

    Raises ValueError '<path>, line <n>: what is wrong; what to do' for a missing, empty or non-text file, a line that
    is not a JSON object, a missing field, a wrong type, a duplicate id, an answer that is not an integer or not the
    exact value of the question's expression, and counts of terms or digits that the expression contradicts.
    """
    problems: list[Problem] = []
    line_of_id: dict[str, int] = {}
    for number, row in jsonl_rows(path):
        try:
            problem = _parse_row(row)
            if problem.id in line_of_id:
                raise ValueError(f"id {problem.id!r} occurs already in line {line_of_id[problem.id]}; make ids unique")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        line_of_id[problem.id] = number
        problems.append(problem)
    if not problems:
        raise ValueError(f"{path}, line 1: the file holds no problem; give one JSON object a line")
    return problems


def write_problems(path: str | os.PathLike, problems: Iterable[Problem]) -> None:
    """Write problems in the format that `read_problems` reads, with the field "level" added."""
    write_jsonl(path, map(dataclasses.asdict, problems))


def within_range(problem: Problem, level: Level) -> bool:
    """Whether a model made for `level` can read a problem.

    It can if the problem has at most the level's largest number of terms and of digits, only its operators, and no
    brackets unless the level has them. The unary minus of a negative number is not an operator.
    """
    if problem.num_terms > max(level.num_terms) or problem.num_digits > max(level.num_digits):
        return False
    expression = parse_expression(strip_question(problem.question))
    return set(expression.operators) <= set(level.operators) and (level.brackets or not expression.brackets)


def _parse_row(row: dict[str, Any]) -> Problem:
    for field, kind in _FIELDS.items():
        if field not in row:
            raise ValueError(f"the field {field!r} is missing; each row needs {', '.join(_FIELDS)}")
        if not isinstance(row[field], kind) or isinstance(row[field], bool):
            wanted = "a string" if kind is str else "an integer"
            raise ValueError(f"{field!r} must be {wanted}, found {json.dumps(row[field])[:60]}")
    level = row.get("level", "file")
    if not isinstance(level, str) or not level:
        raise ValueError(f"'level' must be a non-empty string, found {json.dumps(level)[:60]}; name it or leave it out")
    if not row["id"]:
        raise ValueError("'id' is empty; give each row its own id")
    if not _INTEGER.fullmatch(row["answer"]):
        raise ValueError(f"'answer' must be an integer in decimal digits, found {row['answer'][:60]!r}")
    try:
        expression = parse_expression(strip_question(row["question"]))
    except ValueError as error:
        raise ValueError(f"'question' {row['question'][:60]!r} cannot be read: {error}") from None
    _check_against_expression(row, expression)
    # Rewards compare text: "05" and "-0" would be answers that no response matches.
    fields = {field: row[field] for field in _FIELDS} | {"answer": str(int(row["answer"]))}
    return Problem(**fields, level=level)


def _check_against_expression(row: dict[str, Any], expression: Expression) -> None:
    if int(row["answer"]) != expression.value:
        value = str(expression.value) if expression.value.bit_length() < 200 else "another number"
        raise ValueError(f"'answer' is {row['answer'][:60]}, but the question is worth {value}; correct the row")
    if row["num_terms"] != expression.num_terms:
        raise ValueError(
            f"'num_terms' is {row['num_terms']}, but the question holds {expression.num_terms} numbers; correct the row"
        )
    if row["num_digits"] < expression.max_digits:
        raise ValueError(
            f"'num_digits' is {row['num_digits']}, but a number has {expression.max_digits} digits; correct the row"
        )
