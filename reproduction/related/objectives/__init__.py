"""The objectives by name: each is what a related method does in training besides ratio times advantage.

One file for each family; the mathematics, free of any trainer, is in the files of `reproduction.related`.
"""

from reproduction.related.objectives.learned_length_weights import LearnedLengthWeights
from reproduction.related.objectives.objective import Objective
from reproduction.related.objectives.pairs import AlphaDpo, RpoMean, RpoSum, SimPo
from reproduction.related.objectives.refinements import RandomRefinement, Refinement
from reproduction.related.objectives.regressions import AllPairs, OptimalValue, Regression
from reproduction.related.objectives.selected_responses import Selection
from reproduction.related.objectives.values import Critic, FrozenValue, FrozenValueWithReward

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "selection": Selection,
    "regression": Regression,
    "all-pairs": AllPairs,
    "optimal-value": OptimalValue,
    "rpo-sum": RpoSum,
    "rpo-mean": RpoMean,
    "simpo": SimPo,
    "alpha-dpo": AlphaDpo,
    "learned-length-weights": LearnedLengthWeights,
    "refinement": Refinement,
    "random-refinement": RandomRefinement,
    "frozen-value": FrozenValue,
    "frozen-value-with-reward": FrozenValueWithReward,
    "critic": Critic,
}
"""By the name under which methods declare them."""
