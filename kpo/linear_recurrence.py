"""Exact first-order linear recurrences over rows, without a loop over tokens.

    x_t = d_t x_{t-1} + f_t u_t,    0 <= d_t <= 1,    t = 1 .. T

The decays d and the input weights f are shared by all rows; u is (B, T). Within a block of L tokens, with A_t the
product of the decays from the block's second token to token t,

    x_t = A_t ( d_first x_before + sum_{i <= t} f_i u_i / A_i ),

so a block is one cumulative sum, and the states at block ends obey a recurrence of the same kind, L times shorter.
Every sum runs in float64. A rounding error made at token i reaches token t with weight A_t / A_i <= 1, as in the
sequential loop: the form loses no digits, and only overflow of 1 / A bounds L. Three levels cover every decay:

    tokens      blocks of 32 or 16, short enough that a processor overlaps the sums of neighbouring blocks
    blocks      as many to a block of blocks as keep 1 / A below exp(500), often all of them
    the rest    recursive doubling, which ends early because by then the decays underflow to zero

The block lengths depend on the smallest decay alone, never on the number of tokens or rows. Each value is therefore
computed by the same operations, and has the same bits, whether its row stands alone, in a batch or before more padding.
Only multiplications, additions and cumulative sums are used: matrix products, other reductions and fused operations may
round differently with the shape.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812

# Token blocks of 32 need decays above 4e-10 for 1 / A to stay finite; blocks of 16 need decays above 1e-16, the
# smallest that 1 - gain can be in float64 short of 0.
TOKEN_BLOCKS = ((32, 4e-10), (16, 1e-16))
LARGEST_LOG_WEIGHT = 500.0
# Where A stays above this in a token block, the sums of float32 inputs are multiplied by it after rounding to float32.
SMALLEST_LATE_SCALE = 2.0**-20
# A block of fewer sums costs more than the doubling steps that it saves.
SHORTEST_USEFUL_BLOCK = 8
# Rows are taken in chunks of about this many values per thread, so that the float64 work space stays small.
CHUNK_VALUES = 2**18


class LinearRecurrence:
    """x_t = d_t x_{t-1} + f_t u_t for t = 1 .. T_max, with tables made once and used for any T <= T_max.

    decays, weights: (T_max,) float64, on the device of the inputs to come.
    smallest_decay: a lower bound on d_2, d_3, .. that fixes the block lengths (the first decay meets only the initial
        state and may be anything). Give one that does not depend on T_max to have the same bits for every T_max.
    """

    def __init__(self, decays: torch.Tensor, weights: torch.Tensor, smallest_decay: float):
        self.length = decays.numel()
        block = next((block for block, limit in TOKEN_BLOCKS if smallest_decay >= limit), None)
        self.block = block or 1
        # In float32 the last multiplication is cheaper after the rounding to float32: three roundings of 6e-8 instead
        # of one. Sums are then kept in units so small that none exceeds its state, hence none overflows.
        smallest_scale = smallest_decay ** (self.block - 1)
        self._scales_late = block is not None and smallest_scale >= SMALLEST_LATE_SCALE
        unit = 2.0 ** math.floor(math.log2(min(1.0, smallest_scale))) if self._scales_late else 1.0
        padding = -self.length % self.block
        decays, weights = F.pad(decays, (0, padding), value=1.0), F.pad(weights, (0, padding))
        if block is None:
            # Any: a level is only ever run on the tables that it made itself.
            self._level: Any = _Doubling(decays, weights)
        else:
            self._level = _Blocks(decays, weights, block, smallest_decay, unit)
        self._float32_scales = self._level.scales.to(torch.float32).flatten() if self._scales_late else None
        self._tables = functools.lru_cache(maxsize=64)(self._level.tables)  # by the number of padded tokens

    def states(self, inputs: torch.Tensor, initial: float = 0.0) -> tuple[torch.Tensor, bool]:
        """States x (B, T) for inputs u (B, T), in the dtype of the inputs; `initial` is x before the first token.

        Also whether all is finite: false if an input is not, or if float64 inputs are so large that their sums are not.
        """
        num_rows, num_tokens = inputs.shape
        if num_tokens > self.length:
            raise ValueError(f"inputs has {num_tokens} tokens, but the tables were made for {self.length}")
        num_padded = num_tokens + -num_tokens % self.block
        chunk_values = CHUNK_VALUES * torch.get_num_threads() if inputs.device.type == "cpu" else inputs.numel()
        chunk_rows = max(1, chunk_values // num_padded)
        result = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        if num_rows <= chunk_rows:
            return result, self._fill(result, inputs, num_padded, initial)
        finite = True
        for rows, some in zip(result.split(chunk_rows), inputs.split(chunk_rows), strict=True):
            finite &= self._fill(rows, some, num_padded, initial)
        return result, finite

    def _fill(self, result: torch.Tensor, inputs: torch.Tensor, num_padded: int, initial: float) -> bool:
        """Write the states for `inputs` into `result`; returns whether all is finite."""
        num_rows, num_tokens = inputs.shape
        padding = num_padded - num_tokens
        work = torch.empty(num_rows, num_padded, dtype=torch.float64, device=inputs.device)
        tokens = work[:, :num_tokens] if padding else work
        tokens.copy_(inputs)
        if padding:
            work[:, num_tokens:].zero_()
        late = self._scales_late and inputs.dtype == torch.float32
        finite = self._level.run_tokens(work, self._tables(num_padded), initial, not late)
        result.copy_(tokens)
        if late:
            result.mul_(self._float32_scales[:num_tokens])
        return finite


class GainSchedule:
    """Gains k_1, k_2, .. of m_t = m_{t-1} + k_t (z_t - m_{t-1}), and the filter with them.

    gains: (T_max,) float64 in [0, 1], on the device of the observations.
    smallest_decay: a lower bound of 1 - k_t for t >= 2, as `LinearRecurrence` wants it; taken from the gains if None.
    """

    def __init__(self, gains: torch.Tensor, smallest_decay: float | None = None):
        self.gains = gains
        self._smallest_decay = smallest_decay

    @functools.cached_property
    def _recurrence(self) -> LinearRecurrence | None:
        """None where every gain is 1, and the filter returns its observations."""
        decays = 1.0 - self.gains
        if not bool(decays.any()):
            return None
        smallest_decay = self._smallest_decay
        if smallest_decay is None:
            smallest_decay = float(decays[1:].min()) if decays.numel() > 1 else 1.0
        return LinearRecurrence(decays, self.gains, smallest_decay)

    def filter(self, observations: torch.Tensor, initial_mean: float) -> tuple[torch.Tensor, bool]:
        """m (B, T) in the dtype of the observations (B, T), and whether all is finite, as `LinearRecurrence.states`."""
        recurrence = self._recurrence
        if recurrence is None:
            return observations.clone(), bool(torch.isfinite(observations).all())
        return recurrence.states(observations, initial_mean)

    def transposed(self, gradient: torch.Tensor) -> torch.Tensor:
        """The transpose of the filter as a linear map: k_t l_t with l_t = g_t + (1 - k_{t+1}) l_{t+1}."""
        gains = self.gains[: gradient.shape[1]]
        decays = torch.cat((gains.new_ones(1), (1.0 - gains[1:]).flip(0)))
        backwards = LinearRecurrence(decays, torch.ones_like(gains), float(decays.min()))
        carried, _ = backwards.states(gradient.double().flip(1))
        return (carried.flip(1) * gains).to(gradient.dtype)


class _BlockTables(NamedTuple):
    """What `_Blocks` needs for one number of positions, cut to it."""

    weights: torch.Tensor
    scales: torch.Tensor
    first: torch.Tensor
    next_tables: _BlockTables | _DoublingTables | None


class _Blocks:
    """One cumulative sum per block, then the states at the block ends through the next level.

    unit: a power of two by which the sums are smaller than the module's text has them.
    """

    def __init__(
        self, decays: torch.Tensor, weights: torch.Tensor, block: int, smallest_decay: float, unit: float = 1.0
    ):
        length = decays.numel()
        self.block = min(block, length)
        padding = -length % self.block
        decays = F.pad(decays, (0, padding), value=1.0).view(-1, self.block)
        weights = F.pad(weights, (0, padding)).view(-1, self.block)
        self.first = decays[:, 0] * unit
        relative = decays.clone()
        relative[:, 0] = 1.0
        self.scales = relative.cumprod(-1) / unit
        self.weights = weights / self.scales
        self.next: Any = None
        if decays.shape[0] > 1:
            last = self.scales[:, -1].clone()
            self.next = _next_level(self.first * last, last, smallest_decay**block)

    def tables(self, num_positions: int, factors: torch.Tensor | None = None) -> _BlockTables:
        """Tables for n positions; the results are multiplied by `factors` (n,) if given."""
        num_blocks = -(-num_positions // self.block)
        block = min(num_positions, self.block)
        scales = self.scales[:num_blocks, :block]
        if factors is not None:
            scales = scales * F.pad(factors, (0, num_blocks * block - num_positions)).view(num_blocks, block)
        next_tables = None
        if self.next is not None:
            # What follows the last block is not asked for; only whether its state is finite.
            next_tables = self.next.tables(num_blocks, F.pad(self.first[1:num_blocks], (0, 1), value=1.0))
        weights = self.weights[:num_blocks, :block]
        return _BlockTables(weights, scales, self.first[0], next_tables)

    def run_tokens(self, states: torch.Tensor, tables: _BlockTables, initial: float, scaled: bool) -> bool:
        """Turn inputs (B, n) into states in place, n filling whole blocks; `initial` is the state before the first.

        With `scaled` false the last multiplication, by `scales`, is left to the caller. Returns whether all is finite.
        """
        sums = states.view(states.shape[0], *tables.weights.shape)
        ends = self._accumulate(sums.mul_(tables.weights), tables, initial)
        # What is not finite in a block stays so to its end, and one sum over the ends finds it.
        finite = math.isfinite((sums.select(2, -1) if ends is None else ends).sum().item())
        if scaled:
            sums.mul_(tables.scales)
        return finite

    def run(self, ends: torch.Tensor, tables: _BlockTables) -> torch.Tensor:
        """States times the tables' factors for inputs (B, n), which are left as they are."""
        num_rows, num_positions = ends.shape
        padding = -num_positions % tables.weights.shape[1]
        if padding:
            ends = F.pad(ends, (0, padding))
        sums = ends.view(num_rows, *tables.weights.shape) * tables.weights
        self._accumulate(sums, tables, 0.0)
        states = sums.mul_(tables.scales).view(num_rows, -1)
        return states[:, :num_positions] if padding else states

    def _accumulate(self, sums: torch.Tensor, tables: _BlockTables, initial: float) -> torch.Tensor | None:
        """Weighted inputs to sums, in place. Returns the next level's states, (B, blocks), as finite as the blocks."""
        sums.cumsum_(-1)
        if initial != 0:
            sums[:, 0].add_(tables.first * initial)
        if self.next is None:
            return None
        ends = self.next.run(sums.select(2, -1), tables.next_tables)
        num_later = sums.shape[1] - 1
        sums.narrow(1, 1, num_later).add_(ends.narrow(1, 0, num_later).unsqueeze(-1))
        return ends


class _DoublingTables(NamedTuple):
    first: torch.Tensor
    weights: torch.Tensor
    steps: list[tuple[int, torch.Tensor]]
    factors: torch.Tensor | None


class _Doubling:
    """Recursive doubling: after step k a state holds the inputs of the last 2^k positions."""

    def __init__(self, decays: torch.Tensor, weights: torch.Tensor):
        self.decays = decays
        self.weights = weights
        self.steps: list[tuple[int, torch.Tensor]] = []
        offset, products = 1, decays.clone()
        while offset < decays.numel() and bool(products[offset:].any()):
            self.steps.append((offset, products[offset:].clone()))
            products = torch.cat((products[:offset], products[offset:] * products[:-offset]))
            offset *= 2

    def tables(self, num_positions: int, factors: torch.Tensor | None = None) -> _DoublingTables:
        steps = [
            (offset, products[: num_positions - offset]) for offset, products in self.steps if offset < num_positions
        ]
        return _DoublingTables(self.decays[0], self.weights[:num_positions], steps, factors)

    def run_tokens(self, states: torch.Tensor, tables: _DoublingTables, initial: float, scaled: bool = True) -> bool:
        """Turn inputs (B, n) into states in place; returns whether all is finite. `scaled` changes nothing here."""
        states.mul_(tables.weights)
        if initial != 0:
            states[:, 0].add_(tables.first * initial)
        for offset, products in tables.steps:
            states[:, offset:].add_(states[:, :-offset] * products)
        return math.isfinite(states.sum().item())

    def run(self, ends: torch.Tensor, tables: _DoublingTables) -> torch.Tensor:
        """States times the tables' factors for inputs (B, n), which are left as they are."""
        states = ends.clone()
        self.run_tokens(states, tables, 0.0)
        return states.mul_(tables.factors)


def _next_level(decays: torch.Tensor, weights: torch.Tensor, smallest_decay: float) -> _Blocks | _Doubling:
    """Levels above the tokens: long blocks while 1 / A stays finite, doubling otherwise."""
    if smallest_decay >= 1.0:
        return _Blocks(decays, weights, decays.numel(), smallest_decay)
    block = int(LARGEST_LOG_WEIGHT / -math.log(smallest_decay)) if smallest_decay > 0 else 0
    if block < SHORTEST_USEFUL_BLOCK:
        return _Doubling(decays, weights)
    return _Blocks(decays, weights, block, smallest_decay)
