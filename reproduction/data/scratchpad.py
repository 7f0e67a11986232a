"""The worked solutions that the laptop scale's base model learns to write: sums of signed terms, column by column.

The question ``-11--79--69=`` is answered by ::

    -11+79|+69:+79-11:9-1=8,7-1=6,=68;68+69|:+68+69:8+9=7c,6+6+1=3c,=137;<137>

One step for each term after the first: the running sum, the signed term and, set aside after ``|``, the terms still to
come (without this a small model loses its place in the question); the sign of the result and the two
magnitudes with the operation between them (for a subtraction the larger first); the columns from the units upwards,
each with the mark ``c`` if a carry or a borrow goes on to the next column; the new running sum. The answer is between
``<`` and ``>``.
"""

import random
import re

ANSWER_OPEN, ANSWER_CLOSE = "<", ">"
CHARACTERS = "0123456789+-=:,;c|" + ANSWER_OPEN + ANSWER_CLOSE

_QUESTION = re.compile(r"(-?\d+)((?:[+-]-?\d+)*)=")
_OPERATION = re.compile(r"([+-])(-?\d+)")


def signed_terms(question: str) -> list[int]:
    """Terms of a normalised sum, each with the sign that it is added with: ``-11--79--69=`` gives [-11, 79, 69].

    Raises ValueError if the question is not a sum of integers ending in ``=``.
    """
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(
            f"question {question!r} is not a sum such as '12+-7=': the small model reads integers, + and - only"
        )
    terms = [int(match[1])]
    terms += [int(number) if sign == "+" else -int(number) for sign, number in _OPERATION.findall(match[2])]
    return terms


def write_scratchpad(question: str, forgetting: float = 0.0, generator: random.Random | None = None) -> str:
    """Write the worked solution of a normalised sum.

    A forgetful teacher leaves out each mark ``c`` with probability `forgetting` and computes on as if nothing had been
    carried, so its later columns, running sums and answer follow consistently from the slip.

    Raises ValueError if the question is not a sum, `forgetting` is not a probability, or a forgetful teacher has no
    `generator` to draw from.
    """
    if not 0.0 <= forgetting <= 1.0:
        raise ValueError(f"forgetting must be a probability between 0 and 1, found {forgetting}")
    if forgetting and generator is None:
        raise ValueError("a forgetful teacher draws at random: give a random.Random as generator")
    total, *others = signed_terms(question)
    steps = []
    for index, term in enumerate(others, start=1):
        rest = "".join(f"{later:+d}" for later in others[index:])
        head = f"{total}{term:+d}|{rest}:"
        step, total = _write_step(total, term, forgetting, generator)
        steps.append(head + step)
    return "".join(steps) + f"{ANSWER_OPEN}{total}{ANSWER_CLOSE}"


def _write_step(total: int, term: int, forgetting: float, generator: random.Random | None) -> tuple[str, int]:
    adding = total * term >= 0
    # Equal signs add in the order given; unequal signs take the smaller magnitude from the larger.
    first, second = (total, term) if adding or abs(total) >= abs(term) else (term, total)
    negative = first < 0 or (first == 0 and second < 0)
    operation = "+" if adding else "-"
    width = max(len(str(abs(first))), len(str(abs(second))))
    first_digits, second_digits = (
        [int(digit) for digit in reversed(f"{abs(number):0{width}d}")] for number in (first, second)
    )

    columns, digits, carry = [], [], 0
    for upper, lower in zip(first_digits, second_digits, strict=True):
        value = upper + lower + carry if adding else upper - lower - carry
        due = value > 9 or value < 0
        written = due and not (forgetting and generator.random() < forgetting)
        carried = f"{operation}1" if carry else ""
        columns.append(f"{upper}{operation}{lower}{carried}={value % 10}{'c' if written else ''},")
        digits.append(value % 10)
        carry = int(written)
    if carry and adding:
        digits.append(1)
    magnitude = int("".join(str(digit) for digit in reversed(digits)))
    result = -magnitude if negative else magnitude
    order = f"{'-' if negative else '+'}{abs(first)}{operation}{abs(second)}"
    return f"{order}:{''.join(columns)}={result};", result
