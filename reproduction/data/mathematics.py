"""Loading mathematics sets through `datasets`, at pinned revisions, with everything that is declared of them checked.

Either from Hugging Face, or from a mirror: a folder of files in the same schema, which needs no network,

    <mirror>/<repository>/<revision>/[<configuration>/]<split>.parquet     (or .jsonl, or <split>-*.parquet)

`python -m reproduction mirror` writes one on a machine that has a network. The revision is part of the path, so a
mirror of another revision is not taken for the one that a configuration names.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reproduction.data.catalogue import MathematicsSet, check_revision, get_set
from reproduction.jobs.files import atomic_path
from reproduction.rewards.extraction import extract_answer
from reproduction.rewards.math import checked_gold


class DataError(ValueError):
    """A dataset that cannot be used; the message names it, what is wrong and what to do."""


@dataclass(frozen=True)
class MathProblem:
    """A problem and its right answer in LaTeX. id: the set's name and the row's number, from 0."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True)
class LoadedSet:
    """The problems of a set and `record`: what they came from, and how many rows were dropped for which reason."""

    problems: list[MathProblem]
    record: dict[str, Any]


def pinned_set(name: str, pins: Mapping[str, Mapping[Any, Any]] | None = None) -> MathematicsSet:
    """The declaration of a set with what a configuration pins (revision, rows, distinct) put in its place.

    Raises DataError if revision or rows are still unknown: a dataset that is not pinned may change between runs.
    """
    try:
        declared = get_set(name)
        given = {key: value for key, value in (pins or {}).get(name, {}).items() if value is not None}
        declared = replace(declared, **given)
    except ValueError as error:
        raise DataError(str(error)) from None
    for key, what in (("revision", "the 40-digit commit to use"), ("rows", "how many rows its split has")):
        if getattr(declared, key) is None:
            raise DataError(
                f"{name}: no {key} is known of {declared.repository}; look it up on Hugging Face and pin it: "
                f"data.pins.{name}.{key}, {what}"
            )
    return declared


def load_set(
    name: str, pins: Mapping[str, Mapping[Any, Any]] | None = None, mirror: str | os.PathLike | None = None
) -> LoadedSet:
    """The checked problems of a dataset of the catalogue, from `mirror` if given, else from Hugging Face or its cache.

    The number of rows must be the declared one; every row must have a question and one answer. Of rows with the same
    question the first is kept if the set is declared without duplicates, and their number must be the declared one.

    Raises DataError with one line: unknown or unpinned set, no network, missing or other revision, other number of
    rows, a missing or empty field.
    """
    declared = pinned_set(name, pins)
    rows = _read_rows(declared, mirror)
    if len(rows) != declared.rows:
        raise DataError(
            f"{name}: {declared.repository} at {declared.revision} has {len(rows):,} rows in {declared.split!r}, "
            f"but {declared.rows:,} are expected; the copy is incomplete or another one (data.pins.{name}.rows)"
        )
    wanted = None
    if declared.subject_of is not None:
        subject = load_set(declared.subject_of, pins, mirror)
        wanted = {_same_text(problem.question) for problem in subject.problems}
    problems = list(_problems(declared, rows, wanted))
    kept, conflicting = _without_duplicates(problems) if declared.distinct is not None else (problems, 0)
    if declared.distinct and len(kept) != declared.distinct:
        raise DataError(
            f"{name}: {len(kept):,} different questions, but {declared.distinct:,} are expected; the copy is another "
            f"one, or it was counted differently (data.pins.{name}.distinct)"
        )
    if not kept:
        raise DataError(f"{name}: no row of {declared.repository} belongs to it; the copy is another one")
    record = {
        "name": name,
        "repository": declared.repository,
        "configuration": declared.configuration,
        "split": declared.split,
        "revision": declared.revision,
        "licence": declared.licence,
        "rows": len(rows),
        "chosen": len(problems),
        "problems": len(kept),
        "duplicates": len(problems) - len(kept),
        "duplicates_with_another_answer": conflicting,
    }
    return LoadedSet(kept, record)


def write_mirror(name: str, folder: str | os.PathLike, pins: Mapping[str, Mapping[Any, Any]] | None = None) -> Path:
    """Fetch a dataset from Hugging Face and keep it in `folder` as a mirror does; returns the file.

    Sets that another one names (`subject_of`) are kept too. Raises DataError as `load_set` does.
    """
    declared = pinned_set(name, pins)
    if declared.subject_of is not None:
        write_mirror(declared.subject_of, folder, pins)
    path = _mirror_folder(declared, Path(folder)) / f"{declared.split}.parquet"
    if not path.exists():
        rows = _read_rows(declared, None)
        with atomic_path(path) as temporary:
            rows.to_parquet(str(temporary))
    return path


def _read_rows(declared: MathematicsSet, mirror: str | os.PathLike | None):
    import datasets

    datasets.disable_progress_bars()
    if mirror is not None:
        files = _mirror_files(declared, Path(mirror))
        reader = "parquet" if files[0].suffix == ".parquet" else "json"
        try:
            return datasets.load_dataset(reader, data_files=[str(file) for file in files], split="train")
        except Exception as error:
            raise DataError(f"{files[0]}: cannot be read as {reader} ({_first_line(error)}); copy it again") from None
    # Checked here too: a caller must not pin a branch's name.
    check_revision(declared.name, declared.revision)
    try:
        return datasets.load_dataset(
            declared.repository, declared.configuration, split=declared.split, revision=declared.revision
        )
    except Exception as error:
        # The library raises a dozen kinds, some of them of the network's libraries; each means "not to be had".
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "") else ""
        raise DataError(
            f"{declared.name}: {declared.repository} at {declared.revision} could not be loaded{offline}: "
            f"{type(error).__name__}: {_first_line(error)}; connect to the network, or fill a "
            "folder with `python -m reproduction mirror` on a machine that can and name it as data.mirror"
        ) from None


def _mirror_folder(declared: MathematicsSet, mirror: Path) -> Path:
    folder = mirror / declared.repository / declared.revision
    return folder if declared.configuration is None else folder / declared.configuration


def _mirror_files(declared: MathematicsSet, mirror: Path) -> list[Path]:
    folder = _mirror_folder(declared, mirror)
    if not folder.is_dir():
        others = sorted(path.name for path in (mirror / declared.repository).glob("*") if path.is_dir())
        found = f"; it holds {', '.join(others)}" if others else ""
        raise DataError(
            f"{declared.name}: the mirror {mirror} has no {folder.relative_to(mirror)}{found}; "
            "fill it with `python -m reproduction mirror`, or pin the revision that it holds"
        )
    for pattern in (f"{declared.split}.parquet", f"{declared.split}-*.parquet", f"{declared.split}.jsonl"):
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise DataError(
        f"{declared.name}: {folder} holds neither {declared.split}.parquet nor {declared.split}.jsonl; "
        "fill it with `python -m reproduction mirror`"
    )


def _problems(declared: MathematicsSet, rows, wanted: set[str] | None) -> Iterator[MathProblem]:
    fields = {declared.question.split(".")[0], declared.answer.split(".")[0]}
    if declared.only is not None:
        fields.add(declared.only[0])
    missing = sorted(fields - set(rows.column_names))
    if missing:
        raise DataError(
            f"{declared.name}: {declared.repository} has no field {missing[0]!r}, but {', '.join(rows.column_names)}; "
            "the copy is another one"
        )
    for number, row in enumerate(rows.select_columns(sorted(fields))):
        if declared.only is not None and row[declared.only[0]] != declared.only[1]:
            continue
        try:
            question = _question(row, declared)
            if wanted is not None and _same_text(question) not in wanted:
                continue
            yield MathProblem(f"{declared.name}-{number}", question, _answer(row, declared))
        except ValueError as error:
            raise DataError(f"{declared.name}: row {number} (from 0): {error}; the copy is another one") from None


def _question(row: dict, declared: MathematicsSet) -> str:
    question = _field(row, declared.question)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{declared.question!r} must be a text, found {question!r}")
    question = question.strip()
    if declared.drop is not None and question.lower().endswith(declared.drop.lower()):
        question = question[: -len(declared.drop)].rstrip()
    return question


def _answer(row: dict, declared: MathematicsSet) -> str:
    answer = _field(row, declared.answer)
    if isinstance(answer, list):
        if len(answer) != 1:
            raise ValueError(f"{declared.answer!r} must hold one answer, found {len(answer)}")
        answer = answer[0]
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError(f"{declared.answer!r} must be a text or a number, found {answer!r}")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise ValueError(f"{declared.answer!r} must be a finite number, found {answer}")
    answer = str(answer).strip()
    if declared.answer_is_solution:
        answer = extract_answer(answer, ("boxed",)) or ""
    if not answer:
        raise ValueError(f"{declared.answer!r} holds no answer")
    checked_gold(answer)
    return answer


def _field(row: Any, path: str) -> Any:
    for part in path.split("."):
        try:
            row = row[int(part)] if isinstance(row, list) else row[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"{path!r} is missing") from None
    return row


def _without_duplicates(problems: list[MathProblem]) -> tuple[list[MathProblem], int]:
    """The first problem of each question, and how many of the others had another answer."""
    first: dict[str, MathProblem] = {}
    conflicting = 0
    for problem in problems:
        kept = first.setdefault(problem.question, problem)
        conflicting += kept.answer != problem.answer
    return list(first.values()), conflicting


def _same_text(question: str) -> str:
    """The question without its spacing, in which copies differ."""
    return "".join(question.split())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
