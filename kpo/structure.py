"""How a sequence of token log-ratios is ordered: switch frequency, run lengths, low-frequency energy.

KPO (arXiv 2602.10609, motivation and analysis sections) reports that off-policy tokens switch sign often (a frequency
of about 0.43), that filtering lowers this to 0.01, lengthens runs and moves energy to low frequencies. Exact
definitions are not published; these are ours. Tokens are adjacent if they are in one row, their mask is 1, and no other
such token lies between them.

A log-ratio of exactly 0 takes the sign of the counted token before it, so that it neither ends a run nor starts one;
zeros before a row's first non-zero token have no sign and are left out.

A smoothing filter does all of the above to white noise as well. Independent values switch with a frequency of 0.5 and
have a tenth of their energy in the lowest tenth of the frequencies; after KPO's filter with Q / V = 1e-6

    tokens                                512      1,024    4,096
    switch frequency, Gaussian            0.045    0.031    0.019
    switch frequency, Student t (3)       0.039    0.028    0.016
    switch frequency, Student t (1.5)     0.025    0.017    0.008
    energy in the lowest tenth            0.97     0.99     0.996

So a measured value means something only compared with that of noise, or of the same values in random order.
"""

import math

import torch
from torch import Tensor

from kpo.checks import check_finite, check_mask, check_real, check_rows

__all__ = ["low_frequency_energy", "run_lengths", "switch_frequency"]


def switch_frequency(log_ratio: Tensor, mask: Tensor | None) -> float:
    """Share of adjacent pairs of counted tokens whose signs differ, over all rows together; NaN without a pair.

    log_ratio: (B, T) floating, in nats. mask: (B, T), 1 where a token counts; None if all do. Independent symmetric
    values give 0.5 in expectation.

    Raises TypeError or ValueError for a wrong type, shape or device, and for a counted value that is not finite.
    """
    signs, rows = _signs(log_ratio, mask)
    adjacent = rows[1:] == rows[:-1]
    num_pairs = int(adjacent.sum())
    if num_pairs == 0:
        return math.nan
    return int((adjacent & (signs[1:] != signs[:-1])).sum()) / num_pairs


def run_lengths(log_ratio: Tensor, mask: Tensor | None) -> Tensor:
    """Lengths, in counted tokens, of the maximal runs of one sign: int64 (number of runs,), row by row, in token order.

    The lengths of a row add up to its tokens with a sign. Arguments and errors as for `switch_frequency`.
    """
    signs, rows = _signs(log_ratio, mask)
    if len(signs) == 0:
        return torch.empty(0, dtype=torch.int64, device=signs.device)
    changes = (signs[1:] != signs[:-1]) | (rows[1:] != rows[:-1])
    ends = torch.cat((changes.nonzero()[:, 0], torch.tensor([len(signs) - 1], device=signs.device)))
    return ends.diff(prepend=ends.new_tensor([-1]))


def low_frequency_energy(log_ratio: Tensor, mask: Tensor | None, fraction: float = 0.1) -> float:
    """Share of a row's energy at frequencies up to `fraction` of the highest, averaged over rows; NaN without a row.

    With X the discrete Fourier transform of a row's n counted values taken as adjacent, and frequencies |f| <= 1/2,

        sum_{|f| <= fraction / 2} |X_f|^2  /  sum_f |X_f|^2.

    Independent values give about `fraction` in expectation. Rows of fewer than two counted tokens, or without energy,
    are left out. fraction: in (0, 1]. Other arguments and errors as for `switch_frequency`.
    """
    fraction = check_real("fraction", fraction, minimum=0.0, maximum=1.0, exclusive=True)
    observed = counted_tokens(log_ratio, mask)
    shares = []
    for values, counted in zip(log_ratio.detach().double(), observed, strict=True):
        values = values[counted]
        num_tokens = len(values)
        if num_tokens < 2:
            continue
        energy = torch.fft.rfft(values).abs().square()
        # Every frequency but 0 and, for even n, the highest counts for its negative as well.
        energy[1 : (num_tokens + 1) // 2] *= 2
        total = float(energy.sum())
        if total > 0:
            highest = math.floor(fraction * num_tokens / 2 + 1e-9)
            shares.append(float(energy[: highest + 1].sum()) / total)
    return math.fsum(shares) / len(shares) if shares else math.nan


def counted_tokens(log_ratio: Tensor, mask: Tensor | None) -> Tensor:
    """The mask as bool (B, T), both arguments checked."""
    check_rows("log_ratio", log_ratio)
    observed = check_mask(mask, log_ratio, like="log_ratio")
    check_finite(observed, log_ratio=log_ratio)
    return observed


def _signs(log_ratio: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Signs (N,) of the counted tokens that have one, row by row, and the row of each."""
    observed = counted_tokens(log_ratio, mask)
    signs = log_ratio.detach()[observed].sign()
    rows = observed.nonzero()[:, 0]
    if len(signs) == 0:
        return signs, rows
    place = torch.arange(len(signs), device=signs.device)
    last_nonzero = torch.where(signs != 0, place, -1).cummax(dim=0).values
    has_sign = (last_nonzero >= 0) & (rows[last_nonzero.clamp(min=0)] == rows)
    return signs[last_nonzero[has_sign]], rows[has_sign]
