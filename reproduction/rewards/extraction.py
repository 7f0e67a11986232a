"""Taking the final answer out of a model's response, in time linear in its length."""

import re
from collections.abc import Sequence

# What may announce an answer: LaTeX's box, and the four hashes that KPO's training prompt asks for.
MARKERS = ("boxed", "####")

_BOXES = ("\\boxed", "\\fbox")
_END_OF_THINKING = "</think>"

# Four hashes are also Markdown for a heading: they announce an answer only at the start of a line that holds one, or
# of an empty line before it.
_HASHES = re.compile(r"(?:^|\n)[ \t>*]*####(?!#)([^\n]*)(?=(?:\n[ \t\r]*)*([^\n]*))")
_ANNOUNCED = re.compile(r"(?i)\**(?:the\s+)?(?:final\s+)?answer\s*(?:is\b)?\s*[:=]?\**\s*")
_NUMBERED_HEADING = re.compile(r"\d+[.):]\s+[^\W\d]{2,}")
_LATEX_WORDS = re.compile(r"\\[a-zA-Z]+(?:\{[^{}]*\})?")
_WORD = re.compile(r"[^\W\d_]{3,}")
_HEADINGS = frozenset(
    "verification verify explanation check checking conclusion solution summary note notes proof analysis approach"
    " reasoning method result results discussion remark example step steps part case reflection alternative final"
    " recap justification details calculation calculations simplification".split()
)


def extract_answer(text: str, markers: Sequence[str] = MARKERS) -> str | None:
    r"""The last answer that a response announces by ``\boxed{...}`` or ``####``, or None.

    If there is a ``</think>``, only what follows the last one is read. Of all markers the last decides: a box holds
    what its balanced braces enclose (escaped braces do not count); hashes at the start of a line announce the rest of
    that line, or the next line if theirs is empty, unless it reads like a heading (words instead of mathematics). A
    word after hashes counts only if nothing else is announced. A last box that is never closed is a response cut short:
    no answer. Dollar signs around the whole answer and a full stop after it are dropped.

    text: the whole response. markers: which of "boxed" and "####" count; KPO's release asks for "####" in its training
    prompt and grades boxes only (arXiv 2602.10609, released code), which is ``markers=("boxed",)``.

    Raises TypeError if text is no string, ValueError for an unknown or no marker.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be the response as a string, got {type(text).__name__}")
    if isinstance(markers, str) or not markers or set(markers) - set(MARKERS):
        raise ValueError(f"markers must be one or more of {list(MARKERS)}, got {markers!r}")
    start = text.rfind(_END_OF_THINKING)
    if start >= 0:
        text = text[start + len(_END_OF_THINKING) :]

    box_start, box_end = _last_box(text) if "boxed" in markers else (-1, -1)
    marked, position, word = _last_marked(text) if "####" in markers else (None, -1, None)
    if position > box_start:
        return marked
    if box_start < 0:
        return word
    content = _box_content(text, box_end)
    return None if content is None else _clean(content)


def _last_marked(text: str) -> tuple[str | None, int, str | None]:
    """The last mathematics that hashes announce and its position, and the last word that they do."""
    marked, position, word = None, -1, None
    for match in _HASHES.finditer(text):
        line = match[1].strip()
        if announced := _ANNOUNCED.match(line):
            line = line[announced.end() :]
        on_next = not line.strip(" *#")
        line = _clean((match[2] if on_next else line).strip().strip("*"))
        if line is None or "\\boxed" in line or "\\fbox" in line:
            continue
        words = _WORD.findall(_LATEX_WORDS.sub("", line))
        if _is_mathematics(line, words):
            marked, position = line, match.start()
        elif not on_next and len(words) <= 3 and words and words[0].lower() not in _HEADINGS:
            word = line
    return marked, position, word


def _is_mathematics(line: str, words: list[str]) -> bool:
    """Whether a line is an answer, not a heading: '42 apples' and 'x = 5', neither 'Step 2' nor '2. Verification'."""
    if _NUMBERED_HEADING.match(line):
        return False
    return not words or (len(words) <= 3 and not line[0].isalpha())


def _last_box(text: str) -> tuple[int, int]:
    """Start of the last box command and the position after its name; (-1, -1) without one."""
    start, end = max((text.rfind(box), text.rfind(box) + len(box)) for box in _BOXES)
    return (start, end) if start >= 0 else (-1, -1)


def _box_content(text: str, position: int) -> str | None:
    """What the box command that ends at `position` holds: a braced group, or else one word."""
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    if text[position : position + 1] != "{":
        word = text[position:].split("$", 1)[0].split(None, 1)[:1]
        return word[0] if word else None
    depth = 0
    start = position + 1
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start:position]
        position += 1
    return None


def _clean(answer: str) -> str | None:
    answer = answer.strip()
    # A full stop ends a sentence, unless it belongs to \right. or to an ellipsis.
    if answer.endswith(".") and not answer.endswith(("\\right.", "\\left.", "..")):
        answer = answer[:-1].rstrip()
    for _ in range(2):
        if len(answer) >= 2 and answer[0] == answer[-1] == "$" and answer[-2] != "\\":
            answer = answer[1:-1].strip()
    return answer or None
