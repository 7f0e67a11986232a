"""The laptop scale's base model: a small Qwen3 that learns to add from a teacher who later forgets to carry.

It first reads correct worked solutions, then ones in which most carry marks are left out and the computation goes on
without them. The resulting model hardly ever carries, although it could: reinforcement has to bring that back.
"""

import math
import random
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from reproduction.data.scratchpad import write_scratchpad
from reproduction.settings.configuration import SMALL_WINDOW, BaseModelSettings
from reproduction.training.checkpoint import MODEL, CheckpointFolder, random_states, save_state, set_random_states
from reproduction.training.fsdp import load_optimizer_state, optimizer_state

IGNORED = -100
CHECKPOINTS = 10
"""Parts of a pretraining, at the end of each of which a checkpoint is written: a kill costs at most a tenth of it."""


def build_model(settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained Qwen3 of the given size, its weights drawn from torch's global generator."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            head_dim=settings.hidden_size // settings.heads,
            max_position_embeddings=SMALL_WINDOW,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def pretrain(
    questions_by_level: dict[str, list[str]],
    settings: BaseModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    report: Callable[[dict], None],
    checkpoints: CheckpointFolder | None = None,
    on_continue: Callable[[list[dict]], None] = lambda rows: None,
    on_failed_checkpoint: Callable[[OSError], bool] = lambda error: False,
) -> Qwen3ForCausalLM:
    """Train a new model on worked solutions of normalised questions; each batch holds one level, so little padding.

    Muon moves the layers' matrices and AdamW everything else (with only AdamW the model is half trained in the same
    time, and how far it gets depends on the seed). `report` receives {"step", "loss", "learning_rate_share"} each step.

    checkpoints: where ten checkpoints are written on the way; training continues from one if there is one, with the
    same final weights to the bit (on a CPU). on_continue: then receives what was reported up to there.
    on_failed_checkpoint: says whether to go on without one that could not be written; its OSError is raised otherwise.
    """
    training = _Pretraining(settings, tokenizer, seed)
    found = None if checkpoints is None else checkpoints.latest()
    if checkpoints is not None and found is not None:
        training.load(*found)
        checkpoints.note({"continued_after_step": training.steps_done})
        on_continue(list(training.rows))
    while training.steps_done < settings.steps:
        report(training.step(questions_by_level))
        done = training.steps_done
        if checkpoints is not None and done % math.ceil(settings.steps / CHECKPOINTS) == 0 and done < settings.steps:
            try:
                checkpoints.write(done, training.save)
            except OSError as error:
                if not on_failed_checkpoint(error):
                    raise
    training.model.eval()
    return training.model


class _Pretraining:
    """A pretraining under way: model, optimisers, schedules and the state of what draws its batches."""

    def __init__(self, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast, seed: int):
        torch.manual_seed(seed)
        self.settings, self.tokenizer = settings, tokenizer
        self.model = build_model(settings, tokenizer)
        matrices = [weight for weight in self.model.model.layers.parameters() if weight.ndim == 2]
        others = [weight for weight in self.model.parameters() if not any(weight is matrix for matrix in matrices)]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.muon_weight_decay),
            torch.optim.AdamW(others, lr=settings.adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, settings))
            for optimizer in self.optimizers
        ]
        self.generator = random.Random(seed)
        self.rows: list[dict] = []
        self.model.train()

    @property
    def steps_done(self) -> int:
        return len(self.rows)

    def step(self, questions_by_level: dict[str, list[str]]) -> dict:
        """Make the next step; returns its row."""
        input_ids, labels = _batch(questions_by_level, self.steps_done, self.settings, self.tokenizer, self.generator)
        mask = input_ids != self.tokenizer.pad_token_id
        loss = self.model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        share = self.schedulers[0].get_last_lr()[0] / self.settings.muon_learning_rate
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        self.rows.append({"step": self.steps_done + 1, "loss": loss.item(), "learning_rate_share": share})
        return self.rows[-1]

    def save(self, folder: Path) -> None:
        """Write all that `load` needs into a checkpoint's folder."""
        # Tied weights are one tensor under two names, which this function knows how to write.
        save_model(self.model, str(folder / MODEL))
        version, words, gauss = self.generator.getstate()
        state = {
            "rows": self.rows,
            "batches": [version, list(words), gauss],
            "optimizers": [optimizer_state(optimizer) for optimizer in self.optimizers],
            "schedules": [scheduler.state_dict() for scheduler in self.schedulers],
            "random": random_states(),
        }
        save_state(folder, state)

    def load(self, folder: Path, state: dict) -> None:
        """Go on from a checkpoint that `save` wrote."""
        load_model(self.model, folder / MODEL)
        self.rows = state["rows"]
        version, words, gauss = state["batches"]
        self.generator.setstate((version, tuple(words), gauss))
        for optimizer, found in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, found)
        for scheduler, found in zip(self.schedulers, state["schedules"], strict=True):
            scheduler.load_state_dict(found)
        set_random_states(state["random"])


def _learning_rate_share(step: int, settings: BaseModelSettings) -> float:
    """1 until `decay_from` of the steps, then linearly down to 0."""
    start = settings.decay_from * settings.steps
    return 1.0 if step < start else max(0.0, (settings.steps - step) / max(1.0, settings.steps - start))


def _batch(
    questions_by_level: dict[str, list[str]],
    step: int,
    settings: BaseModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    generator: random.Random,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels (B, T) of the step after `step` steps, drawn with `generator`."""
    levels = list(questions_by_level)
    forgetting = settings.forgetting if step >= settings.forgetful_from * settings.steps else 0.0
    questions = generator.choices(questions_by_level[levels[step % len(levels)]], k=settings.batch_size)
    sequences, labels = [], []
    for question in questions:
        prompt = tokenizer(question).input_ids
        solution = tokenizer(write_scratchpad(question, forgetting, generator)).input_ids
        sequence = torch.tensor(prompt + solution + [tokenizer.eos_token_id])
        label = sequence.clone()
        label[: len(prompt)] = IGNORED
        sequences.append(sequence)
        labels.append(label)
    return (
        pad_sequence(sequences, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )
