"""The desktop scale: its problems, prompts and rewards by hand, and a tiny Llama through its steps."""

import json

import pytest
from transformers import LlamaConfig

from reproduction.cli import main
from reproduction.data import Level, generate_problems, make_splits, normalise_question
from reproduction.data.expressions import parse_expression, strip_question, tokenise
from reproduction.data.prompts import PromptStyle, prompt_tokens, user_text
from reproduction.data.splits import levels
from reproduction.jobs.devices import Device
from reproduction.jobs.plan import plan_text
from reproduction.rewards.rules import batch_rewards
from reproduction.settings.configuration import dump, load
from tests.byte_tokenizer import byte_tokenizer
from tests.tiny_hub import MODEL, write_model

LINE, TEXT = PromptStyle(template="line"), PromptStyle(template="text")


def numbers_in(question):
    return [int(token) for token in tokenise(strip_question(question)) if token.isdigit()]


def test_numbers_are_drawn_from_their_range():
    level = Level("differences", num_terms=(2,), num_digits=(2,), operators="-", numbers=(3, 20))
    drawn = [numbers_in(problem.question) for problem in generate_problems(level, 3000, 1)]
    assert {number for pair in drawn for number in pair} == set(range(3, 21))
    assert len({tuple(pair) for pair in drawn}) == 18 * 18


def test_a_range_that_is_all_of_the_digits_changes_no_draw():
    plain = Level("a", num_terms=(2, 3), num_digits=(2,), operators="+-*", brackets=True)
    ranged = Level("a", num_terms=(2, 3), num_digits=(2,), operators="+-*", brackets=True, numbers=(-99, 99))
    assert generate_problems(plain, 200, 5) == generate_problems(ranged, 200, 5)


def test_levels_without_a_range_are_recorded_as_ever():
    """What a run was made with does not change for the scales that have none."""
    settings = load({"scale": "laptop"}).problems.model_dump()
    assert settings["levels"]["easy"] == {
        "num_terms": [2], "num_digits": [2], "operators": "+-", "brackets": False,
    }  # fmt: skip
    assert load({"scale": "desktop"}).problems.model_dump()["levels"]["normal"]["numbers"] == [0, 20]


def test_problems_are_those_that_the_scale_says_and_none_is_held_out_and_trained_on():
    settings = load({"scale": "desktop"}).problems
    train, held_out = make_splits(
        levels(settings), settings.train_per_level, settings.held_out_per_level, settings.seed, settings.one_digit_share
    )
    wanted = {"easy": (2, 9, "+"), "normal": (2, 20, "+"), "hard": (2, 20, "-")}
    for problem in [*train, *held_out]:
        terms, largest, operators = wanted[problem.level]
        numbers, expression = numbers_in(problem.question), parse_expression(strip_question(problem.question))
        assert len(numbers) == terms and max(numbers) <= largest and set(expression.operators) <= set(operators)
        assert problem.answer == str(eval(strip_question(problem.question)))
    asked = [{normalise_question(problem.question) for problem in part} for part in (train, held_out)]
    assert not asked[0] & asked[1] and len(asked[1]) == 90


def test_prompts_go_on_with_worked_lines():
    for style in (LINE, TEXT):
        assert user_text("What is   3 -  14 + 5?", style) == "12 + 5 = 17\n3 - 14 + 5 ="
    tokenizer = byte_tokenizer()
    assert prompt_tokens(tokenizer, "3 + 4", LINE) == tokenizer(user_text("3 + 4", LINE)).input_ids


def test_only_a_line_ends_with_its_line():
    tokenizer = byte_tokenizer()
    ends = LINE.end_tokens(tokenizer)
    assert ends == tokenizer("\n", add_special_tokens=False).input_ids
    assert TEXT.end_tokens(tokenizer) == PromptStyle().end_tokens(tokenizer) == []


@pytest.mark.parametrize(
    "text, exact, krpo",
    [
        (" 7\n", 1.0, 1.0),
        (" 7\n5 - 2 = 3\n", 1.0, 1.0),
        (" 7  \n", 1.0, 0.5),  # as a space next to the answer in KRPO's tag
        (" 7.\n", 0.0, 0.5),
        (" 17\n", 0.0, 0.5),
        (" 8\n7\n", 0.0, 0.01),
        (" 7", 0.0, 0.0),  # the line did not end
        ("7\n", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_the_line_takes_the_place_of_the_answer_tag(text, exact, krpo):
    assert batch_rewards("exact", [text], ["7"], tags=LINE.answer_tags) == [exact]
    assert batch_rewards("krpo", [text], ["7"], tags=TEXT.answer_tags) == [krpo]


def test_the_plan_has_the_hours_on_the_cpu_and_the_command_on_a_device():
    plan = plan_text(load({"scale": "desktop"}), 2, [])
    assert "on devices" not in plan and "with 2 jobs at once" in plan
    # At most six hours of one core in all.
    hours, minutes, _ = plan.split("about ")[1].split()[0].split(":")
    assert 1 < 2 * (int(hours) + int(minutes) / 60) <= 6
    on_a_device = {name: {"pretrained": {"devices": {"count": 1}}} for name in ("kpo", "krpo")}
    plan = plan_text(load({"scale": "desktop", "experiments": on_a_device}), 2, [Device("0", "RTX", 8 * 10**9)])
    for name in ("kpo", "krpo"):
        command = "python -m reproduction lease --devices 1 -- python -m reproduction train"
        assert f"{command} --config results/desktop/config.yaml --experiment {name} --method grpo --seed 1" in plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both experiments with a tiny Llama, which knows nothing, from the first step to the evaluation."""
    folder = tmp_path_factory.mktemp("desktop")
    write_model(folder / "mirror", architecture=LlamaConfig)
    training = {"prompts_per_rollout": 2, "group_size": 4, "rollout_batches": 2, "max_completion_length": 24}
    sampling = {"samples_per_problem": 2, "max_completion_length": 24, "batch_size": 8, "shard_problems": 4}
    pretrained = {"model": MODEL, "micro_batch": 2, "max_prompt_length": 100, "sampling": sampling}
    own = {"training": training, "pretrained": pretrained, "reward_noise": {"gaussian": 1.0}}
    configuration = load(
        {
            "scale": "desktop",
            "results": str(folder / "results"),
            "seeds": [1],
            "data": {"mirror": str(folder / "mirror")},
            "problems": {"train_per_level": 30, "held_out_per_level": 4},
            "evaluation": {"bootstrap_resamples": 100},
            "experiments": {
                "krpo": {**own, "methods": {"krpo": {}}},
                "kpo": {
                    **own,
                    "methods": {"kpo-clipped": {}},
                    "seeds": [1],
                    "training": {**training, "min_completion_length": 24},
                },
            },
        }
    )
    path = configuration.folder / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(dump(configuration))

    def step(name, *arguments):
        assert main([name, "--config", str(path), *arguments]) == 0

    step("problems")
    for experiment, label in (("krpo", "krpo"), ("kpo", "kpo-clipped")):
        step("model", "--experiment", experiment)
        run = ["--experiment", experiment, "--seed", "1", "--method"]
        step("train", *run, label)
        step("evaluate", *run, label)
        step("evaluate", *run, "base")
    step("summarise")
    step("measure")
    step("claims")
    return configuration


def test_responses_end_with_their_line_where_they_should(finished):
    newline, length = "\n", 24
    for experiment, label in (("krpo", "krpo"), ("krpo", "base"), ("kpo", "kpo-clipped")):
        records = (finished.run_folder(experiment, label, 1) / "samples.jsonl").read_text().splitlines()
        for record in map(json.loads, records):
            assert newline not in record["response"][:-1]
            assert record["num_tokens"] <= length and (record["ended"] or record["num_tokens"] == length)
    rows = {
        experiment: [json.loads(line) for line in (finished.run_folder(experiment, label, 1) / "metrics.jsonl").open()]
        for experiment, label in (("krpo", "krpo"), ("kpo", "kpo-clipped"))
    }
    assert len(rows["krpo"]) == len(rows["kpo"]) == 8
    # Of an untrained model's bytes one in 260 is a line break, another the end token.
    assert any(row["truncation"] < 1.0 and row["response_length"] < length for row in rows["krpo"])
    assert all(row["truncation"] == 0.0 and row["response_length"] == length for row in rows["kpo"])


def test_the_trained_model_ends_where_its_base_did(finished):
    """The line's end belongs to the prompt, not to the model that is kept."""
    base = finished.data.mirror + f"/{MODEL['name']}/{MODEL['revision']}/generation_config.json"
    kept = finished.run_folder("krpo", "krpo", 1) / "model" / "generation_config.json"
    ends = [json.loads(open(path).read())["eos_token_id"] for path in (base, kept)]
    assert ends[0] == ends[1]


def test_provenance_says_where_the_model_is_from(finished):
    for experiment, label in (("krpo", "krpo"), ("kpo", "kpo-clipped")):
        record = json.loads((finished.run_folder(experiment, label, 1) / "provenance.json").read_text())
        assert record["base_model"] == {"from": "Hugging Face"}


def test_both_papers_claims_are_judged_on_what_there_is(finished):
    claims = {claim["id"]: claim for claim in json.loads((finished.folder / "claims.json").read_text())["claims"]}
    assert {claim_id.partition("-")[0] for claim_id in claims} == {"kpo", "krpo"}
