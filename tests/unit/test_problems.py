"""Reading problem files: round trips, and one clear error for everything that can be wrong with one."""

import json
import os
from dataclasses import replace

import pytest

from reproduction.data import (
    LEVELS,
    Level,
    generate_problems,
    read_problems,
    within_range,
    write_problems,
)
from reproduction.data.splits import levels
from reproduction.rewards import exact_reward
from reproduction.settings.configuration import load

LAPTOP_LEVELS = {level.name: level for level in levels(load({"scale": "laptop"}).problems)}
ROW = {"id": "7", "question": "What is 12 - -7?", "answer": "19", "num_terms": 2, "num_digits": 2}


def test_round_trip(tmp_path):
    problems = generate_problems(LEVELS["hard"], 300, 1) + generate_problems(LAPTOP_LEVELS["easy"], 100, 1)
    write_problems(tmp_path / "problems.jsonl", problems)
    assert read_problems(tmp_path / "problems.jsonl") == problems


def test_rows_without_a_level_are_of_the_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    # A byte-order mark, Windows line ends, blank lines and fields of no interest are all harmless.
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW | {"note": 1}).encode() + b"\r\n\r\n")
    (problem,) = read_problems(path)
    assert problem.level == "file" and problem.answer == "19"


@pytest.mark.parametrize(
    ("question", "written", "kept"),
    [
        ("12 - 7", "05", "5"),
        ("7 - 7", "-0", "0"),
        ("7 - 7", "000", "0"),
        ("7 - 12", "-005", "-5"),
        ("7 - 12", "-5", "-5"),
    ],
)
def test_answers_are_kept_as_a_response_writes_them(question, written, kept, tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(ROW | {"question": f"What is {question}?", "answer": written}))
    (problem,) = read_problems(path)
    assert problem.answer == kept
    assert exact_reward(f"<answer>{kept}</answer>", problem.answer) == 1.0


BAD_ROWS = [
    ({"id": None}, "'id' must be a string, found null"),
    ({"id": 7}, "'id' must be a string, found 7"),
    ({"id": ""}, "'id' is empty"),
    ({"question": 5}, "'question' must be a string"),
    ({"question": ""}, "cannot be read: there is no expression"),
    ({"question": "What is 12 / 7?"}, "'/' is not part"),
    ({"question": "( 12 - -7"}, "not closed"),
    ({"question": "12 apples"}, "cannot be read"),
    ({"answer": 19}, "'answer' must be a string, found 19"),
    ({"answer": "19.0"}, "'answer' must be an integer in decimal digits, found '19.0'"),
    ({"answer": "nineteen"}, "'answer' must be an integer"),
    ({"answer": " 19"}, "'answer' must be an integer"),
    ({"answer": "\u0661\u0669"}, "'answer' must be an integer"),
    ({"answer": "20"}, "'answer' is 20, but the question is worth 19"),
    ({"num_terms": "2"}, "'num_terms' must be an integer"),
    ({"num_terms": True}, "'num_terms' must be an integer"),
    ({"num_terms": 3}, "'num_terms' is 3, but the question holds 2"),
    ({"num_digits": 2.0}, "'num_digits' must be an integer"),
    ({"num_digits": 1}, "'num_digits' is 1, but a number has 2"),
    ({"level": 3}, "'level' must be a non-empty string"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS)
def test_bad_rows_are_named(tmp_path, change, message):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(ROW | {"id": "6"}) + "\n\n" + json.dumps(ROW | change) + "\n")
    with pytest.raises(ValueError) as caught:
        read_problems(path)
    assert str(caught.value).startswith(f"{path}, line 3: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", list(ROW))
def test_missing_fields_are_named(tmp_path, field):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({key: value for key, value in ROW.items() if key != field}))
    with pytest.raises(ValueError, match=f"line 1: the field '{field}' is missing"):
        read_problems(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the file holds no problem"),
        (b"\n \n", "line 1: the file holds no problem"),
        (json.dumps(ROW).encode()[:-5], "line 1: not JSON"),
        (b"[1, 2]", "line 1: expected a JSON object, found list"),
        (b"[" * 100_000, "line 1: not readable as JSON"),
        (b'{"id": ' + b"9" * 5_000 + b"}", "line 1: not readable as JSON"),
        (json.dumps(ROW).encode() + b"\n\x00\x01\x02", "line 2: not UTF-8 text (binary data"),
        (json.dumps(ROW).encode() + b"\n\xff\xfe\n", "line 2: not UTF-8"),
        (json.dumps(ROW).encode("utf-16"), "line 1: not UTF-8 text (binary data"),
        (json.dumps(ROW).encode() * 2, "line 1: not JSON"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_problems(path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_duplicate_ids_are_named_with_both_lines(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"id": "8"}) + "\n" + json.dumps(ROW) + "\n")
    with pytest.raises(ValueError, match="line 3: id '7' occurs already in line 1"):
        read_problems(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match="no such file; check the path"):
        read_problems(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="this is a folder"):
        read_problems(tmp_path)


def test_within_range():
    level = Level("small", (2, 3), (2,), operators="+-")
    (problem,) = generate_problems(LAPTOP_LEVELS["normal"], 1, 0)
    assert within_range(problem, level)
    assert within_range(replace(problem, question="-1 - -2 + -3", num_terms=3), level)
    assert not within_range(replace(problem, question="1 * 2", num_terms=2), level)
    assert not within_range(replace(problem, question="-( 1 + 2 )", num_terms=2), level)
    assert within_range(replace(problem, question="-( 1 + 2 )", num_terms=2), replace(level, brackets=True))
    assert not within_range(replace(problem, num_terms=4), level)
    assert not within_range(replace(problem, num_digits=3), level)


@pytest.mark.skipif(
    "KPO_ARITHMETIC_FILE" not in os.environ, reason="KPO_ARITHMETIC_FILE names no published problem file"
)
def test_published_rows():
    problems = read_problems(os.environ["KPO_ARITHMETIC_FILE"])
    assert len(problems) == 10_000
    level = Level("laptop", (2, 3), (2,), operators="+-")
    assert sum(within_range(problem, level) for problem in problems) == 457
