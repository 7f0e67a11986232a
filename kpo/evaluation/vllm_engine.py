"""Sampling through vLLM, on one device. The only module of evaluation that imports vLLM."""

import importlib.util
from pathlib import Path

from kpo.evaluation.sampling import Response
from kpo.pretrained import SamplingSettings

# Of a device that evaluation has to itself.
MEMORY_SHARE = 0.85


class VllmEngine:
    """vLLM's offline engine with nothing of the model's own sampling defaults."""

    name = "vllm"

    def __init__(self, folder: Path, settings: SamplingSettings, precision: str, window: int):
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "the configuration samples with vLLM, which is not installed here; install the GPU lock "
                "(make setup LOCK=gpu), or set pretrained.engine: transformers"
            )
        from vllm import LLM

        self.settings = settings
        self.engine = LLM(
            model=str(folder),
            dtype=precision,
            max_model_len=window,
            gpu_memory_utilization=MEMORY_SHARE,
            generation_config="vllm",
            max_num_seqs=settings.batch_size,
            disable_log_stats=True,
        )
        self.tokenizer = self.engine.get_tokenizer()

    def sample(self, prompts, num_samples, *, greedy, seed, report):
        """See `kpo.evaluation.engine.Engine`. Draws depend on the seed and on the engine's scheduling."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            n=num_samples,
            temperature=0.0 if greedy else self.settings.temperature,
            top_p=1.0 if greedy else self.settings.top_p,
            top_k=0,
            max_tokens=self.settings.max_completion_length,
            seed=seed,
        )
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.engine.generate(asked, parameters, use_tqdm=False)
        report(len(prompts) * num_samples)
        return [
            [Response(one.text, len(one.token_ids), one.finish_reason == "stop") for one in output.outputs]
            for output in outputs
        ]
