"""examples/trl_gsm8k.py as a user runs it: in its own process, without a network, with the user's problems."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from examples.trl_gsm8k import last_number, main, reward

EXAMPLE = Path(__file__).parents[2] / "examples/trl_gsm8k.py"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7\n#### 7", 7.0),
        ("#### 1,234.50", 1234.5),
        ("#### $-5", -5.0),
        ("It is 12 or 13.", 13.0),
        ("#### 7 apples, 2 each", 7.0),
        ("#### none", None),
        ("", None),
    ],
)
def test_the_number_of_a_text(text, number):
    assert last_number(text) == number


def test_the_reward_takes_texts_and_messages():
    messages = [[{"role": "assistant", "content": "#### 7"}]]
    assert reward(["#### 7", "8", "no"], answer=["#### 7"] * 3) == [1.0, 0.0, 0.0]
    assert reward(messages, answer=["3+4=7\n#### 7"]) == [1.0]
    # An answer without a number cannot grade, least of all a response without one as right; JSON may hold numbers.
    assert reward(["none", "7"], answer=["yes", 7]) == [None, 1.0]


def test_problems_without_an_answer_are_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (tmp_path / "problems.jsonl").write_text('{"question": "1+1?", "solution": "2"}\n')
    with pytest.raises(SystemExit):
        main(["--tiny", "--data", str(tmp_path / "problems.jsonl")])
    assert capsys.readouterr().err.splitlines()[-1].endswith("has no answer; each line needs a question and an answer")


def test_the_example_trains_a_tiny_model(tmp_path):
    rows = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(16)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), "--tiny", "--data", "problems.jsonl", "--output", "out", "--updates", "8"],
        cwd=tmp_path,
        env={
            **os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(EXAMPLE.parents[1]),
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    (state,) = (tmp_path / "out").glob("checkpoint-*/trainer_state.json")
    logged = [row for row in json.loads(state.read_text())["log_history"] if "loss" in row]
    assert [row["step"] for row in logged] == [4, 8]
    assert all(row["kpo/mean_ratio"] > 0 and "entropy" in row and "reward" in row for row in logged)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.isfinite(weight).all() for weight in saved.parameters())
