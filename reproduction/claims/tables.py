"""tables.json and tables.md: the papers' main tables with what was measured here, from the verdicts and the summary.

Each row occurs twice, with the paper's figures and with ours, and a cell is empty if the figure was not found or
nothing was measured. Our numbers come from summary.json or claims.json, a paper's from
`reproduction.claims.paper_tables`; no number is written here. Comparisons on another task than the paper's have their
own tables.
"""

from collections.abc import Mapping
from typing import Any

from reproduction.claims.one_run import ClaimsError
from reproduction.claims.paper_tables import (
    KPO_BENCHMARKS,
    KPO_METHODS,
    KPO_MODEL,
    KPO_PAPER,
    KPO_SOURCES,
    KPO_TABLE_1,
    KRPO_ARITHMETIC,
    KRPO_MODEL,
    KRPO_OPENMATH,
    KRPO_PAPER,
    KRPO_SOURCES,
    LEGEND,
    MARKS,
    STATED_ELSEWHERE,
)
from reproduction.claims.tables_page import Table, markdown
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.settings.configuration import Configuration

LEVELS = ("easy", "normal", "hard")


def write_tables(configuration: Configuration) -> None:
    """Write tables.json and tables.md of a scale from its summary.json and claims.json.

    Raises ClaimsError naming the file if one is missing, of another scale, or lacks what is looked for.
    """
    record, page = tables_record(configuration)
    write_json(configuration.folder / "tables.json", record)
    atomic_write(configuration.folder / "tables.md", page)


def tables_record(configuration: Configuration) -> tuple[dict, str]:
    """What tables.json and tables.md hold, filled from summary.json and claims.json."""
    claims = {record["id"]: record for record in _read(configuration, "claims.json", "claims")}
    accuracies = {
        (row["experiment"], row["method"], row["split"]): row for row in _read(configuration, "summary.json", "rows")
    }
    tables = make_tables(configuration, claims, accuracies)
    record = {"scale": configuration.scale, "seeds": configuration.seeds, "legend": LEGEND}
    return {**record, "tables": [table.__dict__ for table in tables]}, markdown(tables, configuration)


def make_tables(
    configuration: Configuration, claims: Mapping[str, dict], accuracies: Mapping[tuple[str, str, str], dict]
) -> list[Table]:
    """All tables. claims: by id, as in claims.json. accuracies: rows of summary.json by experiment, method, split."""
    confidence = f"{configuration.evaluation.confidence:.0%}"
    try:
        return [
            _kpo_benchmarks(configuration, accuracies, confidence),
            _kpo_arithmetic(configuration, claims, accuracies, confidence),
            _krpo_arithmetic(configuration, claims, accuracies),
            _krpo_openmath(),
            _directions(claims),
        ]
    except KeyError as error:
        raise ClaimsError(
            f"{configuration.folder}: claims.json or summary.json lacks {error}; make both again"
        ) from None


def _kpo_benchmarks(
    configuration: Configuration, accuracies: Mapping[tuple[str, str, str], dict], confidence: str
) -> Table:
    """KPO's Table 1: methods by benchmarks, avg@16 / pass@16."""
    rows, values = [], []
    for method, name in KPO_METHODS.items():
        paper, here = [], []
        for benchmark in KPO_BENCHMARKS:
            score = KPO_TABLE_1.get((method, benchmark.name))
            paper.append("" if score is None else _score(score.average, score.passed, MARKS[score.certainty]))
            row = _row(accuracies, "kpo", method, benchmark.split)
            here.append("" if row is None else _measured_score(row, configuration))
            values.append(
                {
                    "row": method,
                    "column": benchmark.name,
                    "paper": None if score is None else score.__dict__,
                    "measured": None if row is None else _score_record(row),
                }
            )
        rows += [[name, "paper", *paper], ["", "here", *here]]
    return Table(
        "kpo-table-1",
        "KPO's Table 1: mathematics benchmarks, avg@16 / pass@16 in percent",
        KPO_PAPER,
        f"The paper: {KPO_MODEL}. Sources: {KPO_SOURCES}. AIME has thirty problems, so that its pass@16 moves in steps "
        f"of 3.3 points. Here: mean over seeds, {confidence} interval of avg@k. The small models of the laptop scale "
        "cannot answer these problems, so that its rows stay empty; the next table has what it can say.",
        ["method", "whose", *(benchmark.name for benchmark in KPO_BENCHMARKS)],
        rows,
        values,
    )


def _row(
    accuracies: Mapping[tuple[str, str, str], dict], experiment: str, method: str, split: str
) -> Mapping[str, Any] | None:
    """A row of the summary; of the untrained model the experiment's own if it has one, else the shared one."""
    own = accuracies.get((experiment, method, split))
    return accuracies.get(("base", "base", split)) if own is None and method == "base" else own


def _kpo_arithmetic(
    configuration: Configuration,
    claims: Mapping[str, dict],
    accuracies: Mapping[tuple[str, str, str], dict],
    confidence: str,
) -> Table:
    """The same methods on the scale's own task, with the difference that a claim compares."""
    compared = {baseline: claims[f"kpo-4-over-{baseline}"] for baseline in ("grpo", "gspo", "gmpo")}
    known = configuration.experiments["kpo"].methods if "kpo" in configuration.experiments else ()
    controls = [method for method in known if method not in KPO_METHODS]
    rows, values = [], []
    for method in (*KPO_METHODS, *controls):
        found = [_row(accuracies, "kpo", method, level) for level in LEVELS]
        if method in controls and not any(found):
            continue
        record = compared.get(method)
        rows.append(
            [
                KPO_METHODS.get(method, method),
                *("" if row is None else _measured_score(row, configuration) for row in found),
                "" if record is None else _effect(record),
                "" if record is None or record["effect"]["estimate"] is None else record["verdict"],
            ]
        )
        values += [
            {"row": method, "column": level, "paper": None, "measured": _score_record(row)}
            for level, row in zip(LEVELS, found, strict=True)
            if row is not None
        ]
    return Table(
        "kpo-arithmetic",
        "Another task: the same methods on held-out arithmetic, avg@k / pass@k in percent",
        KPO_PAPER,
        "This is not the paper's task: integer arithmetic by a small model trained from scratch, under the same "
        f"losses. Mean over seeds, {confidence} interval of avg@k over seeds and problems. The difference is KPO "
        "clipped minus the method on the normal level in points, with the interval of its claim.",
        ["method", *LEVELS, "KPO clipped minus it", "verdict"],
        rows,
        values,
    )


def _krpo_arithmetic(
    configuration: Configuration, claims: Mapping[str, dict], accuracies: Mapping[tuple[str, str, str], dict]
) -> Table:
    """KRPO's gains on Arithmetic by level."""
    rows, values = [], []
    for level, gain in KRPO_ARITHMETIC.items():
        record = claims[f"krpo-1-{level}"]
        # The paper's scale trains on each level apart.
        scores = [
            _row(accuracies, "krpo", method, level) or _row(accuracies, f"krpo-{level}", method, level)
            for method in ("grpo", "krpo")
        ]
        control = record["controls"][0]["effect"]
        shown = ["" if row is None else f"{100 * row['avg_at_k']:.1f}{_fewer(row, configuration)}" for row in scores]
        paper = f"{gain.points:+.1f} ({MARKS[gain.certainty]})"
        with_control = "" if control["estimate"] is None else _interval(control["estimate"], 100, "+")
        rows.append([level, paper, _effect(record), *shown, with_control, record["verdict"]])
        values.append(_value(level, "gain", gain.points, gain.certainty, record))
    return Table(
        "krpo-arithmetic",
        "KRPO on Arithmetic: accuracy above GRPO in points",
        KRPO_PAPER,
        f"The paper: {KRPO_MODEL}; source: {KRPO_SOURCES}. How it defines its levels was not found; the levels here "
        "are this project's. GRPO rescaled, the control: GRPO with advantages as large as KRPO's.",
        ["level", "paper", "here", "GRPO here (%)", "KRPO here (%)", "GRPO rescaled here", "verdict"],
        rows,
        values,
    )


def _krpo_openmath() -> Table:
    """KRPO's gains on OpenMath-Instruct, which no scale measures yet."""
    rows = [[name, f"{gain.points:+.1f} ({MARKS[gain.certainty]})", ""] for name, gain in KRPO_OPENMATH.items()]
    values = [_value(name, "gain", gain.points, gain.certainty, None) for name, gain in KRPO_OPENMATH.items()]
    return Table(
        "krpo-openmath",
        "KRPO on OpenMath-Instruct: accuracy above GRPO in points, by category",
        KRPO_PAPER,
        f"Source: {KRPO_SOURCES}, which gives the ends of the range; the other categories were not found.",
        ["category", "paper", "here"],
        rows,
        values,
    )


def _directions(claims: Mapping[str, dict]) -> Table:
    """What the papers say outside their tables, with the effect measured here."""
    rows, values = [], []
    for claim_id in STATED_ELSEWHERE:
        record = claims[claim_id]
        says = f"{record['paper_says']} ({MARKS[record['certainty']]})"
        estimate = record["effect"]["estimate"]
        measured = "" if estimate is None else f"{record['effect_is']}: {_interval(estimate, 1, '')}"
        rows.append([claim_id, says, measured, record["verdict"]])
        values.append(_value(claim_id, "effect", record["paper_says"], record["certainty"], record))
    return Table(
        "directions",
        "Values and directions that the papers state elsewhere",
        f"{KPO_PAPER}; {KRPO_PAPER}",
        "Ours: the effect as its claim defines it, in its own unit, with the claim's interval.",
        ["claim", "paper", "here", "verdict"],
        rows,
        values,
    )


def _score(average: float, passed: float | None, mark: str) -> str:
    return f"{average:.2f} / {'–' if passed is None else f'{passed:.2f}'} ({mark})"


def _measured_score(row: Mapping[str, Any], configuration: Configuration) -> str:
    low, high = row["avg_at_k_interval"]
    score = f"{100 * row['avg_at_k']:.1f} [{100 * low:.1f}, {100 * high:.1f}] / {100 * row['pass_at_k']:.1f}"
    return score + _fewer(row, configuration)


def _fewer(row: Mapping[str, Any], configuration: Configuration) -> str:
    """The seeds of a row of the summary that lacks some of the configuration's."""
    if row["seeds"] == configuration.seeds_of(row["experiment"], row["method"]):
        return ""
    return f" (only seed{'s' * (len(row['seeds']) != 1)} {', '.join(map(str, row['seeds']))})"


def _score_record(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("avg_at_k", "avg_at_k_interval", "pass_at_k", "samples_per_problem", "num_problems", "seeds")
    return {key: row[key] for key in keys}


def _value(row: str, column: str, paper: Any, certainty: str, record: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {"row": row, "column": column, "paper": {"value": paper, "certainty": certainty}, "measured": None}
    if record is not None:
        found |= {"measured": record["effect"]["estimate"], "claim": record["id"], "verdict": record["verdict"]}
    return found


def _effect(record: Mapping[str, Any]) -> str:
    """A claim's effect in points; empty if it was not measured."""
    estimate = record["effect"]["estimate"]
    return "" if estimate is None else _interval(estimate, 100, "+")


def _interval(estimate: Mapping[str, Any], factor: float, sign: str) -> str:
    """`value [low, high]`: in points with one decimal, else with three figures."""
    form = f"{sign}.1f" if factor == 100 else f"{sign}.3g"
    text = format(factor * estimate["value"], form)
    if estimate["low"] is None or estimate["high"] is None:
        return f"{text} (no interval)"
    return f"{text} [{format(factor * estimate['low'], form)}, {format(factor * estimate['high'], form)}]"


def _read(configuration: Configuration, name: str, key: str) -> list[dict]:
    path = configuration.folder / name
    if not path.is_file():
        step = (
            "judge the claims (python -m reproduction claims)"
            if name == "claims.json"
            else "gather the evaluations (python -m reproduction summarise)"
        )
        raise ClaimsError(f"{path} is missing; {step} first")
    try:
        found = read_json(path)
    except ValueError as error:
        raise ClaimsError(str(error)) from None
    if not isinstance(found, dict) or not isinstance(found.get(key), list):
        raise ClaimsError(f"{path}: no list {key!r}; make it again")
    if found.get("scale") != configuration.scale:
        raise ClaimsError(f"{path}: of scale {found.get('scale')!r}, the configuration says {configuration.scale!r}")
    return found[key]
