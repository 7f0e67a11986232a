"""Whether the engine that samples has the weights that are trained: a gate when a run starts, figures throughout.

Notation, over the N sampled tokens of a rollout batch (all processes): e the engine's log-probability of the token it
sampled, o the trainer's own for the same token before the batch's first update, n the trainer's in the first minibatch.

    engine_difference      sum |e - o| / N          engine_difference_max   max |e - o|
    noise_floor            sum |n - o| / N'         noise_floor_max         max |n - o|    (N' tokens of that minibatch)

No weight has moved between o and n, so the noise floor is what the trainer's arithmetic adds to every log-ratio; it is
0 if the two passes round alike. All in nats.

The gate checks the first rollout batch and the first one after an update that changed the trainer. Both times it needs
engine_difference <= bound, and the second time two things more. The difference may have grown at most threefold: with
exact arithmetic this shows weights that were handed over only in part. And since a step of 1e-6 moves log-probabilities
by less than 16-bit arithmetic does, the engine scores some responses of the first batch again: if the trainer's
log-probabilities of these have changed and the engine's are the same to the bit, it has the old weights. Why a gate:
huggingface/trl issues 2872, 2698 and 3466.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

PROBES = 4
"""Responses that the engine scores a second time, in each process."""

GROWTH, HARMLESS = 3.0, 1e-3
"""Over the first hand-over the difference may grow by this factor, and in any case up to this many nats."""


class EngineDisagreement(RuntimeError):
    """The engine does not sample from the policy that is trained; says by how much, and what to do."""


@dataclass
class _Probe:
    """Responses of the first rollout batch, and what trainer and engine said of them then."""

    inputs: dict[str, torch.Tensor]
    tokens: list[list[int]]
    trainer: torch.Tensor
    engine: torch.Tensor


class EngineAgreement:
    """The gate and the figures of one run in one process; raises `EngineDisagreement`.

    bound: of engine_difference in nats; `pretrained.engine_log_prob_bound` of the configuration. score: takes the
    engine and sequences of token ids, returns the engine's log-probabilities of their tokens (`engine_log_probs`).

    A run that continues from a checkpoint has a new engine, so the gate checks it again.
    """

    def __init__(self, bound: float, score: Callable[[Any, list[list[int]]], torch.Tensor] | None = None):
        self.bound, self.score = bound, engine_log_probs if score is None else score
        self._is_open, self._before = False, None
        self._probe: _Probe | None = None
        self._floor: list[torch.Tensor] | None = None

    def rollout(self, trainer, output: dict[str, torch.Tensor]) -> dict[str, float | None]:
        """Take a rollout batch as TRL's `_generate_and_score_completions` returns it; returns its figures.

        Reads prompt_ids, completion_ids and their masks, sampling_per_token_logps and, if TRL keeps them,
        old_per_token_logps; all (B, T). Every process has to call it.
        """
        mask = _mask(output)
        engine = output["sampling_per_token_logps"]
        has_old = "old_per_token_logps" in output
        old = output["old_per_token_logps"] if has_old else _trainer_log_probs(trainer, output)
        # One update a rollout batch: its ratio is that of a log-probability to itself, there is no floor to measure.
        self._floor = [] if has_old else None
        mean, largest, tokens, unknown = _differences(trainer, [((engine - old)[mask])])
        if not self._is_open:
            self._check(trainer, output, mean, largest, tokens, unknown)
        return {"engine_difference": mean, "engine_difference_max": largest, "engine_unscored": unknown}

    def _check(self, trainer, output, mean, largest, tokens, unknown) -> None:
        """The gate; opens for good once an update has been handed over."""
        update, advice = trainer.state.global_step, "set pretrained.engine: transformers"
        if not tokens:
            raise EngineDisagreement(
                f"the engine gave no log-probability for any of {unknown} sampled tokens before update {update + 1}; "
                f"its weights or its arithmetic are broken: {advice}"
            )
        limit, reason, changed = self.bound, "pretrained.engine_log_prob_bound", False
        if self._before is not None:
            moved, followed = self._change(trainer)
            changed = moved > 0.0
            if changed and followed == 0.0:
                raise EngineDisagreement(
                    f"after update {update} the engine gives the log-probabilities of the first weights to the bit, "
                    f"but the trainer's moved by up to {moved:.2g}: it was not given the new weights; {advice}, or "
                    "use the versions of the lock"
                )
            allowed = max(GROWTH * self._before, HARMLESS)
            if changed and allowed < limit:
                limit, reason = allowed, f"what may become of {self._before:.2g} before the first update"
        if mean > limit:
            raise EngineDisagreement(
                f"before update {update + 1} the engine's log-probabilities of the sampled tokens differ from the "
                f"trainer's by {mean:.3g} on average (at most {largest:.3g}), more than {limit:.3g}, {reason}: the "
                f"engine has other weights, at least in part, or computes differently; {advice}, or raise "
                "pretrained.engine_log_prob_bound if such a difference is intended"
            )
        if self._before is None:
            self._before, self._probe = mean, self._take_probe(trainer, output)
        elif changed:
            self._is_open, self._probe = True, None

    def minibatch(self, log_ratio: torch.Tensor, mask: torch.Tensor) -> None:
        """Take the log-ratios (B, T) of a micro-batch; only those before the rollout batch's first update count."""
        if self._floor is not None:
            self._floor.append(log_ratio.detach()[mask.bool()])

    def take_floor(self, trainer) -> dict[str, float | None]:
        """The noise floor, once for each rollout batch, after its first minibatch; else nothing. A collective call."""
        if not self._floor:
            return {}
        mean, largest, _, _ = _differences(trainer, self._floor)
        self._floor = None
        return {"noise_floor": mean, "noise_floor_max": largest}

    def _take_probe(self, trainer, output) -> _Probe:
        kept = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        # The shortest: an engine that scores a text holds its length times the vocabulary in logits.
        shortest = (output["prompt_mask"].sum(dim=1) + output["completion_mask"].sum(dim=1)).argsort()[:PROBES]
        inputs = {name: output[name][shortest] for name in kept}
        longest = trainer.args.vllm_max_model_length
        tokens = []
        for row in range(len(inputs["prompt_ids"])):
            prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
            response = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
            # An engine that scores a text samples one token more, for which its window needs a place.
            tokens.append(torch.cat([prompt, response]).tolist()[: None if longest is None else longest - 1])
        engine = self.score(trainer.vllm_generation.llm, tokens)
        return _Probe(inputs, tokens, _trainer_log_probs(trainer, inputs), engine)

    def _change(self, trainer) -> tuple[float, float]:
        """Largest change of the probe's log-probabilities since the first rollout batch: trainer's, engine's."""
        probe = self._probe
        mask = _mask(probe.inputs)
        moved = (_trainer_log_probs(trainer, probe.inputs) - probe.trainer)[mask].abs().max()
        followed = self.score(trainer.vllm_generation.llm, probe.tokens) - probe.engine
        # A token that the engine could not score in one of the two does not count.
        followed = torch.where(torch.isfinite(followed), followed, 0.0).abs().max()
        both = torch.stack([moved.float(), followed.to(moved.device).float()]).unsqueeze(0)
        return tuple(trainer.accelerator.gather(both).amax(dim=0).tolist())


def engine_log_probs(engine, sequences: list[list[int]]) -> torch.Tensor:
    """Log-probabilities of every token but the first of each sequence, one after another, by a vLLM engine as it is."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
    outputs = engine.generate([{"prompt_token_ids": tokens} for tokens in sequences], parameters, use_tqdm=False)
    return torch.tensor(
        [
            found[token].logprob
            for tokens, output in zip(sequences, outputs, strict=True)
            for token, found in zip(tokens[1:], output.prompt_logprobs[1:], strict=True)
        ]
    )


def _mask(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


@torch.no_grad()
def _trainer_log_probs(trainer, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The trainer's log-probabilities (B, T) of the responses, in batches of its micro-batch."""
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        inputs["completion_ids"].size(1),
        batch_size=trainer.args.per_device_train_batch_size,
    )
    return log_probs


def _differences(trainer, differences: list[torch.Tensor]) -> tuple[float | None, float | None, int, int]:
    """Mean and largest absolute difference over all processes, how many are numbers, and how many are not."""
    absolute = torch.cat(differences).abs().double()
    known = absolute[torch.isfinite(absolute)]
    sums = torch.stack([known.sum(), known.new_tensor(known.numel()), known.new_tensor(absolute.numel())])
    total, number, asked = trainer.accelerator.reduce(sums, reduction="sum").tolist()
    largest = known.max() if known.numel() else known.new_tensor(0.0)
    largest = trainer.accelerator.gather(largest.reshape(1)).max().item()
    mean = total / number if number else None
    return mean, largest if number else None, int(number), int(asked - number)
