"""The policy that cannot end a response yet: a model's log-probabilities with its end tokens left out.

Shape suffixes: B sequences, T tokens, H hidden size, V vocabulary.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

# Of the logarithm of the end tokens' probability: closer to 0, rounding decides what is left for the others.
HIGHEST = -1e-6


@contextlib.contextmanager
def hidden_states(decoder: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collects the last hidden states (B, T, H) of each of the decoder's passes."""
    found: list[Tensor] = []
    handle = decoder.register_forward_hook(lambda module, inputs, output: found.append(output.last_hidden_state))
    try:
        yield found
    finally:
        handle.remove()


def log_probs_without_ends(
    log_probs_BT: Tensor, hidden_BTH: Tensor, head_VH: Tensor, tokens_BT: Tensor, ends: list[int]
) -> Tensor:
    """log pi(a) - log(1 - pi(ends)) of tokens a, none of which is in `ends`: (B, T).

    hidden_BTH: what each token was predicted from; head_VH: the output layer, without bias. A token's logit minus its
    log-probability is the logarithm of the normaliser, so the vocabulary is not gone through again.
    """
    hidden_BTH, head_VH = hidden_BTH.float(), head_VH.float()
    chosen_BT = (hidden_BTH * head_VH[tokens_BT]).sum(-1)
    ending_BT = (hidden_BTH @ head_VH[ends].T).logsumexp(-1) - (chosen_BT - log_probs_BT)
    return log_probs_BT - torch.log(-torch.expm1(ending_BT.clamp(max=HIGHEST)))
