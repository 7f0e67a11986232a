"""Intervals drawn as bars on one axis, as percentages of a box's width, so that text keeps its size on any screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproduction.claims.declare import ABOVE, AT_MOST, EQUAL
from reproduction.report.numbers import number

MARGIN_OF_BOX = 0.06


@dataclass(frozen=True)
class Axis:
    """The range that a claim's bars share, with the lines that its rule draws: (position in percent, solid or not)."""

    low: float
    high: float
    lines: tuple[tuple[str, bool], ...]
    legend: str

    def place(self, value: float) -> str:
        """Position of a value in percent of the width, with two decimals."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}"


@dataclass(frozen=True)
class Bar:
    """One interval and its estimate in percent of the width; width "" if there is no interval."""

    point: str
    left: str
    width: str


def axis(rule: Mapping[str, Any], estimates: Sequence[Mapping[str, Any]]) -> Axis | None:
    """The axis of the estimates of one claim; None if nothing was measured."""
    if not estimates:
        return None
    solid, dashed, words = _lines(rule)
    values = [solid, *dashed]
    for record in estimates:
        values += [value for value in (record["value"], record["low"], record["high"]) if value is not None]
    low, high = min(values), max(values)
    pad = MARGIN_OF_BOX * ((high - low) or 1.0)
    bare = Axis(low - pad, high + pad, (), words)
    lines = ((bare.place(solid), True), *((bare.place(value), False) for value in dashed))
    return Axis(bare.low, bare.high, lines, words)


def bar(shared: Axis, record: Mapping[str, Any]) -> Bar:
    """The bar of one estimate on the axis."""
    point = shared.place(record["value"])
    if record["low"] is None or record["high"] is None:
        return Bar(point, point, "")
    left, right = shared.place(record["low"]), shared.place(record["high"])
    return Bar(point, left, f"{float(right) - float(left):.2f}")


def _lines(rule: Mapping[str, Any]) -> tuple[float, list[float], str]:
    """Where the rule's lines are: one solid, others dashed, and what they are in words."""
    margin, target = rule["margin"], rule["target"]
    if rule["kind"] == EQUAL:
        words = f"solid line: the target {number(target)}; dashed: {number(margin)} from it"
        return target, [target - margin, target + margin], words
    if rule["kind"] not in (ABOVE, AT_MOST):
        raise ValueError(f"unknown kind of rule {rule['kind']!r}")
    what = (
        "the smallest effect that counts for the claim"
        if rule["kind"] == ABOVE
        else "the largest effect that the claim allows"
    )
    if margin == 0:
        return 0.0, [], f"solid line: 0, {what}"
    return 0.0, [margin], f"solid line: 0; dashed: {number(margin)}, {what}"
