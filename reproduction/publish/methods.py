"""The methods as a table: their sources, values, and where this project has measured them."""

from pathlib import Path
from typing import Any

import yaml

from kpo.methods import METHODS
from reproduction.jobs.files import read_json
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.related.declarations import RELATED


def methods_table(published: Path = REPOSITORY / FOLDER) -> list[dict[str, Any]]:
    """A JSON-ready row for each method.

    arxiv: the number of the paper that the method, or what a control varies, comes from. values: every value that can
    be overridden. measured: the experiments of the published results with a run of the method, as "scale/experiment";
    empty if there is none.
    """
    places = _measured(published)
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


def _measured(published: Path) -> dict[str, list[str]]:
    """By method, the published experiments that measured it, in the order of their names."""
    found: dict[str, set[str]] = {}
    for measures in sorted(published.glob("*/measures.json")):
        experiments = yaml.safe_load((measures.parent / "config.yaml").read_text(encoding="utf-8"))["experiments"]
        for run in read_json(measures)["runs"]:
            settings = experiments[run["experiment"]]["methods"][run["label"]]
            place = f"{measures.parent.name}/{run['experiment']}"
            found.setdefault(settings.get("method", run["label"]), set()).add(place)
    return {method: sorted(places) for method, places in found.items()}
