"""Verdicts of all scales side by side: the one at hand, and what is published of the others."""

from pathlib import Path

from reproduction.claims.verdict import DECIDED, NOT_TESTED
from reproduction.jobs.files import read_json
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.settings.configuration import SCALES

COMPARED = [scale for scale in SCALES if scale != "smoke"]
NOT_RUN = "not run"
DIFFER = "**the scales differ**"


def side_by_side(records: list[dict], scale: str, published: Path = REPOSITORY / FOLDER) -> list[str]:
    """Lines of a page: each claim's verdict with its interval at every scale, and whether decided ones differ.

    records: the claims of claims.json of `scale`. Empty if no other scale is published, and at smoke scale, whose
    verdicts mean nothing.
    """
    found = {scale: {one["id"]: one for one in records}}
    for other in COMPARED:
        path = published / other / "claims.json"
        if other != scale and path.is_file():
            found[other] = {one["id"]: one for one in read_json(path)["claims"]}
    if scale not in COMPARED or len(found) == 1:
        return []
    lines = [
        "## Scales side by side",
        "",
        "Other scales are those in `results_published/`. Verdicts differ if two scales decide a claim in two ways; an "
        "inconclusive verdict differs from none. Sizes of an effect at two scales are of two tasks and two models.",
        "",
        f"| claim | {' | '.join(COMPARED)} | together |",
        "|---" * (len(COMPARED) + 2) + "|",
    ]
    for one in records:
        own = [found.get(other, {}).get(one["id"]) for other in COMPARED]
        decided = {record["verdict"] for record in own if record is not None and record["verdict"] in DECIDED}
        cells = [f"[{one['id']}](#{one['id']})", *map(_cell, own), DIFFER if len(decided) > 1 else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(record: dict | None) -> str:
    if record is None or record["verdict"] == NOT_TESTED:
        return NOT_RUN
    estimate = record["effect"]["estimate"]
    if estimate is None:
        return record["verdict"]
    size = f"{estimate['value']:.3g}"
    if estimate["low"] is not None and estimate["high"] is not None:
        size += f" [{estimate['low']:.3g}, {estimate['high']:.3g}]"
    return f"{record['verdict']}, {size}, {estimate['num_seeds']} seeds"
