"""Prompts: the chat template once, the instruction and system prompt that the style asks for, and nothing twice."""

import pytest

from reproduction.data.prompts import (
    INSTRUCTIONS,
    SYSTEM_PROMPTS,
    PromptStyle,
    prompt_messages,
    prompt_tokens,
    within_length,
)
from tests.byte_tokenizer import byte_tokenizer


def written(style: PromptStyle, question: str = "What is 2 + 3?") -> str:
    tokenizer = byte_tokenizer()
    return tokenizer.decode(prompt_tokens(tokenizer, question, style))


def test_chat_template_with_thinking_off():
    text = written(PromptStyle(instruction="boxed", thinking=False))
    assert text == (
        f"<bos><turn>user\nWhat is 2 + 3?\n\n{INSTRUCTIONS['boxed']}<eos>\n<turn>assistant\n<think>\n\n</think>\n\n"
    )
    assert "<think>" not in written(PromptStyle(instruction="boxed"))
    assert "<think>" not in written(PromptStyle(instruction="boxed", thinking=True))


def test_instructions_ask_for_what_the_grader_reads():
    assert "\\boxed{}" in INSTRUCTIONS["boxed"] and "####" not in INSTRUCTIONS["boxed"]
    assert "####" in INSTRUCTIONS["hashes"] and "boxed" not in INSTRUCTIONS["hashes"]
    assert prompt_messages("1?", PromptStyle()) == [{"role": "user", "content": "1?"}]


def test_krpo_system_prompt_and_bare_question():
    style = PromptStyle(system="krpo")
    system, user = prompt_messages("  1 +2 ", style)
    assert system == {"role": "system", "content": SYSTEM_PROMPTS["krpo"]} and user["content"] == "  1 +2 "
    assert all(tag in system["content"] for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert written(style).count("<bos>") == 1


def test_plain_text_without_a_template():
    tokenizer = byte_tokenizer(chat=False)
    style = PromptStyle(template="plain", instruction="hashes")
    assert tokenizer.decode(prompt_tokens(tokenizer, "1?", style)) == f"<bos>1?\n\n{INSTRUCTIONS['hashes']}"
    with pytest.raises(ValueError, match="no chat template.*template: plain"):
        prompt_tokens(tokenizer, "1?", PromptStyle())


def test_length_is_counted_with_the_template():
    tokenizer = byte_tokenizer()
    length = len(prompt_tokens(tokenizer, "12345", PromptStyle()))
    assert within_length(tokenizer, ["12345", "123456"], PromptStyle(), length) == [True, False]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"instruction": "boxt"}, ["instruction", "did you mean 'boxed'"]),
        ({"system": "deepseek"}, ["system", "krpo"]),
        ({"template": "chatml"}, ["template", "'chat'"]),
        ({"template": "plain", "system": "krpo"}, ["plain", "system: none"]),
        ({"template": "plain", "thinking": False}, ["plain", "thinking: null"]),
    ],
)
def test_refusals(values, words):
    with pytest.raises(ValueError) as error:
        PromptStyle(**values)
    assert all(word in str(error.value) for word in words), str(error.value)
