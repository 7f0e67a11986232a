"""The trainer and a whole run on a model of a few thousand weights: what TRL is given, and what a run leaves behind."""

import dataclasses
import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kpo.methods import get_method
from reproduction.data.tokenizer import build_tokenizer
from reproduction.jobs.provenance import source_hash
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training.arguments import trainer_arguments
from reproduction.training.base_model import pretrain
from reproduction.training.prompts import choose_prompts
from reproduction.training.rollouts import DecodingTrainer
from reproduction.training.train import train
from reproduction.training.trainer import MethodTrainer
from tests.small_runs import rows_of, save_untrained, training_problems

OVERRIDES = {
    "scale": "smoke",
    "experiments": {
        "kpo": {
            "methods": {"grpo": {}, "kpo-clipped": {"clip_low": 0.005, "clip_high": 0.005}, "opo": {}},
            "training": {"learning_rate": 0.003, "rollout_batches": 2, "minibatches": 2},
        }
    },
}
CONFIGURATION = load(OVERRIDES)
TRAINING = CONFIGURATION.experiments["kpo"].training


@pytest.fixture(scope="module")
def problems():
    return training_problems(CONFIGURATION)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_untrained(CONFIGURATION, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(base, problems, tmp_path_factory):
    """A function that trains a method of experiment kpo once and gives its folder."""
    made = {}

    def trained(label, again=False):
        if again or label not in made:
            folder = tmp_path_factory.mktemp(label)
            train(get_run(CONFIGURATION, "kpo", label, 1, folder), base, problems)
            made.setdefault(label, folder)
            return folder
        return made[label]

    return trained


def test_a_run_leaves_one_row_for_each_update(run):
    rows = rows_of(run("kpo-clipped"))
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert [(row["rollout_batch"], row["minibatch"]) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    expected = {
        "loss", "reward", "reward_std", "accuracy", "entropy", "gradient_norm", "clip_share", "log_ratio_std",
        "log_ratio_abs_max", "effective_sample_size", "mean_ratio", "informative_groups", "response_length",
        "truncation", "rollout_seconds", "update_seconds", "learning_rate",
    }  # fmt: skip
    assert expected <= set(rows[0])
    for row in rows:
        assert 0 <= row["entropy"] <= torch.tensor(len(build_tokenizer())).log() + 1e-4
        assert 0 < row["response_length"] <= TRAINING.max_completion_length


def test_only_the_first_minibatch_of_a_rollout_is_on_policy(run):
    for label in ("grpo", "kpo-clipped"):
        for row in rows_of(run(label)):
            if row["minibatch"] == 1:
                assert row["log_ratio_std"] < 1e-5, "the noise floor of old against new log-probabilities"
            elif row["gradient_norm"] > 0:
                assert row["log_ratio_std"] > 1e-5


def test_kept_log_ratios_are_those_of_the_metrics(run):
    folder = run("grpo")
    tensors, rows = load_file(folder / "structure.safetensors"), rows_of(folder)
    for row in rows:
        name = f"{row['update']:05d}"
        mask = tensors[f"{name}.mask"].bool()
        log_ratio = tensors[f"{name}.log_ratio"][mask].double()
        assert log_ratio.std(unbiased=False).item() == pytest.approx(row["log_ratio_std"], abs=1e-6)
        assert log_ratio.abs().max().item() == pytest.approx(row["log_ratio_abs_max"], abs=1e-6)
        assert tensors[f"{name}.minibatch"].item() == row["minibatch"]
        # Masks come from lengths: ones, then zeros.
        assert (mask.int().diff(dim=1) <= 0).all()


def test_advantages_are_the_methods_own(run):
    """Of each rollout batch the kept advantages are, up to TRL's shuffling, those computed from the kept rewards."""
    tensors = load_file(run("grpo") / "structure.safetensors")
    for rollout in (1, 2):
        rewards_PG = tensors[f"rollout{rollout}.rewards"]
        assert rewards_PG.shape == (TRAINING.prompts_per_rollout, TRAINING.group_size)
        updates = range(2 * rollout - 1, 2 * rollout + 1)
        used = torch.cat([tensors[f"{update:05d}.advantage"] for update in updates]).sort().values
        mean, std = rewards_PG.mean(1, keepdim=True), rewards_PG.std(1, keepdim=True)
        expected = torch.where(std > 0, (rewards_PG - mean) / (std + 1e-6), 0.0).flatten().sort().values
        torch.testing.assert_close(used, expected, atol=1e-5, rtol=1e-5)


def test_same_run_twice_gives_the_same_bytes(run):
    first, second = run("kpo-clipped"), run("kpo-clipped", again=True)
    names = ["config.yaml", "structure.safetensors", "model/model.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)

    def numbers(folder):
        return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows_of(folder)]

    assert numbers(first) == numbers(second)


def test_reward_noise_reaches_the_method_and_not_the_accuracy(base, problems, tmp_path):
    noisy = load(
        {**OVERRIDES, "experiments": {"kpo": {**OVERRIDES["experiments"]["kpo"], "reward_noise": {"gaussian": 0.5}}}}
    )
    train(get_run(noisy, "kpo", "grpo", 1, tmp_path), base, problems)
    rewards = load_file(tmp_path / "structure.safetensors")["rollout1.rewards"]
    assert len(set(rewards.flatten().tolist())) == rewards.numel(), "continuous rewards do not repeat"
    rows = rows_of(tmp_path)
    assert rows[0]["accuracy"] in {count / rewards.numel() for count in range(rewards.numel() + 1)}
    assert rows[0]["reward"] == pytest.approx(rewards.mean().item(), abs=1e-6)
    assert "gaussian: 0.5" in (tmp_path / "config.yaml").read_text()


def test_provenance(run):
    provenance = json.loads((run("grpo") / "provenance.json").read_text())
    assert provenance["seed"] == 1
    assert {"torch", "transformers", "trl", "python"} <= set(provenance["versions"])
    assert provenance["source_hash"] == source_hash() and provenance["stopped"] is None
    assert provenance["wall_seconds"] > 0 and provenance["peak_memory_bytes"] > 1e7


def test_prompts_depend_on_the_seed_alone_and_follow_the_weights(problems):
    many = TRAINING.model_copy(update={"rollout_batches": 500})
    chosen = choose_prompts(problems, many, seed=3)
    assert chosen == choose_prompts(problems, many, seed=3) != choose_prompts(problems, many, seed=4)
    share = sum(problem.level == "normal" for problem in chosen) / len(chosen)
    assert abs(share - 2 / 3) < 5 * (2 / 9 / len(chosen)) ** 0.5
    assert {problem.level for problem in chosen} == {"easy", "normal"}
    with pytest.raises(ValueError, match="no training problem is of level 'normal'"):
        choose_prompts([problem for problem in problems if problem.level == "easy"], many, seed=3)


def train_once(base, method, per_device, accumulation, tmp_path, minibatches=2, trainers=None):
    """Weights after the updates of one rollout batch of 16 responses, split into micro-batches as told."""
    arguments = trainer_arguments(TRAINING, method.kl_weight, 1, str(tmp_path))
    arguments.per_device_train_batch_size = per_device
    arguments.gradient_accumulation_steps = accumulation
    arguments.steps_per_generation = 16 // per_device
    arguments.generation_batch_size = 16
    arguments.max_steps = minibatches
    rows = []
    trainer = MethodTrainer(
        method=method,
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=arguments,
        processing_class=build_tokenizer(),
        reward_funcs=lambda completions, **_: [float(len(text) % 5) for text in completions],
        train_dataset=Dataset.from_list(
            [{"prompt": "1+2="}, {"prompt": "11-7="}, {"prompt": "3+4="}, {"prompt": "9-9="}]
        ),
        on_update=rows.append,
    )
    trainer.train()
    if trainers is not None:
        trainers.append(trainer)
    return rows, [parameter.detach().double() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("overrides", [{}, {"aggregation": "token-mean"}, {"kl_weight": 0.05}], ids=str)
def test_update_does_not_depend_on_the_micro_batches(base, tmp_path, overrides):
    """Two minibatches of 8 responses, each in one piece, in two of 4, or in four of 2: the same updates and metrics."""
    method = get_method("grpo", **overrides)
    rows, weights = train_once(base, method, 8, 1, tmp_path)
    assert rows[1]["log_ratio_std"] > 1e-4, "the second minibatch must be off-policy for this test to see anything"
    for per_device in (4, 2):
        other_rows, other_weights = train_once(base, method, per_device, 8 // per_device, tmp_path)
        for row, other in zip(rows, other_rows, strict=True):
            for name in (
                "loss",
                "gradient_norm",
                "entropy",
                "clip_share",
                "log_ratio_std",
                "log_ratio_abs_max",
                "mean_ratio",
            ):
                assert other[name] == pytest.approx(row[name], rel=2e-3, abs=2e-5), name
        for weight, other in zip(weights, other_weights, strict=True):
            # AdamW divides by the gradient's own size, so rounding shows if a gradient is almost 0.
            assert (weight - other).abs().mean() < 2e-5


def test_a_gradient_that_is_not_finite_is_never_applied(base, tmp_path, monkeypatch):
    """The second update's loss is made infinite; the run ends there with the weights of the first."""
    import kpo.trl as module

    calls = []

    def faulty(*args, **keywords):
        calls.append(1)
        result = policy_loss(*args, **keywords)
        factor = float("nan") if len(calls) == 2 else 1.0
        return dataclasses.replace(result, loss=result.loss * factor)

    policy_loss = module.policy_loss
    _, good = train_once(base, get_method("grpo"), 8, 1, tmp_path, minibatches=1)
    monkeypatch.setattr(module, "policy_loss", faulty)
    trainers = []
    rows, weights = train_once(base, get_method("grpo"), 8, 1, tmp_path, minibatches=2, trainers=trainers)
    assert "update 2" in trainers[0].stopped
    assert len(calls) == len(rows) == 2
    assert rows[1]["loss"] is None and rows[1]["gradient_norm"] is None
    assert all(torch.equal(left, right) for left, right in zip(good, weights, strict=True))


def test_a_policy_that_cannot_end_is_the_model_without_its_end_tokens(base, tmp_path):
    """Log-probabilities and their gradient, against a whole softmax with the end tokens taken out."""
    least, ends, pad = 5, [1, 4], 0
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    trainer = MethodTrainer(
        method=get_method("grpo"), model=model, args=trainer_arguments(TRAINING, 0.0, 1, str(tmp_path)),
        processing_class=build_tokenizer(), reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "1+2="}] * 8), min_completion_length=least,
    )  # fmt: skip
    trainer.eos_token_ids = ends
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 14, (6, 13), generator=generator)
    mask = torch.ones_like(ids)
    for row, (left, right) in enumerate([(0, 0), (2, 0), (3, 3), (0, 5), (1, 1), (0, 2)]):
        for padding in (slice(left), slice(13 - right, 13)):
            ids[row, padding], mask[row, padding] = pad, 0
    found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 9, batch_size=2)
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, 3:12].double()
    assert logits.softmax(-1)[:, :least, ends].sum(-1)[mask[:, 4:9].bool()].max() > 0.05
    without = logits.clone()
    without[:, :least, ends] = -torch.inf
    expected = without.log_softmax(-1).gather(-1, ids[:, 4:].unsqueeze(-1)).squeeze(-1)
    counted = mask[:, 4:].bool()
    assert (found - expected)[counted].abs().max() < 2e-5
    gradients = [torch.autograd.grad(part[counted].sum(), trainer.model.parameters()) for part in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        assert torch.allclose(own, other.float(), rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-6)


@pytest.mark.parametrize("trainer_of", [MethodTrainer, DecodingTrainer])
def test_responses_have_the_least_length_and_the_first_minibatch_ratio_1(base, tmp_path, trainer_of):
    training = TRAINING.model_copy(update={"min_completion_length": 20, "max_completion_length": 20})
    rows, kept = [], []
    trainer = trainer_of(
        method=get_method("grpo"),
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=trainer_arguments(training, 0.0, 1, str(tmp_path)),
        processing_class=build_tokenizer(),
        reward_funcs=lambda completions, **_: [float(len(text) % 5) for text in completions],
        train_dataset=Dataset.from_list([{"prompt": "1+2="}, {"prompt": "11-7="}] * 64),
        on_update=rows.append,
        on_minibatch=lambda *tensors: kept.append(tensors),
        min_completion_length=20,
    )
    trainer.train()
    assert len(rows) == training.updates
    for row, (log_ratio, mask, _) in zip(rows, kept, strict=True):
        assert mask.all() and mask.shape[1] == row["response_length"] == 20 and row["truncation"] == 0.0
        assert (float(log_ratio.abs().max()) < 1e-5) == (row["minibatch"] == 1)


def test_rollouts_give_old_log_probabilities_without_a_second_pass(base, tmp_path, monkeypatch):
    """They are those of a pass of their own, to rounding; the reference's are its own."""
    outputs, whole, passes = [], MethodTrainer._generate_and_score_completions, []

    def scored(self, inputs):
        output = whole(self, inputs)
        outputs.append({**output, "at": [weight.detach().clone() for weight in self.model.parameters()]})
        return output

    monkeypatch.setattr(MethodTrainer, "_generate_and_score_completions", scored)
    trainer = DecodingTrainer(
        method=get_method("krpo"),
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=trainer_arguments(TRAINING.model_copy(update={"learning_rate": 0.02}), 0.01, 1, str(tmp_path)),
        processing_class=build_tokenizer(),
        reward_funcs=lambda completions, **_: [float(len(text) % 5) for text in completions],
        train_dataset=Dataset.from_list([{"prompt": "1+2="}, {"prompt": "11-7="}] * 64),
    )
    trainer.model.register_forward_hook(lambda module, *_: passes.append(torch.is_grad_enabled()))
    trainer.train()
    assert passes.count(False) == len(outputs) == TRAINING.rollout_batches, (
        "only the prompts are read without a gradient"
    )
    for output in outputs:
        ids, mask = (torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], 1) for part in ("ids", "mask"))
        counted = output["completion_mask"].bool()
        with torch.no_grad():
            for model, name in ((trainer.model, "old_per_token_logps"), (trainer.ref_model, "ref_per_token_logps")):
                if model is trainer.model:
                    for weight, then in zip(model.parameters(), output["at"], strict=True):
                        weight.copy_(then)
                logits = model(input_ids=ids, attention_mask=mask).logits[:, -counted.shape[1] - 1 : -1].double()
                expected = logits.log_softmax(-1).gather(2, ids[:, -counted.shape[1] :, None])[..., 0]
                assert (output[name] - expected)[counted].abs().max() < 2e-5
    old, reference = (outputs[-1][name][counted] for name in ("old_per_token_logps", "ref_per_token_logps"))
    assert (old - reference).abs().max() > 1e-2


def test_trainer_refuses_what_contradicts_the_method(base, tmp_path):
    def make(method, **changes):
        arguments = trainer_arguments(TRAINING, 0.0, 1, str(tmp_path))
        for name, value in changes.items():
            setattr(arguments, name, value)
        return MethodTrainer(
            method=get_method(method),
            model=AutoModelForCausalLM.from_pretrained(base),
            args=arguments,
            processing_class=build_tokenizer(),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_list([{"prompt": "1+2="}] * 8),
        )

    with pytest.raises(ValueError, match="KL weight 0.01"):
        make("krpo")
    with pytest.raises(ValueError, match="temperature is 0.5"):
        make("grpo", temperature=0.5)


def test_pretraining_learns_and_repeats_to_the_bit():
    settings = CONFIGURATION.base_model.model_copy(update={"steps": 40, "batch_size": 16})
    questions = {"easy": [f"{a}+{b}=" for a in range(10) for b in range(10)]}
    losses = []
    tokenizer = build_tokenizer()
    first = pretrain(questions, settings, tokenizer, 1, lambda row: losses.append(row["loss"]))
    again = pretrain(questions, settings, tokenizer, 1, lambda row: None)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    for left, right in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
