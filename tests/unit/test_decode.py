"""This project's decoding against transformers: logits, greedy tokens, the distribution of samples, stops."""

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
)

from reproduction.sampling import decode as module
from reproduction.sampling.decode import _Decoder, decode, decode_scored

VOCABULARY, PAD, END = 11, 0, 1


def small_model(kv_heads=2, seed=0, scale=0.35, vocabulary=VOCABULARY, architecture=Qwen3Config, **others):
    """Two layers of random weights, large enough that the next token is far from uniform."""
    torch.manual_seed(seed)
    config = architecture(
        vocab_size=vocabulary, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True,
        initializer_range=scale, pad_token_id=PAD, eos_token_id=END, bos_token_id=None,
        **others,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # those that training changes are not all one
                weight.uniform_(0.5, 1.5)
    return model


def random_prompts(count, seed=1, longest=9):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("architecture", [Qwen3Config, LlamaConfig])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_are_the_models_to_rounding(kv_heads, architecture):
    """Of given tokens, with prompts of different lengths, and after some rows have left."""
    model, prompts = small_model(kv_heads, architecture=architecture), random_prompts(7)
    given = torch.randint(2, VOCABULARY, (7, 30), generator=torch.Generator().manual_seed(2))
    steps, rows = _Decoder(model, prompts, 30), torch.arange(7)
    found = {0: (rows, steps.logits)}
    with torch.inference_mode():
        for step in range(29):
            if step in (5, 20):
                left = torch.arange(len(rows)) % 3 != 1
                steps.keep(left)
                rows = rows[left]
            found[step + 1] = rows, steps.next(given[rows, step])
        expected = [
            model(torch.tensor([prompt + row])).logits[0] for prompt, row in zip(prompts, given.tolist(), strict=True)
        ]
    assert len(rows) == 3
    worst = max(
        (logits[place] - expected[row][len(prompts[row]) - 1 + step]).abs().max().item()
        for step, (rows, logits) in found.items()
        for place, row in enumerate(rows.tolist())
    )
    assert worst < 2e-5, worst
    assert torch.stack([row.std() for row in expected]).min() > 0.5, "flat logits would prove little"


@pytest.mark.parametrize("kv_heads, architecture", [(4, Qwen3Config), (2, Qwen3Config), (2, LlamaConfig)])
@pytest.mark.parametrize("ends, least", [([END], 0), ([END, 4, 7], 0), ([END, 4, 7], 12), ([END], 40)])
def test_greedy_tokens_and_stops_are_those_of_generate(kv_heads, architecture, ends, least):
    model, prompts = small_model(kv_heads, seed=3, architecture=architecture), random_prompts(40)
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    length = {"max_new_tokens": 40, "min_new_tokens": least}
    settings = GenerationConfig(do_sample=False, pad_token_id=PAD, eos_token_id=ends, **length)
    output = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)[:, width:].tolist()
    expected = []
    for row in output:
        stops = [place for place, token in enumerate(row) if token in ends]
        expected.append(row[: stops[0] + 1] if stops else row)
    found = decode(model, prompts, ends, 40, min_new_tokens=least)
    assert found == expected
    lengths = {len(row) for row in found}
    assert max(lengths) == 40 and least <= min(lengths) < least + 10, "some must reach the limit, and some end early"


def test_samples_have_the_models_distribution():
    """Two tokens after each of two prompts: 60,000 draws of 36 pairs, against the product of exact probabilities."""
    model, draws = small_model(seed=4, vocabulary=6), 30_000
    prompts = [[2, 3, 4], [5]]
    found = decode(model, prompts * draws, [END], 2, torch.Generator().manual_seed(0))
    for place, prompt in enumerate(prompts):
        with torch.inference_mode():
            first = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
            after = model(torch.tensor([[*prompt, token] for token in range(6)])).logits[:, -1].double().softmax(-1)
        probabilities = {
            (token, *second): first[token].item() * (1.0 if not second else after[token, second[0]].item())
            for token in range(6)
            for second in ([()] if token == END else [(other,) for other in range(6)])
        }
        counts = dict.fromkeys(probabilities, 0)
        for row in found[place::2]:
            counts[tuple(row)] += 1
        often = [pair for pair, value in probabilities.items() if value * draws >= 5]
        rare = probabilities.keys() - set(often)
        observed = [counts[pair] for pair in often] + [sum(counts[pair] for pair in rare)] * bool(rare)
        expected = [probabilities[pair] * draws for pair in often] + [
            sum(probabilities[pair] for pair in rare) * draws
        ] * bool(rare)
        assert len(often) > 10 and chisquare(observed, expected).pvalue > 1e-3


def test_tokens_before_the_least_length_are_the_others_in_proportion():
    model, draws = small_model(seed=4, vocabulary=6), 20_000
    found = decode(model, [[2, 3, 4]] * draws, [END, 4], 2, torch.Generator().manual_seed(0), min_new_tokens=1)
    with torch.inference_mode():
        weights = model(torch.tensor([[2, 3, 4]])).logits[0, -1].double().softmax(-1)
        weights[[END, 4]] = 0.0
    counts = torch.tensor([row[0] for row in found]).bincount(minlength=6)
    assert counts[END] == counts[4] == 0 and any(row[1] in (END, 4) for row in found)
    left = weights > 0
    expected = draws * weights[left] / weights.sum()
    assert chisquare(counts[left].numpy(), expected.numpy()).pvalue > 1e-3


def test_a_row_does_not_depend_on_the_others(monkeypatch):
    """Its numbers are its own: with fewer rows after it, with rows that leave late or at once, and twice."""
    model, prompts = small_model(seed=3), random_prompts(30)
    sampled = decode(model, prompts, [END, 5], 30, torch.Generator().manual_seed(7))
    assert len({len(row) for row in sampled}) > 5
    assert decode(model, prompts, [END, 5], 30, torch.Generator().manual_seed(7)) == sampled
    assert decode(model, prompts[:9], [END, 5], 30, torch.Generator().manual_seed(7)) == sampled[:9]
    for share in (0.0, 1.0):
        monkeypatch.setattr(module, "SHARE_TO_LEAVE", share)
        assert decode(model, prompts, [END, 5], 30, torch.Generator().manual_seed(7)) == sampled
    generator = torch.Generator().manual_seed(7)
    decode(model, prompts, [END, 5], 30, generator)
    assert decode(model, prompts, [END, 5], 30, generator) != sampled


@pytest.mark.parametrize("least", [0, 3])
def test_log_probabilities_are_those_of_the_model(least):
    """Against the log-softmax in float64 of a forward pass for each row; the first `least` tokens cannot end it."""
    model, prompts, ends = small_model(seed=3), random_prompts(30), [END, 5]
    found, log_probs = decode_scored(model, prompts, ends, 30, torch.Generator().manual_seed(7), least)
    lengths = [len(row) for row in found]
    assert len(set(lengths)) > 5 and log_probs.shape == (30, max(lengths))
    with torch.inference_mode():
        for prompt, row, own in zip(prompts, found, log_probs, strict=True):
            logits = model(torch.tensor([prompt + row])).logits[0, len(prompt) - 1 : -1].double()
            logits[:least, ends] = -torch.inf
            expected = logits.log_softmax(-1).gather(1, torch.tensor(row)[:, None])[:, 0]
            assert torch.allclose(own[: len(row)].double(), expected, rtol=0, atol=2e-5)
            assert not own[len(row) :].any()
    assert decode_scored(model, prompts, ends, 30, None) == (decode(model, prompts, ends, 30), None)


def test_a_prompt_is_read_once_for_all_its_responses():
    model, read = small_model(), []
    model.register_forward_pre_hook(lambda _, __, inputs: read.append(inputs["input_ids"].tolist()), with_kwargs=True)
    found = decode(model, [[2, 3, 4], [5]] * 8 + [[2, 3, 4]], [END], 5, torch.Generator().manual_seed(0))
    assert read == [[[2, 3, 4], [0, 0, 5]]] and len(found) == 17


def test_every_response_stops_at_its_first_end():
    model, prompts = small_model(seed=3), random_prompts(50)
    for limit in (1, 2, 25):
        for row in decode(model, prompts, [END, 5], limit, torch.Generator().manual_seed(1)):
            assert 1 <= len(row) <= limit and not {END, 5} & set(row[:-1])
            assert len(row) == limit or row[-1] in (END, 5)


def test_the_last_token_with_any_weight_is_taken_at_the_end_of_the_unit_interval():
    logits = torch.tensor([[0.0, 1.0, -torch.inf], [-torch.inf, 2.0, 0.0]])
    below_one = torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    assert module._invert(logits, torch.zeros(2, dtype=torch.float64))[0].tolist() == [0, 1]
    assert module._invert(logits, below_one.expand(2))[0].tolist() == [1, 2]


def test_weights_that_are_not_finite_are_an_error():
    model = small_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    for generator in (None, torch.Generator()):
        with pytest.raises(RuntimeError, match="probability tensor contains"):
            decode(model, [[2]], [END], 4, generator)


def test_other_models_and_too_long_responses_are_refused():
    model = small_model()
    with pytest.raises(ValueError, match="prompt and response may have 129 tokens, but the model holds 128"):
        decode(model, [[2]], [END], 128)
    other = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ValueError, match="not this qwen2; use generate"):
        decode(other, [[2]], [END], 4)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    for wrong in ({"attention_bias": True}, {"mlp_bias": True}, {"rope_parameters": dynamic}):
        with pytest.raises(ValueError, match="not this llama; use generate"):
            decode(small_model(architecture=LlamaConfig, **wrong), [[2]], [END], 4)
