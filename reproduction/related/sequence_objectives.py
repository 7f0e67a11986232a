"""Objectives of a whole response with targets fixed when it was sampled: SPPO, REBEL, A*-PO.

z is a response's summed log-ratio, sum_t (log pi - log pi_0)(y_t): pi_0 is the sampling policy for SPPO and REBEL, the
base model for A*-PO. Common limit [C]: with rewards 0 and 1, at pi = pi_0, REBEL over all pairs, SPPO over all members
and A*-PO with beta1 -> infinity have gradients proportional to -(r_i - group mean) grad log pi(y_i), with factors
4 eta / (n - 1), eta / 2 and 2 beta2 per response.
"""

import torch

from kpo.advantages import advantage_kind
from kpo.checks import check_real


def win_rates(rewards_PG: torch.Tensor) -> torch.Tensor:
    """P_i = mean_j (1[r_i > r_j] + 1/2 [r_i = r_j]): how often a member beats its group, itself included."""
    above = rewards_PG[:, :, None] > rewards_PG[:, None, :]
    equal = rewards_PG[:, :, None] == rewards_PG[:, None, :]
    return (above.to(torch.float64) + 0.5 * equal).mean(dim=2)


def sppo_targets(rewards_PG: torch.Tensor, eta: float) -> torch.Tensor:
    """eta (P_i - 1/2), the verifier as preference oracle: SPPO (arXiv 2405.00675).

    The scripts have eta 1000 (beta 1e-3), 5 samples and the pair of highest and lowest score [V]; here all members.
    """
    return check_real("eta", eta, minimum=0.0, exclusive=True) * (win_rates(rewards_PG) - 0.5)


def regression(log_ratio_B: torch.Tensor, target_B: torch.Tensor) -> torch.Tensor:
    """mean_i 1/2 (z_i - target_i)^2: SPPO's loss of each member [V]."""
    return 0.5 * (log_ratio_B - target_B.to(log_ratio_B)).square().mean()


def rebel(log_ratio_PG: torch.Tensor, rewards_PG: torch.Tensor, eta: float) -> torch.Tensor:
    """mean over all ordered pairs of a group of ((z_i - z_j) - eta (r_i - r_j))^2: REBEL (arXiv 2404.16767), all pairs.

    Equal to 2 x the sample variance over the group of z_i - eta r_i [C], so it needs whole groups and takes linear
    time. The paper has two responses a prompt and divides the log-ratios by eta instead, which differs by eta^2 [V].
    """
    if log_ratio_PG.shape[1] < 2:
        raise ValueError("REBEL compares the members of a group; give groups of at least 2 responses")
    residual = log_ratio_PG - check_real("eta", eta, minimum=0.0) * rewards_PG.to(log_ratio_PG)
    return 2.0 * residual.var(dim=1).mean()


def optimal_values(base_rewards_PN: torch.Tensor, beta1: float) -> torch.Tensor:
    """V*(x) = beta1 log mean_i exp(r_i / beta1) over N samples of the base model, (P,): A*-PO (arXiv 2505.20686) [V].

    The authors' beta1 is 0.5 with N = 8 [V]; beta1 -> 0 gives the maximum, beta1 -> infinity the mean.
    """
    beta1 = check_real("beta1", beta1, minimum=0.0, exclusive=True)
    scaled = base_rewards_PN.to(torch.float64) / beta1
    count = torch.tensor(float(base_rewards_PN.shape[1]), dtype=torch.float64)
    return beta1 * (torch.logsumexp(scaled, dim=1) - count.log())


def a_star_po(log_ratio_B: torch.Tensor, rewards_B: torch.Tensor, values_B: torch.Tensor, beta2: float) -> torch.Tensor:
    """mean_i (beta2 z_i + V*_i - r_i)^2, z against the base model: A*-PO's second stage, beta2 1e-3 [V]."""
    residual = check_real("beta2", beta2, minimum=0.0, exclusive=True) * log_ratio_B
    return (residual + (values_B - rewards_B).to(log_ratio_B)).square().mean()


@advantage_kind("win-rate")
def win_rate(rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, eta: float = 1000.0) -> torch.Tensor:
    """SPPO's target eta (P - 1/2). An ungraded member counts as a loss for itself and as a win for the others."""
    return sppo_targets(torch.where(graded_PG, rewards_PG, -torch.inf), eta)


@advantage_kind("scaled-reward")
def scaled_reward(rewards_PG: torch.Tensor, graded_PG: torch.Tensor, *, eta: float = 1.0) -> torch.Tensor:
    """eta r: REBEL's target, of which only differences within a group count."""
    return check_real("eta", eta, minimum=0.0) * rewards_PG


@advantage_kind("reward")
def reward(rewards_PG: torch.Tensor, graded_PG: torch.Tensor) -> torch.Tensor:
    """r itself, for methods whose baseline is not the group's."""
    return rewards_PG
