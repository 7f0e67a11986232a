"""Checksums of what each step wrote and read: `<folder>/checksums/<step>.json`.

    {"step": "evaluate", "files": {"evaluation.json": "<sha256>", ...}, "inputs": {"model/model.safetensors": ...},
     "source_hash": "...", "versions": {...}}

Names are relative to the folder, so that a results folder can be moved. The files show tampering and damage; they are
not signed: a result that is rewritten together with its checksum is found only by what else must agree with it
(`reproduction.verify.folder`).
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reproduction.jobs.files import read_json, write_json
from reproduction.jobs.provenance import source_hash, versions


def write_checksums(folder: Path, step: str, files: Iterable[str], inputs: Iterable[Path] = ()) -> None:
    """Record what a step wrote into `folder` and the files that it read; a folder's name means all files in it."""
    write_json(
        checksums_path(folder, step),
        {
            "step": step,
            "files": {name: sha256(folder / name) for name in _expand(folder, files)},
            "inputs": {Path(os.path.relpath(path, folder)).as_posix(): sha256(path) for path in inputs},
            "source_hash": source_hash(step),
            "versions": versions(),
        },
    )


def read_checksums(folder: Path, step: str) -> dict[str, Any]:
    """What `write_checksums` recorded.

    Raises ValueError naming the file and the remedy if it is missing or malformed.
    """
    path = checksums_path(folder, step)
    if not path.is_file():
        raise ValueError(f"{path}: is missing, so nothing shows that the files of this step are whole; make them again")
    found = read_json(path)
    parts = [found.get(key) if isinstance(found, dict) else None for key in ("files", "inputs", "versions")]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(found.get("source_hash"), str):
        raise ValueError(f"{path}: is not what the step wrote; make its files again")
    return found


def check_files(folder: Path, recorded: dict[str, Any]) -> list[str]:
    """A line for each file that is missing or not as it was written, or as it was read."""
    problems = []
    for role, says in (("files", "was written"), ("inputs", f"the step {recorded.get('step')} read it")):
        for name, expected in sorted(recorded[role].items()):
            path = Path(os.path.normpath(folder / name))
            if not path.is_file():
                problems.append(f"{path}: is missing; make it again")
            elif sha256(path) != expected:
                problems.append(
                    f"{path}: is not as it {says}" if role == "files" else f"{path}: has changed since {says}"
                )
    return problems


def is_made(folder: Path, step: str) -> bool:
    """Whether a step's files and inputs are all there as it recorded them, made by this code and these versions."""
    try:
        recorded = read_checksums(folder, step)
    except ValueError:
        return False
    made_with = recorded["source_hash"], recorded["versions"]
    return made_with == (source_hash(step), versions()) and not check_files(folder, recorded)


def checksums_path(folder: Path, step: str) -> Path:
    """The file with the checksums of a step's files in `folder`."""
    return folder / "checksums" / f"{step}.json"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expand(folder: Path, names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        path = folder / name
        inside = sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]
        found += [inner.relative_to(folder).as_posix() for inner in inside]
    return found
