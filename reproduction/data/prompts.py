"""What a model is asked: the question, an instruction and a system prompt, put together by the model's chat template.

KPO's release asks for the answer after "####" when it trains, gives no instruction when it evaluates, and reads the
last box only (its data script and reward); thinking is off. KRPO's release gives a system prompt that asks for
reasoning in <think> and the answer in <answer>, and the bare question. All of these are values here, so that either
side of a disagreement is one configuration value away. The wording is this project's own, not the releases'.

A model too small to follow an instruction is given arithmetic as text that it continues (templates "line" and "text").
"""

from dataclasses import dataclass
from typing import Any

from kpo.checks import unknown_name
from reproduction.data.expressions import strip_question

INSTRUCTIONS = {
    "none": "",
    "boxed": "Reason step by step, and put the final answer within \\boxed{}.",
    "hashes": "Reason step by step, and write the final answer after ####.",
}
SYSTEM_PROMPTS = {
    "none": None,
    "krpo": (
        "You solve the user's problem. First think it through, and write your reasoning between <think> and </think>. "
        "Then give the answer, and nothing else, between <answer> and </answer>: "
        "<think> reasoning </think> <answer> answer </answer>"
    ),
}
TEMPLATES = ("chat", "plain", "line", "text")
WORKED_LINE = "12 + 5 = 17\n"
LINE_TAGS = (" ", "\n")
"""What is around the answer on a line that begins with "3 + 4 =", as <answer> and </answer> are elsewhere."""


@dataclass(frozen=True)
class PromptStyle:
    """How a question becomes a prompt.

    instruction: a name of INSTRUCTIONS, put after the question. system: a name of SYSTEM_PROMPTS. template: "chat", the
    tokenizer's chat template; "plain", the bare text (for models that have none); "line", a worked line and a second up
    to its "=", of arithmetic, where the response ends with the line; or "text", the same, where the model writes on.
    thinking: given to the template as enable_thinking, which Qwen3's knows; None leaves it out. Raises ValueError
    naming the field that is wrong.
    """

    instruction: str = "none"
    system: str = "none"
    template: str = "chat"
    thinking: bool | None = None

    def __post_init__(self):
        for name, known in (("instruction", INSTRUCTIONS), ("system", SYSTEM_PROMPTS), ("template", TEMPLATES)):
            if getattr(self, name) not in known:
                raise ValueError(unknown_name(name, getattr(self, name), known))
        if self.template != "chat" and (self.system != "none" or self.thinking is not None):
            raise ValueError(
                f"template {self.template!r} has no place for a system prompt or for thinking; set system: none and "
                "thinking: null, or template: chat"
            )
        if self.is_continued and self.instruction != "none":
            raise ValueError(f"template {self.template!r} has no place for an instruction; set instruction: none")

    @property
    def is_continued(self) -> bool:
        """Whether the prompt is arithmetic to go on with, not a question to answer."""
        return self.template in ("line", "text")

    @property
    def answer_tags(self) -> tuple[str, str]:
        """What is around the answer to a generated problem."""
        return LINE_TAGS if self.is_continued else ("<answer>", "</answer>")

    def end_tokens(self, tokenizer) -> list[int]:
        """The tokens that end a response besides the model's own: each that holds a line break, or none."""
        if self.template != "line":
            return []
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        return [token for token, text in enumerate(texts) if "\n" in text]

    @property
    def template_arguments(self) -> dict[str, Any]:
        """What the chat template is given in addition to the messages."""
        return {} if self.thinking is None else {"enable_thinking": self.thinking}


def user_text(question: str, style: PromptStyle) -> str:
    """The question with its instruction; of a template that is continued, the whole prompt."""
    if style.is_continued:
        return f"{WORKED_LINE}{' '.join(strip_question(question).split())} ="
    instruction = INSTRUCTIONS[style.instruction]
    return f"{question}\n\n{instruction}" if instruction else question


def prompt_messages(question: str, style: PromptStyle) -> list[dict[str, str]]:
    """The conversation before the model's turn, as chat templates take it."""
    system = SYSTEM_PROMPTS[style.system]
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": user_text(question, style)}]


def prompt_tokens(tokenizer, question: str, style: PromptStyle) -> list[int]:
    """The token ids that the model is given, template and special tokens included, each of them once.

    Raises ValueError if the style asks for a chat template and the tokenizer has none.
    """
    if style.template != "chat":
        return list(tokenizer(user_text(question, style)).input_ids)
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model, "
            "or set prompt.template: plain"
        )
    # From messages straight to ids: the text in between would be given a second begin-of-text token.
    found = tokenizer.apply_chat_template(
        prompt_messages(question, style), add_generation_prompt=True, tokenize=True, return_dict=True,
        **style.template_arguments,
    )  # fmt: skip
    return list(found["input_ids"])


def within_length(tokenizer, questions: list[str], style: PromptStyle, max_tokens: int) -> list[bool]:
    """Which questions make a prompt of at most `max_tokens` tokens; longer ones are dropped as in KPO's release."""
    return [len(prompt_tokens(tokenizer, question, style)) <= max_tokens for question in questions]
