"""A table of a paper as plain text, and tables.md, the page that shows all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reproduction.claims.paper_tables import LEGEND
from reproduction.settings.configuration import Configuration


@dataclass(frozen=True)
class Table:
    """A table of plain text. `values`: its numbers, for programs; each names its row and column."""

    id: str
    title: str
    paper: str
    note: str
    columns: list[str]
    rows: list[list[str]]
    values: list[dict[str, Any]] = field(default_factory=list)


def markdown(tables: Sequence[Table], configuration: Configuration) -> str:
    """The page for readers."""
    lines = [
        f"# The papers' tables and what was measured at scale {configuration.scale}",
        "",
        f"Seeds {', '.join(map(str, configuration.seeds))}. {LEGEND}",
    ]
    for table in tables:
        lines += ["", f"## {_escaped(table.title)}", "", f"{_escaped(table.paper)}. {_escaped(table.note)}", ""]
        lines.append("| " + " | ".join(map(_escaped, table.columns)) + " |")
        lines.append("|" + "---|" * len(table.columns))
        lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text that is neither HTML nor a border in a table of markdown."""
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(character, written)
    return " ".join(text.split())
