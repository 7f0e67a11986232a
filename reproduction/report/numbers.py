"""Numbers as a reader sees them."""

from collections.abc import Mapping
from typing import Any

from reproduction.claims.page import NO_ESTIMATE

ROUNDING = 1e-9


def number(value: float | None, among: float = 0.0, digits: int = 3) -> str:
    """`value` with so many significant digits, whole above a thousand, with a true minus sign; None as `undefined`.

    among: the size of the numbers that it belongs to; what is a billion times smaller is the rounding error of a sum
    that cancels, and shown as 0.
    """
    if value is None:
        return "undefined"
    if abs(value) < ROUNDING * among:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_value(value: float | None) -> str:
    """A p-value with two digits; below 0.0001 only that, as less says nothing more with a handful of seeds."""
    if value is None:
        return "none"
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, or words if there is none."""
    if low is None or high is None:
        return "(no interval)"
    among = max(abs(low), abs(high))
    return f"[{number(low, among)}, {number(high, among)}]"


def seeds(count: int) -> str:
    """`3 seeds`."""
    return f"{count} seed{'s' * (count != 1)}"


def estimate(record: Mapping[str, Any] | None) -> str:
    """An effect of claims.json with its interval, or that there is none."""
    if record is None:
        return NO_ESTIMATE
    among = max(abs(record["low"] or 0.0), abs(record["high"] or 0.0))
    return f"{number(record['value'], among)} {interval(record['low'], record['high'])}"


def estimate_with_seeds(record: Mapping[str, Any] | None) -> str:
    """`estimate [low, high], n seeds`, or that there is none."""
    return estimate(record) if record is None else f"{estimate(record)}, {seeds(record['num_seeds'])}"


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def amount_of_memory(count: float) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:.1f} GiB"
