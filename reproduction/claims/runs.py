"""The runs of a scale as claims read them: every file checked, every run measured once, nothing filled in.

`measure_runs` reads the run folders; its result is small enough to publish (`measures.json`) and holds all that
verdicts need. A partial run, one of other settings or another seed than its folder says, and a seed that repeats
another are refused. A missing run is refused as well, or listed as missing where that is asked for.
"""

import math
from dataclasses import dataclass, field

from reproduction.claims.declarations import needed_cells
from reproduction.claims.one_run import FILES, STRUCTURE, ClaimsError, Run, measure_run, needs_structure
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import read_json, write_json
from reproduction.settings.configuration import Configuration


@dataclass(frozen=True)
class Study:
    """All runs of a scale: those measured, by cell and seed, and those that are configured but missing."""

    scale: str
    runs: dict[tuple[str, str], dict[int, Run]]
    configured: dict[tuple[str, str], list[int]]
    missing: list[str] = field(default_factory=list)

    def seeds(self, cell: tuple[str, str]) -> list[int]:
        """The seeds that were measured of an (experiment, label)."""
        return sorted(self.runs.get(cell, {}))


def write_measures(configuration: Configuration, *, allow_missing: bool = False) -> None:
    """Measure every run of the configuration and write measures.json, which `read_measures` reads."""
    write_json(configuration.folder / "measures.json", measures_record(configuration, allow_missing=allow_missing))
    write_checksums(configuration.folder, "measure", ["measures.json"])


def measures_record(configuration: Configuration, *, allow_missing: bool = False) -> dict:
    """What measures.json holds, measured anew."""
    study = measure_runs(configuration, allow_missing=allow_missing)
    rows = [_as_row(run) for runs in study.runs.values() for run in runs.values()]
    return {"scale": study.scale, "runs": rows, "missing": study.missing}


def read_measures(configuration: Configuration) -> Study:
    """The study that `write_measures` wrote, which must hold or name as missing every run of the configuration."""
    path = configuration.folder / "measures.json"
    if not path.exists():
        raise ClaimsError(f"{path} is missing; measure the runs first (python -m reproduction measure)")
    found = read_json(path)
    try:
        runs = [_from_row(row) for row in found["runs"]]
        scale, missing = found["scale"], list(found["missing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ClaimsError(
            f"{path}: not what python -m reproduction measure writes ({error!r}); measure the runs again"
        ) from None
    if scale != configuration.scale:
        raise ClaimsError(
            f"{path}: measured at scale {scale!r}, the configuration says {configuration.scale!r}; "
            "measure the runs again"
        )
    return _study(configuration, runs, missing, str(path))


def measure_runs(configuration: Configuration, *, allow_missing: bool = False) -> Study:
    """Read and measure every run of the configuration.

    allow_missing: list runs of which a file does not exist in `missing`, instead of refusing them.
    Raises ClaimsError naming the file otherwise, and always for a run that is partial, damaged, made with other
    settings or another seed, or a copy of another seed's.
    """
    needed = needed_cells()
    runs, missing = [], []
    for experiment, label, seed in configuration.runs():
        folder = configuration.run_folder(experiment, label, seed)
        wanted = needed.get((experiment, label), set())
        files = [*FILES, STRUCTURE] if needs_structure(wanted) else list(FILES)
        absent = [name for name in files if not (folder / name).is_file()]
        if not absent:
            runs.append(measure_run(configuration, experiment, label, seed, wanted))
        elif allow_missing:
            missing.append(f"{experiment}/{label}/seed{seed}")
        else:
            raise ClaimsError(f"{folder / absent[0]} is missing; finish the run, or ask for the missing to be listed")
    return _study(configuration, runs, missing, str(configuration.folder))


def _study(configuration: Configuration, runs: list[Run], missing: list[str], source: str) -> Study:
    """Runs sorted into cells; each run of the configuration must be there or named as missing, and no seed a copy."""
    configured: dict[tuple[str, str], list[int]] = {}
    for experiment, label, seed in configuration.runs():
        configured.setdefault((experiment, label), []).append(seed)
    cells: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        cell = cells.setdefault((run.experiment, run.label), {})
        if run.seed in cell:
            raise ClaimsError(f"{source}: {run.name} occurs twice; a repeated seed is no new evidence")
        for other in cell.values():
            if other.fingerprint == run.fingerprint:
                raise ClaimsError(
                    f"{source}: {run.name} and {other.name} have the same metrics to the last digit; "
                    "one is a copy of the other, make it again"
                )
        cell[run.seed] = run
    for (experiment, label), seeds in configured.items():
        for seed in seeds:
            name = f"{experiment}/{label}/seed{seed}"
            if seed not in cells.get((experiment, label), {}) and name not in missing:
                raise ClaimsError(f"{source}: {name} of the configuration is not there; measure the runs again")
    wanted = {
        cell: {s: run for s, run in cells.get(cell, {}).items() if s in seeds} for cell, seeds in configured.items()
    }
    return Study(configuration.scale, wanted, configured, missing)


def _as_row(run: Run) -> dict:
    # Counts as one string: a list would take a line each in the indented file.
    return {**run.__dict__, "correct": {split: " ".join(map(str, counts)) for split, counts in run.correct.items()}}


def _from_row(row: dict) -> Run:
    counts = {split: [int(count) for count in text.split()] for split, text in row["correct"].items()}
    values = dict(row["values"])
    drop = values.get("entropy_drop")
    if "entropy_fall" not in values and drop is not None and drop < 1:
        # Runs of the first study have 1 - last / first alone.
        values["entropy_fall"] = -math.log(1 - drop)
    return Run(**{**row, "correct": counts, "values": values})
