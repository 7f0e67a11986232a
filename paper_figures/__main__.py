"""Draw every figure: `python -m paper_figures --results results/laptop --output results/laptop/figures`."""

import importlib
import sys
from collections.abc import Sequence

from paper_figures import FIGURES
from paper_figures.command import draw_to_files, parser, report
from paper_figures.results import NotConfigured, Results, ResultsError


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all figures and print the files written; exit status 2 when one could not be drawn.

    A figure of an experiment or method that the configuration leaves out is skipped, with a line that says so.
    """
    options = parser("python -m paper_figures", "Draw every figure of the reproduction.").parse_args(argv)
    try:
        results = Results(options.results, allow_missing=options.allow_missing)
    except ResultsError as error:
        return report("paper_figures", error)
    status = 0
    for name in FIGURES:
        try:
            draw_to_files(name, importlib.import_module(f"paper_figures.{name}").draw, results, options.output)
        except NotConfigured as error:
            print(f"{name}: skipped ({error})")
        except (ResultsError, OSError) as error:
            status = report(name, error)
    return status


if __name__ == "__main__":
    sys.exit(main())
