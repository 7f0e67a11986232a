"""verl on a CPU, small and quiet: set before anything imports it. Without verl these tests fail and are not skipped."""

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VERL_USE_EXTERNAL_MODULES": "cpu_platform",
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # the engine that verl has for GPUs
        "PYTHONPATH": os.pathsep.join([HERE, str(Path(HERE).parents[1])]),  # of the processes that tests start
    }
)
sys.path[:0] = [HERE, str(Path(HERE).parent)]  # (some package installs a `tests` of its own)

import pytest  # noqa: E402
import torch  # noqa: E402
import verl  # noqa: E402, F401  (first, so that its plugins are loaded as in training)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a Qwen3 of 25,000 weights whose tokens are the letters and a few marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("model")
    marks = ["<|im_start|>", "<|im_end|>", "<pad>", "<unk>"]
    words = [*marks, *"abcdefghijklmnopqrstuvwxyz0123456789", *" \n=?+-:.,", "<answer>", "</answer>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.3,
        pad_token_id=2,
        eos_token_id=1,
        bos_token_id=0,
    )
    Qwen3ForCausalLM(config).float().save_pretrained(folder)
    return folder
