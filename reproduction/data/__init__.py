"""Problems: the arithmetic generator, and the reader of files in KRPO's published format."""

from reproduction.data.arithmetic import LEVELS, Level, Problem, generate_problems, make_splits
from reproduction.data.expressions import normalise_question
from reproduction.data.problems import read_problems, within_range, write_problems

__all__ = [
    "LEVELS",
    "Level",
    "Problem",
    "generate_problems",
    "make_splits",
    "normalise_question",
    "read_problems",
    "within_range",
    "write_problems",
]
