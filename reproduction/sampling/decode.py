"""Decoding for Qwen3 and Llama models that one process holds in 32 bits, without `generate`'s work for every token.

transformers reads the prompts (each different one once); then every token costs a few fused operations on the model's
own weights. Keys and values are in one block for the longest response, and rows that have ended leave the batch.

Every sampled token is drawn by inverting its distribution at one uniform number. Each row has its own numbers, so a
response does not depend on the rows that are decoded with it (apart from the rounding of sums).
"""

import contextlib

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

RELATIVE_ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings under which only differences of positions matter; others depend on how long the text is."""

SHARE_TO_LEAVE = 0.125
"""Rows that have ended leave once they are this share of the batch: leaving copies the others' keys and values."""


def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    ends: list[int],
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    min_new_tokens: int = 0,
) -> list[list[int]]:
    """The responses of `decode_scored`, greedy if `generator` is None."""
    return decode_scored(model, prompts, ends, max_new_tokens, generator, min_new_tokens)[0]


@torch.inference_mode()
def decode_scored(
    model: PreTrainedModel,
    prompts: list[list[int]],
    ends: list[int],
    max_new_tokens: int,
    generator: torch.Generator | None,
    min_new_tokens: int = 0,
) -> tuple[list[list[int]], torch.Tensor | None]:
    """A response to each prompt, and the log-probabilities of its tokens (B, T), padded with 0; None if greedy.

    A response has token ids up to and with the first of `ends`, or `max_new_tokens` of them. The first `min_new_tokens`
    are drawn from the other tokens only, with their probabilities in proportion. The whole vocabulary is sampled at
    temperature 1 with `generator`; None decodes greedily. Raises ValueError if the model has another form than Qwen3's
    or Llama's, or a prompt and its response do not fit, and RuntimeError if a logit is not finite.
    """
    # Everything below is made on the model's device; on a CPU, the default, a small model would feel the detour.
    with contextlib.nullcontext() if model.device.type == "cpu" else model.device:
        return _decode(model, prompts, ends, max_new_tokens, generator, min_new_tokens)


def _decode(model, prompts, ends, max_new_tokens, generator, min_new_tokens):
    steps, is_end = _Decoder(model, prompts, max_new_tokens), torch.zeros(model.config.vocab_size, dtype=torch.bool)
    is_end[ends] = True
    uniforms, probabilities = None, None
    if generator is not None:
        size, kind = (len(prompts), max_new_tokens), {"dtype": torch.float64, "device": generator.device}
        uniforms = torch.rand(size, generator=generator, **kind).to(model.device)
        probabilities = torch.ones_like(uniforms)
    rows = torch.arange(len(prompts))
    tokens = torch.zeros(len(prompts), max_new_tokens, dtype=torch.long)
    lengths = torch.full((len(prompts),), max_new_tokens)
    going = torch.ones(len(prompts), dtype=torch.bool)
    logits = steps.logits
    for step in range(max_new_tokens):
        if not torch.isfinite(logits).all():  # in the words of torch.multinomial, which `generate` samples with
            raise RuntimeError("probability tensor contains `nan` or `inf`: the model's logits are not finite")
        if step < min_new_tokens:
            logits[:, is_end] = -torch.inf
        if uniforms is None:
            chosen = logits.argmax(-1)
        else:
            chosen, probabilities[rows, step] = _invert(logits, uniforms[rows, step])
        tokens[rows, step] = chosen
        ending = is_end[chosen] & going
        if ending.any():
            lengths[rows[ending]] = step + 1
            going &= ~ending
            left = int(going.sum())
            if left == 0:
                break
            if len(rows) - left >= SHARE_TO_LEAVE * len(rows):
                rows, chosen = rows[going], chosen[going]
                steps.keep(going)
                going = torch.ones(left, dtype=torch.bool)
        if step + 1 < max_new_tokens:
            logits = steps.next(chosen)
    responses = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    if probabilities is None:
        return responses, None
    log_probs = probabilities[:, : lengths.max()].log()
    return responses, log_probs.masked_fill_(torch.arange(log_probs.shape[1]) >= lengths[:, None], 0.0).float()


def _invert(logits_BV: torch.Tensor, uniform_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The token at which the cumulated probabilities first exceed each number of [0, 1), and its probability."""
    probabilities = logits_BV.double().softmax(-1)
    cumulated = probabilities.cumsum(-1)
    passed = cumulated <= (uniform_B * cumulated[:, -1]).unsqueeze(-1)
    chosen = passed.sum(-1).clamp(max=logits_BV.shape[-1] - 1)
    return chosen, probabilities.gather(1, chosen[:, None])[:, 0]


class _Decoder:
    """Keys, values and fused weights of a batch under way. logits: those of the first token, (B, V).

    Positions count from the left edge of the padded prompts: only differences of positions matter to rotary embeddings.
    """

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], max_new_tokens: int):
        config = model.config
        self.width = max(map(len, prompts))
        longest = self.width + max_new_tokens
        if not _is_known(config):
            raise ValueError(
                f"decode() reads Qwen3 and Llama without biases and windows, not this {config.model_type}; use generate"
            )
        if longest > config.max_position_embeddings:
            raise ValueError(
                f"prompt and response may have {longest} tokens, but the model holds {config.max_position_embeddings}; "
                "lower max_completion_length"
            )
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.eps = config.rms_norm_eps
        self.embedding, self.head, self.norm = (
            model.model.embed_tokens.weight,
            model.lm_head.weight,
            model.model.norm.weight,
        )
        self.layers = [_fused(layer) for layer in model.model.layers]
        cos, sin = model.model.rotary_emb(self.embedding[:1], torch.arange(longest).unsqueeze(0))
        half = torch.cat([-torch.ones(self.dim // 2), torch.ones(self.dim // 2)])
        # Llama has no norms of queries and keys.
        self.has_norms, one = config.model_type == "qwen3", torch.ones(self.dim)
        # The norms' weights, the sign of the rotation and attention's scale, all in the rotation's factors.
        for layer, fused in zip(model.model.layers, self.layers, strict=True):
            attention = layer.self_attn
            query, key = (attention.q_norm.weight, attention.k_norm.weight) if self.has_norms else (one, one)
            query = query * self.dim**-0.5
            weight = torch.cat([query.expand(self.heads, -1), key.expand(self.kv_heads, -1)])
            fused["cos"] = cos[0].unsqueeze(1) * weight
            fused["sin"] = (sin[0] * half).unsqueeze(1) * weight.roll(self.dim // 2, -1)
        self._read(model, prompts, longest)

    def _read(self, model, prompts: list[list[int]], longest: int) -> None:
        """Read each different prompt once with the model itself, and copy its keys and values to its rows."""
        unique = list(dict.fromkeys(map(tuple, prompts)))
        places = {prompt: place for place, prompt in enumerate(unique)}
        rows = torch.tensor([places[tuple(prompt)] for prompt in prompts])
        ids = torch.tensor([[0] * (self.width - len(prompt)) + list(prompt) for prompt in unique])
        mask = torch.tensor([[0] * (self.width - len(prompt)) + [1] * len(prompt) for prompt in unique])
        read = model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
        self.logits = read.logits[rows, -1]
        # Added to the scores, so that padding has no weight.
        self.bias = torch.zeros(len(rows), 1, longest)
        self.bias[:, :, : self.width] = torch.where(mask.bool(), 0.0, -torch.inf)[rows].unsqueeze(1)
        shape = len(rows), self.kv_heads, longest, self.dim
        self.cache = []
        for layer in read.past_key_values.layers:
            keys, values = torch.empty(shape), torch.empty(shape)
            keys[:, :, : self.width], values[:, :, : self.width] = layer.keys[rows], layer.values[rows]
            self.cache.append((keys, values))

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows only."""
        self.bias = self.bias[rows]
        self.cache = [(keys[rows], values[rows]) for keys, values in self.cache]

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append a token to each row; the logits (B, V) of the one after it."""
        place, heads, kv_heads = self.width, self.heads, self.kv_heads
        self.width += 1
        hidden = self.embedding[tokens]
        for fused, (keys, values) in zip(self.layers, self.cache, strict=True):
            states = F.linear(F.rms_norm(hidden, hidden.shape[1:], fused["norm"], self.eps), fused["qkv"])
            states = states.view(len(tokens), heads + 2 * kv_heads, self.dim)
            turned = states[:, : heads + kv_heads]
            if self.has_norms:
                turned = F.rms_norm(turned, (self.dim,), None, self.eps)
            turned = turned * fused["cos"][place] + turned.roll(self.dim // 2, -1) * fused["sin"][place]
            keys[:, :, place], values[:, :, place] = turned[:, heads:], states[:, heads + kv_heads :]
            query = turned[:, :heads].reshape(len(tokens) * kv_heads, heads // kv_heads, self.dim)
            scores = torch.bmm(query, keys.flatten(0, 1)[:, : self.width].transpose(1, 2))
            scores = scores.view(len(tokens), heads, -1).add_(self.bias[:, :, : self.width])
            weights = scores.softmax(-1).view(query.shape[0], query.shape[1], -1)
            mixed = torch.bmm(weights, values.flatten(0, 1)[:, : self.width]).view(len(tokens), -1)
            hidden = torch.addmm(hidden, mixed, fused["out"])
            both = F.linear(F.rms_norm(hidden, hidden.shape[1:], fused["mlp_norm"], self.eps), fused["gate_up"])
            gate, up = both.chunk(2, -1)
            hidden = torch.addmm(hidden, F.silu(gate) * up, fused["down"])
        return F.linear(F.rms_norm(hidden, hidden.shape[1:], self.norm, self.eps), self.head)


def _is_known(config) -> bool:
    if config.model_type not in ("qwen3", "llama") or config.attention_bias or getattr(config, "mlp_bias", False):
        return False
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return full and config.rope_parameters["rope_type"] in RELATIVE_ROTATIONS


def _fused(layer) -> dict[str, torch.Tensor]:
    """A layer's weights with those of the same input in one matrix, and transposed if a sum follows."""
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "norm": layer.input_layernorm.weight,
        "qkv": torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
        "out": attention.o_proj.weight.t(),
        "mlp_norm": layer.post_attention_layernorm.weight,
        "gate_up": torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        "down": mlp.down_proj.weight.t(),
    }
