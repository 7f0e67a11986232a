"""Verdicts of all scales side by side: the one at hand, and what is published of the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reproduction.claims.design import SINGLE, design_of
from reproduction.claims.verdict import DECIDED, NOT_TESTED
from reproduction.jobs.files import read_json
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.settings.configuration import SCALES, Configuration

COMPARED = [scale for scale in SCALES if scale != "smoke"]
NOT_RUN = "not run"
DIFFER = "the scales differ"
EXPLAINED = (
    f"Other scales are those in `{FOLDER}/`. Verdicts differ if two scales decide a claim in two ways; an inconclusive "
    "verdict contradicts no other. Sizes of an effect at two scales are of two tasks and two "
    "models."
)


def published_scales(configuration: Configuration, published: Path = REPOSITORY / FOLDER) -> list[str]:
    """The scales whose published claims.json a configuration's page of verdicts reads.

    They are the others that are compared, and its own if its runs are held against the published study.
    """
    scales = [scale for scale in COMPARED if scale != configuration.scale] if configuration.scale in COMPARED else []
    scales += [configuration.scale] if is_held_against_study(configuration) else []
    return [scale for scale in scales if (published / scale / "claims.json").is_file()]


def is_held_against_study(configuration: Configuration) -> bool:
    """Whether each claim's page shows the published study of the same scale: for runs that are no part of it."""
    return configuration.base_model is not None and design_of(configuration).kind == SINGLE


def other_scales(configuration: Configuration, published: Path = REPOSITORY / FOLDER) -> dict[str, dict[str, dict]]:
    """What is published of other scales: {scale: {claim: {"verdict": ..., "estimate": ...}}}."""
    return {
        scale: {
            one["id"]: {"verdict": one["verdict"], "estimate": one["effect"]["estimate"]}
            for one in read_json(published / scale / "claims.json")["claims"]
        }
        for scale in published_scales(configuration, published)
        if scale != configuration.scale
    }


def side_by_side(records: list[dict], scale: str, others: Mapping[str, Mapping[str, dict]]) -> list[list[str]]:
    """A table's rows, headings first: each claim's verdict with its interval at every scale, and whether they differ.

    records: the claims of claims.json of `scale`. others: of `other_scales`. Empty if there is no other.
    """
    if not others:
        return []
    rows = [["claim", *COMPARED, "together"]]
    for one in records:
        own = {"verdict": one["verdict"], "estimate": one["effect"]["estimate"]}
        found = [own if other == scale else others.get(other, {}).get(one["id"]) for other in COMPARED]
        decided = {record["verdict"] for record in found if record is not None and record["verdict"] in DECIDED}
        rows.append([one["id"], *map(_cell, found), DIFFER if len(decided) > 1 else ""])
    return rows


def side_by_side_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The table's section of claims.md; none without rows."""
    if not rows:
        return []
    lines = ["## Scales side by side", "", EXPLAINED, "", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    for name, *cells, together in rows[1:]:
        cells = [f"[{name}](#{name})", *cells, f"**{together}**" if together else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(record: dict | None) -> str:
    if record is None or record["verdict"] == NOT_TESTED:
        return NOT_RUN
    estimate = record["estimate"]
    if estimate is None:
        return record["verdict"]
    size = f"{estimate['value']:.3g}"
    if estimate["low"] is not None and estimate["high"] is not None:
        size += f" [{estimate['low']:.3g}, {estimate['high']:.3g}]"
    seeds = estimate["num_seeds"]
    return f"{record['verdict']}, {size}, {seeds} seed{'s' * (seeds != 1)}"
