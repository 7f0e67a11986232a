"""Rewards: KRPO's rule for arithmetic, and mathematics graded in killable processes."""

from reproduction.rewards.arithmetic import exact_reward, extract_tagged, krpo_reward
from reproduction.rewards.extraction import extract_answer
from reproduction.rewards.grading_pool import GradingPool
from reproduction.rewards.math import Grade, grade_math, grade_math_many, grade_math_strings

__all__ = [
    "Grade",
    "GradingPool",
    "exact_reward",
    "extract_answer",
    "extract_tagged",
    "grade_math",
    "grade_math_many",
    "grade_math_strings",
    "krpo_reward",
]
