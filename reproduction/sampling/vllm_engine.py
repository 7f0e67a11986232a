"""Sampling through vLLM, on one device. The only module that imports vLLM for evaluation."""

import importlib.util
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from reproduction.data.prompts import PromptStyle
from reproduction.sampling.engine import Response, end_tokens
from reproduction.settings.hub import SamplingSettings

# Of a device that evaluation has to itself.
MEMORY_SHARE = 0.85


class VllmEngine:
    """vLLM's offline engine with nothing of the model's own sampling defaults.

    Responses end at the same tokens and are decoded in the same way as those of `TransformersEngine`.
    """

    def __init__(
        self, folder: Path, settings: SamplingSettings, precision: str, window: int, style: PromptStyle | None = None
    ):
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "the configuration samples with vLLM, which is not installed here; install the GPU lock "
                "(make setup LOCK=gpu), or set pretrained.engine: transformers"
            )
        from vllm import LLM
        from vllm.platforms import current_platform

        self.settings = settings
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        has_defaults = (folder / "generation_config.json").is_file()
        self.ends = end_tokens(
            GenerationConfig.from_pretrained(folder) if has_defaults else GenerationConfig(), self.tokenizer, style
        )
        self.engine = LLM(
            model=str(folder),
            dtype=precision,
            max_model_len=window,
            gpu_memory_utilization=MEMORY_SHARE,
            generation_config="vllm",
            max_num_seqs=settings.batch_size,
            disable_log_stats=True,
            # For a CPU vLLM would compile the model with a C++ compiler, which not every machine has.
            enforce_eager=current_platform.is_cpu(),
        )

    def sample(self, prompts, num_samples, *, greedy, seed):
        """See `reproduction.sampling.engine.Engine`. Draws depend on the seed and on the engine's scheduling."""
        from vllm import SamplingParams

        # vLLM numbers the seeds of a prompt's samples on from the prompt's own. With one seed for all prompts, the
        # same noise would choose the tokens of every problem, and the problems of a set would not be independent.
        parameters = [
            SamplingParams(
                n=num_samples,
                temperature=0.0 if greedy else self.settings.temperature,
                top_p=1.0 if greedy else self.settings.top_p,
                top_k=0,
                max_tokens=self.settings.max_completion_length,
                stop_token_ids=self.ends,
                detokenize=False,
                seed=seed + index * num_samples,
            )
            for index in range(len(prompts))
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.engine.generate(asked, parameters, use_tqdm=False)
        return [[self._response(one) for one in output.outputs] for output in outputs]

    def _response(self, one) -> Response:
        tokens = list(one.token_ids)
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Response(text, len(tokens), one.finish_reason == "stop")
