"""Sampling responses from a model: at temperature 1 over its whole vocabulary, or greedily."""

import base64
from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reproduction.evaluation.shards import ShardFolder


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
    shards: ShardFolder | None = None,
    name: str = "responses",
) -> list[list[Response]]:
    """`num_samples` responses for each prompt, in the order of the prompts.

    The draws depend on seed, prompts, `num_samples` and `batch_size` (the prompts are sorted by length and batched);
    torch's global generator is left as it was found. `report` receives the number of responses made so far.

    shards: keeps each batch, with the state of the generator after it, and gives it back where it was made before; the
    responses are the same then. name: what its batches are called there.
    """
    if greedy and num_samples != 1:
        raise ValueError(f"greedy decoding gives one response a prompt, but num_samples is {num_samples}")
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    jobs = [index for index in order for _ in range(num_samples)]
    responses: list[list[Response]] = [[] for _ in prompts]
    choice = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number, start in enumerate(range(0, len(jobs), batch_size)):
            batch = jobs[start : start + batch_size]
            kept = None if shards is None else shards.read(f"{name}.{number:05d}")
            if kept is not None:
                made = [Response(*values) for values in kept["responses"]]
                _set_generator(kept["generator"], model.device)
            else:
                made = _generate(model, tokenizer, [prompts[index] for index in batch], max_new_tokens, choice)
                if shards is not None:
                    content = {"responses": [astuple(response) for response in made]}
                    shards.write(f"{name}.{number:05d}", {**content, "generator": _generator(model.device)})
            for index, response in zip(batch, made, strict=True):
                responses[index].append(response)
            if report is not None:
                report(start + len(batch))
    return responses


def _generate(model, tokenizer, prompts: list[str], max_new_tokens: int, choice: dict) -> list[Response]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **choice,
    )
    return _responses(output, inputs, tokenizer)


def _generator(device: torch.device) -> str:
    """The state of the generator that sampling on `device` draws from, as text."""
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    return base64.b64encode(state.numpy().tobytes()).decode()


def _set_generator(text: str, device: torch.device) -> None:
    state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _responses(output, inputs, tokenizer) -> list[Response]:
    """Cut each row after its first end token; a row without one was cut off at the limit and counts whole."""
    tokens = output[:, inputs["input_ids"].shape[1] :]
    is_end = tokens == tokenizer.eos_token_id
    ended = is_end.any(dim=1)
    lengths = torch.where(ended, is_end.int().argmax(dim=1) + 1, tokens.shape[1]).tolist()
    rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [Response(*values) for values in zip(texts, lengths, ended.tolist(), strict=True)]
