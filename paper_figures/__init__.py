"""Figures of the reproduction: one script a figure, each reads a results folder and writes a PDF and a PNG.

`python -m paper_figures --results results/laptop --output results/laptop/figures` draws all of them. Nothing here
trains or samples a model: every number comes from the files that the runs left, or is computed from them by a function
of `kpo`. `paper_figures.catalogue` says which figures there are, what each reads, and which claims it shows.
"""

from paper_figures.catalogue import ENTRIES, FIGURES, claim_figures, figures_for

__all__ = ["ENTRIES", "FIGURES", "claim_figures", "figures_for"]
