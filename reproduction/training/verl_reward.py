"""The reward of a run in verl's workers, which call `compute_score` for each response (`through_verl.py`)."""

import math

from reproduction.rewards.rules import batch_rewards


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_) -> float:
    """The reward by the rule that `extra_info` names; NaN if the response could not be graded."""
    rule, markers = extra_info["rule"], list(extra_info["markers"])
    (reward,) = batch_rewards(rule, [solution_str], [ground_truth], markers=markers)
    return math.nan if reward is None else float(reward)
