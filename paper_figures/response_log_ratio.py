"""One response's token log-ratios before and after the Kalman filter, in their own order and shuffled (the control)."""

import sys
from dataclasses import dataclass

import numpy as np
import seaborn
import torch
from matplotlib.axes import Axes

from kpo.kalman import kalman_filter
from paper_figures import style
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import KeptUpdate, Results, ResultsError

NAME = "response_log_ratio"
FILE = "structure.safetensors"
EXPERIMENT = "kpo"
METHOD = "grpo"
SHUFFLE_SEED = 0


@dataclass(frozen=True)
class Response:
    """Log-ratios of one response over its tokens (T,), in order and shuffled, raw and filtered; and their source."""

    seed: int
    update: int
    minibatch: int
    raw: np.ndarray
    filtered: np.ndarray
    shuffled: np.ndarray
    shuffled_filtered: np.ndarray


def median_response(update: KeptUpdate) -> int:
    """Index of the response whose log-ratio spread (standard deviation over its tokens) is the median of the minibatch.

    With an even number of responses the lower of the two in the middle; responses of fewer than two tokens do not
    count."""
    spreads = {}
    for index, (row, mask) in enumerate(zip(update.log_ratio_BT, update.mask_BT.bool(), strict=True)):
        if mask.sum() > 1:
            spreads[index] = float(row[mask].double().std(unbiased=False))
    if not spreads:
        raise ResultsError(f"update {update.update}: no response of two tokens or more")
    order = sorted(spreads, key=lambda index: (spreads[index], index))
    return order[(len(order) - 1) // 2]


def filtered(values: np.ndarray, time_constant: float) -> np.ndarray:
    """KPO's filter over the tokens of one response (T,), with V = 1 and Q = 1 / time_constant^2."""
    values_BT = torch.as_tensor(values, dtype=torch.float64)[None, :]
    return kalman_filter(values_BT, process_variance=time_constant**-2, observation_variance=1.0)[0].numpy()


def choose(results: Results) -> Response:
    """The response that is drawn, by a rule that looks at no filtered value.

    GRPO's first seed; of its kept updates those furthest from their sampling policy (the largest minibatch number),
    of these the middle one; in it, the response of median spread.
    """
    results.require_method(EXPERIMENT, METHOD)
    time_constant = results.time_constant(EXPERIMENT)
    structures = results.structures(EXPERIMENT, METHOD)
    if not structures:
        raise ResultsError(f"{results.root / EXPERIMENT / METHOD}: {FILE} missing for every seed; run the training")
    seed, structure = next(iter(structures.items()))
    latest = max((update.minibatch for update in structure.off_policy), default=0)
    if not latest:
        path = results.run_folder(EXPERIMENT, METHOD, seed) / FILE
        raise ResultsError(
            f"{path}: no update after the first of its rollout batch; keep log-ratios of later minibatches"
        )
    candidates = [update for update in structure.off_policy if update.minibatch == latest]
    update = candidates[len(candidates) // 2]
    index = median_response(update)
    raw = update.log_ratio_BT[index][update.mask_BT[index].bool()].double().numpy()
    shuffled = np.random.default_rng(SHUFFLE_SEED).permutation(raw)
    smooth, shuffled_smooth = filtered(raw, time_constant), filtered(shuffled, time_constant)
    return Response(seed, update.update, update.minibatch, raw, smooth, shuffled, shuffled_smooth)


def draw(results: Results) -> style.PaperFigure:
    """Left the tokens' own order, in the middle the same values shuffled, right how the values are distributed; above
    raw, below filtered.
    """
    response = choose(results)
    time_constant = results.time_constant(EXPERIMENT)
    caption = (
        f"GRPO, experiment {EXPERIMENT}, seed {response.seed}, update {response.update} (minibatch "
        f"{response.minibatch} of its rollout batch): the response of median log-ratio spread in that minibatch; one "
        f"response of one run. The filter is KPO's, a random walk with V = 1 and Q = 1/{time_constant:g}\u00b2, so "
        f"that it forgets over {time_constant:g} tokens; it starts at 0. Middle: the same values in random order "
        "through the same filter. What looks alike on both sides is made by the filter, not by the order of the "
        "tokens. Right: how the values are distributed (kernel density; dashed: filtered after shuffling). The lower "
        f"panels have a scale of their own. {claims_text(NAME)}"
    )
    title = f"Log-ratios of one response before and after filtering ({results.scale} scale)"
    figure = style.new_figure(3.4, title, caption, missing=results.missing_notes(EXPERIMENT, [METHOD], FILE))
    axes = figure.subplots(2, 3, sharey="row", width_ratios=[4, 4, 1.2])
    raw_colour, filtered_colour = style.LOOKS["grpo"].colour, style.LOOKS["kpo-clipped"].colour
    tokens = np.arange(1, len(response.raw) + 1)
    columns = (
        ("in the order of the tokens", response.raw, response.filtered),
        ("the same values shuffled", response.shuffled, response.shuffled_filtered),
    )
    for (upper, lower), (column_title, raw, smooth) in zip(axes.T[:2], columns, strict=True):
        upper.vlines(tokens, 0, raw, color=raw_colour, linewidth=1.0)
        upper.plot(tokens, raw, linestyle="none", marker="o", markersize=2.2, color=raw_colour)
        lower.plot(tokens, smooth, color=filtered_colour)
        for panel in (upper, lower):
            panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        upper.set_title(column_title, loc="left")
        lower.set_xlabel("token of the response")
    _draw_density(axes[0, 2], response.raw, raw_colour, "-")
    _draw_density(axes[1, 2], response.filtered, filtered_colour, "-")
    _draw_density(axes[1, 2], response.shuffled_filtered, filtered_colour, (0, (3, 1.5)))
    axes[0, 0].set_ylabel("raw log-ratio (nats)")
    axes[1, 0].set_ylabel("filtered log-ratio (nats)")
    axes[1, 0].margins(y=0.15)
    figure.align_ylabels(axes[:, 0])
    return figure


def _draw_density(panel: Axes, values: np.ndarray, colour: str, line: str | tuple) -> None:
    """A kernel density along the y axis; nothing if all values are equal."""
    seaborn.kdeplot(y=values, ax=panel, color=colour, linestyle=line, linewidth=1.1, cut=0, warn_singular=False)
    panel.set(xlabel="density", ylabel="", xticks=[])


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
