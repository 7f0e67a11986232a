"""The command line that all figure scripts share."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paper_figures.catalogue import ENTRIES, FIGURES
from paper_figures.results import Results, ResultsError
from paper_figures.style import PaperFigure, applied, save
from reproduction.jobs.files import write_json

Draw = Callable[[Results], PaperFigure]


def parser(program: str, description: str) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog=program, description=description)
    arguments.add_argument(
        "--results", required=True, metavar="FOLDER", help="results of one scale, such as results/laptop"
    )
    arguments.add_argument("--output", required=True, metavar="FOLDER", help="where the PDF, the PNG and the JSON go")
    arguments.add_argument(
        "--allow-missing", action="store_true", help="draw the runs that exist and name the missing ones in the figure"
    )
    return arguments


def draw_to_files(name: str, draw: Draw, results: Results, output: str) -> None:
    """Draw one figure, write it with its words as `<name>.json`, and print the path of each file written.

    The report and the notebooks read the JSON, never these scripts. about: the first paragraph of the script's
    docstring; order: the figure's place among all figures.
    """
    with applied():
        figure = draw(results)
    paths = save(figure, output, name)
    entry, words = ENTRIES[name], (sys.modules[draw.__module__].__doc__ or "").split("\n\n")[0]
    record = {
        "name": name, "order": FIGURES.index(name), "title": figure.title, "about": " ".join(words.split()),
        "caption": figure.caption, "claims": entry.claims, "missing": figure.missing, "files": entry.files,
    }  # fmt: skip
    write_json(Path(output) / f"{name}.json", record)
    for path in [*paths, Path(output) / f"{name}.json"]:
        print(path)


def script(name: str, draw: Draw) -> Callable[..., int]:
    """`main` of one figure's script; it takes the command line's arguments."""
    return functools.partial(_main, name, draw)


def _main(name: str, draw: Draw, argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 after one line that says what is wrong with the results."""
    options = parser(
        f"python -m paper_figures.{name}", (sys.modules[draw.__module__].__doc__ or "").split("\n")[0]
    ).parse_args(argv)
    try:
        draw_to_files(name, draw, Results(options.results, allow_missing=options.allow_missing), options.output)
    except (ResultsError, OSError) as error:
        return report(name, error)
    return 0


def report(name: str, error: Exception) -> int:
    """Print one line to standard error and return the exit status for it."""
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
