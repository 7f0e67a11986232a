"""The files of a results folder that the report shows, read and checked for the keys it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.claims.measures_file import NAME as MEASURES
from reproduction.claims.measures_file import read_measures_file
from reproduction.claims.verdict import VERDICTS
from reproduction.jobs.files import read_json
from reproduction.settings.configuration import Configuration

CLAIM_KEYS = (
    "id", "paper", "section", "statement", "paper_says", "certainty", "effect_is", "measures", "rule", "family",
    "family_size", "corrected_p", "effect", "controls", "no_control_because", "beside", "minimum_detectable_effect",
    "resolution", "verdict", "reason", "data",
)  # fmt: skip
PART_KEYS = ("estimate", "per_seed", "sides", "left_out")
ESTIMATE_KEYS = ("value", "low", "high", "p_for", "p_against", "num_seeds")
RUN_KEYS = ("experiment", "label", "seed", "code", "versions", "hardware", "sampling", "stopped")
SUMMARY_KEYS = ("experiment", "method", "split", "seeds", "num_problems", "samples_per_problem", "avg_at_k",
                "avg_at_k_interval", "greedy")  # fmt: skip

TABLE_KEYS = ("id", "title", "paper", "note", "columns", "rows")


class ReportError(ValueError):
    """Results that no report can be made from; the message names the file and says what to do."""


@dataclass(frozen=True)
class Inputs:
    """What the files say. missing: names of runs that were not there; made_by: provenance.json by run folder.

    digest: provenance.json of the whole scale, which published results have instead of each run's; empty elsewhere.
    scales: what claims.json says of other scales.
    """

    folder: Path
    claims: list[dict]
    missing: list[str]
    runs: list[dict]
    summary: list[dict]
    tables: dict
    made_by: dict[str, dict]
    digest: dict
    scales: dict[str, dict]


def read_inputs(configuration: Configuration) -> Inputs:
    """Read everything; ReportError naming the file and the key if something is missing or of another scale."""
    folder = configuration.folder
    claims = _of_scale(configuration, "claims.json", "python -m reproduction claims", ("claims", "missing"))
    measures = _of_scale(configuration, MEASURES, "python -m reproduction measure", ("runs", "missing"))
    summary = _of_scale(configuration, "summary.json", "python -m reproduction summarise", ("rows",))
    tables = _of_scale(configuration, "tables.json", "python -m reproduction tables", ("legend", "tables"))
    for number, claim in enumerate(claims["claims"], start=1):
        _check_claim(claim, f"{folder / 'claims.json'}, claim {number}")
    for number, run in enumerate(measures["runs"], start=1):
        _need(run, RUN_KEYS, f"{folder / MEASURES}, run {number}", "python -m reproduction measure")
    for number, row in enumerate(summary["rows"], start=1):
        _need(row, SUMMARY_KEYS, f"{folder / 'summary.json'}, row {number}", "python -m reproduction summarise")
    for number, table in enumerate(tables["tables"], start=1):
        _need(table, TABLE_KEYS, f"{folder / 'tables.json'}, table {number}", "python -m reproduction tables")
    return Inputs(
        folder=folder,
        claims=claims["claims"],
        missing=list(dict.fromkeys([*claims["missing"], *measures["missing"]])),
        runs=measures["runs"],
        summary=summary["rows"],
        tables=tables,
        made_by=_provenance_of_runs(configuration),
        digest=_existing(folder / "provenance.json"),
        scales=claims.get("scales", {}),
    )


def run_name(run: Mapping[str, Any]) -> str:
    """The folder of a run of measures.json, below that of the scale."""
    return f"{run['experiment']}/{run['label']}/seed{run['seed']}"


def _provenance_of_runs(configuration: Configuration) -> dict[str, dict]:
    shared = configuration.seeds if configuration.base_model is not None else []
    folders = [configuration.run_folder("base", "base", seed) for seed in shared]
    folders += [configuration.run_folder(*run) for run in configuration.runs()]
    found = {str(folder.relative_to(configuration.folder)): _existing(folder / "provenance.json") for folder in folders}
    return {name: record for name, record in found.items() if record}


def _existing(path: Path) -> dict:
    if not path.is_file():
        return {}
    record = _read(path)
    if not isinstance(record, dict):
        raise ReportError(f"{path}: expected a JSON object, found {type(record).__name__}; make it again")
    return record


def _of_scale(configuration: Configuration, name: str, step: str, keys: tuple[str, ...]) -> dict:
    path = configuration.folder / name
    if not path.is_file():
        raise ReportError(f"{path} is missing; make it first ({step})")
    found = _read(path, read_measures_file if name == MEASURES else read_json)
    _need(found, ("scale", *keys), str(path), step)
    if found["scale"] != configuration.scale:
        raise ReportError(f"{path}: is of scale {found['scale']!r}, the configuration says {configuration.scale!r}")
    return found


def _check_claim(claim: Any, where: str) -> None:
    _need(claim, CLAIM_KEYS, where, "python -m reproduction claims")
    if claim["verdict"] not in VERDICTS:
        raise ReportError(
            f"{where}: unknown verdict {claim['verdict']!r}; judge the claims again (python -m reproduction claims)"
        )
    _need(claim["rule"], ("kind", "margin", "target", "text"), f"{where}, rule", "python -m reproduction claims")
    _need(
        claim["corrected_p"],
        ("effect", "claim", "as_well", "against"),
        f"{where}, corrected_p",
        "python -m reproduction claims",
    )
    parts = [("effect", claim["effect"])]
    for beside in claim["beside"]:
        _need(beside, ("name", "what"), f"{where}, beside", "python -m reproduction claims")
        parts.append((beside["name"], beside))
    for control in claim["controls"]:
        _need(
            control, ("name", "question", "effect", "contrast"), f"{where}, controls", "python -m reproduction claims"
        )
        parts += [(control["name"], control["effect"])]
        parts += [(control["name"], control["contrast"])] if control["contrast"] is not None else []
    for name, part in parts:
        _need(part, PART_KEYS, f"{where}, {name}", "python -m reproduction claims")
        if part["estimate"] is not None:
            _need(part["estimate"], ESTIMATE_KEYS, f"{where}, {name}", "python -m reproduction claims")


def _need(record: Any, keys: tuple[str, ...], where: str, step: str) -> None:
    if not isinstance(record, dict):
        raise ReportError(f"{where}: expected a JSON object, found {type(record).__name__}; make it again ({step})")
    absent = [key for key in keys if key not in record]
    if absent:
        raise ReportError(f"{where}: has no {', '.join(absent)}; make it again ({step})")


def _read(path: Path, read: Callable[[Path], Any] = read_json) -> Any:
    try:
        return read(path)
    except ValueError as error:
        raise ReportError(str(error)) from None
