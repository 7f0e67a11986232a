"""Engines that sample responses to prompts of token ids: transformers here; vLLM has a module of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from reproduction.evaluation.sampling import Response
from reproduction.settings.hub import SamplingSettings


class Engine(Protocol):
    """Samples responses, and says what it is."""

    name: str
    tokenizer: Any

    def sample(
        self, prompts: list[list[int]], num_samples: int, *, greedy: bool, seed: int, report: Callable[[int], None]
    ) -> list[list[Response]]:
        """`num_samples` responses to each prompt, in their order."""


def end_tokens(generation_config: GenerationConfig, tokenizer) -> list[int]:
    """The tokens that end a response: those the model states, and the tokenizer's."""
    stated = generation_config.eos_token_id
    stated = [stated] if isinstance(stated, int) else list(stated or [])
    return list(dict.fromkeys([*stated, tokenizer.eos_token_id]))


class TransformersEngine:
    """Plain generation, prompt by prompt in batches; slow, and at home on every machine."""

    name = "transformers"

    def __init__(self, folder: Path, settings: SamplingSettings, precision: str):
        self.settings = settings
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(self.device)
        self.ends = end_tokens(self.model.generation_config, self.tokenizer)
        self.pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.ends[0]

    @torch.inference_mode()
    def sample(self, prompts, num_samples, *, greedy, seed, report):
        """See `Engine`. The draws depend on seed, prompts, num_samples and the batch size."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        jobs = [index for index in order for _ in range(num_samples)]
        responses: list[list[Response]] = [[] for _ in prompts]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for start in range(0, len(jobs), self.settings.batch_size):
                batch = jobs[start : start + self.settings.batch_size]
                for index, response in zip(batch, self._generate([prompts[i] for i in batch], greedy), strict=True):
                    responses[index].append(response)
                report(start + len(batch))
        return responses

    def _generate(self, prompts: list[list[int]], greedy: bool) -> list[Response]:
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self.device)
        # A model brings defaults of its own (top-k, a repetition penalty): nothing of them is to be used.
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
        is_end = torch.isin(output, torch.tensor(self.ends, device=self.device))
        ended = is_end.any(dim=1)
        lengths = torch.where(ended, is_end.int().argmax(dim=1) + 1, output.shape[1]).tolist()
        rows = [row[:length] for row, length in zip(output.tolist(), lengths, strict=True)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Response(*values) for values in zip(texts, lengths, ended.tolist(), strict=True)]


def make_engine(name: str, folder: Path, settings: SamplingSettings, precision: str, window: int) -> Engine:
    """The engine of that name for the model in `folder`. window: tokens of the longest prompt and response together."""
    if name == "transformers":
        return TransformersEngine(folder, settings, precision)
    from reproduction.evaluation.vllm_engine import VllmEngine

    return VllmEngine(folder, settings, precision, window)
