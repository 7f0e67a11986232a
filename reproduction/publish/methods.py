"""The methods as a table: their sources, values, and where this project has measured them."""

from pathlib import Path
from typing import Any

import yaml

from kpo.methods import METHODS
from reproduction.jobs.files import read_json
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.related.declarations import RELATED


def methods_table(
    published: Path = REPOSITORY / FOLDER, present: Path = REPOSITORY / "results"
) -> list[dict[str, Any]]:
    """A JSON-ready row for each method.

    arxiv: the number of the paper that the method, or what a control varies, comes from. values: every value that can
    be overridden. measured: the experiments with a run of the method, as "scale/experiment" of the published results
    and "results/scale/experiment" of those at hand; empty if there is none.
    """
    places = _measured(published, present)
    return [
        {
            "name": method.name,
            "paper": method.paper,
            "arxiv": method.paper.removeprefix("arXiv "),
            "section": method.section,
            "description": method.description,
            "advantage": method.advantage,
            "ratio": method.ratio,
            "values": method.parameters,
            "measured": places.get(method.name, []),
        }
        for method in {**METHODS, **RELATED}.values()
    ]


def _measured(published: Path, present: Path) -> dict[str, list[str]]:
    """By method, the experiments that measured it, in the order of their names."""
    found: dict[str, set[str]] = {}
    for measures in sorted(published.glob("*/measures.json")):
        experiments = yaml.safe_load((measures.parent / "config.yaml").read_text(encoding="utf-8"))["experiments"]
        for run in read_json(measures)["runs"]:
            settings = experiments[run["experiment"]]["methods"][run["label"]]
            place = f"{measures.parent.name}/{run['experiment']}"
            found.setdefault(settings.get("method", run["label"]), set()).add(place)
    # A run that was evaluated is finished; all seeds of a folder have one method.
    finished = {path.parent.parent: path.parent for path in present.glob("*/*/*/seed*/evaluation.json")}
    for folder, run in finished.items():
        if (run / "config.yaml").is_file():
            method = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["method"]
            place = f"{present.name}/{folder.parent.relative_to(present).as_posix()}"
            found.setdefault(method["name"], set()).add(place)
    return {method: sorted(places) for method, places in found.items()}
