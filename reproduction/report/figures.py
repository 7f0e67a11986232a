"""The figures of a results folder, each embedded once, with the words of its script and the claims that it shows."""

import ast
import base64
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import paper_figures
from paper_figures.catalogue import missing_for
from reproduction.report.inputs import ReportError
from reproduction.report.verdicts import anchor
from reproduction.settings.configuration import Configuration

NAMES = {"kpo": "KPO", "krpo": "KRPO"}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A figure. data: its data URI; width, height: pixels. Where it cannot be drawn these are empty, and `lacks` says
    what the configuration lacks for it. claims: ids of the claims that it shows.
    """

    name: str
    anchor: str
    title: str
    caption: str
    claims: tuple[str, ...]
    data: str = ""
    width: int = 0
    height: int = 0
    lacks: str = ""


def pictures(configuration: Configuration) -> list[Picture]:
    """Every figure of `paper_figures.FIGURES`, in that order.

    Raises ReportError for a file that is no PNG, and for one that is missing although the configuration has its runs.
    """
    shown = paper_figures.claim_figures()
    return [
        _picture(configuration, name, tuple(claim for claim, names in shown.items() if name in names))
        for name in paper_figures.FIGURES
    ]


def _picture(configuration: Configuration, name: str, claims: tuple[str, ...]) -> Picture:
    path = configuration.folder / "figures" / f"{name}.png"
    words = Picture(name, anchor("figure", name), _title(name), caption(name), claims)
    if not path.is_file():
        lacks = missing_for(name, {key: value.methods for key, value in configuration.experiments.items()})
        # As the workflow has it: pass@k is drawn of the level `normal`, which experiments on mathematics do not have.
        if name == "pass_at_k" and any(value.pretrained for value in configuration.experiments.values()):
            lacks = lacks or "level 'normal' in every experiment"
        if not lacks:
            raise ReportError(f"{path} is missing; draw the figures first (python -m paper_figures.{name})")
        return replace(words, lacks=lacks)
    content = path.read_bytes()
    # An image starts with its signature and the header chunk, whose first eight bytes are width and height.
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 24:
        raise ReportError(f"{path}: not a PNG image; draw the figure again (python -m paper_figures.{name})")
    width, height = struct.unpack(">II", content[16:24])
    data = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return replace(words, data=data, width=width, height=height)


def _title(name: str) -> str:
    words = " ".join(NAMES.get(word, word) for word in name.split("_"))
    return words[0].upper() + words[1:]


def caption(name: str) -> str:
    """The first paragraph of a figure script's docstring, read without running the script; "" where there is none."""
    path = Path(paper_figures.__file__).parent / f"{name}.py"
    if not path.is_file():
        return ""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())
