"""Comparing two answers in LaTeX: by math-verify, or as KPO's release does. Runs in the grading worker only.

Both parse text that a model wrote, which may take for ever or all memory: call `reproduction.rewards.grade_math` instead.
"""

import re

import math_verify

# The box is the answer. By default math-verify would go on to look for numbers inside it, so that
# "The gold answer is 5." would be 5.
_READ_AS = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]


def compare_latex(answer: str, gold: str) -> str:
    """'equal' or 'unequal' by math-verify; any exception is an error of the comparison."""
    gold_forms, answer_forms = _parse(gold), _parse(answer)
    if not gold_forms:
        raise ValueError("the gold answer cannot be parsed")
    if not answer_forms:
        return "unequal"
    # The library's own timeouts are alarm signals; the pool's timeout stands in for them.
    equal = math_verify.verify(gold_forms, answer_forms, timeout_seconds=None, raise_on_error=True)
    return "equal" if equal else "unequal"


def _parse(latex: str) -> list:
    # Unwrapped, "x \in [0,1]" or "\text{even}" are no answers to math-verify, and "1,000" is two.
    return math_verify.parse(f"\\boxed{{{latex}}}", _READ_AS, extraction_mode="first_match", parsing_timeout=None)


def compare_strings(answer: str, gold: str) -> str:
    """'equal' or 'unequal' by normalised strings, and by symbolic difference where those differ.

    In the manner of the grader that KPO's release uses (arXiv 2602.10609, released code): tuples are compared element
    by element; two fractions must be written alike; an integer is matched by an integer only.
    """
    answer, gold = normalise_latex(answer), normalise_latex(gold)
    if answer == gold:
        return "equal"
    answers, golds = _split_tuple(answer), _split_tuple(gold)
    same_brackets = len(golds) == 1 or (answer[:1] + answer[-1:] == gold[:1] + gold[-1:])
    if len(answers) != len(golds) or not same_brackets:
        return "unequal"
    pairs = zip(answers, golds, strict=True)
    return "equal" if all(_same_element(answer, gold) for answer, gold in pairs) else "unequal"


_SPACES = ("\\,", "\\;", "\\ ")
_DROPPED = ("\\left", "\\right", "\\!", "\\displaystyle", "\\$", "$", "\\%", "%")
_DEGREES = ("^\\circ", "^{\\circ}")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
# A lone m is metres after a space or in \text, else a variable: 3m is not 3.
_UNITS = re.compile(
    r"(?<=[0-9}])(?:\s*(?:degrees?|cm|km|mm|meters?|metres?|inch(?:es)?|feet|foot|units?|square units|hours?|minutes?"
    r"|seconds?|days?|dollars?|cents?|points?|mph)|\s+m)(?:\^\{?[23]\}?)?$"
)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_NAME_BEFORE = re.compile(r"^[a-zA-Z](?:\([a-zA-Z]\))?=")
_SHORT_FRACTION = re.compile(r"\\frac([0-9a-zA-Z])([0-9a-zA-Z])")
_SHORT_ROOT = re.compile(r"\\sqrt([0-9a-zA-Z])")
_SLASH = re.compile(r"^(-?)([0-9]+)/([0-9]+)$")
_FRACTION = re.compile(r"-?\\frac\{-?[0-9]+\}\{-?[0-9]+\}")
_INTEGER = re.compile(r"-?[0-9]+")
_ZERO_DECIMALS = re.compile(r"(?<=[0-9])\.0+$")


def normalise_latex(latex: str) -> str:
    r"""One spelling for answers that differ in typography only: '\dfrac12 \text{ cm}' -> '\frac{1}{2}'."""
    latex = latex.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cdot", "*")
    latex = latex.replace("{,}", ",")
    for part in _SPACES:
        latex = latex.replace(part, " ")
    for part in (*_DROPPED, *_DEGREES):
        latex = latex.replace(part, "")
    latex = _TEXT.sub(r" \1", latex).strip().rstrip(".")
    latex = _UNITS.sub("", latex)
    latex = re.sub(r"\s+", "", latex)
    if latex[:1] not in ("(", "[", "\\"):
        latex = _THOUSANDS.sub("", latex)
    latex = _NAME_BEFORE.sub("", latex)
    latex = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", latex)
    latex = _SHORT_ROOT.sub(r"\\sqrt{\1}", latex)
    latex = _SLASH.sub(r"\1\\frac{\2}{\3}", latex)
    latex = _ZERO_DECIMALS.sub("", latex)
    return ("0" + latex if latex.startswith(".") else latex).lower()


def _split_tuple(latex: str) -> list[str]:
    """Elements of '(a,b)' or '[a,b]', else the whole in a list."""
    if len(latex) < 2 or latex[0] not in "([" or latex[-1] not in ")]":
        return [latex]
    elements, depth, start = [], 0, 1
    for position, character in enumerate(latex[1:-1], start=1):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return [latex]
        if character == "," and depth == 0:
            elements.append(latex[start:position])
            start = position + 1
    return [*elements, latex[start:-1]]


def _same_element(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    if _FRACTION.fullmatch(answer) and _FRACTION.fullmatch(gold):
        return False
    if bool(_INTEGER.fullmatch(answer)) != bool(_INTEGER.fullmatch(gold)):
        return False
    return _symbolic_difference_vanishes(answer, gold)


def _symbolic_difference_vanishes(answer: str, gold: str) -> bool:
    import sympy
    from latex2sympy2_extended import latex2sympy

    try:
        difference = latex2sympy(f"({answer})-({gold})")
    except (MemoryError, RecursionError):
        raise
    except Exception:
        # Not mathematics: the strings differ, and that is all there is to compare.
        return False
    return isinstance(difference, sympy.Expr) and sympy.simplify(difference) == 0
