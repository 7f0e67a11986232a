"""Evaluation: avg@k and pass@k with confidence intervals. Sampling has its own modules, which import transformers."""

from reproduction.evaluation.aggregates import holm, minimum_detectable_effect
from reproduction.evaluation.bootstrap import hierarchical_bootstrap, hierarchical_difference, question_bootstrap
from reproduction.evaluation.intervals import Interval
from reproduction.evaluation.scores import avg_at_k, pass_at_k

__all__ = [
    "Interval",
    "avg_at_k",
    "hierarchical_bootstrap",
    "hierarchical_difference",
    "holm",
    "minimum_detectable_effect",
    "pass_at_k",
    "question_bootstrap",
]
