"""Sampling responses from a model: at temperature 1 over its whole vocabulary, or greedily."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Response:
    """One response: its text without special tokens, its length in tokens (the end token counts), whether it ended."""

    text: str
    num_tokens: int
    ended: bool


@torch.inference_mode()
def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    num_samples: int,
    *,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    greedy: bool = False,
    report: Callable[[int], None] | None = None,
) -> list[list[Response]]:
    """`num_samples` responses for each prompt, in the order of the prompts.

    The draws depend on seed, prompts, `num_samples` and `batch_size` (the prompts are sorted by length and batched);
    torch's global generator is left as it was found. `report` receives the number of responses made so far.
    """
    if greedy and num_samples != 1:
        raise ValueError(f"greedy decoding gives one response a prompt, but num_samples is {num_samples}")
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    jobs = [index for index in order for _ in range(num_samples)]
    responses: list[list[Response]] = [[] for _ in prompts]
    choice = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            inputs = tokenizer([prompts[index] for index in batch], return_tensors="pt", padding=True)
            inputs = inputs.to(model.device)
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                **choice,
            )
            for index, response in zip(batch, _responses(output, inputs, tokenizer), strict=True):
                responses[index].append(response)
            if report is not None:
                report(start + len(batch))
    return responses


def _responses(output, inputs, tokenizer) -> list[Response]:
    """Cut each row after its first end token; a row without one was cut off at the limit and counts whole."""
    tokens = output[:, inputs["input_ids"].shape[1] :]
    is_end = tokens == tokenizer.eos_token_id
    ended = is_end.any(dim=1)
    lengths = torch.where(ended, is_end.int().argmax(dim=1) + 1, tokens.shape[1]).tolist()
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [Response(*values) for values in zip(texts, lengths, ended.tolist(), strict=True)]
