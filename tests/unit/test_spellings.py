"""Golds and answers in other spellings of the same value are equal, near misses are not, for both graders."""

import json
import os
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reproduction.rewards.comparison import compare_latex, compare_strings

BOTH = [compare_latex, compare_strings]

# Golds of the kinds that the benchmarks have; the last three lines are in Minerva's notation.
GOLDS = r"""
    27 | -1.0 | 116 | 10,\!080 | 11,\! 111,\! 111,\! 100 | \$32,\!348 | \$18.90 | 58,500 | .35625 | .0000672
    2777.78 | \frac43 | \frac 59 | \frac9{19} | \frac{270}7\text{ degrees} | -\frac{35}{9} | \dfrac{17}{50}
    1\frac{4}{5} | 137 \frac{1}{2} | 40\% | 90^\circ | 15\mbox{ cm}^2 | 864 \mbox{ inches}^2 | 5.4 \text{ cents}
    3\sqrt{13} | 11\sqrt2 | 288 \pi | \frac{4000\pi}{3} | \sqrt{\frac{2\pi}{\sqrt{3}}} | 1+274i | 6 - 5i | 52_8
    4210_{5} | x^5 - x^4 + x^3 - x^2 + x - 1 | (a+5)(b+2) | \frac{2}{b - 1} | p - q | 5r^5 | \cot x | x=5
    y = 2x + 3 | 5x - 7y + 11z + 4 = 0 | \left( 3, \frac{\pi}{2} \right)
    (-\frac{\sqrt{2}}{2}, \frac{7\sqrt{2}}{2}) | (6,31,-1) | (3,4] | (2,\infty) | (-\infty, 2) \cup (3, \infty)
    x \in [-2,7] | 3, 5, 7 | 1,-2 | 1 \pm \sqrt{19} | \{1\pm\sqrt{5},-2\}
    \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix} | \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} | \text{east}
    \text{(C)} | \text{Evelyn} | \text{June} | 3e8 | 4.5e33 | 1.325e-27 | 6.5e-2 | 1e-3 | 2.75e11 | 7.0e15
    -1.6e-19 | 6e13 | 2e27 | -1./3 | -3./2 | np.arcsin(10/13) | \frac{37}{4} m | \frac{1}{m} t
    \arcsin{1.3 \sin{\theta}} | m c^{2} \sin ^{2} \theta | \frac{1}{\sqrt{2}}c
"""
GOLDS = [gold.strip() for line in GOLDS.strip().splitlines() for gold in line.split(" | ")]

_FULL_WIDTH = str.maketrans("0123456789,()", "０１２３４５６７８９，（）")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_COMMANDS = {
    r"\\pi(?![a-z])\s*": "π", r"\\infty(?![a-z])": "∞", r"\\cup": "∪", r"\\in(?![a-z])": "∈", r"\\pm": "±",
    r"\\theta": "θ", r"\^\\circ": "°", r"\\sqrt\{(\d+)\}": r"√\1", r"\\sqrt(\d)": r"√\1",
    r"-": "−", r"\\frac\{?1\}?\{?2\}?(?!\d)": "½",
}  # fmt: skip


def in_latex(gold: str) -> str:
    """Other commands and layout."""
    gold = re.sub(r"\\d?frac", r"\\tfrac", gold).replace("\\text", "\\mathrm").replace("\\mbox", "\\textrm")
    gold = re.sub(r"(?<!\\left)\((?!C)", r"\\left(", gold)
    if "]" in gold:
        gold = gold.replace("\\left(", "(")
    elif "\\left(" in gold:
        gold = re.sub(r"(?<!\\right)(?<!C)\)", r"\\right)", gold)
    return "$" + re.sub(r",(?![\\\d])", r",\\;", gold) + "$"


def in_unicode(gold: str) -> str:
    """Characters for commands, and full-width digits for others."""
    for pattern, replacement in _COMMANDS.items():
        gold = re.sub(pattern, replacement, gold)
    gold = re.sub(r"\^(?:\{(-?\d+)\}|(\d))", lambda match: (match[1] or match[2]).translate(_SUPERSCRIPTS), gold)
    return gold if re.search(r"[\\_√a-zA-Z]", gold) else gold.translate(_FULL_WIDTH)


_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?")


def with_other_numbers(gold: str) -> str:
    """Decimal zeros on integers outside of exponents and indices; a single number in scientific notation."""
    if _NUMBER.fullmatch(gold):
        value = Decimal(gold.rstrip("."))
        return rf"{value.scaleb(-value.adjusted())} \times 10^{{{value.adjusted()}}}"
    return re.sub(r"(?<![\w.^{_!,/}])(?<!\\frac )(\d+)(?![\d.,_/}{e]|\s*\\frac| \d)", r"\1.0", gold)


def in_a_program(gold: str) -> str:
    """Operators, functions and constants as programs spell them."""
    gold = re.sub(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", gold)
    gold = re.sub(r"\\sqrt\{([^{}]*)\}", r" sqrt(\1)", gold)
    gold = re.sub(r"\\pi\b", "pi", gold).replace("\\infty", "oo").replace("^\\circ", " degrees")
    return re.sub(r"\^(?:\{(\d+)\}|(\d))", r"**\1\2", gold)


def with_spaces(gold: str) -> str:
    return "\\displaystyle " + re.sub(r"(?<![a-z]) ", r"\\ ", gold).replace("+", " + ").replace("=", " = ") + "."


SPELLINGS = [in_latex, in_unicode, with_other_numbers, in_a_program, with_spaces]


def other_spellings(gold: str) -> list[str]:
    return list(dict.fromkeys(other for spell in SPELLINGS if (other := spell(gold)) != gold))


def near_misses(gold: str) -> list[str]:
    """The last number a thousandth off, ten times as large, and one more; a word with a letter more."""
    plain = re.sub(r"(\\!|\\,)\s*|(?<=\d),(?=\d{3}(?!\d))|\{,\}", "", gold)
    numbers = [one for one in re.finditer(r"(?<![\w.])(\d+\.?\d*|\.\d+)(e-?\d+)?(?![\w.])", plain) if Decimal(one[1])]
    if gold == "0":
        return ["1", "10^{-20}"]
    if not numbers:
        return [f"{gold} + 0.001", f"10({gold})"] if "text" not in gold else [gold.replace("text{", "text{n"), "7"]
    last = numbers[-1]
    number = Decimal(last[1].rstrip("."))
    others = [number * 10, number + 1]
    # A fraction's or matrix's integer and an exponent stay integers, as a decimal there would be no near miss.
    if "text{(" not in gold:
        others.append(number * Decimal("1.001"))
    return [plain[: last.start(1)] + format(other, "f") + plain[last.end(1) :] for other in others]


@pytest.mark.parametrize("gold", GOLDS)
def test_golds_in_other_spellings_and_near_misses(gold):
    others = other_spellings(gold)
    assert len(others) >= 2
    for other in others:
        assert compare_latex(other, gold) == compare_latex(gold, other) == compare_strings(other, gold) == "equal", (
            other
        )
    for miss in near_misses(gold):
        assert [compare(miss, gold) for compare in BOTH] == ["unequal", "unequal"], miss


# Gold and answers of the reported faults D1 to D8, and of their kinds.
EQUAL = {
    "D1 program notation": r"""
        3e8 == 3 \times 10^8 == 3\cdot10^{8} \text{ m/s} == 300,000,000 == 3x10^8 == 3 * 10**8
        3 \times 10^8 == 3e8
        4.5e33 == 4.5 \times 10^{33}
        1.325e-27 == 1.325 \times 10^{-27} \mathrm{~kg\,m/s}
        6.5e-2 == 0.065
        -1.6E-19 == -1.6 \cdot 10^{-19}
        1.5e+3 == 1500
        2e-3 == \frac{1}{500}
        -1./3 == -\frac{1}{3} == \frac{-1}{3}
        -3./2 == -1.5
        np.arcsin(10/13) == \arcsin\left(\frac{10}{13}\right) == \sin^{-1}(10/13) == \arcsin\frac{10}{13}
        math.sqrt(2)/2 == \frac{\sqrt{2}}{2}
        2**-3 == \frac18
        np.log(2) == \ln 2
        np.exp(-2) == e^{-2}
        2*np.pi == 2\pi
        Rational(1, 3) == \frac13
        atan(1) == \frac{\pi}{4}
        x**2 + 3*x == x^2+3x
    """,
    "D2 percent": r"""
        12.5\% == 12.5 == 0.125 == 12.5 percent == 12.5 \text{ percent} == 12.5 per cent == 12.5％ == 125‰
        12\% == 12 == \frac{3}{25}
        4.2 == 4.2\%
        33\frac{1}{3}\% == \frac{100}{3}\%
        33\frac13\% == \frac13
        \frac12\% == 0.5\%
        2.5‰ == 0.0025
        33 1/3 \% == 33\frac13\%
        x = 40\% == 0.4
    """,
    "D3 Unicode": r"""
        90^\circ == 90°
        45 == 45\degree
        \frac12 == ½
        x^2 == x²
        3\sqrt{2} == 3√2
        (-\infty, 3) == (-∞, 3)
        2\cdot x == 2 · x
        12345 == １２３４５
        12,345 == １２，３４５
        -5 == −5
        x \le 5 == x ≤ 5
        \frac{\pi}{2} == π/2
        \frac34 == ³⁄₄
        x_1^2 == x₁²
        10^{-7} == 10⁻⁷
        \sqrt[3]{2} == ∛2
        \sqrt{x+1} == √(x+1)
        25^\circ\text{C} == 25 ℃
        \{1\} \cup (2,3) == \{1\} ∪ (2,3)
    """,
    "D4 digit grouping": r"""
        12345 == 12\,345 == 12\;345 == 12~345 == 12 345 == 12{,}345 == 12,345 == 12\ 345 == 12'345 == 12_345
        1\,000\,000 == 10^6
        10,\!080 == 10\,080
        1234567.891 == 1\,234\,567.891
        3.141592 == 3.141\,592
        (12345, 2) == (12\,345, 2)
    """,
    "D5 tolerance": r"""
        .0000672 == 6.72e-5
        4e-7 == 0.0000004
        \frac13 == 0.33333333
    """,
    "D7 fractions": r"""
        \frac9{19} == \frac{9}{19}
        \frac{270}7\text{ degrees} == \frac{270}{7}\text{ degrees}
        \frac{a}2 == \tfrac{a}{2}
        \frac12 == \dfrac{1}2
    """,
    "D8 mixed numbers": r"""
        9/4 == 2 1/4 == 2¼ == 2\,\frac{1}{4} \text{ cups}
        8/3 == 2 2/3
        \frac94 == 2\frac14
        -9/4 == -2 1/4
        2\tfrac{1}{4} == 2.25
    """,
    "other notation": r"""
        3:4 == \frac{3}{4} == 3 : 4
        5 == +5
        104 == 104.
        \$5.50 == 5.5
        1.5 \text{ million} == 1500000
        0.\overline{3} == \frac13
        5 \text{ cm}^2 == 5 square centimeters
        9.8 \text{ m/s}^2 == 9.8\,\mathrm{m}\,\mathrm{s}^{-2}
        e^2 == \mathrm{e}^{2}
    """,
}
UNEQUAL = {
    "D1 program notation": r"""
        3e8 != 3e \cdot 8 != 3 \times 10^9 != 2.99e8
        3e-8 != 3e8
        3e - 8 != 3e-8
        np.arcsin(10/13) != \arccos(10/13)
        2**3 != 2*3
        -1./3 != -1.3
        np.log(2) != \log_{10}(2)
    """,
    "D2 percent": r"""
        12.5\% != 1.25 != 12.5‰
        12\% != 1.2 != 12.012\%
        0.28 != 28
        \frac12\% != 50\%
        11 != 1+10\%
    """,
    "D3 Unicode": r"""
        x^2 != x2 != x₂
        \frac12 != 12
        3\sqrt{2} != 3√3
        90^\circ != 90 rad
        x < 5 != x ≤ 5
    """,
    "D4 digit grouping": r"""
        12345 != 12\,346 != 12, 345
        (1,234) != 1234
        1\,000 != 1.000
    """,
    "D5 tolerance": r"""
        .0000672 != 0.000067
        0.0000004 != 0.0000001
        2.88 \times 10^{-19} != 1.44 \times 10^{-19}
        2^{-99} != 2^{-98}
        (1, 2^{-99}) != (1, 2^{-98})
        0.333 != \frac13
        123456789 != 1.23456788 \times 10^8
        1.000001 != 1.000002
        10^{20} + 1.0 != 10^{20}
        314159 != 100000\pi
        1e-300 != 2e-300
    """,
    "D8 mixed numbers": r"""
        4/3 != 2 2/3
        22/3 != 2 2/3
        9/4 != 2 1/5
        \frac24 != 2\frac14
    """,
    "units": r"""
        5 \text{ cm} != 5 \text{ km} != 5 cm^2
        \$5 != 5 \text{ cents}
        3e8 m/s != 3e8 km/s
        25^\circ\text{C} != 25^\circ\text{F}
        52_8 != 52_7
        5 \text{ hours} != 5 \text{ minutes}
        4:30 != 2:15
        \frac{37}{4} m != \frac{37}{4}
        2mg != 2
    """,
}


def read_pairs(table: str, sign: str) -> list[tuple[str, str]]:
    """(gold, answer) for each line 'gold == answer == answer'."""
    lines = [line.strip().split(f" {sign} ") for line in table.strip().splitlines()]
    assert all(len(line) > 1 for line in lines)
    return [(gold, answer) for gold, *answers in lines for answer in answers]


@pytest.mark.parametrize("kind", EQUAL)
def test_reported_spellings_are_equal_to_both_graders(kind):
    # 1/3 and its decimal are equal to the first only.
    rounded = [(r"\frac13", "0.33333333")]
    wrong = [
        (compare.__name__, *pair)
        for pair in read_pairs(EQUAL[kind], "==")
        for compare in (BOTH[:1] if pair in rounded else BOTH)
        if {compare(*pair), compare(*pair[::-1])} != {"equal"}
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", UNEQUAL)
def test_near_misses_are_unequal_to_both_graders(kind):
    wrong = [
        (compare.__name__, *pair)
        for pair in read_pairs(UNEQUAL[kind], "!=")
        for compare in BOTH
        if {compare(*pair), compare(*pair[::-1])} != {"unequal"}
    ]
    assert wrong == []


def decimal_spellings(value: Decimal) -> list[str]:
    """A decimal number in the notations of texts and programs."""
    plain = format(value, "f")
    sign, digits, exponent = value.as_tuple()
    minus = "-" * sign
    whole, _, decimals = plain.removeprefix("-").partition(".")
    grouped = [
        f"{int(whole):,}".replace(",", gap) + ("." + decimals if decimals else "")
        for gap in (",", r"\,", "{,}", "~", " ", "\u202f")
    ]
    mantissa = f"{digits[0]}.{''.join(map(str, digits[1:])) or '0'}"
    power = exponent + len(digits) - 1
    tenfold = [
        rf"{mantissa} \times 10^{{{power}}}", rf"{mantissa}\cdot10^{{{power}}}", f"{mantissa}e{power}",
        f"{mantissa}E{power:+03d}",
        f"{mantissa} x 10^{power}", f"{mantissa}*10**{power}", f"{mantissa} × 10{str(power).translate(_SUPERSCRIPTS)}",
        rf"{''.join(map(str, digits))} \times 10^{{{exponent}}}",
    ]  # fmt: skip
    percent = format(value * 100, "f")
    return [
        plain, plain.translate(_FULL_WIDTH), plain.replace("-", "−"), rf"{plain} \text{{ cm}}", f"{plain}.",
        *(minus + one for one in grouped + tenfold), rf"{percent}\%", f"{percent} percent",
        format(value * 1000, "f") + "‰",
    ]  # fmt: skip


def fraction_spellings(value: Fraction) -> list[str]:
    """A fraction in lowest terms, as a quotient, a mixed number and a percentage."""
    minus, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    whole, rest = divmod(top, bottom)
    percent = abs(value) * 100
    mixed = [
        rf"{whole}\frac{{{rest}}}{{{bottom}}}", f"{whole} {rest}/{bottom}", rf"{whole} \tfrac{{{rest}}}{{{bottom}}}",
    ]  # fmt: skip
    spellings = [
        rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"{top}./{bottom}",
        f"Fraction({top}, {bottom})",
        rf"\frac{{{percent.numerator}}}{{{percent.denominator}}}\%",
    ] + mixed * (whole > 0 and rest > 0)  # fmt: skip
    return [minus + one for one in spellings]


decimals = st.builds(
    lambda mantissa, exponent: Decimal(f"{mantissa}e{exponent}"),
    st.integers(-99_999_999, 99_999_999).filter(bool),
    st.integers(-40, 40),
)
fractions = st.builds(Fraction, st.integers(-5_000, 5_000).filter(bool), st.integers(2, 999)).filter(
    lambda one: one.denominator > 1
)


@st.composite
def two_spellings(draw, off=(1,)):
    """Spellings of a random value and of the same value times one of `off`."""
    factor = draw(st.sampled_from(off))
    if draw(st.booleans()):
        value = draw(decimals)
        return draw(st.sampled_from(decimal_spellings(value))), draw(st.sampled_from(decimal_spellings(value * factor)))
    value = draw(fractions)
    other = value * Fraction(factor)
    return draw(st.sampled_from(fraction_spellings(value))), draw(st.sampled_from(fraction_spellings(other)))


@given(pair=two_spellings())
@example(pair=("3e8", r"3 \times 10^8"))
@settings(max_examples=250, deadline=None)
def test_a_random_value_in_two_spellings_is_equal(pair):
    assert [compare(*pair) for compare in BOTH] == ["equal", "equal"]


# A thousandth off, other powers of ten, the other sign; 100 and 1000 times as much is the same with one percent sign.
@given(
    pair=two_spellings(
        off=[Decimal(one) for one in ("1.001", "0.999", "1.00001", "10", "0.1", "10000", "-1", "1.5", "2")]
    )
)
@example(pair=("2^{-99}", "2^{-98}"))
@settings(max_examples=250, deadline=None)
def test_two_different_values_are_unequal(pair):
    assert [compare(*pair) for compare in BOTH] == ["unequal", "unequal"]


# Field that holds the gold answer, and the number of rows.
BENCHMARKS = {
    "math500": ("answer", 500),
    "aime24": ("answer", 30),
    "amc23": ("answer", 40),
    "openmathinstruct2_100": ("expected_answer", 100),
}


@pytest.mark.skipif("KPO_MATH_FOLDER" not in os.environ, reason="KPO_MATH_FOLDER names no folder of benchmarks")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_gold_of_the_benchmark_files(name):
    field, count = BENCHMARKS[name]
    lines = (Path(os.environ["KPO_MATH_FOLDER"]) / f"{name}.jsonl").read_text().splitlines()
    golds = [str(json.loads(line)[field]) for line in lines]
    assert len(golds) == count
    wrong = []
    for gold in dict.fromkeys(golds):
        others = other_spellings(gold)
        assert len(others) >= 2, gold
        wrong += [(gold, one) for one in (gold, *others) if {compare(one, gold) for compare in BOTH} != {"equal"}]
        wrong += [(gold, one) for one in near_misses(gold) if {compare(one, gold) for compare in BOTH} != {"unequal"}]
    assert wrong == []
