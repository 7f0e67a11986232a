"""Comparing two answers in LaTeX: by math-verify, or as KPO's release does. Runs in the grading worker only.

Both parse text that a model wrote, which may take forever or all memory: call `reproduction.rewards.grade_math`.
Both first read gold and answer as `normalise` spells them, compare their units and try each reading of a percent sign.
They differ, on purpose, in what follows:

    gold, answer                        math-verify   second   why
    6/8, 3/4                            equal         unequal  KPO's release: two fractions must be written alike
    4, \\sqrt{16}                        equal         unequal  KPO's release: an integer is matched by an integer only
    3, 5, 7 and 7, 5, 3; 1 \\pm \\sqrt{2}  equal       unequal  the second knows no sets and does not expand \\pm
    x \\in [0,1], [0,1]; y=2x, 2x        equal         unequal  the second knows no relations; it drops a name before =
    1/3, 0.333333                       equal         unequal  the second is exact
    1;2 or matrices written differently equal         unequal  the second splits (a,b) and [a,b] only
    2, 1 and (2, 1)                     equal         unequal  the second wants the same brackets
"""

import re
from collections.abc import Callable

import math_verify
import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from math_verify import grader

from reproduction.rewards.normalise import normalise, percent_as_number, percent_dropped, with_fractions
from reproduction.rewards.units import same_unit, split_unit

# A decimal of this many digits may be a rounded value; a shorter one is that value only.
SIGNIFICANT_DIGITS = 6

# The box is the answer. By default math-verify would go on to look for numbers inside it, so that
# "The gold answer is 5." would be 5. Units are read before: the library would take "\frac{1}{m} t" for 1/m.
_READ_AS = [
    math_verify.LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
        ),
    )
]


def compare_latex(answer: str, gold: str) -> str:
    """'equal' or 'unequal' by math-verify; any exception is an error of the comparison."""
    return _compare(answer, gold, _equal_latex)


def compare_strings(answer: str, gold: str) -> str:
    """'equal' or 'unequal' by normalised strings, and by symbolic difference if those differ.

    In the manner of the grader that KPO's release uses (arXiv 2602.10609, released code): tuples are compared element
    by element; two fractions must be written alike; an integer is matched by an integer only.
    """
    return _compare(answer, gold, _equal_strings)


def _compare(answer: str, gold: str, equal: Callable[[str, str], bool]) -> str:
    (answer, answer_unit), (gold, gold_unit) = split_unit(normalise(answer)), split_unit(normalise(gold))
    if answer_unit and gold_unit and not same_unit(answer_unit, gold_unit):
        return "unequal"
    return "equal" if any(equal(*pair) for pair in _readings(answer, gold)) else "unequal"


def _readings(answer: str, gold: str) -> list[tuple[str, str]]:
    """What to compare: a percentage is a number; if one side has no sign at all, the other's may go too."""
    if _RATIO.fullmatch(answer) and _RATIO.fullmatch(gold):
        # 4:30 is not 2:15, a time of day.
        return [(rf"\text{{{answer}}}", rf"\text{{{gold}}}")]
    signed = [one for one in (answer, gold) if r"\%" in one or r"\permil" in one]
    pairs = [(percent_as_number(answer), percent_as_number(gold))]
    if len(signed) == 1:
        pairs.append((percent_dropped(answer), percent_dropped(gold)))
    return pairs


_RATIO = re.compile(r"[\d.]+(?:\s*:\s*[\d.]+)+")


def _equal_latex(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    # The library takes the set {1, 2} for the interval (1, 2).
    if sorted((answer[:2] == r"\{", gold[:2] == r"\{")) == [False, True] and "(" in (answer[:1], gold[:1]):
        return False
    gold_forms, answer_forms = _parse(gold), _parse(answer)
    if not gold_forms:
        raise ValueError("the gold answer cannot be parsed")
    if not answer_forms:
        return False
    digits = SIGNIFICANT_DIGITS if "." in answer + gold else 0
    # The library's own timeouts are alarm signals; the pool's timeout replaces them.
    return math_verify.verify(
        gold_forms, answer_forms, float_rounding=digits, timeout_seconds=None, raise_on_error=True
    )


def _parse(latex: str) -> list:
    # Unwrapped, "x \in [0,1]" or "\text{even}" are no answers to math-verify, and "1,000" is two.
    boxed = f"\\boxed{{{with_fractions(latex)}}}"
    return math_verify.parse(boxed, _READ_AS, extraction_mode="first_match", parsing_timeout=None)


def same_number(gold, answer, digits: int, precision: int = 15) -> bool:
    """Whether two expressions are the same number, exactly; a rounded decimal is its value if `digits` > 0.

    Takes the place of math-verify's comparison, which rounds both to `digits` decimals whatever their size, and takes
    for 0 what is below 1e-15. False also for what `simplify` must decide.
    """
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        return gold.shape == answer.shape and all(
            map(lambda a, b: same_number(a, b, digits), gold.flat(), answer.flat())
        )
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    gold, answer = gold.doit(), answer.doit()
    difference = gold - answer
    if difference.is_Rational:
        return difference == 0 or (digits > 0 and (_rounds(gold, answer, digits) or _rounds(answer, gold, digits)))
    if not difference.is_number or difference.is_extended_real is not True or not difference.is_finite:
        return difference.is_zero is True
    # 'Precision 1' is sympy's sign of a 0 that it cannot tell from cancellation; anything else is surely not 0.
    size = difference.evalf(2, maxn=200)
    if size == 0 or (size.is_Float and size._prec == 1):
        return True
    return digits > 0 and (_rounds(gold, answer, digits) or _rounds(answer, gold, digits))


def _rounds(value: sympy.Expr, decimal: sympy.Expr, digits: int) -> bool:
    """Whether `value` is `decimal` once rounded to its last digit; `decimal` must have `digits` digits and a point."""
    if not decimal.is_Rational or decimal.is_Integer:
        return False
    places = 0
    bottom = decimal.q
    for prime in (2, 5):
        exponent = 0
        while bottom % prime == 0:
            bottom //= prime
            exponent += 1
        places = max(places, exponent)
    if bottom != 1 or len(str(abs(decimal.p) * 10**places // decimal.q)) < digits:
        return False
    return bool(abs(value - decimal) * 2 <= sympy.Rational(1, 10**places))


# The library compares the parts of sets, intervals and relations by this function of its module.
if not callable(getattr(grader, "sympy_numeric_eq", None)):
    raise ImportError("math-verify has no sympy_numeric_eq to replace; install math-verify 0.9.0")
grader.sympy_numeric_eq = same_number


_NAME_BEFORE = re.compile(r"^[a-zA-Z](?:\([a-zA-Z]\))?=")
_FRACTION = re.compile(r"-?\\frac\{-?[0-9]+\}\{-?[0-9]+\}")
_INTEGER = re.compile(r"-?[0-9]+")
_UNWRAPPED = re.compile(r"\\text\{([^{}]*)\}")


def _as_string(latex: str) -> str:
    r"""One string for answers that differ in layout only: '\text{ East}' -> 'east'."""
    latex = latex.replace("\\$", "").replace("^{\\circ}", "").replace("\\cdot", "*").replace("\\%", "")
    latex = re.sub(r"\s+", "", _UNWRAPPED.sub(r" \1", latex))
    return _NAME_BEFORE.sub("", latex).lower()


def _equal_strings(answer: str, gold: str) -> bool:
    words = "\\text" in answer + gold
    answer, gold = _as_string(answer), _as_string(gold)
    if answer == gold or words:
        return answer == gold
    answers, golds = _split_tuple(answer), _split_tuple(gold)
    same_brackets = len(golds) == 1 or (answer[:1] + answer[-1:] == gold[:1] + gold[-1:])
    if len(answers) != len(golds) or not same_brackets:
        return False
    return all(map(_same_element, answers, golds))


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
    return _symbolic_difference_vanishes(with_fractions(answer), with_fractions(gold))


def _symbolic_difference_vanishes(answer: str, gold: str) -> bool:
    try:
        difference = latex2sympy(f"({answer})-({gold})")
    except (MemoryError, RecursionError):
        raise
    except Exception:
        # Not mathematics: the strings differ, and that is all there is to compare.
        return False
    return isinstance(difference, sympy.Expr) and sympy.simplify(difference) == 0
