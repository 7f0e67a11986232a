"""Figures of the reproduction: each script reads a results folder and writes a PDF, a PNG and a JSON of its words.

`python -m paper_figures --results results/laptop --output results/laptop/figures` draws all of them. Nothing here
trains or samples a model: every number comes from the files that the runs left, or is computed from them by a function
of `kpo`. `paper_figures.catalogue` says which figures there are, what each reads, and which claims it shows.
"""

from paper_figures.catalogue import ENTRIES, FIGURES, figures_for

__all__ = ["ENTRIES", "FIGURES", "figures_for"]
