"""iGRPO (arXiv 2602.09000): the best of N own drafts is put into the prompt, and GRPO trains the refinement.

Stage 1 samples N drafts from the policy and keeps the one of highest reward; stage 2 samples G responses to the prompt
with that draft, and only these are trained on, under the prompt that they were given; a test prompt has no draft [V].
N = G = 4, at the cost of GRPO with 8 [V]. Tie rule and template text: [NF]; here the first of the best, and problem,
draft, separator. For rewards 0 and 1 and success rate p the kept draft is right with probability 1 - (1 - p)^N [V].
"""

import torch

SEPARATOR = ";"


def best_draft(rewards_PN: torch.Tensor) -> torch.Tensor:
    """The index of each prompt's draft of highest reward, (P,); the first of equals."""
    return rewards_PN.argmax(dim=1)


def refinement_prompt(problem: str, draft: str, separator: str) -> str:
    """The prompt of stage 2: the draft, a separator, and the problem again, so that it ends as a plain prompt does."""
    return f"{draft}{separator}{problem}"
