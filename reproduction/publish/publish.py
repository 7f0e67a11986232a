"""Publishing a finished scale: its compact results into `results_published/`, and of a scale with its own small models
also its numbers into the README and its executed notebooks into `notebooks/`.

The README and the notebooks are about the small models. A scale with Hugging Face models publishes only its folder,
from which `results=published` makes its figures, notebooks and report.
"""

import os
import shutil
from pathlib import Path

from reproduction.claims.design import FULL_STUDY
from reproduction.claims.page import without_dead_links
from reproduction.claims.runs import read_measures
from reproduction.evaluation.summary import summary_markdown, summary_rows
from reproduction.jobs.checksums import check_files, read_checksums
from reproduction.jobs.files import atomic_write, only_process, read_json, write_json
from reproduction.jobs.provenance import said_commit
from reproduction.publish.pages import SHOWN_FIGURES, readme_block, results_page
from reproduction.publish.published import (
    COPIED,
    FOLDER,
    UNPACKED,
    copy,
    published_files,
    set_aside,
    unfinished,
    write_compact,
)
from reproduction.settings.configuration import Configuration

START, END = "<!-- results:start -->", "<!-- results:end -->"
STUDY_FILES = ("measures.json", "claims.json", "claims.md")
JUDGED = ("claims.json", "claims.md", "tables.json", "tables.md")


def publish(configuration: Configuration, repository: Path, *, allow_missing: bool = False) -> None:
    """Replace `results_published/<scale>` by the results of a finished workflow, and what is shown of them.

    configuration: that of the results, or that of published results which `make redraw` drew again
    (results/published/<scale>/config.yaml): then the compact runs stay, and what is made from them is replaced.
    If the scale has its own small models, the README's block between its two marks is rewritten, and the
    notebooks of the repository become those that were executed on the results. allow_missing: publish although
    measures.json names runs as missing; provenance.json and the README then list them.
    Raises ValueError if the scale is not finished, its verdicts are of other measures, or its runs come from
    differing code or package versions; nothing has been changed then.
    """
    from reproduction.notebook import NOTEBOOKS

    source, target = configuration.folder, repository / FOLDER / configuration.scale
    is_redrawn = configuration.results == UNPACKED
    is_shown = configuration.base_model is not None
    notebooks = [f"notebooks/{name}.ipynb" for name in NOTEBOOKS] if is_shown else []
    shown = [f"figures/{name}.png" for name in SHOWN_FIGURES] if is_shown else []
    for name in (*COPIED, *JUDGED, *shown, *notebooks):
        if not (source / name).is_file():
            raise ValueError(f"{source / name} is missing; finish the workflow before publishing")
    if is_redrawn:
        _check_redrawn(source, target)
    missing = _missing(configuration, allow_missing or is_redrawn)
    digest = {} if is_redrawn else {**provenance_digest(configuration, missing), "missing": missing}
    readme = repository / "README.md"
    before, after = _around_block(readme) if is_shown else ("", "")
    with only_process(target.parent):
        new = target.parent / f".{target.name}.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            if is_redrawn:
                for name in published_files(target):
                    copy(target / name, new / name)
            else:
                write_compact(configuration, missing, new)
                write_json(new / "provenance.json", digest)
            for path in [
                *(source / name for name in JUDGED),
                *(path for path in sorted((source / "figures").glob("*")) if path.suffix in (".png", ".json")),
            ]:
                copy(path, new / path.relative_to(source))
            page = (new / "claims.md").read_text(encoding="utf-8")
            atomic_write(new / "claims.md", without_dead_links(page, new))
            if is_shown:
                atomic_write(new / "README.md", results_page(new))
            block = readme_block(new) if is_shown else ""
            replace_folder(target, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    if is_shown:
        atomic_write(readme, before + START + "\n" + block + END + after)
    for name in notebooks:
        copy(source / name, repository / name)


def publish_unfinished(configuration: Configuration, repository: Path) -> None:
    """Keep what a study has made so far in `results_published/<scale>-study`, for the same study to go on elsewhere.

    configuration: the study's `<results>/<scale>/config.yaml`. Runs that the study joined from published results are
    kept from there. Renamed to `results_published/<scale>`, the folder can be drawn (`make redraw`).
    Raises ValueError if the study was not judged, or if runs come from differing code.
    """
    source, target = configuration.folder, repository / FOLDER / unfinished(configuration.scale)
    if configuration.study != FULL_STUDY:
        raise ValueError(f"{source}: --unfinished is for the study of every claim (`make study`)")
    for name in STUDY_FILES:
        if not (source / name).is_file():
            raise ValueError(f"{source / name} is missing; judge the study first (make study HOURS=0)")
    names = [configuration.run_folder(*run) for run in (*configuration.untrained(), *configuration.runs())]
    joined = [path.relative_to(source).as_posix() for path in names if not (path / "provenance.json").is_file()]
    known = (target, target.with_name(configuration.scale))
    earlier = next((folder for folder in known if (folder / "measures.json").is_file()), target)
    if absent := [name for name in joined if not (earlier / name / "evaluation.json").is_file()]:
        raise ValueError(
            f"{source / absent[0]} is missing, and so is {earlier / absent[0]}; finish the run (make study)"
        )
    digest = {**provenance_digest(configuration, joined), "missing": []}
    with only_process(target.parent):
        made = target.parent / f".{target.name}.new"
        shutil.rmtree(made, ignore_errors=True)
        new = made / configuration.scale
        try:
            write_compact(configuration, joined, new, copied=STUDY_FILES)
            if joined:
                recorded = read_json(earlier / "provenance.json")
                for name in joined:
                    shutil.copytree(earlier / name, new / name)
                for key in ("wall_seconds", "peak_memory_bytes"):
                    digest[key] = {**{name: recorded[key][name] for name in joined}, **digest[key]}
                digest["commits"] = sorted({*digest["commits"], *recorded["commits"]})
            write_json(new / "provenance.json", digest)
            rows = summary_rows(configuration.model_copy(update={"results": str(made)}))
            write_json(new / "summary.json", {"scale": configuration.scale, "rows": rows})
            atomic_write(new / "summary.md", summary_markdown(rows, configuration))
            page = (new / "claims.md").read_text(encoding="utf-8")
            atomic_write(new / "claims.md", without_dead_links(page, new))
            replace_folder(target, new)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _check_redrawn(source: Path, target: Path) -> None:
    """Raises ValueError unless the results were drawn from what is published now."""
    for name in published_files(target):
        if name not in ("config.yaml", "README.md") and (
            not (source / name).is_file() or (source / name).read_bytes() != (target / name).read_bytes()
        ):
            raise ValueError(
                f"{source / name} is not what {target} has; draw the published results again (make redraw)"
            )


def replace_folder(target: Path, new: Path) -> None:
    """Put `new` in the place of `target`, whole, so that nothing of an earlier configuration stays among the files.

    Between the two renames neither is in its place. The old folder is then next to it under the name of `set_aside`,
    and the next call after an interruption first brings it back.
    """
    old = set_aside(target)
    if old.exists() and not target.exists():
        os.replace(old, target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _missing(configuration: Configuration, allow_missing: bool) -> list[str]:
    """The runs that measures.json names as missing; the verdicts must be made from that very file."""
    missing = read_measures(configuration).missing
    if missing and not allow_missing:
        raise ValueError(
            f"{configuration.folder}: runs are missing: {', '.join(missing)}; finish them, or publish without them "
            "(--allow-missing)"
        )
    if read_json(configuration.folder / "claims.json")["missing"] != missing:
        raise ValueError(
            f"{configuration.folder / 'claims.json'} was made from other measures; judge the claims again "
            "(python -m reproduction claims)"
        )
    changed = check_files(configuration.folder, read_checksums(configuration.folder, "claims"))
    if changed:
        raise ValueError(f"{changed[0]}; judge the claims again (python -m reproduction claims)")
    return missing


def provenance_digest(configuration: Configuration, missing: list[str]) -> dict:
    """What all runs share (code, versions, hardware), their commits, wall times and peak memories."""
    shared = configuration.seeds if configuration.base_model is not None else []
    folders = [configuration.run_folder("base", "base", seed) for seed in shared]
    bases = {folder.relative_to(configuration.folder).as_posix() for folder in folders}
    folders += [configuration.run_folder(*run) for run in configuration.runs()]
    named = {folder.relative_to(configuration.folder).as_posix(): folder for folder in folders}
    records = {}
    for name, folder in named.items():
        path = folder / "provenance.json"
        if name in missing:
            continue
        if not path.is_file():
            raise ValueError(f"{path} is missing; finish the workflow before publishing")
        records[name] = read_json(path)
    first = next(iter(records.values()))
    made_by: dict[bool, str] = {}
    for name, record in records.items():
        # The base models are of another step than the runs, so of other code.
        code = made_by.setdefault(name in bases, record["source_hash"])
        for key, other in (("source_hash", code), ("versions", first["versions"])):
            if record[key] != other:
                raise ValueError(f"{name}: {key} is {record[key]}, elsewhere {other}; make all runs with one version")
    return {
        "commits": sorted({said_commit(record) for record in records.values()}),
        "source_hash": made_by.get(False, first["source_hash"]),
        "versions": first["versions"],
        "hardware": first["hardware"],
        "wall_seconds": {name: record["wall_seconds"] for name, record in records.items()},
        "peak_memory_bytes": {name: record["peak_memory_bytes"] for name, record in records.items()},
    }


def _around_block(readme: Path) -> tuple[str, str]:
    text = readme.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{readme} has no block between {START} and {END}; put the two lines where the results belong")
    before, rest = text.split(START, 1)
    return before, rest.split(END, 1)[1]
