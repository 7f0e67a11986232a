"""Rollouts by this project's own decoding in place of transformers' `generate`."""

import torch

from reproduction.sampling.decode import decode_scored
from reproduction.training.trainer import MethodTrainer


class DecodingTrainer(MethodTrainer):
    """Samples rollouts with `reproduction.sampling.decode`; the draws are those of torch's global generator.

    Sampling gives the old log-probabilities too, with the rounding of `decode` (docs/speed.md): no second pass.
    """

    _sampled: torch.Tensor | None = None

    def sample(self, prompt_ids, *_, **__):
        self._sampled = None
        model = self.accelerator.unwrap_model(self.model)
        lengths = {"max_new_tokens": self.max_completion_length, "min_new_tokens": self.min_completion_length}
        generator = torch.default_generator
        completions, self._sampled = decode_scored(
            model, prompt_ids, self.eos_token_ids, generator=generator, **lengths
        )
        return completions, None

    def _generate_and_score_completions(self, inputs):
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self._sampled = None

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *others, **keywords):
        # Between sampling and the end of scoring TRL asks for the policy's only as old ones.
        if self._sampled is None or model is not self.model:
            inputs = model, input_ids, attention_mask, logits_to_keep
            return super()._get_per_token_logps_and_entropies(*inputs, *others, **keywords)
        missing = logits_to_keep - self._sampled.size(1)
        return torch.nn.functional.pad(self._sampled, (0, missing)), None, None
