"""Late checkpoints: evaluated on fresh problems, the same for every method, without a trace in the training."""

import dataclasses
import json

import pytest
import torch

from reproduction.data import make_splits
from reproduction.data.arithmetic import normalise_question
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.data.splits import levels
from reproduction.data.tokenizer import build_tokenizer
from reproduction.rewards import exact_reward
from reproduction.sampling.decode import decode
from reproduction.settings.configuration import ConfigurationError, load, validate
from reproduction.settings.run import get_run
from reproduction.training.base_model import build_model
from reproduction.training.late_evaluation import LateEvaluation
from reproduction.training.saving import load_model, save_model
from reproduction.training.train import train


def configuration(late):
    kpo = {
        "methods": {"grpo": {}, "kpo-clipped": {"clip_low": 0.005, "clip_high": 0.005}},
        "training": {"learning_rate": 0.003, "rollout_batches": 6, "minibatches": 2},
        "late_evaluation": late,
    }
    return load({"scale": "smoke", "experiments": {"kpo": kpo}})


LATE = configuration({"easy": 5, "normal": 6})
PROBLEMS, _ = make_splits(levels(LATE.problems), LATE.problems.train_per_level, 5, 0, LATE.problems.one_digit_share)
TIMES = ("rollout_seconds", "update_seconds", "sampling_seconds")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    save_model(build_model(LATE.base_model, tokenizer), tokenizer, folder)
    return folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_training_is_the_same_with_and_without(base, tmp_path):
    for name, chosen in (("with", LATE), ("without", configuration({}))):
        train(get_run(chosen, "kpo", "grpo", 1, tmp_path / name), base, PROBLEMS)
    rows, plain = rows_of(tmp_path / "with"), rows_of(tmp_path / "without")
    late = [row for row in rows if "late_evaluation" in row]
    # Six rollout batches of two updates: the last third are the fifth and the sixth, after their second update.
    assert [(row["rollout_batch"], row["minibatch"]) for row in late] == [(5, 2), (6, 2)]
    assert {level: asked for level, (_, asked) in late[0]["late_evaluation"].items()} == {"easy": 3, "normal": 3}

    def kept(row):
        return {key: value for key, value in row.items() if key not in (*TIMES, "late_evaluation")}

    assert [kept(row) for row in rows] == [kept(row) for row in plain]
    for name in ("model/model.safetensors", "structure.safetensors"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    # The last checkpoint is the model that was saved: asked again, with the same draws, it gives the same answers.
    model, tokenizer = load_model(tmp_path / "with" / "model")
    run = get_run(LATE, "kpo", "grpo", 1, tmp_path)
    generator = torch.Generator().manual_seed(1_006)
    for level, problems in LateEvaluation(run, PROBLEMS, tokenizer, lambda: model).problems(6).items():
        prompts = [tokenizer(normalise_question(problem.question)).input_ids for problem in problems]
        made = decode(model, prompts, [tokenizer.eos_token_id], LATE.evaluation.max_completion_length, generator)
        texts = tokenizer.batch_decode(made, skip_special_tokens=True)
        right = [exact_reward(text, problem.answer, ANSWER_OPEN, ANSWER_CLOSE)
                 for text, problem in zip(texts, problems, strict=True)]  # fmt: skip
        assert late[-1]["late_evaluation"][level] == [right.count(1.0), 3]


def test_problems_are_fresh_and_shared_by_methods():
    def asked(label, seed, batch):
        run = get_run(LATE, "kpo", label, seed)
        return LateEvaluation(run, PROBLEMS, None, lambda: None).problems(batch)

    first = asked("grpo", 1, 5)
    assert first == asked("kpo-clipped", 1, 5)
    questions = [
        {normalise_question(problem.question) for own in found.values() for problem in own}
        for found in (first, asked("grpo", 1, 6), asked("grpo", 2, 5))
    ]
    trained = {normalise_question(problem.question) for problem in PROBLEMS}
    for number, own in enumerate(questions):
        assert not own & trained
        assert all(own != other for other in questions[:number])


def test_a_level_without_fresh_problems_is_refused_before_training():
    level = {"num_digits": [1], "numbers": [0, 3], "operators": "+"}
    small = {**configuration({"easy": 5}).model_dump()}
    small["problems"]["levels"]["easy"] |= level
    run = get_run(validate(small, "mine.yaml"), "kpo", "grpo", 1)
    trained_on = [dataclasses.replace(PROBLEMS[0], question=f"{a}+{b}=") for a in range(4) for b in range(4)]
    with pytest.raises(ValueError, match="'easy' gave 0 of 3 problems"):
        LateEvaluation(run, trained_on, None, lambda: None)


def test_right_answers_are_counted():
    """A model that is replaced by the right answers themselves is right, one that is not finite answers nothing."""
    tokenizer = build_tokenizer()
    late = LateEvaluation(get_run(LATE, "kpo", "grpo", 1), PROBLEMS, tokenizer, lambda: None)
    problems = late.problems(5)["normal"]
    answers = [tokenizer(f"{ANSWER_OPEN}{problem.answer}{ANSWER_CLOSE}").input_ids for problem in problems]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reproduction.training.late_evaluation.decode", lambda *_: answers)
        assert late._right(problems, None) == [3, 3]
        patch.setattr("reproduction.training.late_evaluation.decode", lambda *_: answers[1:] + answers[:1])
        assert late._right(problems, None)[0] < 3

        def broken(*_):
            raise RuntimeError("probability tensor contains `nan`")

        patch.setattr("reproduction.training.late_evaluation.decode", broken)
        assert late._right(problems, None) == [0, 3]


def test_levels_must_exist():
    with pytest.raises(ConfigurationError, match="experiments.kpo.late_evaluation: unknown level 'normall'"):
        configuration({"normall": 3})
