"""The figures of a results folder, each embedded once, with the words and claims of its JSON file."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.jobs.files import read_json
from reproduction.report.inputs import ReportError
from reproduction.report.verdicts import anchor

KEYS = ("name", "order", "title", "about", "caption", "claims", "missing", "files")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A figure. about: what it shows in one sentence; caption: the text in the picture; claims: ids of the claims that
    it shows; files: what it was drawn from; data: its data URI; width, height: pixels.
    """

    name: str
    anchor: str
    title: str
    about: str
    caption: str
    claims: tuple[str, ...]
    files: tuple[str, ...]
    data: str
    width: int
    height: int


def pictures(folder: Path) -> list[Picture]:
    """The figures in `folder`, in the order that their JSON files give.

    Raises ReportError for a PNG without JSON or a JSON without PNG, and for a file that is neither.
    """
    found = sorted({path.stem for kind in ("png", "json") for path in folder.glob(f"*.{kind}")})
    records = [(_record(folder / f"{name}.json"), folder / f"{name}.png") for name in found]
    return [_picture(record, path) for record, path in sorted(records, key=lambda pair: pair[0]["order"])]


def by_claim(shown: Sequence[Picture]) -> dict[str, list[Picture]]:
    """The figures of each claim's id: made for claims first, then those of runs, pages of verdicts last."""
    order = sorted(shown, key=lambda picture: (_rank(picture), len(picture.claims)))
    claims = dict.fromkeys(claim for picture in order for claim in picture.claims)
    return {claim: [picture for picture in order if claim in picture.claims] for claim in claims}


def _rank(picture: Picture) -> int:
    return 2 if picture.files == ("claims.json",) else 0 if "claims.json" in picture.files else 1


def _record(path: Path) -> dict:
    again = f"draw the figure again (python -m paper_figures.{path.stem})"
    if not path.is_file():
        raise ReportError(f"{path} is missing; {again}")
    try:
        record = read_json(path)
    except ValueError as error:
        raise ReportError(str(error)) from None
    absent = [key for key in KEYS if not isinstance(record, dict) or key not in record]
    if absent:
        raise ReportError(f"{path}: has no {', '.join(absent)}; {again}")
    return record


def _picture(record: dict, path: Path) -> Picture:
    name, again = path.stem, f"draw the figure again (python -m paper_figures.{path.stem})"
    if not path.is_file():
        raise ReportError(f"{path} is missing; {again}")
    content = path.read_bytes()
    # An image starts with its signature and the header chunk, whose first eight bytes are width and height.
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 24:
        raise ReportError(f"{path}: not a PNG image; {again}")
    width, height = struct.unpack(">II", content[16:24])
    data = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    title, about, caption = (record[key] for key in ("title", "about", "caption"))
    claims, files = (tuple(record[key]) for key in ("claims", "files"))
    return Picture(name, anchor("figure", name), title, about, caption, claims, files, data, width, height)
