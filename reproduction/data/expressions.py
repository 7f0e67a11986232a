"""Exact integer expressions with + - * and brackets: a parser that evaluates, and nothing else.

Questions come from files and models, so `eval` is out of the question: the grammar below is all that is understood.

    sum     = product (("+" | "-") product)*
    product = factor ("*" factor)*
    factor  = "-" factor | "(" sum ")" | digits
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_LENGTH = 10_000
MAX_DEPTH = 100

_TOKEN = re.compile(r"\s*([0-9]+|[-+*()])")
_WORDS_BEFORE = re.compile(r"\s*(?:[A-Za-z]+[\s,:]*)*")
_MARKS_AFTER = re.compile(r"[\s=?]*$")


@dataclass(frozen=True)
class Expression:
    """What an expression is worth and what it is made of.

    value: its exact value. num_terms: how many numbers it holds. max_digits: digits of its longest number.
    operators: the binary operators that occur, e.g. "+-". brackets: whether it has any.
    """

    value: int
    num_terms: int
    max_digits: int
    operators: str
    brackets: bool


def evaluate_chain(values: Sequence[int], operators: Sequence[str]) -> int:
    """Value of `values[0] operators[0] values[1] ...` with + - * and the usual precedence, in exact integers."""
    total, product, sign = 0, values[0], 1
    for operator, value in zip(operators, values[1:], strict=True):
        if operator == "*":
            product *= value
        else:
            total += sign * product
            sign, product = (1 if operator == "+" else -1), value
    return total + sign * product


def strip_question(question: str) -> str:
    """The expression inside a question: leading words and trailing '=' and '?' removed, spaces kept."""
    start = _WORDS_BEFORE.match(question).end()
    return question[start : _MARKS_AFTER.search(question, start).start()]


def normalise_question(question: str) -> str:
    """The form that a character-level model reads: words, spaces, '=' and '?' stripped, '=' appended.

    'What is   -11 - -79 - -69?' -> '-11--79--69='

    Raises ValueError if no expression of numbers, + - * and brackets remains.
    """
    return "".join(tokenise(strip_question(question))) + "="


def tokenise(text: str) -> list[str]:
    """Split into numbers, + - * and brackets.

    Raises ValueError at anything else, at two numbers in a row, at nothing at all and above 10,000 characters.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(text)} characters; at most {MAX_LENGTH} are read")
    text = text.rstrip()
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = text[position:].lstrip()[:1]
            raise ValueError(f"{found!r} is not part of an integer expression; use numbers, + - * and brackets")
        token = match[1]
        if token[0].isdigit() and tokens and tokens[-1][0].isdigit():
            raise ValueError(f"two numbers in a row ({tokens[-1][:20]} {token[:20]}); an operator is missing")
        tokens.append(token)
        position = match.end()
    if not tokens:
        raise ValueError("there is no expression in the question")
    return tokens


def parse_expression(text: str) -> Expression:
    """Parse and evaluate an expression of integers with + - *, unary minus and brackets.

    Raises ValueError if the text is not such an expression, is longer than 10,000 characters or nests more than
    100 levels deep.
    """
    parser = _Parser(tokenise(text))
    value = parser.sum(depth=0)
    if parser.position < len(parser.tokens):
        raise ValueError(f"an operator or the end was expected, found {parser.tokens[parser.position]!r}")
    return Expression(
        value=value,
        num_terms=parser.num_terms,
        max_digits=parser.max_digits,
        operators="".join(operator for operator in "+-*" if operator in parser.operators),
        brackets="(" in parser.tokens,
    )


class _Parser:
    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.position = 0
        self.num_terms = 0
        self.max_digits = 0
        self.operators: set[str] = set()

    def sum(self, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError(f"brackets nest more than {MAX_DEPTH} levels deep")
        values, operators = [self.factor(depth)], []
        while self.peek() in ("+", "-", "*"):
            operators.append(self.take())
            values.append(self.factor(depth))
        self.operators.update(operators)
        return evaluate_chain(values, operators)

    def factor(self, depth: int) -> int:
        sign = 1
        while self.peek() == "-":
            self.take()
            sign = -sign
        token = self.take()
        if token == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise ValueError("a bracket is not closed")
            return sign * value
        if not token[:1].isdigit():
            raise ValueError(f"a number or '(' was expected, found {token!r}" if token else "the expression breaks off")
        if len(token) > 1_000:
            raise ValueError(f"a number has {len(token)} digits; at most 1000 are read")
        self.num_terms += 1
        self.max_digits = max(self.max_digits, len(token))
        return sign * int(token)

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token
