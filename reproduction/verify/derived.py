"""Checks of what is derived from runs: each file is recomputed and compared, so fitting checksums hide nothing.

    samples.jsonl -> evaluation.json    runs -> measures.json -> claims.json, claims.md -> tables.json, tables.md

Verdicts also show what is published of other scales.

A number may differ in its last digits, since another machine or number of threads adds in another order.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from reproduction.claims.measures_file import read_measures_file
from reproduction.claims.record import claims_record
from reproduction.claims.runs import measures_record
from reproduction.claims.tables import tables_record
from reproduction.jobs.files import read_json
from reproduction.related.comparison import CONTROL, NAME, related_record
from reproduction.settings.configuration import Configuration

RELATIVE, ABSOLUTE = 1e-6, 1e-9


def verify_derived(configuration: Configuration) -> Iterator[str]:
    """A line for each derived file that is there and is not what the files it is made from give."""
    folder = configuration.folder
    made_from = {
        "measures": "the runs",
        "claims": "measures.json and results_published/",
        "tables": "claims.json and summary.json",
    }
    if CONTROL[0] in configuration.experiments:
        made_from[NAME] = "measures.json"
    for name, source in made_from.items():
        if (folder / f"{name}.json").is_file():
            yield from _compared(configuration, name, source)


def differences(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """The differences of two JSON-ready values, a line each: ``claims.3.verdict is 'a' instead of 'b'``."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in dict.fromkeys([*expected, *found]):
            inner = f"{place}.{key}" if place else str(key)
            if key not in found:
                yield f"{inner} is missing"
            elif key not in expected:
                yield f"{inner} is too much"
            else:
                yield from differences(found[key], expected[key], inner)
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from differences(*pair, f"{place}.{number}")
    elif not _same(found, expected):
        yield f"{place} is {_shown(found)} instead of {_shown(expected)}"


def _compared(configuration: Configuration, name: str, source: str) -> Iterator[str]:
    path = configuration.folder / f"{name}.json"
    compute: dict[str, Callable[[Configuration], tuple[dict, str | None]]] = {
        "measures": lambda configuration: (measures_record(configuration, allow_missing=True), None),
        "claims": claims_record,
        "tables": tables_record,
        NAME: related_record,
    }
    try:
        found = read_measures_file(path) if name == "measures" else read_json(path)
        record, page = compute[name](configuration)
        first = next(differences(found, json.loads(json.dumps(record))), None)
        if first is not None:
            yield f"{path}: does not follow from {source}, {first}; make it again"
        text = path.with_suffix(".md")
        if page is not None and text.is_file() and text.read_text(encoding="utf-8") != page:
            yield f"{text}: does not follow from {source}; make it again"
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        yield f"{path}: cannot be compared ({' '.join(str(error).split()) or type(error).__name__})"


def _same(found: Any, expected: Any) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (found, expected)]
    if all(numbers):
        return math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(found) is type(expected) and found == expected


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
