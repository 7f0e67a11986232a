"""Log-probabilities and entropies as the trainer computes them: those of the whole logits, which are never there."""

import pytest
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig

from kpo.methods import get_method
from reproduction.training.trainer import MethodTrainer
from tests.byte_tokenizer import byte_tokenizer

B, P, T, V = 4, 5, 60, 3000  # sequences, prompt tokens, response tokens, words


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        found = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *(tensor.numel() for tensor in found)])
        return result


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=V, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trainer")), use_cpu=True, bf16=False, beta=0.0, temperature=1.0,
        per_device_train_batch_size=4, num_generations=4, report_to="none", gradient_checkpointing=False,
    )  # fmt: skip
    return MethodTrainer(
        method=get_method("grpo", kl_weight=0.0),
        model=Qwen3ForCausalLM(config),
        args=arguments,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": "1+2="}] * 4),
    )


@pytest.fixture(scope="module")
def batch():
    """Prompts padded on the left, responses cut at different lengths; and weights for the sums to differentiate."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, V, (B, P + T), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(B):
        mask[row, :row] = 0
        mask[row, P + T - 7 * row :] = 0
    return ids, mask, torch.randn(B, T, generator=generator, dtype=torch.float64)


def plain(model, ids, mask):
    """From the whole logits, in float64."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, P - 1 : -1]
    log_p = torch.log_softmax(logits, dim=-1)
    chosen = torch.gather(log_p, 2, ids[:, P:].unsqueeze(2)).squeeze(2)
    return chosen, -(log_p.exp() * log_p).sum(dim=2)


def test_values_and_gradients_are_those_of_the_whole_logits(trainer, batch):
    ids, mask, weights = batch
    counted = mask[:, P:].bool()
    model = trainer.model
    found, entropy, _ = trainer._get_per_token_logps_and_entropies(model, ids, mask, T, compute_entropy=True)
    assert found.dtype == torch.float32
    model.zero_grad()
    (found * weights * counted).sum().backward()
    gradients = {name: parameter.grad.double() for name, parameter in model.named_parameters()}

    exact = Qwen3ForCausalLM(model.config).double()
    exact.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    expected, expected_entropy = plain(exact, ids, mask)
    torch.testing.assert_close(found.double()[counted], expected[counted], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double()[counted], expected_entropy[counted], atol=1e-5, rtol=1e-5)
    (expected * weights * counted).sum().backward()
    for name, parameter in exact.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_the_whole_logits_are_never_there(trainer, batch, monkeypatch):
    """With tiles of 32 x 256 the largest tensor is the head and its gradient; of whole logits it is all of B T V."""
    monkeypatch.setattr("trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE", 32)
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 256)
    ids, mask, weights = batch
    head = V * trainer.model.config.hidden_size
    with LargestTensor() as tiled:
        found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, T, compute_entropy=True)
        (found * weights).sum().backward()
    with LargestTensor() as whole:
        chosen, _ = plain(trainer.model, ids, mask)
        (chosen * weights).sum().backward()
    assert tiled.elements <= head < B * T * V <= whole.elements
