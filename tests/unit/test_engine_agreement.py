"""The gate between engine and trainer, with an engine that is a second copy of the model and can be spoilt at will."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from kpo.methods import get_method
from reproduction.data.tokenizer import build_tokenizer
from reproduction.settings.configuration import load
from reproduction.training.agreement import EngineAgreement, EngineDisagreement
from reproduction.training.arguments import trainer_arguments
from reproduction.training.base_model import build_model
from reproduction.training.trainer import MethodTrainer

CONFIGURATION = load(
    {
        "scale": "smoke",
        "experiments": {
            "kpo": {"methods": {"grpo": {}}, "training": {"minibatches": 2, "rollout_batches": 3, "epochs": 1}}
        },
    }
)
TRAINING = CONFIGURATION.experiments["kpo"].training
PROMPTS = [{"prompt": text} for text in ("1+2=", "11-7=", "3+4=", "9-9=")] * TRAINING.rollout_batches


class CopyEngine:
    """Log-probabilities of a copy of the model, which has the weights it was last given."""

    def __init__(self, model):
        # A new model: a copy of a trainer's model keeps the forward of the original.
        self.model = AutoModelForCausalLM.from_config(model.config).eval()
        self.model.load_state_dict(model.state_dict())

    @torch.no_grad()
    def log_probs(self, tokens):
        """Of every token but the first, by a forward pass of only this sequence."""
        logits = self.model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, torch.tensor(tokens[1:]).unsqueeze(1)).squeeze(1)


class CopyTrainer(MethodTrainer):
    """Samples by transformers, and takes the log-probabilities of what it sampled from a `CopyEngine`."""

    hands_over = staticmethod(lambda update: True)
    spoil = staticmethod(lambda log_probs, update: log_probs)

    def _generate_single_turn(self, prompt_ids, *rest, **keywords):
        completion_ids, _ = super()._generate_single_turn(prompt_ids, *rest, **keywords)
        engine, update = self.vllm_generation.llm, self.state.global_step
        if self.hands_over(update):
            engine.model.load_state_dict(self.model.state_dict())
        found = [
            self.spoil(engine.log_probs(prompt + response)[-len(response) :], update).tolist()
            for prompt, response in zip(prompt_ids, completion_ids, strict=True)
        ]
        return completion_ids, found


def score(engine, sequences):
    return torch.cat([engine.log_probs(tokens) for tokens in sequences])


def train(tmp_path, bound=0.1, arguments=(), hands_over=None, spoil=None):
    """Rows of a run of three rollout batches of 16 responses, two updates each; and the trainer."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_model(CONFIGURATION.base_model, tokenizer)
    settings = trainer_arguments(TRAINING, 0.0, 1, str(tmp_path))
    for name, value in {"learning_rate": 0.003, **dict(arguments)}.items():
        setattr(settings, name, value)
    rows = []
    trainer = CopyTrainer(
        method=get_method("grpo"),
        model=model,
        args=settings,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [float(len(text) % 5) for text in completions],
        train_dataset=Dataset.from_list(PROMPTS),
        on_update=rows.append,
        agreement=EngineAgreement(bound, score),
    )
    trainer.vllm_generation = SimpleNamespace(llm=CopyEngine(model))
    trainer.hands_over = hands_over or trainer.hands_over
    trainer.spoil = spoil or trainer.spoil
    trainer.rows = rows
    trainer.train()
    return trainer


def test_an_engine_with_the_trained_weights_passes_and_every_rollout_batch_has_its_figures(tmp_path):
    rows = train(tmp_path, spoil=lambda log_probs, _: log_probs + 0.05).rows
    assert [row["rollout_batch"] for row in rows] == [1, 1, 2, 2, 3, 3]
    for row in rows:
        assert row["engine_difference"] == pytest.approx(0.05, abs=1e-4)
        assert row["engine_difference_max"] == pytest.approx(0.05, abs=1e-3)
        # Ratio exactly 1 but for rounding, in the first minibatch; the second is off-policy and does not count.
        assert 0 <= row["noise_floor"] <= row["noise_floor_max"] < 1e-5
        if row["minibatch"] == 2:
            assert row["log_ratio_abs_max"] > 1e-4


def test_the_figures_by_hand(tmp_path):
    """One token of 16 responses is off by 1: the mean is 1 over the tokens, the largest is 1."""
    off = []

    def spoil(log_probs, update):
        changed = log_probs.clone()
        if not off:
            changed[0] += 1.0
        off.append(len(log_probs))
        return changed

    row = train(tmp_path, spoil=spoil).rows[0]
    assert row["engine_difference"] == pytest.approx(1 / sum(off[:16]), rel=1e-3)
    assert row["engine_difference_max"] == pytest.approx(1.0, abs=1e-4)


def test_a_noise_floor_is_seen(tmp_path, monkeypatch):
    """Old and new log-probabilities of a trainer whose passes with gradients are off by 0.01."""
    real = MethodTrainer._get_per_token_logps_and_entropies

    def noisy(self, *arguments, **keywords):
        log_probs, *rest = real(self, *arguments, **keywords)
        return log_probs + 0.01 * torch.is_grad_enabled(), *rest

    monkeypatch.setattr(MethodTrainer, "_get_per_token_logps_and_entropies", noisy)
    for row in train(tmp_path).rows:
        assert row["noise_floor"] == pytest.approx(0.01, abs=1e-4)
        assert row["engine_difference"] < 1e-4


def stopped(tmp_path, match, **settings):
    with pytest.raises(EngineDisagreement, match=match) as caught:
        train(tmp_path, **settings)
    assert "\n" not in str(caught.value) and "pretrained.engine" in str(caught.value)


def test_an_engine_that_differs_stops_before_the_first_update(tmp_path):
    match = r"before update 1 .* differ from the trainer's by 0\.2 on average .* more than 0\.1, pretrained.engine_log_"
    stopped(tmp_path, match, spoil=lambda log_probs, _: log_probs - 0.2)


@pytest.mark.parametrize(
    ("before", "after", "limit"),
    [(0.0, 0.02, "0.001, what may become of"), (0.01, 0.04, "0.03, what"), (0.05, 0.12, "0.1, pretrained")],
)
def test_a_difference_that_grows_over_the_first_hand_over_stops(tmp_path, before, after, limit):
    """As if a part of the weights was not handed over; the bound is 0.1."""

    def spoil(log_probs, update):
        return log_probs - (after if update else before)

    stopped(tmp_path, f"before update 3 .* by {after} on .* more than {limit}", spoil=spoil)


def test_an_engine_that_differs_later_is_shown_and_does_not_stop(tmp_path):
    rows = train(tmp_path, spoil=lambda found, update: found - 0.2 * (update > 2)).rows
    assert rows[-1]["engine_difference"] == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("learning_rate", [1e-6, 0.003])
def test_stale_weights_stop_even_where_a_step_is_too_small_for_the_bound(tmp_path, learning_rate):
    stopped(
        tmp_path, "after update 2 .* first weights to the bit", bound=100.0,
        arguments={"learning_rate": learning_rate}, hands_over=lambda update: update == 0,
    )  # fmt: skip


def test_the_gate_waits_for_an_update_that_changes_the_trainer(tmp_path):
    """One update a rollout batch, the first at learning rate 0: the engine is rightly unchanged, then wrongly."""
    schedule = {
        "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1, "steps_per_generation": 1,
        "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_steps": 3,
    }  # fmt: skip
    stopped(
        tmp_path, "after update 2 .* first weights to the bit", arguments=schedule,
        hands_over=lambda update: update == 0,
    )  # fmt: skip
    rows = train(tmp_path, arguments=schedule).rows
    assert len(rows) == 3 and all(row["engine_difference"] < 1e-4 and "noise_floor" not in row for row in rows)


def test_tokens_that_the_engine_could_not_score_are_counted_and_left_out(tmp_path):
    """One token of every rollout batch, the first included; the other tokens are off by 0.05."""
    batches = []

    def spoil(found, update):
        found = found + 0.05
        if update not in batches:
            batches.append(update)
            found[0] = float("nan")
        return found

    rows = train(tmp_path, spoil=spoil).rows
    assert len(rows) == 6 and len(batches) == 3
    for row in rows:
        assert row["engine_unscored"] == 1
        assert row["engine_difference"] == pytest.approx(0.05, abs=1e-4)
        assert row["loss"] is not None and row["log_ratio_std"] is not None


def test_an_engine_without_log_probabilities_stops(tmp_path):
    stopped(tmp_path, "no log-probability for .* sampled tokens", spoil=lambda found, _: found * float("nan"))
