"""Train a language model on GSM8K with TRL and KPO: change the values in `main` and run this file.

What differs from plain TRL is the trainer and its `method`:

    from kpo.trl import MethodTrainer
    trainer = MethodTrainer(method="kpo-clipped", model=model, reward_funcs=reward, train_dataset=dataset,
                            args=GRPOConfig(steps_per_generation=4, ...))
    trainer.train()

    python examples/trl_gsm8k.py                        one GPU; downloads the model and GSM8K
    python examples/trl_gsm8k.py --data problems.jsonl  problems of your own: a "question" and an "answer" a line
    python examples/trl_gsm8k.py --tiny --data ...      an untrained model of a few thousand weights, on any CPU

Needs `pip install ".[trl]"` in a clone, that is TRL with transformers, datasets and accelerate.
"""

import argparse
import re

from datasets import load_dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig

from kpo.methods import get_method
from kpo.trl import MethodTrainer

INSTRUCTION = "\nThink step by step. End with the answer alone on a line after ####."
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> float | None:
    """The first number after the last ####, or the last one of a text without it; None if there is none."""
    found = NUMBER.findall(text.rsplit("####", 1)[-1])
    return float(found[0 if "####" in text else -1].replace(",", "")) if found else None


def reward(completions, answer, **_) -> list[float | None]:
    """1 for a response whose number is that of the answer, else 0; None, ungraded, if the answer has no number."""
    texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    pairs = [(last_number(text), last_number(str(gold))) for text, gold in zip(texts, answer, strict=True)]
    return [None if gold is None else float(found == gold) for found, gold in pairs]


def tiny_model() -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """An untrained model and a tokenizer of single bytes, to try this file without a GPU and a network."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_ = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config), tokenizer


def main(arguments: list[str] | None = None) -> MethodTrainer:
    parser = argparse.ArgumentParser(description="Train on GSM8K with TRL and KPO.")
    parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct")
    parser.add_argument("--data", help="a JSONL file in place of GSM8K")
    parser.add_argument("--output", default="kpo-gsm8k")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--tiny", action="store_true", help="an untrained tiny model, on the CPU")
    given = parser.parse_args(arguments)

    if given.data is None:
        problems = load_dataset("openai/gsm8k", "main", split="train")
    else:
        problems = load_dataset("json", data_files=given.data, split="train")
    if missing := {"question", "answer"} - set(problems.column_names):
        parser.error(f"{given.data} has no {min(missing)}; each line needs a question and an answer")
    model, tokenizer = tiny_model() if given.tiny else (given.model, AutoTokenizer.from_pretrained(given.model))

    def with_prompt(row):
        text = row["question"] + INSTRUCTION
        return {"prompt": [{"role": "user", "content": text}] if tokenizer.chat_template else text}

    minibatches, accumulation = 4, 1 if given.tiny else 8
    trainer = MethodTrainer(
        # Any name of kpo.methods.METHODS. What of the method you want to change comes after its name.
        method=get_method("kpo-clipped", process_variance=1e-6, observation_variance=1.0),
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=problems.map(with_prompt),
        args=GRPOConfig(
            output_dir=given.output,
            max_steps=given.updates,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            num_generations=4 if given.tiny else 8,
            max_completion_length=16 if given.tiny else 512,
            # A rollout batch is 4 minibatches: with one, every ratio would be 1 and the filter would do nothing.
            per_device_train_batch_size=8,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=minibatches * accumulation,
            logging_steps=minibatches,
            save_steps=50 * minibatches,
            use_cpu=given.tiny,
            # Rounding to bfloat16 can move log-ratios by more than KPO's clip (docs/desktop_scale.md, "Precision").
            bf16=not given.tiny,
        ),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
