"""A mirror with a tiny model and small datasets in Hugging Face's schema, and a configuration that trains on a CPU."""

import json
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen3Config

from reproduction.data.catalogue import get_set
from reproduction.settings.configuration import load
from tests.byte_tokenizer import byte_tokenizer

MODEL = {
    "name": "tiny/model", "revision": "a" * 40, "parameters": 1e5, "kv_bytes_per_token": 128, "vocabulary": 260,
    "layers": 1, "hidden_size": 32,
}  # fmt: skip


def write_model(mirror: Path, window: int = 1024, architecture: type[PreTrainedConfig] = Qwen3Config, **sizes) -> Path:
    """A model of some thousand weights in the mirror's layout."""
    folder = mirror / MODEL["name"] / MODEL["revision"]
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    small = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(
        architecture(
            vocab_size=len(tokenizer), max_position_embeddings=window, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, **{**small, **sizes},
        )
    )  # fmt: skip
    # A model's own defaults, which neither training nor evaluation may use.
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_sets(mirror: Path, rows: dict[str, list[dict]]) -> None:
    """Datasets of the catalogue, as Hugging Face has them."""
    for name, given in rows.items():
        declared = get_set(name)
        folder = mirror / declared.repository / declared.revision
        folder = folder / declared.configuration if declared.configuration else folder
        folder.mkdir(parents=True)
        (folder / f"{declared.split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))


SETS = {
    "dapo": [{"prompt": f"What is {a % 12} + 1?", "solution": str(a % 12 + 1)} for a in range(13)],
    "math500": [{"problem": f"What is {a} + 2?", "answer": str(a + 2)} for a in range(3)],
}


def tiny_overrides(mirror: Path, results: Path, scale: str = "paper", **model) -> dict:
    """The `paper` scale with its two first experiments cut down to the tiny model and sets, without a device.

    model: what `write_model` takes.
    """
    write_model(mirror, **model)
    write_sets(mirror, SETS)
    pretrained = {
        "model": MODEL,
        "train_sets": ["dapo"],
        "evaluation_sets": ["math500", "dapo"],
        "held_out": 4,
        "max_prompt_length": 128,
        "precision": "float32",
        "engine": "transformers",
        "micro_batch": 2,
        "activation_checkpointing": False,
        "devices": {"count": 0},
        "sampling": {"samples_per_problem": 2, "max_completion_length": 8, "batch_size": 4, "shard_problems": 3},
    }
    training = {
        "prompts_per_rollout": 2, "group_size": 4, "minibatches": 2, "rollout_batches": 2, "max_completion_length": 8,
        "keep_log_ratios_every": 1, "learning_rate": 0.01,
    }  # fmt: skip
    return {
        "scale": scale,
        "results": str(results),
        "seeds": [42],
        "data": {
            "mirror": str(mirror),
            "pins": {"dapo": {"rows": 13, "distinct": 12}, "math500": {"rows": 3}},
        },
        "problems": {"train_per_level": 20, "held_out_per_level": 3},
        "evaluation": {"bootstrap_resamples": 100},
        "experiments": {
            "kpo": {
                "methods": {"kpo-clipped": {}}, "training": training, "pretrained": pretrained,
                # An untrained model earns no reward: without noise there would be nothing to learn from.
                "reward_noise": {"gaussian": 1.0},
            },
            "krpo-normal": {
                "methods": {"krpo": {}},
                "reward_noise": {"gaussian": 1.0},
                "training": training,
                "pretrained": {
                    **pretrained, "train_sets": ["arithmetic"], "evaluation_sets": ["arithmetic"], "held_out": 0,
                    "max_prompt_length": 512,
                },
            },
        },
    }  # fmt: skip


def only(configuration_yaml: dict, *experiments: str) -> dict:
    """A resolved configuration with some of its experiments."""
    kept = {name: value for name, value in configuration_yaml["experiments"].items() if name in experiments}
    return {**configuration_yaml, "experiments": kept}


def tiny_configuration(mirror: Path, results: Path, overrides: dict | None = None):
    """The validated configuration with only the two experiments, written as the workflow writes it; and its file.

    overrides: those of `tiny_overrides`, changed.
    """
    from reproduction.settings.configuration import dump, validate

    whole = yaml.safe_load(dump(load(tiny_overrides(mirror, results) if overrides is None else overrides)))
    configuration = validate(only(whole, "kpo", "krpo-normal"), "tiny")
    path = configuration.folder / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(dump(configuration))
    return configuration, path
