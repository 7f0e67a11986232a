"""Every claim of KRPO's paper with its effect, interval, rule, controls and verdict."""

import sys

from paper_figures import style
from paper_figures.command import script
from paper_figures.forest import draw_verdicts
from paper_figures.results import Results

NAME = "verdicts_krpo"


def draw(results: Results) -> style.PaperFigure:
    """One row a claim."""
    return draw_verdicts(
        results, NAME, f"Claims of KRPO (arXiv 2505.07527) and what was measured ({results.scale} scale)"
    )


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
