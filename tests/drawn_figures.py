"""What the tests of figures share: a figure drawn to its last label, its words, and the numbers of a study's files."""

import importlib
import json

from paper_figures import style
from paper_figures.results import Results


def draw(name, folder):
    with style.applied():
        figure = importlib.import_module(f"paper_figures.{name}").draw(Results(folder))
        figure.draw_without_rendering()  # lays out as drawing does, without the pixels
    return figure


def words(figure) -> str:
    """All text of a figure in one line."""
    texts = [text.get_text() for text in figure.texts]
    for panel in figure.axes:
        texts += [panel.get_title(), *(text.get_text() for text in panel.texts)]
    return " ".join(" ".join(texts).split())


def raw(folder, measure, experiment, label) -> dict[int, float]:
    """A measure by seed, read without the code under test."""
    rows = json.loads((folder / "measures.json").read_text())["runs"]
    return {
        row["seed"]: row["values"][measure] for row in rows if (row["experiment"], row["label"]) == (experiment, label)
    }


def marks(panel) -> list[float]:
    """The heights of the large marks of a panel."""
    return [float(container.lines[0].get_ydata()[0]) for container in panel.containers]
