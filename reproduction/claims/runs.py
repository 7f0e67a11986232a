"""The runs of a scale as claims read them: every file checked, every run measured once, nothing filled in.

`measure_runs` reads the run folders; its result is small enough to publish (`measures.json`) and holds all that
verdicts need. A partial run, one of other settings or another seed than its folder says, and a seed that repeats
another are refused. A missing run is refused too, or listed as missing if that is asked for.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reproduction.claims.declarations import needed_cells
from reproduction.claims.declare import Cell
from reproduction.claims.design import FIRST_SEED, FULL_STUDY
from reproduction.claims.measures_file import NAME, read_measures_file, write_measures_file
from reproduction.claims.one_run import FILES, STRUCTURE, ClaimsError, Run, differing, measure_run, needs_structure
from reproduction.jobs.checksums import is_made, write_checksums
from reproduction.jobs.provenance import source_hash, versions
from reproduction.publish.published import FOLDER, REPOSITORY, unfinished
from reproduction.settings.configuration import Configuration, read_resolved

RunName = tuple[str, str, int]


@dataclass(frozen=True)
class Study:
    """All runs of a scale: those measured, by cell and seed, and those that are configured but missing."""

    scale: str
    runs: dict[tuple[str, str], dict[int, Run]]
    configured: dict[tuple[str, str], list[int]]
    missing: list[str] = field(default_factory=list)


def write_measures(configuration: Configuration, *, allow_missing: bool = False) -> None:
    """Measure every run of the configuration and write measures.json, which `read_measures` reads."""
    _write(configuration, measures_record(configuration, allow_missing=allow_missing))


def write_study_measures(configuration: Configuration, cells: Mapping[Cell, Mapping[int, Run]]) -> None:
    """Write measures.json of a study's runs that were measured already, some of them elsewhere."""
    rows = [_as_row(run) for runs in cells.values() for run in runs.values()]
    _write(configuration, {"scale": configuration.scale, "runs": rows, "missing": []})


def _write(configuration: Configuration, record: dict) -> None:
    write_measures_file(configuration.folder / NAME, record)
    write_checksums(configuration.folder, "measure", [NAME])


def measures_record(configuration: Configuration, *, allow_missing: bool = False) -> dict:
    """What measures.json holds, measured from the runs."""
    study = measure_runs(configuration, allow_missing=allow_missing)
    rows = [_as_row(run) for runs in study.runs.values() for run in runs.values()]
    return {"scale": study.scale, "runs": rows, "missing": study.missing}


def joinable_runs(configuration: Configuration) -> tuple[dict[RunName, Run], list[str]]:
    """The runs of the study that `results_published/` holds and that count as made, and a note on those that do not.

    The study there may be finished or not. A run counts if its seed is the study's, it was made by the code and the
    versions of this checkout, and with the settings of this configuration. Its measures are all that a verdict needs.
    """
    code, own_versions = source_hash(), versions()
    found, others = {}, []
    for folder in (REPOSITORY / FOLDER / name for name in (unfinished(configuration.scale), configuration.scale)):
        if not (folder / NAME).is_file() or not (folder / "config.yaml").is_file():
            continue
        made_with = read_resolved(folder / "config.yaml")
        if made_with.study != FULL_STUDY:
            continue
        for row in read_measures_file(folder / NAME)["runs"]:
            run = _from_row(row)
            if run.seed < FIRST_SEED or run.experiment not in configuration.experiments:
                continue
            if run.label not in configuration.experiments[run.experiment].methods:
                continue
            if run.code != code:
                others.append(f"{run.name}: other code")
            elif run.versions != own_versions:
                others.append(f"{run.name}: versions differ in {differing(run.versions, own_versions)}")
            elif _deciding(made_with, run) != _deciding(configuration, run):
                others.append(f"{run.name}: other settings")
            else:
                found.setdefault((run.experiment, run.label, run.seed), run)
    if not others:
        return found, []
    return found, [
        f"{len(others)} published runs do not join this study, so they are made again here ({others[0]}); check out "
        "the commit that made them to go on with them"
    ]


def _deciding(configuration: Configuration, run: Run) -> dict:
    """All of a configuration that decides a run's measures."""
    settings = configuration.experiments[run.experiment]
    return {
        "method": settings.method(run.label),
        "settings": settings.model_dump(exclude={"methods", "seeds", "expected_seconds"}),
        "problems": configuration.problems,
        "base_model": configuration.base_model.model_dump(exclude={"expected_seconds"}),
        "evaluation": configuration.evaluation.model_dump(exclude={"expected_seconds"}),
    }


def measured_again(
    configuration: Configuration, experiment: str, label: str, seed: int, known: dict[tuple[RunName, str], Run]
) -> Run | None:
    """A run's measures, or None if it is not finished; `known` keeps those of files that have not changed since.

    Raises ClaimsError if it was made by other code or versions, or was changed.
    """
    folder, wanted = configuration.run_folder(experiment, label, seed), needed_cells().get((experiment, label), set())
    files = [folder / name for name in _files(wanted)]
    if not all(path.is_file() for path in files):
        return None
    state = " ".join(f"{path.stat().st_mtime_ns}" for path in files)
    key = ((experiment, label, seed), state)
    if key not in known:
        unlike = [step for step in ("train", "evaluate") if not is_made(folder, step)]
        if unlike:
            raise ClaimsError(
                f"{folder}: its step {unlike[0]} was made by other code or versions, or its files were changed since; "
                "move the folder away to make the run again, or check out the commit that made it"
            )
        known[key] = measure_run(configuration, experiment, label, seed, wanted)
    return known[key]


def study_of(scale: str, cells: dict[Cell, dict[int, Run]], configuration: Configuration) -> Study:
    """A study of runs that were made: every cell of the configuration, each with the seeds that it has."""
    for own in cells.values():
        _check_no_copies(list(own.values()), str(configuration.folder))
    return Study(scale, cells, {cell: sorted(own) for cell, own in cells.items()})


def read_measures(configuration: Configuration) -> Study:
    """The study that `write_measures` wrote, which must hold or name as missing every run of the configuration."""
    path = configuration.folder / NAME
    if not path.exists():
        raise ClaimsError(f"{path} is missing; measure the runs first (python -m reproduction measure)")
    found = read_measures_file(path)
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
        absent = [name for name in _files(wanted) if not (folder / name).is_file()]
        if not absent:
            runs.append(measure_run(configuration, experiment, label, seed, wanted))
        elif allow_missing:
            missing.append(f"{experiment}/{label}/seed{seed}")
        else:
            raise ClaimsError(f"{folder / absent[0]} is missing; finish the run, or ask for the missing to be listed")
    return _study(configuration, runs, missing, str(configuration.folder))


def _study(configuration: Configuration, runs: list[Run], missing: list[str], source: str) -> Study:
    """Runs sorted into cells; each run of the configuration must be there or named as missing, and no seed a copy."""
    configured = {
        (experiment, label): list(configuration.seeds_of(experiment, label))
        for experiment, settings in configuration.experiments.items()
        for label in settings.methods
    }
    cells: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        cell = cells.setdefault((run.experiment, run.label), {})
        if run.seed in cell:
            raise ClaimsError(f"{source}: {run.name} occurs twice; a repeated seed is no new evidence")
        cell[run.seed] = run
    for cell in cells.values():
        _check_no_copies(list(cell.values()), source)
    for (experiment, label), seeds in configured.items():
        for seed in seeds:
            name = f"{experiment}/{label}/seed{seed}"
            if seed not in cells.get((experiment, label), {}) and name not in missing:
                raise ClaimsError(f"{source}: {name} of the configuration is not there; measure the runs again")
    wanted = {
        cell: {s: run for s, run in cells.get(cell, {}).items() if s in seeds} for cell, seeds in configured.items()
    }
    return Study(configuration.scale, wanted, configured, missing)


def _check_no_copies(runs: list[Run], source: str) -> None:
    """Refuse two seeds of a cell that agree in every metric."""
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.fingerprint, run)
        if other is not run:
            raise ClaimsError(
                f"{source}: {run.name} and {other.name} have the same metrics to the last digit; "
                "one is a copy of the other, make it again"
            )


def _files(wanted: Collection[str]) -> list[str]:
    """The files of a run that its measures need."""
    return [*FILES, STRUCTURE] if needs_structure(wanted) else list(FILES)


def _as_row(run: Run) -> dict:
    # Counts as one string: a list would take a line each in the indented file.
    return {**run.__dict__, "correct": {split: " ".join(map(str, counts)) for split, counts in run.correct.items()}}


def _from_row(row: dict) -> Run:
    counts = {split: [int(count) for count in text.split()] for split, text in row["correct"].items()}
    values = dict(row["values"])
    drop = values.get("entropy_drop")
    if "entropy_fall" not in values and drop is not None and drop < 1:
        # Runs of the first study have only 1 - last / first.
        values["entropy_fall"] = -math.log(1 - drop)
    return Run(**{**row, "correct": counts, "values": values})
