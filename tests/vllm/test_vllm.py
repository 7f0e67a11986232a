"""The real vLLM engine on a CPU: rollouts for the real trainer, its weights, the gate, and evaluation."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

import reproduction.training.train as training
from reproduction.cli import main
from reproduction.data.experiment_data import evaluation_problems
from reproduction.data.mathematics import MathProblem
from reproduction.data.model_source import model_folder
from reproduction.data.prompts import prompt_tokens
from reproduction.sampling.engine import TransformersEngine
from reproduction.settings.run import get_run
from reproduction.training.agreement import EngineAgreement, EngineDisagreement, engine_log_probs
from tests.tiny_hub import SETS, tiny_configuration, tiny_overrides

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: `make test-vllm`"),
]
WATCHED = 6  # responses of each rollout batch


class Watched(EngineAgreement):
    """The gate and what proves it right: weights, texts and the engine's log-probabilities at each rollout batch."""

    instances: list = []

    def __init__(self, bound):
        super().__init__(bound)
        self.seen, self.outputs = [], []
        Watched.instances.append(self)

    def rollout(self, trainer, output):
        figures = super().rollout(trainer, output)
        texts = sequences(output)[:WATCHED]
        weights = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
        engine = engine_log_probs(trainer.vllm_generation.llm, texts)
        self.seen.append((texts, engine, weights))
        self.outputs.append({name: value.clone() for name, value in output.items() if torch.is_tensor(value)})
        self.trainer = trainer
        return figures


def sequences(output):
    """Prompt and response of each row, without padding."""
    parts = [output[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")]
    return [torch.cat([a[b.bool()], c[d.bool()]]).tolist() for a, b, c, d in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Configuration and file: a Qwen2 of 0.3 million weights, KPO's method, vLLM in training and evaluation."""
    folder = tmp_path_factory.mktemp("vllm")
    overrides = tiny_overrides(
        folder / "mirror", folder / "results", architecture=Qwen2Config, hidden_size=128, intermediate_size=256,
        num_hidden_layers=2, num_key_value_heads=1, head_dim=64, initializer_range=0.1,
    )  # fmt: skip
    settings = overrides["experiments"]["kpo"]
    settings["training"] = {
        **settings["training"], "rollout_batches": 3, "max_completion_length": 16, "learning_rate": 0.003,
    }  # fmt: skip
    settings["pretrained"] = {
        **settings["pretrained"],
        "engine": "vllm",
        "sampling": {"samples_per_problem": 3, "max_completion_length": 16, "batch_size": 16},
    }
    return tiny_configuration(folder / "mirror", folder / "results", overrides)


@pytest.fixture(scope="module")
def trained(tiny):
    """The watched gate of a run of three rollout batches with two updates each."""
    import trl.generation.vllm_generation as generation

    configuration, _ = tiny
    problems = [MathProblem(row["problem"], row["problem"], row["answer"]) for row in SETS["math500"]]
    folder = model_folder(configuration.experiments["kpo"].pretrained.model, configuration.data.mirror)
    # TRL has no options for these: compiling takes longer than all of this, and in 16 bits little could be proved.
    options = {"enforce_eager": True, "dtype": "float32"}
    engine = generation.LLM
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "LLM", lambda **keywords: engine(**keywords, **options))
        patch.setattr(training, "EngineAgreement", Watched)
        output = configuration.run_folder("kpo", "kpo-clipped", 42)
        training.train(get_run(configuration, "kpo", "kpo-clipped", 42, output), folder, problems)
    (watched,) = Watched.instances
    return watched


def log_probs_with(folder: Path, weights: dict, texts: list[list[int]]) -> torch.Tensor:
    """The log-probabilities that transformers gives with these weights, text by text."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.load_state_dict(weights)
    found = []
    with torch.no_grad():
        for tokens in texts:
            logits = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
            found.append(logits.gather(1, torch.tensor(tokens[1:]).unsqueeze(1)).squeeze(1))
    return torch.cat(found)


def test_the_engine_has_the_new_weights_after_every_hand_over(tiny, trained):
    """At each rollout batch the engine agrees with the weights of that moment, and not with those before."""
    configuration, _ = tiny
    folder = model_folder(configuration.experiments["kpo"].pretrained.model, configuration.data.mirror)
    assert len(trained.seen) == 3
    for number, (texts, engine, weights) in enumerate(trained.seen):
        noise = (engine - log_probs_with(folder, weights, texts)).abs().mean().item()
        assert noise < 1e-4
        if number:
            stale = (engine - log_probs_with(folder, trained.seen[number - 1][2], texts)).abs().mean().item()
            print(f"rollout batch {number + 1}: new weights {noise:.2g}, old weights {stale:.2g}")
            assert stale > 0.01 and stale > 100 * noise


def test_every_rollout_batch_has_its_figures(tiny, trained):
    rows = (tiny[0].run_folder("kpo", "kpo-clipped", 42) / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    assert [(row["rollout_batch"], row["minibatch"]) for row in rows] == [(b, m) for b in (1, 2, 3) for m in (1, 2)]
    for row in rows:
        assert 0 < row["engine_difference"] <= row["engine_difference_max"] < 1e-3
        assert 0 <= row["noise_floor"] <= row["noise_floor_max"] < 1e-5
        assert row["gradient_norm"] > 0
    # The model's own defaults (top_k: 1) are not used: the four responses to a prompt differ.
    first = trained.outputs[0]["completion_ids"][:4].tolist()
    assert len({tuple(row) for row in first}) == 4


def test_the_real_engine_with_stale_weights_is_stopped(trained):
    """After a step of 1e-6 that is not handed over the difference is far below the bound, and the gate still closes."""
    trainer = trained.trainer
    trainer.vllm_generation.sync_weights()
    gate = EngineAgreement(bound=100.0)
    gate.rollout(trainer, trained.outputs[-1])
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(1e-6 * torch.randn_like(parameter).sign())
    with pytest.raises(EngineDisagreement, match="was not given the new weights"):
        gate.rollout(trainer, trained.outputs[-1])
    # Handed over, the same weights pass.
    trainer.vllm_generation.sync_weights()
    assert gate.rollout(trainer, trained.outputs[-1])["engine_difference"] is not None


def test_samples_of_the_first_weights_are_not_taken_for_those_of_the_last(trained):
    """The first rollout batch with the log-probabilities that the engine gave it then, and the trainer of the end."""
    first = {name: value for name, value in trained.outputs[0].items() if name != "old_per_token_logps"}
    with pytest.raises(EngineDisagreement, match="more than 0.1, pretrained.engine_log_prob_bound"):
        EngineAgreement(bound=0.1).rollout(trained.trainer, first)


def test_evaluation_samples_k_times_and_agrees_with_transformers_where_it_is_greedy(tiny, trained):
    """`python -m reproduction evaluate` in its own process, as the workflow runs it."""
    configuration, path = tiny
    for name in ("dapo", "math500"):
        assert main(["mathematics", "--config", str(path), "--set", name]) == 0
    command = [sys.executable, "-m", "reproduction", "evaluate", "--config", str(path), "--experiment", "kpo"]
    command += ["--method", "kpo-clipped", "--seed", "42"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    folder = configuration.run_folder("kpo", "kpo-clipped", 42)
    found = json.loads((folder / "evaluation.json").read_text())
    records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert found["sampling"]["engine"] == "vllm" and "vllm" in json.dumps(found["sampling"]["versions"])
    experiment = configuration.experiments["kpo"]
    settings = experiment.pretrained
    for split, count in (("math500", 3), ("dapo", 4)):
        drawn = [record for record in records if record["split"] == split and not record["greedy"]]
        assert len(drawn) == 3 * count and sorted({record["sample"] for record in drawn}) == [0, 1, 2]
        assert found["splits"][split]["samples_per_problem"] == 3
        assert len({record["response"] for record in drawn}) > count, "sampled, not greedy"
    greedy = [record for record in records if record["greedy"]]
    problems = [p for several in evaluation_problems(configuration, experiment).values() for p in several]
    assert [record["id"] for record in greedy] == [problem.id for problem in problems] and len(problems) == 7
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    prompts = [prompt_tokens(tokenizer, problem.question, settings.evaluation_prompt.style) for problem in problems]
    expected = TransformersEngine(folder / "model", settings.sampling, settings.precision).sample(
        prompts, 1, greedy=True, seed=0
    )
    same = [
        (record["response"], record["num_tokens"], record["ended"]) == (one.text, one.num_tokens, one.ended)
        for record, (one,) in zip(greedy, expected, strict=True)
    ]
    assert sum(same) >= len(same) - 1
