"""Q and R of KRPO's reward filter, estimated from the rewards seen so far by maximum likelihood of the innovations.

The model of a group (arXiv 2505.07527): x_i = x_{i-1} + N(0, Q), r_i = x_i + N(0, R), started at N(x0, P0). The
likelihood of the filter's innovations is by the prediction-error decomposition (Schweppe 1965; Durbin and Koopman 2012,
section 7.2) the joint Gaussian likelihood of the group,

    r_1..r_n ~ N(x0 1, C(Q, R)),   C_ij = P0 + Q min(i, j) + R [i = j],

so it needs the rewards only through their n x n matrix of second moments S_n = sum over groups of (r - x0)(r - x0)^T:

    -2 log L = sum_n  N_n log det C_n + tr(C_n^{-1} S_n) + constant.

Old batches are forgotten geometrically, because the noise of the rewards changes with the policy. R stays at or above
the released 1e-2 (KRPO is reported unstable at 1e-3), and Q / R between 1e-6 (a running mean) and 1 (hardly any
averaging): groups of realistic size cannot tell values beyond apart.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpo.checks import check_real, check_rewards

__all__ = ["RewardNoiseEstimator"]

BOUNDS = ((1e-6, 1.0), (1e-2, 1e4))
"""Lowest and highest Q / R, and R in squared reward units."""
# The search starts no lower in Q / R, where the likelihood is flat: it would stay there although a drift has set in.
START_RATIO = 1e-2


class RewardNoiseEstimator:
    """Running maximum-likelihood estimate of the process variance Q and the observation variance R of group rewards.

    `process_variance` and `observation_variance` are the current estimates, KRPO's released values until `update` has
    seen two graded rewards in one group.

    memory: rollout batches after which an observation weighs 1/e; infinity keeps all alike.
    """

    def __init__(
        self,
        *,
        process_variance: float = 1e-5,
        observation_variance: float = 1e-2,
        initial_mean: float = 0.0,
        initial_variance: float = 1.0,
        memory: float = 50.0,
    ):
        try:
            import scipy.optimize
        except ImportError as error:
            raise ImportError('krpo-adaptive needs SciPy: pip install scipy, or "kpo[adaptive]"') from error
        self._minimize = scipy.optimize.minimize
        self._set_variances(process_variance, observation_variance)
        self.initial_mean = check_real("initial_mean", initial_mean)
        self.initial_variance = check_real("initial_variance", initial_variance, minimum=0.0)
        self.memory = np.inf if memory == np.inf else check_real("memory", memory, minimum=0.0, exclusive=True)
        # For each number of graded responses: weight of the groups seen, and the sum of their outer products.
        self._moments: dict[int, tuple[float, np.ndarray]] = {}

    def update(self, rewards: Tensor) -> None:
        """Take in the rewards (P, G) of one rollout batch, NaN if ungraded, and update the estimates."""
        check_rewards(rewards)
        decay = np.exp(-1.0 / self.memory)
        moments = {size: (weight * decay, matrix * decay) for size, (weight, matrix) in self._moments.items()}
        values = rewards.detach().to("cpu", torch.float64).numpy() - self.initial_mean
        graded = ~np.isnan(values)
        counts = graded.sum(axis=1)
        for size in np.unique(counts[counts >= 2]).tolist():
            # An ungraded response is no observation, so a group with gaps is a shorter group.
            rows = counts == size
            group = values[rows][graded[rows]].reshape(-1, size)
            weight, matrix = moments.get(size, (0.0, np.zeros((size, size))))
            moments[size] = (weight + len(group), matrix + group.T @ group)
        self._moments = moments
        if moments:
            self._maximise()

    def state_dict(self) -> dict[str, Any]:
        """Estimates and moments as plain numbers and lists, ready for JSON."""
        moments = {str(n): {"weight": float(w), "matrix": matrix.tolist()} for n, (w, matrix) in self._moments.items()}
        variances = {"process_variance": self.process_variance, "observation_variance": self.observation_variance}
        return variances | {"moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s result; ValueError if it does not have that form."""
        try:
            moments = {
                int(size): (float(entry["weight"]), np.array(entry["matrix"], dtype=np.float64))
                for size, entry in state["moments"].items()
            }
            for size, (_, matrix) in moments.items():
                if matrix.shape != (size, size):
                    raise ValueError(f"moments of groups of {size} have shape {matrix.shape}; the file is damaged")
            self._set_variances(state["process_variance"], state["observation_variance"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"state is not from state_dict ({error!r}); use the run's own checkpoint") from None
        self._moments = moments

    def _set_variances(self, process_variance: float, observation_variance: float) -> None:
        process_variance = check_real("process_variance", process_variance, minimum=0.0)
        observation_variance = check_real("observation_variance", observation_variance, minimum=0.0, exclusive=True)
        self.process_variance, self.observation_variance = process_variance, observation_variance

    def _maximise(self) -> None:
        bounds = np.log(BOUNDS)
        start = np.log([max(self.process_variance / self.observation_variance, START_RATIO), self.observation_variance])
        start = np.clip(start, *bounds.T)
        result = self._minimize(self._objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
        ratio, self.observation_variance = np.exp(result.x).tolist()
        self.process_variance = ratio * self.observation_variance

    def _objective(self, logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        """-log L per group, without its constant, and its gradient, at (log(Q / R), log R)."""
        observation_variance = float(np.exp(logarithms[1]))
        process_variance = float(np.exp(logarithms[0])) * observation_variance
        value, gradient, total = 0.0, np.zeros(2), sum(weight for weight, _ in self._moments.values())
        for size, (weight, matrix) in self._moments.items():
            steps = np.arange(1, size + 1)
            walk = process_variance * np.minimum.outer(steps, steps)
            covariance = self.initial_variance + walk + observation_variance * np.eye(size)
            inverse = np.linalg.inv(covariance)
            value += 0.5 * (weight * np.linalg.slogdet(covariance).logabsdet + np.sum(inverse * matrix))
            # d(-log L) = tr(slope dC); C is linear in Q and in R, so log derivatives are the terms themselves.
            slope = 0.5 * (weight * inverse - inverse @ matrix @ inverse)
            by_process = np.sum(slope * walk)
            gradient += [by_process, by_process + observation_variance * np.trace(slope)]
        return value / total, gradient / total
