"""What a study changes in the verdicts of the one before it, kept in `results_published/first_study.json`.

{"scale": "laptop", "seeds": [1, ...], "commits": [...],
 "claims": {id: {"verdict", "effect_is", "margin", "target", "estimate": {"value", "low", "high", "num_seeds"}}}}
"""

from pathlib import Path

from reproduction.claims.verdict import NOT_AT_SIZE
from reproduction.jobs.files import read_json
from reproduction.report.numbers import estimate_with_seeds, number

FIRST_STUDY = "first_study.json"


def changes_page(published: Path) -> list[str]:
    """Lines of a table: each claim's verdict in the first study, its verdict now, and what differs between the two.

    published: the folder of a scale. No lines if the first study was of another scale, or is the one published there.
    """
    path = published.parent / FIRST_STUDY
    first = read_json(path) if path.is_file() else {}
    record = read_json(published / "claims.json")
    if first.get("scale") != record["scale"] or first["seeds"] == record["seeds"]:
        return []
    lines = [
        "## What changed since the first study",
        "",
        f"The first study had the seeds {', '.join(map(str, first['seeds']))} (commit {', '.join(first['commits'])}) "
        "and 95% intervals of a single look; an interval now holds over all looks, with 5% at each end.",
        "",
        "| claim | first study | now | what differs |",
        "|---|---|---|---|",
    ]
    for claim in record["claims"]:
        before = first["claims"].get(claim["id"])
        cells = (
            f"[{claim['id']}](claims.md#{claim['id']})",
            "no such claim" if before is None else f"{before['verdict']}: {estimate_with_seeds(before['estimate'])}",
            f"{claim['verdict']}: {estimate_with_seeds(claim['effect']['estimate'])}",
            "; ".join(_differences(before, claim)),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _differences(before: dict | None, claim: dict) -> list[str]:
    if before is None:
        return ["added later"]
    found = []
    if before["effect_is"] != claim["effect_is"]:
        found.append(f"then measured as: {before['effect_is']}")
    for name in ("margin", "target"):
        if before[name] != claim["rule"][name]:
            found.append(f"{name} {number(claim['rule'][name])}, then {number(before[name])}")
    if claim["verdict"] == NOT_AT_SIZE:
        found.append("a verdict that was added later")
    old, new = _width(before["estimate"]), _width(claim["effect"]["estimate"])
    if old and new:
        found.append(f"interval {number(new / old, digits=2)} times as wide")
    return found


def _width(estimate: dict | None) -> float | None:
    if estimate is None or estimate["low"] is None or estimate["high"] is None:
        return None
    return estimate["high"] - estimate["low"]
