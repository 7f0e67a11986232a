"""Taking the final answer out of a model's response, in time linear in its length."""

from collections.abc import Sequence

# What may announce an answer: LaTeX's box, and the four hashes that KPO's training prompt asks for.
MARKERS = ("boxed", "####")

_BOXES = ("\\boxed", "\\fbox")
_END_OF_THINKING = "</think>"


def extract_answer(text: str, markers: Sequence[str] = MARKERS) -> str | None:
    r"""The last answer that a response announces by ``\boxed{...}`` or ``####``, or None.

    Only what follows the last ``</think>`` is read, where there is one. Of all markers the last decides: a box holds
    what its balanced braces enclose (escaped braces do not count), hashes announce the rest of their line. A last box
    that is never closed is a response cut short: no answer. Dollar signs around the whole answer and a full stop after
    it are dropped.

    text: the whole response. markers: which of "boxed" and "####" count; KPO's release asks for "####" in its training
    prompt and grades boxes only (arXiv 2602.10609, released code), which is ``markers=("boxed",)``.

    Raises TypeError where text is no string, ValueError for an unknown or no marker.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be the response as a string, got {type(text).__name__}")
    if isinstance(markers, str) or not markers or set(markers) - set(MARKERS):
        raise ValueError(f"markers must be one or more of {list(MARKERS)}, got {markers!r}")
    start = text.rfind(_END_OF_THINKING)
    if start >= 0:
        text = text[start + len(_END_OF_THINKING) :]

    box_start, box_end = _last_box(text) if "boxed" in markers else (-1, -1)
    hashes = text.rfind("####") if "####" in markers else -1
    if max(box_start, hashes) < 0:
        return None
    if hashes > box_start:
        line = text[hashes + len("####") :].lstrip(" \t").split("\n", 1)[0]
        return _clean(line.strip().strip("*"))
    content = _box_content(text, box_end)
    return None if content is None else _clean(content)


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
