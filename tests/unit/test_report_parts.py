"""The report's smaller parts: numbers as text, bars by hand, colours that can be read."""

import re
from pathlib import Path

import pytest

import reproduction.report
from reproduction.report.bars import axis, bar
from reproduction.report.numbers import estimate, interval, number, p_value
from reproduction.report.origin import grouped, words

STYLE = (Path(reproduction.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"), (-0.5, f"{MINUS}0.5"), (1234.5, "1,234"), (3.3e-16, f"3.3e{MINUS}16"), (0.0, "0"),
        (None, "undefined"), (12, "12"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_rounding_errors_are_zero_only_beside_numbers_that_are_not():
    assert number(-2.2e-17, 0.1) == "0"
    assert number(2.2e-17, 3e-17) == "2.2e" + MINUS + "17"
    assert estimate({"value": -2.2e-17, "low": -0.11, "high": 0.1}) == f"0 [{MINUS}0.11, 0.1]"
    assert estimate({"value": 0.25, "low": None, "high": None}) == "0.25 (no interval)"
    assert estimate(None) == "no estimate"
    assert interval(1.0, 2.0) == "[1, 2]"


def test_p_values():
    assert [p_value(value) for value in (None, 0.0, 0.00009, 0.0123, 1.0)] == [
        "none", "< 0.0001", "< 0.0001", "0.012", "1",
    ]  # fmt: skip


class TestBars:
    def test_by_hand(self):
        """From -1 to 3 with 6% of the range on each side the axis is 4.48 wide and starts at -1.24."""
        rule = {"kind": "above", "margin": 0.5, "target": 0.0}
        shared = axis(rule, [{"value": 1.0, "low": -1.0, "high": 3.0}])
        assert (shared.low, shared.high) == pytest.approx((-1.24, 3.24))
        assert shared.lines == (("27.68", True), ("38.84", False))  # 1.24 / 4.48, 1.74 / 4.48
        found = bar(shared, {"value": 1.0, "low": -1.0, "high": 3.0})
        assert (found.point, found.left, found.width) == ("50.00", "5.36", "89.28")

    def test_lines_of_each_rule(self):
        estimates = [{"value": 0.4, "low": None, "high": None}]
        equal = axis({"kind": "equal", "margin": 0.1, "target": 0.43}, estimates)
        assert [solid for _, solid in equal.lines] == [True, False, False] and "target 0.43" in equal.legend
        at_most = axis({"kind": "at most", "margin": 0.05, "target": 0.0}, estimates)
        assert [solid for _, solid in at_most.lines] == [True, False] and "allows" in at_most.legend
        assert bar(at_most, estimates[0]).width == ""
        assert axis({"kind": "above", "margin": 0.0, "target": 0.0}, [{"value": 0, "low": 0, "high": 0}]).lines == (
            ("50.00", True),
        )

    def test_nothing_measured_and_unknown_rules(self):
        assert axis({"kind": "above", "margin": 0.1, "target": 0.0}, []) is None
        with pytest.raises(ValueError, match="unknown kind of rule 'below'"):
            axis({"kind": "below", "margin": 0.1, "target": 0.0}, [{"value": 1.0, "low": 0.0, "high": 2.0}])


def test_groups_come_largest_first():
    runs = [{"experiment": "e", "label": "m", "seed": seed, "code": code} for seed, code in enumerate("abbcb")]
    found = grouped(runs, lambda run: run["code"])
    assert [(group.value, group.runs) for group in found] == [
        ("b", ["e/m/seed1", "e/m/seed2", "e/m/seed4"]),
        ("a", ["e/m/seed0"]),
        ("c", ["e/m/seed3"]),
    ]


def test_records_read_as_words():
    record = {"cores": 2, "cuda_devices": [], "memory_bytes": 3 * 2**30, "files": ["a", "b"], "more": {"torch": "2.13"}}
    assert words(record) == "cores 2, cuda_devices none, files a b, memory 3.0 GiB, more (torch 2.13)"
    assert words({}) == "not recorded"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb after WCAG 2."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_enough_contrast(scheme):
    """At least 4.5 to 1, what WCAG 2 asks of text at level AA."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme]))
    pairs = [(name, ground) for name in ("text", "quiet", "link") for ground in ("page", "soft")]
    pairs += [(name, f"{name}-soft") for name in ("reproduced", "as-well", "refuted", "inconclusive", "untested")]
    pairs += [(name, "soft") for name in ("reproduced", "as-well", "refuted")] + [("text", "as-well-soft")]
    for first, second in pairs:
        assert contrast(colours[first], colours[second]) >= 4.5, (first, second)
    assert contrast(colours["point"], colours["soft"]) >= 3.0
