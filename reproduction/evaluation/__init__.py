"""Evaluation: avg@k and pass@k with confidence intervals. Sampling has its own modules, which import transformers."""

from reproduction.evaluation.aggregates import (
    holm,
    interquartile_mean,
    minimum_detectable_effect,
    probability_of_improvement,
)
from reproduction.evaluation.bootstrap import (
    hierarchical_bootstrap,
    hierarchical_difference,
    paired_difference,
    question_bootstrap,
    seed_bootstrap,
)
from reproduction.evaluation.intervals import Difference, Interval
from reproduction.evaluation.scores import avg_at_k, pass_at_k

__all__ = [
    "Difference",
    "Interval",
    "avg_at_k",
    "hierarchical_bootstrap",
    "hierarchical_difference",
    "holm",
    "interquartile_mean",
    "minimum_detectable_effect",
    "paired_difference",
    "pass_at_k",
    "probability_of_improvement",
    "question_bootstrap",
    "seed_bootstrap",
]
