r"""One spelling for golds and answers, before either grader compares them.

    kind                    read alike                                              not touched
    program notation        3e8, 1.325E-27, 3x10^8, 2**-3, -1./3, np.arcsin(x),     3e \cdot 8, 3e - 8: Euler's number
                            sqrt(x), pi, oo, <=, Rational(1, 3)
    scientific notation     3 \times 10^8, 3 \cdot 10^{8}, 10⁸                     exponents beyond 400
    percent, per mille      12.5\%, 12.5 percent, \frac{25}{2}\%: 0.125;            two signs: never dropped
                            a sign on one side only may be missing on the other
    Unicode                 ° ½ x² √2 ∞ · − ≤ π, full-width and other digits        letters without a LaTeX command
    digit grouping          12,345  12{,}345  12\,345  12~345  12 345  12'345       commas in brackets or before a space
    mixed numbers           2 1/4, 2\frac14, 2½: 9/4                                improper fractions
    fractions, roots        \frac9{19}, \dfrac, \tfrac, 9/19, \sqrt2                x/y
    plain numbers           .5, 0.50, 05, 5., +5
    units                   see `units.py`

A number is written out exactly (`Decimal`, `Fraction`); nothing is rounded.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

MAX_EXPONENT = 400

_UNICODE = {
    "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "﹣": "-", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "•": r"\cdot ", "×": r"\cdot ", "✕": r"\cdot ", "∗": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "∶": ":", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≦": r"\le ",
    "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "⌀": r"\emptyset ", "∖": r"\setminus ", "⊂": r"\subset ",
    "⊆": r"\subseteq ", "∧": r"\wedge ", "∨": r"\vee ", "→": r"\to ", "⇒": r"\Rightarrow ", "∠": r"\angle ",
    "°": r"^{\circ}", "º": r"^{\circ}", "˚": r"^{\circ}", "∘": r"\circ ", "′": "'", "’": "'", "‘": "'", "″": "''",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∂": r"\partial ", "∇": r"\nabla ", "…": r"\ldots ",
    "⋯": r"\cdots ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "ℏ": r"\hbar ", "ℓ": r"\ell ", "∣": "|", "‰": r"\permil ", "、": ",", "。": ".",
    "\u00a0": "~", "\u2009": r"\,", "\u202f": r"\,", "\u2007": r"\,", "\u2008": r"\,", "\u200a": r"\,",
    "\u2006": r"\,", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u2061": "",
    "\u2062": "", "\u00ad": "", "£": r"\text{GBP}", "€": r"\text{EUR}", "¥": r"\text{JPY}", "￥": r"\text{JPY}",
    "¢": r"\text{cent}",
}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"
    " nu xi pi rho sigma tau upsilon phi chi psi omega"
).split()
_SUPERSCRIPT, _SUBSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢₐₑₒₓₖₘₚₜⱼ"
_PLAIN = str.maketrans(_SUPERSCRIPT + _SUBSCRIPT, "0123456789+-=()ni" + "0123456789+-=()niaeoxkmptj")
_SMALL_FRACTION = re.compile(f"([{_SUPERSCRIPT}]+)[⁄/∕]([{_SUBSCRIPT}]+)")
_MICRO = re.compile(r"(?<=\d)\s*[µμ]([mgsAVLWJ])(?![a-zA-Z])")
_RAISED, _LOWERED = re.compile(f"[{_SUPERSCRIPT}]+"), re.compile(f"[{_SUBSCRIPT}]+")
_RADICAL = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[^\W\d])?")
_RADICALS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}


def _character(character: str) -> str:
    """LaTeX for one character that is not ASCII."""
    if character in _UNICODE:
        return _UNICODE[character]
    form, *parts = unicodedata.decomposition(character).split() or [""]
    if form == "<fraction>" and parts[-1] != "2044":
        top, bottom = "".join(chr(int(part, 16)) for part in parts).split("⁄")
        return rf"\frac{{{top}}}{{{bottom}}}"
    plain = unicodedata.normalize("NFKC", character)
    if plain != character:
        return "".join(part if part.isascii() else _character(part) for part in plain)
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    name = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").replace("FINAL SIGMA", "SIGMA").split()
    if name[:1] == ["GREEK"] and name[2:3] == ["LETTER"] and name[-1].lower() in _GREEK:
        return f"\\{name[-1].capitalize() if name[1] == 'CAPITAL' else name[-1].lower()} "
    return " " if character.isspace() else character


def _to_ascii(text: str) -> str:
    if text.isascii():
        return text
    text = _MICRO.sub(r"\\text{µ\1}", text)
    text = _SMALL_FRACTION.sub(lambda m: rf"\frac{{{m[1].translate(_PLAIN)}}}{{{m[2].translate(_PLAIN)}}}", text)
    text = _RAISED.sub(lambda m: f"^{{{m[0].translate(_PLAIN)}}}", text)
    text = _LOWERED.sub(lambda m: f"_{{{m[0].translate(_PLAIN)}}}", text)
    text = _RADICAL.sub(lambda m: _RADICALS[m[1]] + (f"{{{m[2]}}}" if m[2] else ""), text)
    return "".join(one if one.isascii() else _character(one) for one in text)


# Typography that changes no value. \mathrm{i} and the like are symbols; other words in roman are text.
_TYPOGRAPHY = [
    (re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])\.?"), ""),
    (re.compile(r"\\!(?:\s|\\ )*|\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])|\\mathstrut"), ""),
    (re.compile(r"(?<!\\)(?:\$|\\[()\[\]])"), ""),
    (re.compile(r"\\(?:num|pu)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\ang\s*\{([^{}]*)\}"), r"\1^{\\circ}"),
    (re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1\\text{\2}"),
    (re.compile(r"\\(?:mathrm|mathit|mathbf|operatorname)\s*\{\s*([a-zA-Z])\s*\}(?<=[ied]\})"), r"\1"),
    (re.compile(r"\\(?:mathrm|textrm|textbf|textit|textnormal|mathbf|mathit|mbox|hbox|unit)\s*\{"), r"\\text{"),
    (re.compile(r"\{\s*\\rm\s+([^{}]*)\}"), r"\\text{\1}"),
    (re.compile(r"\\text\s*\{"), r"\\text{"),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:times|cdot|ast|cdotp)(?![a-zA-Z])|\*(?!\*)(?<!\*\*)"), r"\\cdot "),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\neq(?![a-zA-Z])|!="), r"\\ne "),
    (re.compile(r"\\(?:text)?degree(?![a-zA-Z])|\^\s*\{?\s*\\circ(?![a-zA-Z])\s*\}?"), r"^{\\circ}"),
    (re.compile(r"(?<=\d)\^\{?o\}?(?![a-z])"), r"^{\\circ}"),
    (re.compile(r"(?:\\text\{\s*)?(?:\\?%|\\?\b(?:percentage(?: points?)?|per ?cent|pct)\b)(?:\s*\})?"), r"\\% "),
    (re.compile(r"(?:\\text\{\s*)?(?:\\permil|\\textperthousand|\bper ?mille?\b)(?:\s*\})?"), r"\\permil "),
    (re.compile(r"\\text\{([eE])\}"), r"\1"),
]  # fmt: skip


_MODULE = re.compile(r"(?<![a-zA-Z\\])(?:np|numpy|math|cmath|sp|sympy)\.(?=[a-zA-Z])(?:log\b(?=\s*[({]))?")
_FUNCTIONS = {
    **{
        name: f"\\{name}"
        for name in "arcsin arccos arctan sinh cosh tanh sin cos tan sec csc cot sqrt abs exp log ln".split()
    },
    **{short: f"\\arc{short[1:]}" for short in ("asin", "acos", "atan")},
    "log10": r"\log_{10}", "log2": r"\log_{2}", "cbrt": r"\sqrt[3]",
}  # fmt: skip
_FUNCTION = re.compile(rf"(?<![a-zA-Z\\])({'|'.join(sorted(_FUNCTIONS, key=len, reverse=True))})(?=\s*[({{])")
_CONSTANT = re.compile(r"(?<![a-zA-Z\\])(pi|oo|inf(?:inity)?|theta|alpha|beta|gamma|lambda|omega)(?![a-zA-Z])")
_CONSTANTS = {"oo": r"\infty ", "inf": r"\infty ", "infinity": r"\infty "}
_RATIONAL = re.compile(r"\b(?:Rational|Fraction)\(\s*(-?\d+)\s*,\s*(\d+)\s*\)")
_TEXT = re.compile(r"(\\text\{[^{}]*\})")


def _from_program(text: str) -> str:
    """LaTeX for a program's operators, functions and constants, outside of words."""
    text = _RATIONAL.sub(r"\\frac{\1}{\2}", text.replace("**", "^"))
    # A program's log is the natural one; LaTeX's is the reader's to know.
    text = _MODULE.sub(lambda match: r"\ln" if match[0].endswith("log") else "", text)
    text = _FUNCTION.sub(lambda match: _FUNCTIONS[match[1]], text)
    return _CONSTANT.sub(lambda match: _CONSTANTS.get(match[1], f"\\{match[1]} "), text)


_COMMAND = re.compile(r"\\(?:(frac)|sqrt(?:\s*\[[^\[\]]*\])?|(abs))(?![a-zA-Z])|(\^)")
_TOKEN = re.compile(r"\d|\\[a-zA-Z]+(?!\s*\{)|[a-zA-Z]")
_EXPONENT = re.compile(r"[+-]?\s*(?:\d+(?:\.\d+)?|\\?[a-zA-Z]+)")


def _closers(text: str) -> dict[int, int]:
    """Position of each opening brace or parenthesis -> position of the one that closes it."""
    closers, open_at, position = {}, {"{": [], "(": []}, 0
    while position < len(text):
        character = text[position]
        if character in "{(":
            open_at[character].append(position)
        elif character in "})" and open_at["{" if character == "}" else "("]:
            closers[open_at["{" if character == "}" else "("].pop()] = position
        position += 2 if character == "\\" else 1
    return closers


def _brace_arguments(text: str) -> str:
    r"""Braces around what \frac, \sqrt and ^ take: in TeX's manner, but 10^23 and 10^-7 as they are meant."""
    closers = _closers(text)
    edits: list[tuple[int, int, str]] = []
    for command in _COMMAND.finditer(text):
        position = command.end()
        for _ in range(2 if command[1] else 1):
            start = position
            while text[position : position + 1] in (" ", "\n", "\t"):
                position += 1
            edits.append((start, position, ""))
            bracket = text[position : position + 1]
            end = closers.get(position, -1)
            if end >= 0 and (bracket == "{" or not command[1]):
                if bracket == "(" or command[2]:
                    left, right = "||" if command[2] else "{}"
                    edits += [(position, position + 1, left), (end, end + 1, right)]
                position = end + 1
                continue
            token = (_EXPONENT if command[3] and bracket in "+-0123456789" else _TOKEN).match(text, position)
            if token is None or bracket == "":
                break
            edits += [(position, position, "{"), (token.end(), token.end(), "}")]
            position = token.end()
    parts, done = [], 0
    for start, end, replacement in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[done:start], replacement]
        done = end
    return re.sub(r"\\abs(?=\|)", "", "".join(parts) + text[done:])


_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_FREE = r"(?<![\w.^\\])"  # neither inside a name or another number nor an exponent
_GAP = r"(?:\\[,;:> ]|~|[ \t\n]+|\{,\}|')"
_GROUPED = re.compile(rf"{_FREE}\d{{1,3}}(?:(?:{_GAP}|_)\d{{3}})+(?![\d_/])")
_GROUPED_DECIMALS = re.compile(r"(?<=\d\.)\d{3}(?:(?:\\[,;:]|~| )\d{3})*(?:(?:\\[,;:]|~)\d{1,3}| \d{3})(?![\d/])")
_COMMAS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")
_SPACE = re.compile(r"(\\\\)|(?:\\[,;:> ]|\\q?quad(?![a-zA-Z])|~|\s)+")
_E_NOTATION = re.compile(rf"{_FREE}({_NUMBER})[eE]([+-]?\d+)(?!\d|\.\d|[\^_(]|\s*!)")
_POWER_OF_TEN = re.compile(
    rf"{_FREE}(?:({_NUMBER})\s*(?:\\cdot|[xX])\s*)?10\s*\^\s*\{{\s*([+-]?)\s*(\d+)\s*\}}(?!\s*[\^!_])"
)
_LARGE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LARGE_NUMBER = re.compile(rf"{_FREE}({_NUMBER})\s*(\\text\{{\s*)?({'|'.join(_LARGE)})\b")
_BRACKETED_POWER = re.compile(r"(?:\\cdot\s*|(?<=\d))\(\s*(10\^\{[+-]?\d+\})\s*\)")
_ANY_NUMBER = re.compile(rf"(?<![\w.\\])({_NUMBER})(?!\.?\d|\.\.)")
_SLASH = re.compile(rf"{_FREE}(\d+)\s*/\s*(\d+)(?!\s*[\d.^!_(])")
_MIXED = re.compile(
    r"(?<![\w.^\\}])(?<!\d )(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(?<=\s)([1-9]\d*)\s*/\s*(\d+))(?!\s*[\d.^!_(])"
)
_REPEATING = re.compile(r"(?<![\w.])(\d*)\.(\d*)\\overline\{(\d+)\}")
_PLUS = re.compile(r"(^|[(\[,={]|\\in)\s*\+\s*(?=[\d.\\(])")
_MINUS_INSIDE = re.compile(r"(^|[(\[,=]\s*)\\frac\{-(\d+)\}\{(\d+)\}")
_INDEX = re.compile(r"(?<=[a-zA-Z}])\s*_\s*(\d+|[a-zA-Z])")
_MINUTES = re.compile(r"(\d+)\s*\^\{\\circ\}\s*(\d+)'(?!')")


def _plain(mantissa: str, exponent: int = 0) -> str:
    """A decimal number written out: ('3.0', 2) -> '300'."""
    text = format(Decimal(f"{mantissa.rstrip('.')}e{exponent}"), "f")
    whole, _, decimals = text.partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + ("." + decimals if decimals else "")


def _join_commas(match: re.Match) -> str:
    before = match.string[: match.start()]
    depth = sum(before.count(one) for one in "([") - sum(before.count(one) for one in ")]")
    return match[0] if depth > 0 or before.count(r"\{") > before.count(r"\}") else match[0].replace(",", "")


def _scaled(match: re.Match) -> str:
    mantissa, sign, digits = match.groups()
    if len(digits) > 4 or int(digits) > MAX_EXPONENT:
        return match[0]
    return _plain(mantissa or "1", -int(digits) if sign == "-" else int(digits))


def _scaled_e(match: re.Match) -> str:
    exponent = match[2]
    if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
        return rf"{match[1]}\cdot 10^{{{exponent}}}"
    return _plain(match[1], int(exponent))


def _mixed(match: re.Match) -> str:
    whole, top, bottom = int(match[1]), int(match[2] or match[4]), int(match[3] or match[5])
    return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}" if 0 < top < bottom else match[0]


def _repeating(match: re.Match) -> str:
    whole, once, again = match.groups()
    value = Fraction(int(whole + once + again) - int(whole + once or "0"), (10 ** len(again) - 1) * 10 ** len(once))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _numbers(text: str) -> str:
    text = _GROUPED_DECIMALS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _MIXED.sub(_mixed, text)
    text = _GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _DECIMAL_COMMA.sub(".", text).replace("{,}", ",")
    text = _COMMAS.sub(_join_commas, text)
    text = _SPACE.sub(lambda match: match[1] or " ", text).strip()
    text = _REPEATING.sub(_repeating, text)
    text = _LARGE_NUMBER.sub(lambda match: _plain(match[1], _LARGE[match[3]]) + (match[2] or " "), text)
    text = _BRACKETED_POWER.sub(r"\\cdot \1", text)
    text = _E_NOTATION.sub(_scaled_e, text)
    text = _POWER_OF_TEN.sub(_scaled, text)
    text = _ANY_NUMBER.sub(lambda match: _plain(match[1]), text)
    text = re.sub(r"\\text\{\s*\}", "", text)
    text = _MINUTES.sub(lambda match: rf"\frac{{{int(match[1]) * 60 + int(match[2])}}}{{60}}^{{\circ}}", text)
    text = _SLASH.sub(r"\\frac{\1}{\2}", text)
    text = _MIXED.sub(_mixed, text)
    text = _INDEX.sub(r"_{\1}", text)
    text = _PLUS.sub(r"\1", text)
    return _MINUS_INSIDE.sub(r"\1-\\frac{\2}{\3}", text)


_WORD = re.compile(r"(?=[A-Za-z]*[aeiouyAEIOUY])[A-Za-z]{4,}")


def normalise(text: str) -> str:
    """The spelling that both graders read: LaTeX with numbers written out, words in \\text, one space at most."""
    text = _to_ascii(text)
    for pattern, replacement in _TYPOGRAPHY:
        text = pattern.sub(replacement, text)
    parts = _TEXT.split(text)
    text = "".join(part if number % 2 else _from_program(part) for number, part in enumerate(parts))
    text = _numbers(_brace_arguments(text)).rstrip(".")
    # East is not seat: letters that form a word are no product.
    return f"\\text{{{text}}}" if _WORD.fullmatch(text) else text


_SIGN = re.compile(r"\s*\\(%|permil)\s*")
_SIGNED_NUMBER = re.compile(rf"({_NUMBER})\s*\\(%|permil)\s*|\\frac\{{(\d+)\}}\{{(\d+)\}}\s*\\(%|permil)\s*")
_ONLY_SIGNED = re.compile(rf"(?:[a-zA-Z]\s*=\s*)?-?\s*(?:{_NUMBER}|\\frac\{{\d+\}}\{{\d+\}})\s*\\(?:%|permil)\s*")


def _share(match: re.Match) -> str:
    shift = 2 if "%" in (match[2], match[5]) else 3
    if match[1]:
        return _plain(match[1], -shift)
    share = Fraction(int(match[3]), int(match[4]) * 10**shift) if int(match[4]) else Fraction(0)
    return rf"\frac{{{share.numerator}}}{{{share.denominator}}}"


def percent_as_number(text: str) -> str:
    """Percentages and per mille of a normalised text as the numbers that they are: 12.5\\% -> 0.125."""
    text = _SIGNED_NUMBER.sub(_share, text)
    return _SIGN.sub(lambda match: rf"\cdot\frac{{1}}{{{100 if match[1] == '%' else 1000}}}", text)


def percent_dropped(text: str) -> str:
    """A normalised text without its signs if they follow single numbers, else unchanged: 12.5\\% -> 12.5."""
    return _SIGN.sub("", text) if all(_ONLY_SIGNED.fullmatch(part.strip("()[] ")) for part in text.split(",")) else text


_DECIMAL = re.compile(r"(?<![\w.\\])(\d+)\.(\d+)(?!\.?\d)(\s*[\^!])?")


def with_fractions(text: str) -> str:
    """A normalised text with fractions for decimals, which a parser would round to 15 digits."""

    def fraction(match: re.Match) -> str:
        value = Fraction(f"{match[1]}.{match[2]}")
        latex = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        return rf"({latex}){match[3]}" if match[3] else latex

    return _DECIMAL.sub(fraction, text)
