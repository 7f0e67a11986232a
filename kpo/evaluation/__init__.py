"""Evaluation: avg@k and pass@k, and how sure they are. Sampling has its own modules, which import transformers."""

from kpo.evaluation.statistics import (
    Difference,
    Interval,
    avg_at_k,
    hierarchical_bootstrap,
    hierarchical_difference,
    holm,
    interquartile_mean,
    minimum_detectable_effect,
    paired_difference,
    pass_at_k,
    probability_of_improvement,
    question_bootstrap,
    seed_bootstrap,
)

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
