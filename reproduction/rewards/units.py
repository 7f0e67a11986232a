r"""The unit after a number, and whether two of them differ. Values are compared, never converted.

A unit that only one side has is dropped, as is one that is not in the table ('12 \text{ apples}'). Two units of the
table must be the same: 5 cm is neither 5 km nor 5 cm^2. The base of a numeral counts as a unit: 52_8 is not 52_7. Bare
letters are units only after a digit and a space, and only if they are no usual variable: 3 m is 3 metres, 3m and
\frac{37}{4} m are products.
"""

import re

_NAMES = r"""m meter metre|g gram gramme|s second sec|J joule|W watt|N newton|V volt|A ampere amp|K kelvin|Hz hertz
|Pa pascal|eV electronvolt|L l liter litre|mol mole|C coulomb|T tesla|min minute
|h hour hr|day|week|month|year yr|in inch inche
|ft foot feet|yd yard|mi mile|lb pound|oz ounce|USD dollar buck $ \$|cent|EUR euro|GBP|JPY yen|deg degree °|rad radian
|erg|AU|pc parsec|bit|byte|Ω ohm \Omega"""
_PREFIXES = "k kilo|c centi|m milli|d deci|n nano|M mega|G giga|µ u micro|p pico"
_PREFIXED = ("m", "g", "s", "J", "W", "N", "V", "A", "K", "Hz", "Pa", "eV", "L", "mol", "C", "T", "Ω", "pc")
_COMPOUND = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}, "kmh": {"km": 1, "h": -1}, "cc": {"cm": 3}}
_UNITS = {name: names.split()[0] for names in _NAMES.split("|") for name in names.split()}
_UNITS |= {
    before + name: prefixes.split()[0] + symbol
    for prefixes in _PREFIXES.split("|")
    for before in prefixes.split()
    for name, symbol in list(_UNITS.items())
    if symbol in _PREFIXED and (len(before) > 2) == (len(name) > 2)
}
# Outside of \text, shorter names could be products of variables: 2mg is a weight, kT an energy.
_BARE = {"m", "s", "J", "K", "W", "cm", "mm", "km", "kg", "ft", "in", "min", "hr", "mph", "lb", "lbs"}

_EXPONENT = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_TEXTS = rf"(?:\\mu\s*)?\\text\{{[^{{}}]*\}}{_EXPONENT}"
_BARE_WORD = rf"[A-Za-z]+\.?{_EXPONENT}"
_UNIT = re.compile(
    rf"(?<=[\d}})|.])(?:(\s*\^\{{\\circ\}}\s*(?:\\text\{{\s*)?[CF]?\s*\}}?)|"
    rf"(\s*(?:\\frac\{{{_TEXTS}\}}\{{{_TEXTS}\}}|{_TEXTS})(?:\s*(?:\\cdot|/)?\s*{_TEXTS})*)|"
    rf"(\s*{_BARE_WORD}(?:\s*(?:\\cdot|/)?\s*{_BARE_WORD})*))\s*$"
)
_BASE = re.compile(r"(?<=\d)_(?:\{([^{}]*)\}|(\d))$")
_CURRENCY = re.compile(r"^(-?)\s*(?:(\\\$)|\\text\{\s*(USD|EUR|GBP|JPY)\s*\})\s*(?=[-\d\\(.])")
_PART = re.compile(
    r"(/|per\b)|(squared?|sq|cub(?:ic|ed))\b|(\\\$|\$|\\Omega|[A-Za-zµΩ]+|°)(?:\s*\}?\s*\^(-?\d))?"
    r"|[{}()\s.~-]|\\(?:frac|cdot)|(.)"
)
_WORDS = {"sin", "cos", "tan", "log", "ln", "exp", "mod", "pi", "or", "and", "max", "gcd", "lcm", "det", "dim"}


def split_unit(text: str) -> tuple[str, str]:
    """A normalised text without its unit, and the unit as it is written ('' without one)."""
    if currency := _CURRENCY.match(text):
        return text[: currency.end(1)] + text[currency.end() :], currency[2] or currency[3]
    if base := _BASE.search(text):
        return text[: base.start()], f"base {base[1] or base[2]}"
    match = _UNIT.search(text)
    if match is None or (match[3] and not _is_bare_unit(match[3], text[match.start() - 1])):
        return text, ""
    return text[: match.start()].rstrip(), match[0].strip()


def same_unit(one: str, two: str) -> bool:
    """False for two units of the table that differ."""
    if one.startswith("base") and two.startswith("base"):
        return one == two
    first, second = _read(one), _read(two)
    return first is None or second is None or first == second


def _is_bare_unit(text: str, before: str) -> bool:
    words = re.findall(r"[A-Za-z]+", text)
    if any(word in _WORDS for word in words):
        return False
    spaced = text[0].isspace()
    known = all(_symbol(word) or word in _COMPOUND for word in words)
    if known and spaced and ("/" in text or "^{-" in text):
        return True
    if known and any(
        word in _BARE and (len(word) > 1 or spaced and len(words) == 1 and before.isdigit()) or len(word) > 3
        for word in words
    ):
        return True
    # 12 marbles: a word of which the letters are no product.
    return spaced and all(len(word) > 3 and re.search("[aeiouy]", word) for word in words)


def _read(unit: str) -> dict[str, int] | None:
    """{'m': 1, 's': -2} for m/s^2; None for what is not in the table."""
    unit = re.sub(r"\^\s*\{?\s*(-?\d)\s*\}?", r"^\1", unit)
    if unit.startswith("\\frac"):
        unit = re.sub(r"\}\s*\{", "/", unit, count=1)
    unit = re.sub(r"\\mu\s*(?:\\text\{\s*)?", "µ", unit).replace("\\text", " ").replace("^{\\circ}", "°")
    powers: dict[str, int] = {}
    sign, raised, last = 1, 1, ""
    for slash, power, name, exponent, other in _PART.findall(unit):
        if other:
            return None
        if slash:
            sign = -1
        elif power and power.endswith("ed") and last:
            powers[last] *= 2 if power == "squared" else 3
        elif power:
            raised = 2 if power.startswith("sq") else 3
        elif name in ("C", "F") and last == "deg":
            powers = {f"deg{name}": 1}
        elif name:
            symbols = _COMPOUND.get(name.lower()) or {_symbol(name): 1}
            for last, own in symbols.items():
                if last is None:
                    return None
                powers[last] = powers.get(last, 0) + own * sign * raised * int(exponent or 1)
            raised = 1
    return powers or None


def _symbol(name: str) -> str | None:
    candidates = (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es"))
    return next((_UNITS[one] for one in candidates if one in _UNITS), None)
