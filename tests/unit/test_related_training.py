"""Every related method trained for two updates as any method is, and what is refused before training."""

import dataclasses
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer
from trl.experimental.a2po import A2POTrainer
from trl.experimental.cpo import CPOTrainer

import reproduction.training.train as train_module
from reproduction.claims.one_run import method_fields
from reproduction.data.tokenizer import build_tokenizer
from reproduction.related.declarations import RELATED
from reproduction.related.objectives.objective import Batch
from reproduction.rewards.rules import batch_rewards, reward_weights
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training.arguments import trainer_arguments
from reproduction.training.recorder import Recorder
from reproduction.training.train import train
from reproduction.training.trainer import MethodTrainer
from tests.small_runs import rows_of, save_untrained, training_problems


def configured(methods, reward="krpo-parts", safety=None, **training):
    settings = {
        "methods": methods,
        "reward": reward,
        "late_evaluation": {},
        "training": {"rollout_batches": 1, "learning_rate": 0.003, **training},
    }
    return load({"scale": "smoke", "experiments": {"krpo": settings}, "safety": safety or {}})


RELATED_TO_BASE = {"a-star-po", "rpo", "rpo-mean", "alpha-dpo"}
CONFIGURATION = configured({name: {} for name in RELATED})


@pytest.fixture(scope="module")
def problems():
    return training_problems(CONFIGURATION)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_untrained(CONFIGURATION, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def mixed_rewards(monkeypatch):
    """Rewards that differ within groups, as those of an untrained model do not; each reward function has its own."""

    def rewards(rule, texts, answers, **_):
        divisor = {"krpo-tagged": 2, "krpo-contained": 3}.get(rule, 5)
        return [float(sum(map(ord, text)) % divisor == 0) for text in texts]

    monkeypatch.setattr(train_module, "batch_rewards", rewards)


@pytest.mark.parametrize("name", RELATED)
def test_two_updates(name, base, problems, tmp_path, mixed_rewards):
    """A row and finite numbers for each update, budgets that grow, and a configuration that holds every value."""
    train(get_run(CONFIGURATION, "krpo", name, 1, tmp_path), base, problems)
    rows, method = rows_of(tmp_path), RELATED[name]
    assert [row["update"] for row in rows] == [1, 2] and all(row["fault"] is None for row in rows)
    assert all(row[key] is not None for row in rows for key in ("loss", "entropy"))
    assert all(row["gradient_norm"] > 0 for row in rows)
    # Nothing has moved in the first minibatch, so policy and reference are one model up to rounding.
    assert not RELATED_TO_BASE & {name} or rows[0]["kl"] < 1e-7 < rows[1]["kl"]
    assert 0 < rows[0]["update_tokens"] < rows[1]["update_tokens"]
    assert rows[0]["generated_tokens"] == rows[1]["generated_tokens"] >= rows[1]["update_tokens"]
    recorded = yaml.safe_load((tmp_path / "config.yaml").read_text())["method"]
    for field in method_fields(CONFIGURATION.experiments["krpo"].method(name)):
        assert field in recorded, field
    for value in method.parameters:
        assert value in str(recorded) or value.partition("_")[2] in str(recorded)


def test_a_least_length_counts_for_the_reference_too(base, problems, tmp_path, mixed_rewards):
    run = get_run(CONFIGURATION, "krpo", "rpo", 1, tmp_path)
    training = run.settings.training.model_copy(update={"min_completion_length": 5})
    settings = run.settings.model_copy(update={"training": training})
    train(dataclasses.replace(run, settings=settings), base, problems)
    assert rows_of(tmp_path)[0]["kl"] < 1e-7


@pytest.mark.parametrize("name", ["a-star-po", "alpha-dpo", "dvpo", "lambda-grpo", "ppo"])
def test_interrupted_run_ends_with_the_same_bytes(name, base, problems, tmp_path, mixed_rewards, monkeypatch):
    """Stopped after the first minibatch of the second rollout batch: what the objective has learnt comes back."""
    few = {"base_prompts": 2, "base_samples": 2} if name == "dvpo" else {}
    configuration = configured({name: few}, rollout_batches=2, safety={"checkpoint_every": 1})
    folders = tmp_path / "whole", tmp_path / "stopped"
    train(get_run(configuration, "krpo", name, 1, folders[0]), base, problems)

    class Interrupted(BaseException):
        pass

    def stop(recorder, row, go_on=Recorder.update):
        go_on(recorder, row)
        if row["update"] == 4:
            raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Recorder, "update", stop)
        train(get_run(configuration, "krpo", name, 1, folders[1]), base, problems)
    train(get_run(configuration, "krpo", name, 1, folders[1]), base, problems)
    whole, again = (
        [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows_of(folder)]
        for folder in folders
    )
    assert whole == again and len(whole) == 4
    for file in ("structure.safetensors", "model/model.safetensors"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


class TestAgreementWithTrl:
    """TRL's own losses on the same log-probabilities; its trainers are not made."""

    PER_TOKEN = torch.tensor([[-1.2, -0.3], [-0.4, -0.9], [-2.0, -0.1], [-0.7, -0.5]], dtype=torch.float64)
    REFERENCE = PER_TOKEN.flip(0) - 0.05
    MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])

    def loss(self, name, advantages):
        batch = Batch(self.PER_TOKEN, self.PER_TOKEN, self.REFERENCE, self.MASK, advantages, {}, 2, None)
        return RELATED[name].make_objective().loss(torch.zeros(()), batch)

    def test_simpo(self):
        values = {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 1.5, "label_smoothing": 0.0, "alpha": 0.0}
        stub = SimpleNamespace(**values, accelerator=SimpleNamespace(device="cpu"))
        mean_B = (self.PER_TOKEN * self.MASK).sum(dim=1) / self.MASK.sum(dim=1)
        expected = CPOTrainer.cpo_loss(stub, mean_B[[0, 3]], mean_B[[1, 2]])[0].mean()
        torch.testing.assert_close(self.loss("simpo", torch.tensor([1.0, -1.0, -1.0, 1.0])), expected)

    def test_a_star_po(self):
        rewards = torch.tensor([1.0, 0.0, 0.5, 0.0], dtype=torch.float64)
        values = torch.tensor([0.3, 0.3, 0.7, 0.7], dtype=torch.float64)
        inputs = dict.fromkeys(("input_ids", "attention_mask", "logits_to_keep"))
        inputs |= {"ref_logps": (self.REFERENCE * self.MASK).sum(dim=1), "rewards": rewards, "v_star": values}
        stub = SimpleNamespace(
            model=SimpleNamespace(training=True),
            args=SimpleNamespace(beta2=1e-3),
            _get_sequence_logps=lambda *_: (self.PER_TOKEN * self.MASK).sum(dim=1),
            _metrics={"train": defaultdict(list)},
        )
        expected = A2POTrainer.compute_loss(stub, None, inputs)
        torch.testing.assert_close(self.loss("a-star-po", rewards - values), expected)


class TestRefusals:
    @pytest.mark.parametrize("name", ["rebel", "rpo", "rpo-mean", "alpha-dpo", "simpo"])
    def test_minibatch_without_whole_groups(self, name):
        with pytest.raises(ValueError, match=f"method '{name}' compares the members.*2 responses.*groups of 4"):
            configured({name: {}}, minibatches=8)

    @pytest.mark.parametrize("name", [name for name in RELATED if getattr(RELATED[name], "objective", None)])
    def test_hugging_face_model(self, name):
        """No value model, second sampling round, or frozen copy of a large model."""
        with pytest.raises(ValueError, match=f"method '{name}' trains the small models of this project only"):
            RELATED[name].check_settings(SimpleNamespace(pretrained=object(), reward="krpo"))

    @pytest.mark.parametrize("name", ["sppo", "rebel", "a-star-po", "rpo", "rpo-mean", "alpha-dpo", "simpo"])
    @pytest.mark.parametrize(
        ("option", "values"),
        [
            ("kl_weight", {"kl_weight": 0.01}),
            ("clip_low", {"clip_low": 0.2, "clip_high": 0.2}),
            ("aggregation", {"aggregation": "token-mean"}),
        ],
    )
    def test_options_of_the_usual_loss(self, name, option, values):
        with pytest.raises(ValueError, match=f"{name}: {option} has no effect on its loss, which is its own; leave it"):
            configured({name: values})

    def test_second_sampling_round(self):
        with pytest.raises(ValueError, match="'igrpo' makes half of a group drafts.*even group_size.*found 3 and 4"):
            configured({"igrpo": {}}, group_size=3)
        with pytest.raises(
            ValueError, match="'igrpo' trains on half of 16 responses.*do not divide into 16 minibatches"
        ):
            configured({"igrpo": {}}, minibatches=16)

    def test_selection(self):
        with pytest.raises(ValueError, match="'pods' keeps 5 responses of each group of 4; lower keep"):
            configured({"pods": {"keep": 5}})
        with pytest.raises(ValueError, match="'pods' keeps 3 responses of each of 4 prompts.*into 8 minibatches"):
            configured({"pods": {"keep": 3}}, minibatches=8)

    @pytest.mark.parametrize("name", ["a-star-po", "igrpo", "igrpo-first-draft", "dvpo", "dvpo-terminal"])
    def test_noise_that_would_not_reach_all_rewards(self, name):
        settings = {"methods": {name: {}}, "reward_noise": {"flips": 0.1}}
        with pytest.raises(ValueError, match=f"method '{name}' grades responses outside.*set reward_noise"):
            load({"scale": "smoke", "experiments": {"krpo": settings}})

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("a-star-po", {"beta1": 0.0}, "a-star-po: beta1 must be above 0"),
            ("rpo", {"eta": -1.0}, "rpo: eta must be at least 0"),
            ("dvpo", {"value_epochs": 0}, "dvpo: value_epochs must be at least 1"),
            ("alpha-dpo", {"alfa": 1.0}, "did you mean 'alpha'"),
        ],
    )
    def test_values(self, name, values, message):
        with pytest.raises(ValueError, match=message):
            configured({name: values})


def test_values_of_an_objective_can_be_overridden():
    method = configured({"alpha-dpo": {"alpha": 0.05}}).experiments["krpo"].method("alpha-dpo")
    assert method.parameters["alpha"] == 0.05 and method.make_objective().alpha == 0.05
    assert "objective_parameters" in method_fields(method)


class TestComponents:
    def test_parts_sum_to_the_reward(self):
        texts = ["", "<answer>12", "<answer>7</answer>", "<answer> 12</answer>", "<answer>12</answer>"]
        parts = {
            rule: torch.tensor(batch_rewards(rule, texts, ["12"] * len(texts))) for rule in reward_weights("krpo-parts")
        }
        assert [part.tolist() for part in parts.values()] == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]
        total = sum(weight * parts[rule] for rule, weight in reward_weights("krpo-parts").items())
        torch.testing.assert_close(total, torch.tensor(batch_rewards("krpo", texts, ["12"] * len(texts))))

    @pytest.mark.parametrize("name", ["multi-objective", "gdpo", "gdpo-tokens"])
    def test_one_reward_function_is_refused(self, name):
        with pytest.raises(ValueError, match=f"method '{name}' needs several reward functions.*set reward: krpo-parts"):
            configured({name: {}}, reward="krpo")

    def test_noise_is_refused(self):
        with pytest.raises(ValueError, match="reward_noise is for a single reward"):
            load({"scale": "smoke", "experiments": {"krpo": {"reward": "krpo-parts", "reward_noise": {"flips": 0.1}}}})

    def test_the_run_trains_on_the_sum(self, base, problems, tmp_path):
        """Rollouts, rewards and accuracies are those of the same run with reward krpo."""
        folders = {}
        for reward in ("krpo", "krpo-parts"):
            folders[reward] = tmp_path / reward
            train(get_run(configured({"grpo": {}}, reward), "krpo", "grpo", 1, folders[reward]), base, problems)
        whole, parts = (load_file(folder / "structure.safetensors") for folder in folders.values())
        torch.testing.assert_close(whole["rollout1.rewards"], parts["rollout1.rewards"])
        assert rows_of(folders["krpo"])[0]["accuracy"] == rows_of(folders["krpo-parts"])[0]["accuracy"]

    def test_gdpo_equals_trl(self, base, tmp_path):
        """TRL's trainer and ours on the same weights, prompts and random states, with weights and an ungraded row."""
        found = {}
        for trainer_class, changes, own in (
            (GRPOTrainer, {"multi_objective_aggregation": "normalize_then_sum"}, {}),
            (MethodTrainer, {}, {"method": RELATED["gdpo"]}),
        ):
            arguments = trainer_arguments(CONFIGURATION.experiments["krpo"].training, 0.0, 1, str(tmp_path))
            arguments.reward_weights = [1.0, 0.25]
            for key, value in changes.items():
                setattr(arguments, key, value)
            trainer = trainer_class(
                model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                args=arguments,
                processing_class=build_tokenizer(),
                reward_funcs=[
                    lambda completions, **_: [float(len(text) % 5) if text else None for text in completions],
                    lambda completions, **_: [None if len(t) % 7 == 0 else float(t.count("1")) for t in completions],
                ],
                train_dataset=Dataset.from_list([{"prompt": p} for p in ("1+2=", "11-7=", "3+4=", "9-9=")]),
                **own,
            )
            trainer.train()
            found[trainer_class] = list(trainer._logs["advantages"])
        assert len(set(found[GRPOTrainer])) > 4
        torch.testing.assert_close(*(torch.tensor(values) for values in found.values()), atol=1e-5, rtol=1e-5)
