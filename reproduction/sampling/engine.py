"""Engines that sample responses to prompts of token ids; vLLM has its own module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

from reproduction.data.prompts import PromptStyle
from reproduction.sampling.decode import decode
from reproduction.settings.hub import SamplingSettings
from reproduction.settings.run import Run
from reproduction.training.saving import load_model


@dataclass(frozen=True)
class Response:
    """One response: its text without special tokens, its length in tokens (the end token counts), whether it ended."""

    text: str
    num_tokens: int
    ended: bool


class Engine(Protocol):
    """Samples responses. tokenizer: the model's."""

    tokenizer: Any

    def sample(self, prompts: list[list[int]], num_samples: int, *, greedy: bool, seed: int) -> list[list[Response]]:
        """`num_samples` responses to each prompt, in their order."""


def end_tokens(generation_config: GenerationConfig, tokenizer, style: PromptStyle | None = None) -> list[int]:
    """The tokens that end a response: those the model names, the tokenizer's, and those of the prompt's style."""
    stated = generation_config.eos_token_id
    stated = [stated] if isinstance(stated, int) else list(stated or [])
    return list(
        dict.fromkeys([*stated, tokenizer.eos_token_id, *([] if style is None else style.end_tokens(tokenizer))])
    )


class DecodeEngine:
    """This project's own decoding. style: of the prompts, whose end tokens join the model's."""

    def __init__(self, folder: Path, settings: SamplingSettings, device: str = "cpu", style: PromptStyle | None = None):
        self.settings = settings
        model, self.tokenizer = load_model(folder)
        self.model = model.to(device)
        self.ends = end_tokens(self.model.generation_config, self.tokenizer, style)

    def sample(self, prompts, num_samples, *, greedy, seed):
        """See `Engine`. The draws depend on seed, prompts, num_samples and the batch size."""
        generator = None if greedy else torch.Generator().manual_seed(seed)
        jobs = [prompt for prompt in prompts for _ in range(num_samples)]
        made: list[Response] = []
        for start in range(0, len(jobs), self.settings.batch_size):
            batch = jobs[start : start + self.settings.batch_size]
            rows = decode(self.model, batch, self.ends, self.settings.max_completion_length, generator)
            texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
            made += [Response(text, len(row), row[-1] in self.ends) for text, row in zip(texts, rows, strict=True)]
        return [made[start : start + num_samples] for start in range(0, len(made), num_samples)]


class TransformersEngine:
    """transformers' `generate`, in batches; works on every machine."""

    def __init__(
        self,
        folder: Path,
        settings: SamplingSettings,
        precision: str = "float32",
        device: str = "cpu",
        style: PromptStyle | None = None,
    ):
        self.settings = settings
        model, self.tokenizer = load_model(folder, getattr(torch, precision))
        self.model = model.eval().to(device)
        self.ends = end_tokens(self.model.generation_config, self.tokenizer, style)
        self.pad = self.tokenizer.pad_token_id

    @torch.inference_mode()
    def sample(self, prompts, num_samples, *, greedy, seed):
        """See `Engine`. The draws depend on seed, prompts, num_samples and the batch size."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        jobs = [index for index in order for _ in range(num_samples)]
        responses: list[list[Response]] = [[] for _ in prompts]
        device = self.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, len(jobs), self.settings.batch_size):
                batch = jobs[start : start + self.settings.batch_size]
                for index, response in zip(batch, self._generate([prompts[i] for i in batch], greedy), strict=True):
                    responses[index].append(response)
        return responses

    def _generate(self, prompts: list[list[int]], greedy: bool) -> list[Response]:
        width, device = max(map(len, prompts)), self.model.device
        ids = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        # A model brings its own defaults (top-k, a repetition penalty), which must not be used.
        choice = {} if greedy else {"temperature": self.settings.temperature, "top_p": self.settings.top_p, "top_k": 0}
        self.model.generation_config = GenerationConfig(
            do_sample=not greedy,
            max_new_tokens=self.settings.max_completion_length,
            repetition_penalty=1.0,
            pad_token_id=self.pad,
            eos_token_id=self.ends,
            **choice,
        )
        output = self.model.generate(input_ids=ids, attention_mask=mask)[:, width:]
        is_end = torch.isin(output, torch.tensor(self.ends, device=device))
        ended = is_end.any(dim=1)
        lengths = torch.where(ended, is_end.int().argmax(dim=1) + 1, output.shape[1]).tolist()
        rows = [row[:length] for row, length in zip(output.tolist(), lengths, strict=True)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Response(*values) for values in zip(texts, lengths, ended.tolist(), strict=True)]


def make_engine(run: Run, folder: Path) -> Engine:
    """The engine of a run for the model in `folder`."""
    settings, hub = run.sampling(""), run.hub
    if hub is None:
        # Models that this project pretrains stay on the CPU, whatever the machine has.
        return DecodeEngine(folder, settings)
    device, style = "cuda" if torch.cuda.is_available() else "cpu", hub.evaluation_prompt.style
    if hub.engine == "decode":
        return DecodeEngine(folder, settings, device, style)
    if hub.engine == "transformers":
        return TransformersEngine(folder, settings, hub.precision, device, style)
    from reproduction.sampling.vllm_engine import VllmEngine

    return VllmEngine(folder, settings, hub.precision, hub.max_prompt_length + settings.max_completion_length, style)
