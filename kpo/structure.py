"""How a sequence of token log-ratios is ordered: switch frequency, run lengths, low-frequency energy, and their nulls.

KPO (arXiv 2602.10609, motivation and analysis sections) reports that off-policy tokens switch sign often (a frequency
of about 0.43), that filtering lowers this to 0.01, lengthens runs and moves energy to low frequencies. Exact
definitions are not published; these are ours. Tokens are adjacent if they are in one row, their mask is 1, and no other
such token lies between them.

Sign of 0. By default ("previous") a log-ratio of exactly 0 takes the sign of the counted token before it, so that it
neither ends a run nor starts one; zeros before a row's first non-zero token have no sign and are left out. "drop"
leaves all zeros out; "own" takes 0 for a third sign.

A smoothing filter does all of the above to white noise as well. Independent values switch with a frequency of 0.5 and
have a tenth of their energy in the lowest tenth of the frequencies; after KPO's filter with Q / V = 1e-6

    tokens                                512      1,024    4,096
    switch frequency, Gaussian            0.045    0.031    0.019
    switch frequency, Student t (3)       0.039    0.028    0.016
    switch frequency, Student t (1.5)     0.025    0.017    0.008
    energy in the lowest tenth            0.97     0.99     0.996

So a measured value means something only compared with `white_noise_null` and `shuffled_order`.

Shape suffixes: B sequences, T tokens, N counted tokens of all sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kpo.checks import NonFiniteError, check_integer, check_mask, check_real, check_rows, unknown_name

__all__ = [
    "low_frequency_energy", "run_lengths", "shuffled_order", "switch_frequency", "white_noise", "white_noise_null",
]  # fmt: skip

ZERO_SIGNS = ("previous", "drop", "own")
NOISES = ("heavy-tailed", "gaussian", "random-signs", "shuffled")
# Student's t with 3 degrees of freedom has a variance, but no fourth moment; token log-ratios have a kurtosis of 17 to
# 59 (a follow-up study of KPO). "random-signs" and "shuffled" keep the measured magnitudes, whatever their tail.
HEAVY_TAIL_DEGREES = 3


def switch_frequency(log_ratio: Tensor, mask: Tensor, *, zeros: str = "previous") -> float:
    """Share of adjacent pairs of counted tokens whose signs differ, over all rows together; NaN without a pair.

    log_ratio: (B, T) floating, in nats. mask: (B, T), 1 where a token counts. zeros: see the module's text.
    Independent symmetric values give 0.5 in expectation.

    Raises TypeError or ValueError for a wrong type, shape or device, and for a counted value that is not finite.
    """
    signs, rows = _signs(log_ratio, mask, zeros)
    adjacent = rows[1:] == rows[:-1]
    num_pairs = int(adjacent.sum())
    if num_pairs == 0:
        return math.nan
    return int((adjacent & (signs[1:] != signs[:-1])).sum()) / num_pairs


def run_lengths(log_ratio: Tensor, mask: Tensor, *, zeros: str = "previous") -> Tensor:
    """Lengths, in counted tokens, of the maximal runs of one sign: int64 (number of runs,), row by row, in token order.

    The first and last run of a row are cut off by its ends and are included, so the lengths of a row add up to its
    tokens with a sign. Arguments and errors as for `switch_frequency`.
    """
    signs, rows = _signs(log_ratio, mask, zeros)
    if len(signs) == 0:
        return torch.empty(0, dtype=torch.int64, device=signs.device)
    changes = (signs[1:] != signs[:-1]) | (rows[1:] != rows[:-1])
    ends = torch.cat((changes.nonzero()[:, 0], torch.tensor([len(signs) - 1], device=signs.device)))
    return ends.diff(prepend=ends.new_tensor([-1]))


def low_frequency_energy(log_ratio: Tensor, mask: Tensor, fraction: float = 0.1, *, remove_mean: bool = False) -> float:
    """Share of a row's energy at frequencies up to `fraction` of the highest, averaged over rows; NaN without a row.

    With X the discrete Fourier transform of a row's n counted values taken as adjacent, and frequencies |f| <= 1/2,

        sum_{|f| <= fraction / 2} |X_f|^2  /  sum_f |X_f|^2.

    Independent values give about `fraction` in expectation. With `remove_mean` each row's mean, the energy at f = 0, is
    taken out first. Rows of fewer than two counted tokens, or without energy, are left out; the others weigh the same.

    fraction: in (0, 1]. Other arguments and errors as for `switch_frequency`.
    """
    fraction = check_real("fraction", fraction, minimum=0.0, maximum=1.0, exclusive=True)
    observed = _check(log_ratio, mask)
    shares = []
    for values, counted in zip(log_ratio.detach().double(), observed, strict=True):
        values = values[counted]
        num_tokens = len(values)
        if num_tokens < 2:
            continue
        total_before = num_tokens * float(values.square().sum())
        if remove_mean:
            values = values - values.mean()
        energy = torch.fft.rfft(values).abs().square()
        # Every frequency but 0 and, for even n, the highest counts for its negative as well.
        energy[1 : (num_tokens + 1) // 2] *= 2
        total = float(energy.sum())
        # What the removal of its mean leaves of a constant row is rounding.
        if total > 1e-24 * total_before:
            highest = math.floor(fraction * num_tokens / 2 + 1e-9)
            shares.append(float(energy[: highest + 1].sum()) / total)
    return math.fsum(shares) / len(shares) if shares else math.nan


def shuffled_order(log_ratio: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each row's counted values in random order at its counted places, 0 where masked: (B, T), dtype of log_ratio.

    generator: on the device of log_ratio; torch's own if None. Errors as for `switch_frequency`.
    """
    observed = _check(log_ratio, mask)
    keys = torch.rand(log_ratio.shape, generator=generator, device=log_ratio.device, dtype=torch.float64)
    # Counted tokens first, once in random order and once in place: the n-th random one moves to the n-th place.
    random_order = keys.masked_fill(~observed, 2.0).argsort(dim=1)
    places = (~observed).to(torch.uint8).argsort(dim=1, stable=True)
    values = log_ratio.detach().masked_fill(~observed, 0.0)
    return torch.zeros_like(values).scatter_(1, places, values.gather(1, random_order))


def white_noise(
    log_ratio: Tensor, mask: Tensor, noise: str = "heavy-tailed", generator: torch.Generator | None = None
) -> Tensor:
    """Values without structure in place of log-ratios: (B, T), dtype of log_ratio, 0 where masked.

    noise:
        "heavy-tailed"  independent Student-t values with 3 degrees of freedom
        "gaussian"      independent standard normal values
        "random-signs"  the magnitudes of log_ratio in place, with independent random signs
        "shuffled"      `shuffled_order`
    The measures of this module do not depend on the scale. Errors as for `switch_frequency`.
    """
    if noise not in NOISES:
        raise ValueError(unknown_name("noise", noise, NOISES))
    observed = _check(log_ratio, mask)
    if noise == "shuffled":
        return shuffled_order(log_ratio, mask, generator)

    def normal() -> Tensor:
        return torch.randn(log_ratio.shape, generator=generator, device=log_ratio.device, dtype=torch.float64)

    if noise == "random-signs":
        values = log_ratio.detach().double().abs() * normal().sign()
    elif noise == "gaussian":
        values = normal()
    else:
        chi_square = sum(normal().square() for _ in range(HEAVY_TAIL_DEGREES))
        values = normal() / (chi_square / HEAVY_TAIL_DEGREES).sqrt()
    return values.masked_fill(~observed, 0.0).to(log_ratio.dtype)


def white_noise_null(
    statistic: Callable[[Tensor, Tensor], float],
    log_ratio: Tensor,
    mask: Tensor,
    *,
    transform: Callable[[Tensor, Tensor], Tensor] | None = None,
    noise: str = "heavy-tailed",
    num_draws: int = 20,
    seed: int = 0,
) -> Tensor:
    """The distribution of a statistic without structure: statistic(transform(noise, mask), mask) of fresh draws.

    statistic: such as `switch_frequency`. transform: such as the Kalman filter; None for the noise itself.
    noise: as for `white_noise`; it has the shape and mask of log_ratio. Returns float64 (num_draws,), a function of the
    seed.
    """
    num_draws = check_integer("num_draws", num_draws, minimum=1)
    generator = torch.Generator(device=log_ratio.device).manual_seed(seed)
    values = []
    for _ in range(num_draws):
        drawn = white_noise(log_ratio, mask, noise, generator)
        values.append(float(statistic(drawn if transform is None else transform(drawn, mask), mask)))
    return torch.tensor(values, dtype=torch.float64)


def _check(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """The mask as bool (B, T)."""
    check_rows("log_ratio", log_ratio)
    whole = torch.ones_like(log_ratio, dtype=torch.bool)
    observed = whole if mask is None else check_mask(mask, log_ratio, like="log_ratio")
    if not bool((torch.isfinite(log_ratio) | ~observed).all()):
        raise NonFiniteError("log_ratio holds NaN or an infinity at a counted token; mask it out")
    return observed


def _signs(log_ratio: Tensor, mask: Tensor, zeros: str) -> tuple[Tensor, Tensor]:
    """Signs (N,) of the counted tokens that have one, row by row, and the row of each."""
    if zeros not in ZERO_SIGNS:
        raise ValueError(unknown_name("zeros", zeros, ZERO_SIGNS))
    observed = _check(log_ratio, mask)
    signs = log_ratio.detach()[observed].sign()
    rows = observed.nonzero()[:, 0]
    if zeros == "own" or len(signs) == 0:
        return signs, rows
    if zeros == "drop":
        return signs[signs != 0], rows[signs != 0]
    place = torch.arange(len(signs), device=signs.device)
    last_nonzero = torch.where(signs != 0, place, -1).cummax(dim=0).values
    has_sign = (last_nonzero >= 0) & (rows[last_nonzero.clamp(min=0)] == rows)
    return signs[last_nonzero[has_sign]], rows[has_sign]
