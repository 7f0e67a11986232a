"""Rewards made worse on purpose: noisy, wrongly judged, or shifting during training (KRPO's open questions).

    flips      with probability `flips` the reward r becomes 1 - r, as by a judge who errs
    gaussian   N(0, gaussian^2) is added, so that rewards become continuous
    drift      drift * sin(2 pi (b - 1) / period) is added in rollout batch b; within a group it grows from member to
               member by up to `drift_in_group`, as under a judge who tires

A shift that is the same for a whole group leaves GRPO's advantages as they are and moves KRPO's, whose filter starts
each group at 0; one within the group biases both. All draws follow from the seed and the rollout batch, so that every
method of an experiment gets the same noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpo.checks import check_integer, check_real


@dataclass(frozen=True)
class RewardNoise:
    """What is done to the rewards of a run. All zero leaves them as they are.

    flips: probability in [0, 1]. gaussian: standard deviation, in rewards. drift: amplitude, in rewards.
    drift_period: rollout batches of one oscillation. drift_in_group: what the last member of a group has more than the
    first, in rewards.

    Raises ValueError or TypeError naming the field for a value out of range.
    """

    flips: float = 0.0
    gaussian: float = 0.0
    drift: float = 0.0
    drift_period: float = 20.0
    drift_in_group: float = 0.0

    def __post_init__(self):
        check_real("flips", self.flips, minimum=0.0, maximum=1.0)
        check_real("gaussian", self.gaussian, minimum=0.0)
        check_real("drift", self.drift)
        check_real("drift_period", self.drift_period, minimum=0.0, exclusive=True)
        check_real("drift_in_group", self.drift_in_group)

    @property
    def is_clean(self) -> bool:
        """Whether rewards pass unchanged."""
        return not (self.flips or self.gaussian or self.drift or self.drift_in_group)

    def apply(self, rewards: Sequence[float], *, group_size: int, rollout_batch: int, seed: int) -> list[float]:
        """The rewards of one rollout batch, in the order of prompts and then group members, made worse.

        rewards: one for each response; NaN (ungraded) stays. rollout_batch: from 1. seed: the run's.
        Raises ValueError if the rewards do not divide into groups of group_size.
        """
        check_integer("group_size", group_size, minimum=1)
        check_integer("rollout_batch", rollout_batch, minimum=1)
        check_integer("seed", seed, minimum=0)
        values = np.asarray(rewards, dtype=np.float64)
        if values.ndim != 1 or len(values) % group_size:
            raise ValueError(f"rewards must be one for each response, in groups of {group_size}; got {values.shape}")
        if self.is_clean:
            return values.tolist()
        generator = np.random.default_rng([seed, rollout_batch])
        # Both are drawn always, so that one kind of noise does not change the draws of the other.
        uniform, normal = generator.random(len(values)), generator.standard_normal(len(values))
        values = np.where(uniform < self.flips, 1.0 - values, values) + self.gaussian * normal
        values += self.drift * math.sin(2.0 * math.pi * (rollout_batch - 1) / self.drift_period)
        if self.drift_in_group and group_size > 1:
            member = np.arange(len(values)) % group_size
            values += self.drift_in_group * member / (group_size - 1)
        return values.tolist()
