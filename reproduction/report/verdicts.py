"""Claims as the page shows them: words for every number of claims.json, and links to what lies behind."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reproduction.claims.judge import Published
from reproduction.claims.page import published_text
from reproduction.claims.verdict import (
    CONTROL_AS_WELL,
    INCONCLUSIVE,
    NOT_AT_SIZE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    VERDICTS,
)
from reproduction.report.bars import Axis, Bar, axis, bar
from reproduction.report.numbers import estimate, number, p_value, seeds

# Style class and mark of each verdict; the mark repeats what the words say for eyes that do not tell the colours apart.
LOOKS = {
    REPRODUCED: ("reproduced", "\N{CHECK MARK}"),
    CONTROL_AS_WELL: ("as-well", "\N{ALMOST EQUAL TO}"),
    NOT_AT_SIZE: ("not-at-size", "\N{LESS-THAN SIGN}"),
    NOT_REPRODUCED: ("refuted", "\N{MULTIPLICATION SIGN}"),
    INCONCLUSIVE: ("inconclusive", "?"),
    NOT_TESTED: ("untested", "\N{EN DASH}"),
}
CERTAINTY = {"verified": "verified", "second-hand": "second-hand", "not found": "figure not found"}


@dataclass(frozen=True)
class Badge:
    """A verdict with its look."""

    text: str
    style: str
    mark: str


@dataclass(frozen=True)
class Row:
    """One line of a claim's numbers: the effect, a control, their difference, or a number reported with them."""

    kind: str
    name: str
    question: str
    text: str
    bar: Bar | None
    seeds: str
    p_for: str
    p_against: str
    by_seed: list[str]
    computed: str


@dataclass(frozen=True)
class File:
    """A file of the results; `link` is empty if this folder does not hold it."""

    path: str
    link: str


@dataclass(frozen=True)
class View:
    """A claim ready for the template. `record` is its entry of claims.json."""

    record: dict
    anchor: str
    badge: Badge
    certainty: str
    measured: str
    num_seeds: str
    controls: list[tuple[str, str]]
    seed_names: list[str]
    rows: list[Row]
    axis: Axis | None
    corrected: str
    detectable: str
    published: str
    left_out: list[str]
    data: list[File]
    runs: list[str]


def badge(verdict: str) -> Badge:
    """The look of a verdict."""
    return Badge(verdict, *LOOKS[verdict])


def badges() -> list[Badge]:
    """All of them, in their order."""
    return [badge(verdict) for verdict in VERDICTS]


def anchor(prefix: str, name: str) -> str:
    """An id for links inside the page, of only letters, digits, dots and hyphens."""
    return f"{prefix}-{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}"


def relative_link(path: str) -> str:
    """A relative address for a path below the results folder; a colon in it cannot make it another scheme."""
    return quote(path.lstrip("/"), safe="/")


def file_of(folder: Path, path: str) -> File:
    """A file, linked if the folder holds it."""
    return File(path, relative_link(path) if (folder / path).is_file() else "")


def view(record: dict, folder: Path) -> View:
    """Prepare one entry of claims.json; `folder` is looked at for which data files exist."""
    parts = list(_parts(record))
    estimates = [part["estimate"] for kind, _, _, part in parts if part["estimate"] is not None and kind != "beside"]
    shared = axis(record["rule"], estimates)
    seed_names = sorted({seed for *_, part in parts for seed in part["per_seed"]}, key=_by_number)
    effect = record["effect"]["estimate"]
    return View(
        record=record,
        anchor=anchor("claim", record["id"]),
        badge=badge(record["verdict"]),
        certainty=CERTAINTY.get(record["certainty"], record["certainty"]),
        measured=estimate(effect),
        num_seeds="" if effect is None else seeds(effect["num_seeds"]),
        controls=[(control["name"], estimate(control["effect"]["estimate"])) for control in record["controls"]],
        seed_names=seed_names,
        rows=[_row(*part, seed_names, shared) for part in parts],
        axis=shared,
        corrected=_corrected(record),
        detectable=record["resolution"] if record["verdict"] in (INCONCLUSIVE, NOT_AT_SIZE) else "",
        published=published_text(Published(**record["published"])) if record.get("published") else "",
        left_out=list(dict.fromkeys(text for *_, part in parts for text in part["left_out"])),
        data=[file_of(folder, path) for path in record["data"]],
        runs=_runs(part for *_, part in parts),
    )


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, dict]]:
    """(kind, name, question, part) of the effect, each control with the effect beyond it, and what decides nothing."""
    yield "effect", "the claim's effect", "", record["effect"]
    for control in record["controls"]:
        yield "control", control["name"], control["question"], control["effect"]
        if control["contrast"] is not None:
            yield "contrast", control["name"], "", control["contrast"]
    for beside in record["beside"]:
        yield "beside", beside["name"], beside["what"], beside


def _row(
    kind: str, name: str, question: str, part: Mapping[str, Any], seed_names: Sequence[str], shared: Axis | None
) -> Row:
    found, per_seed = part["estimate"], part["per_seed"]
    largest = max((abs(value) for value in per_seed.values()), default=0.0)
    return Row(
        kind=kind,
        name=name,
        question=question,
        text=estimate(found),
        # A number reported with a claim is in no unit of its rule.
        bar=None if found is None or shared is None or kind == "beside" else bar(shared, found),
        seeds="" if found is None else seeds(found["num_seeds"]),
        p_for="" if found is None or kind == "beside" else p_value(found["p_for"]),
        p_against="" if found is None or kind == "beside" else p_value(found["p_against"]),
        by_seed=[number(per_seed[seed], largest) if seed in per_seed else "" for seed in seed_names],
        computed=_computed(part["sides"]),
    )


def _computed(sides: Sequence[Mapping[str, Any]]) -> str:
    """The weighted sum of measures, such as `+ accuracy.normal of kpo/krpo` and `- accuracy.normal of kpo/grpo`."""
    terms = []
    for side in sides:
        sign, size = ("\N{MINUS SIGN}" if side["weight"] < 0 else "+"), abs(side["weight"])
        factor = "" if size == 1 else f"{number(size)} \N{MULTIPLICATION SIGN} "
        cells = ", ".join(side["cells"])
        mean = "the mean of " if len(side["cells"]) > 1 else ""
        terms.append(f"{sign} {factor}{side['measure']} of {mean}{cells}")
    return " ".join(terms).removeprefix("+ ")


def _corrected(record: Mapping[str, Any]) -> str:
    """The p-values of the verdict's statements, as corrected for the family."""
    found = {name: p_value(value) for name, value in record["corrected_p"].items()}
    beyond = f", {found['claim']} for the effect beyond every control" if record["controls"] else ""
    size = f", {found['size']} against the paper's size" if record["rule"].get("paper") is not None else ""
    return f"{found['effect']} for the effect{beyond}, {found['against']} against it{size}"


def _runs(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    names = [
        f"{cell}/seed{seed}"
        for part in parts
        for side in part["sides"]
        for cell in side["cells"]
        for seed in part["per_seed"]
    ]
    return list(dict.fromkeys(names))


def _by_number(seed: str) -> tuple[int, str]:
    return (int(seed), "") if seed.isdigit() else (2**31, seed)
