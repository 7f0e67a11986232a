"""Where the numbers come from: runs grouped by code, versions and hardware, times, and those that are missing."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.jobs.progress import clock
from reproduction.jobs.provenance import said_commit
from reproduction.report.inputs import Inputs, run_name
from reproduction.report.numbers import amount_of_memory
from reproduction.settings.configuration import Configuration, dump


@dataclass(frozen=True)
class Group:
    """Runs that agree in something. value: in what; runs: their names."""

    value: Any
    runs: list[str]


@dataclass(frozen=True)
class Origin:
    """What the page says of its runs. Groups come largest first; `stopped` gives the reason of each run that ended
    early."""

    runs: int
    commits: list[str]
    code: list[Group]
    versions: list[Group]
    hardware: list[Group]
    sampling: list[Group]
    times: str
    memory: str
    stopped: list[tuple[str, str]]
    missing: list[str] = field(default_factory=list)

    @property
    def other_code(self) -> dict[str, str]:
        """Runs made by other code than most, with that code."""
        return {name: group.value for group in self.code[1:] for name in group.runs}


def origin(inputs: Inputs) -> Origin:
    """Gather the provenance of all measured runs."""
    runs, digest = inputs.runs, inputs.digest
    times = _collected(inputs, "wall_seconds")
    memory = _collected(inputs, "peak_memory_bytes")
    return Origin(
        runs=len(runs),
        commits=[str(commit) for commit in digest.get("commits", [])]
        or sorted({said_commit(record) for record in inputs.made_by.values() if "commit" in record}),
        code=grouped(runs, lambda run: run["code"]),
        versions=grouped(runs, lambda run: words(run["versions"])),
        hardware=grouped(runs, lambda run: words(run["hardware"])),
        sampling=grouped(runs, lambda run: words(_sampling(run))),
        times=f"{clock(min(times))} to {clock(max(times))} each, {clock(sum(times))} together" if times else "",
        memory=f"at most {amount_of_memory(max(memory))}" if memory else "",
        stopped=[(run_name(run), stopped_because(run["stopped"])) for run in runs if run["stopped"]],
        missing=inputs.missing,
    )


def grouped(runs: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> list[Group]:
    """The runs by what `key` gives, the largest group first, equal ones in the order of their values."""
    found: dict[str, Group] = {}
    for run in runs:
        text = json.dumps(key(run), sort_keys=True)
        found.setdefault(text, Group(key(run), [])).runs.append(run_name(run))
    return [found[text] for text in sorted(found, key=lambda text: (-len(found[text].runs), text))]


def words(record: Mapping[str, Any]) -> str:
    """A flat record as text: `key value` in the order of the keys, with sizes of memory in GiB."""
    parts = []
    for key, value in sorted(record.items()):
        if key.endswith("_bytes") and isinstance(value, int | float):
            key, value = key.removesuffix("_bytes"), amount_of_memory(value)
        elif isinstance(value, Mapping):
            value = f"({words(value)})"
        elif isinstance(value, list):
            value = " ".join(map(str, value)) or "none"
        parts.append(f"{key} {value}")
    return ", ".join(parts) or "not recorded"


def _sampling(run: Mapping[str, Any]) -> dict:
    """How a run was evaluated; versions that are those of its training are said once."""
    sampling = dict(run["sampling"])
    if sampling.get("versions") == run["versions"]:
        del sampling["versions"]
    return sampling


def configuration_text(configuration: Configuration) -> str:
    """The configuration as YAML without the places of files on one machine, which say nothing elsewhere."""
    changes: dict[str, str] = {}
    if configuration.arithmetic_file is not None:
        changes["arithmetic_file"] = Path(configuration.arithmetic_file).name
    if Path(configuration.results).is_absolute():
        changes["results"] = Path(configuration.results).name
    return dump(configuration.model_copy(update=changes))


def _collected(inputs: Inputs, key: str) -> list[float]:
    """A number of every run: from the digest, which has all runs if a folder holds only some, or from their records."""
    own = [record[key] for record in inputs.made_by.values() if record.get(key) is not None]
    return list(inputs.digest.get(key, {}).values()) or own


def stopped_because(stopped: str) -> str:
    """Why a run of measures.json ended early, in the trainer's words, which are JSON text: a string or a mapping."""
    try:
        found = json.loads(stopped)
    except ValueError:
        return str(stopped)
    return ", ".join(f"{key} {value}" for key, value in found.items()) if isinstance(found, dict) else str(found)
