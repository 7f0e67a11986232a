"""Rollouts by this project's own decoding in place of transformers' `generate`."""

import torch

from reproduction.sampling.decode import decode
from reproduction.training.trainer import MethodTrainer


class DecodingTrainer(MethodTrainer):
    """Samples rollouts with `reproduction.sampling.decode`; the draws are those of torch's global generator."""

    def sample(self, prompt_ids, *_, **__):
        model = self.accelerator.unwrap_model(self.model)
        lengths = {"max_new_tokens": self.max_completion_length, "min_new_tokens": self.min_completion_length}
        return decode(model, prompt_ids, self.eos_token_ids, generator=torch.default_generator, **lengths), None
