"""The laptop scale's base model: a small Qwen3 that learns to add from a teacher who then turns forgetful.

It first reads correct worked solutions, then ones in which most carry marks are left out and the computation goes on
without them. What remains is a model that hardly ever carries, although it could: reinforcement has to bring that back.
"""

import random
from collections.abc import Callable, Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from kpo.config import BaseModelSettings
from kpo.data.scratchpad import write_scratchpad

IGNORED = -100
MAX_POSITIONS = 512


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
            max_position_embeddings=MAX_POSITIONS,
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
) -> Qwen3ForCausalLM:
    """Train a new model on worked solutions of normalised questions; each batch holds one level, so little padding.

    Muon moves the layers' matrices and AdamW everything else (with AdamW alone the model is half trained in the same
    time, and how far it gets depends on the seed). `report` receives {"step", "loss", "learning_rate_share"} each step.
    """
    torch.manual_seed(seed)
    model = build_model(settings, tokenizer)
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if not any(weight is matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.muon_weight_decay),
        torch.optim.AdamW(others, lr=settings.adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, settings))
        for optimizer in optimizers
    ]
    model.train()
    for step, (input_ids, labels) in enumerate(_batches(questions_by_level, settings, tokenizer, seed), start=1):
        loss = model(input_ids=input_ids, attention_mask=input_ids != tokenizer.pad_token_id, labels=labels).loss
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = schedulers[0].get_last_lr()[0] / settings.muon_learning_rate
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        report({"step": step, "loss": loss.item(), "learning_rate_share": share})
    model.eval()
    return model


def _learning_rate_share(step: int, settings: BaseModelSettings) -> float:
    """1 until `decay_from` of the steps, then linearly down to 0."""
    start = settings.decay_from * settings.steps
    return 1.0 if step < start else max(0.0, (settings.steps - step) / max(1.0, settings.steps - start))


def _batches(
    questions_by_level: dict[str, list[str]], settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = random.Random(seed)
    levels = list(questions_by_level)
    for step in range(settings.steps):
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
        yield (
            pad_sequence(sequences, batch_first=True, padding_value=tokenizer.pad_token_id),
            pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        )
