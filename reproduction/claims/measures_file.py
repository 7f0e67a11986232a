"""measures.json: the measures of every run, with what many runs have in common stored once.

Of hundreds of runs most were made by one code with one set of versions and settings, which would be half of the file.
"""

import json
from pathlib import Path
from typing import Any

from reproduction.jobs.files import read_json, write_json

NAME = "measures.json"
IN_COMMON = ("code", "graded_by", "hardware", "samples", "sampling", "training", "versions")
"""Fields of a run that are stored once for all runs with the same values, in `made_with`; a run has the number."""


def write_measures_file(path: Path, record: dict[str, Any]) -> None:
    """Write {"scale", "runs", "missing"}; each of `runs` is a row of fields."""
    numbers: dict[str, int] = {}
    made_with, runs = [], []
    for row in record["runs"]:
        common = {key: row[key] for key in IN_COMMON if key in row}
        number = numbers.setdefault(json.dumps(common, sort_keys=True), len(numbers))
        if number == len(made_with):
            made_with.append(common)
        runs.append({key: value for key, value in row.items() if key not in common} | {"made_with": number})
    write_json(path, {**record, "runs": runs, "made_with": made_with})


def read_measures_file(path: Path) -> dict[str, Any]:
    """What `write_measures_file` was given; a field that a row has itself, as files written before have all, stays.

    Raises ValueError naming the file if it is not such a file.
    """
    found = read_json(path)
    try:
        made_with = found.pop("made_with", [])
        found["runs"] = [_whole(dict(row), made_with) for row in found["runs"]]
        return found
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not what python -m reproduction measure writes ({error!r}); measure the runs again"
        ) from None


def _whole(row: dict[str, Any], made_with: list[dict[str, Any]]) -> dict[str, Any]:
    number = row.pop("made_with", None)
    return row if number is None else made_with[number] | row
