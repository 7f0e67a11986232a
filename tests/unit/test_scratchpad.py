"""The worked solutions: against Python's own sums, hand-worked examples, and the slips of a forgetful teacher."""

import random
import re

import pytest

from reproduction.data.scratchpad import CHARACTERS, signed_terms, write_scratchpad
from reproduction.data.tokenizer import build_tokenizer


def draw_question(generator: random.Random) -> tuple[str, int]:
    terms = [generator.randint(-99, 99) for _ in range(generator.randint(1, 5))]
    signs = ["+", *(generator.choice("+-") for _ in terms[1:])]
    text = str(terms[0]) + "".join(sign + str(term) for sign, term in zip(signs[1:], terms[1:], strict=True))
    return text + "=", sum(term if sign == "+" else -term for sign, term in zip(signs, terms, strict=True))


def test_worked_by_hand():
    assert (
        write_scratchpad("-11--79--69=") == "-11+79|+69:+79-11:9-1=8,7-1=6,=68;68+69|:+68+69:8+9=7c,6+6+1=3c,=137;<137>"
    )
    # 52 - 67: the larger magnitude first, no borrow; 12 - 9 borrows and its tens digit vanishes.
    assert write_scratchpad("52-67=") == "52-67|:-67-52:7-2=5,6-5=1,=-15;<-15>"
    assert write_scratchpad("12-9=") == "12-9|:+12-9:2-9=3c,1-0-1=0,=3;<3>"
    assert write_scratchpad("-5+5=") == "-5+5|:-5-5:5-5=0,=0;<0>"
    assert write_scratchpad("7=") == "<7>"


def test_clean_teacher_is_always_right():
    generator = random.Random(0)
    for _ in range(3000):
        question, answer = draw_question(generator)
        assert sum(signed_terms(question)) == answer
        assert write_scratchpad(question).endswith(f"<{answer}>")


def test_forgetful_teacher_computes_on_without_the_mark():
    generator = random.Random(0)
    assert write_scratchpad("68+69=", 1.0, generator) == "68+69|:+68+69:8+9=7,6+6=2,=27;<27>"
    for _ in range(500):
        question, _ = draw_question(generator)
        solution = write_scratchpad(question, 1.0, generator)
        assert "c" not in solution
        # The final answer is the last running sum of the slip, not the right one written over it.
        sums = re.findall(r"=(-?\d+);", solution)
        if sums:
            assert solution.endswith(f"<{sums[-1]}>")


def test_rate_of_forgetting():
    generator = random.Random(1)
    text = "".join(write_scratchpad("99+99=", 0.75, generator) for _ in range(4000))
    # Two marks are due unless the first is left out; the second is then due all the same (9 + 9 = 18).
    share = text.count("c") / 8000
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 8000) ** 0.5


@pytest.mark.parametrize("question", ["", "=", "1+2", "1*2=", "1 + 2=", "(1)=", "1++2=", "a+1="])
def test_what_is_no_sum_is_refused(question):
    with pytest.raises(ValueError, match="is not a sum"):
        write_scratchpad(question)


def test_bad_forgetting_is_refused():
    with pytest.raises(ValueError, match="probability"):
        write_scratchpad("1+1=", 1.5, random.Random(0))
    with pytest.raises(ValueError, match="generator"):
        write_scratchpad("1+1=", 0.5)


def test_tokenizer_round_trip(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(CHARACTERS) + 3
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    generator = random.Random(2)
    for _ in range(200):
        question, _ = draw_question(generator)
        text = question + write_scratchpad(question)
        ids = loaded(text).input_ids
        assert ids == tokenizer(text).input_ids
        assert len(ids) == len(text)
        assert loaded.unk_token_id not in ids
        assert loaded.decode(ids) == text
    assert loaded("?").input_ids == [loaded.unk_token_id]
    padded = loaded(["1+1=", "1="], padding=True).input_ids
    assert padded[1][:2] == [loaded.pad_token_id] * 2, "generation needs padding on the left"
