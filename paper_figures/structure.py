"""How GRPO's off-policy log-ratios are ordered over tokens, before and after KPO's filter, and what chance gives."""

import sys

import numpy as np
import torch
from matplotlib.axes import Axes
from torch.nn.functional import pad

from paper_figures import style
from paper_figures.aggregate import over_seeds, seeds_phrase
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results, ResultsError, Structure
from reproduction.claims.paper_tables import KPO_SWITCH_FREQUENCY
from reproduction.claims.structure import structure_summary
from reproduction.publish.published import DRAWN_SEEDS

NAME = "structure"
FILE = "structure.safetensors"
EXPERIMENT = "kpo"
METHOD = "grpo"
FRACTION = 0.1
DRAWS = 10
MEASURES = (
    ("switch_frequency", "switch frequency"),
    ("mean_run_length", "mean run length (tokens)"),
    ("low_frequency_energy", "low-frequency energy (share)"),
)
# Series of `structure_summary` before and after the filter, and how the axis names them.
SERIES = (
    ("raw", "filtered", "log-ratios"),
    ("shuffled", "shuffled, filtered", "shuffled"),
    ("white noise", "white noise, filtered", "white noise"),
)
LOOKS = {
    "before the filter": style.Look("#0072B2", "none", "o"),
    "after KPO's filter": style.Look("#D55E00", "none", "D"),
}


def stacked(structure: Structure) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-ratios and masks of all kept off-policy minibatches below one another, (B, T), padded to the longest."""
    longest = max(update.mask_BT.shape[1] for update in structure.off_policy)
    rows = [
        [pad(tensor, (0, longest - tensor.shape[1])) for tensor in (update.log_ratio_BT, update.mask_BT)]
        for update in structure.off_policy
    ]
    log_ratios, masks = zip(*rows, strict=True)
    return torch.cat(log_ratios), torch.cat(masks)


def measured(results: Results) -> dict[int, dict[str, dict[str, float]]]:
    """{seed: {series: {measure: value}}} over all kept off-policy minibatches of each GRPO run."""
    results.require_method(EXPERIMENT, METHOD)
    time_constant = results.time_constant(EXPERIMENT)
    table = {}
    for seed, structure in results.structures(EXPERIMENT, METHOD).items():
        if not structure.off_policy:
            path = results.run_folder(EXPERIMENT, METHOD, seed) / FILE
            raise ResultsError(
                f"{path}: no update after the first of its rollout batch was kept; keep later minibatches"
            )
        log_ratio_BT, mask_BT = stacked(structure)
        table[seed] = structure_summary(
            log_ratio_BT,
            mask_BT,
            process_variance=time_constant**-2,
            observation_variance=1.0,
            fraction=FRACTION,
            num_draws=DRAWS,
            seed=seed,
        )
    if not table:
        raise ResultsError(f"{results.root / EXPERIMENT / METHOD}: {FILE} missing for every seed; run the training")
    return table


def draw(results: Results) -> style.PaperFigure:
    """One panel a measure; three groups of values, each before and after the filter."""
    table = measured(results)
    missing = results.missing_notes(EXPERIMENT, [METHOD], FILE)
    time_constant = results.time_constant(EXPERIMENT)
    caption = (
        f"GRPO runs of experiment {EXPERIMENT}, kept minibatches after the first of their rollout batch. Switch "
        "frequency: share of neighbouring tokens whose log-ratios differ in sign; run: neighbouring tokens of one "
        f"sign; an exact 0 takes the sign before it; low: the lowest {FRACTION:.0%} of frequencies. Filter: V = 1, Q = "
        f"1/{time_constant:g}\u00b2. Shuffled: the same values in random order; white noise: independent Student-t "
        f"values, 3 degrees of freedom; means of {DRAWS} draws. Large marks: mean over "
        f"{seeds_phrase(results.seed_counts, missing, DRAWN_SEEDS)}; bars: lowest to highest seed; small circles: each "
        "seed. What the filter does to shuffled values and to noise as well is no property of the log-ratios. Dashed: "
        "the paper's switch frequencies (second-hand, their definition not found, over responses of thousands of "
        "tokens). "
        f"{claims_text(NAME)}"
    )
    title = f"Order of token log-ratios before and after filtering ({results.scale} scale)"
    figure = style.new_figure(2.3, title, caption, LOOKS, missing)
    axes = figure.subplots(1, len(MEASURES))
    for panel, (measure, panel_title) in zip(axes, MEASURES, strict=True):
        for place, (before, after, _) in enumerate(SERIES):
            for series, shift, look in zip((before, after), (-0.17, 0.17), LOOKS.values(), strict=True):
                by_seed = {seed: [summary[series][measure]] for seed, summary in table.items()}
                _draw_marks(panel, place + shift, by_seed, look)
        panel.set_xticks(range(len(SERIES)), [name for *_, name in SERIES])
        panel.tick_params(axis="x", length=0)
        panel.set_xlim(-0.5, len(SERIES) - 0.5)
        panel.set_title(panel_title, loc="left")
        panel.set_ylim(0, 1 if measure == "low_frequency_energy" else None)
        if measure == "switch_frequency":
            _draw_paper(panel)
    return figure


def _draw_paper(panel: Axes) -> None:
    """The paper's values across the measured log-ratios, each in the colour of what it is compared with."""
    for (name, value), look in zip(KPO_SWITCH_FREQUENCY.items(), LOOKS.values(), strict=True):
        panel.hlines(value, -0.42, 0.42, colors=look.colour, linestyles=(0, (3, 2)), linewidth=0.9, zorder=1)
        # In the middle, where neither raw nor filtered values lie.
        panel.annotate(
            f"paper, {name}: {value:g}", (0.5, 0.55 if name == "before the filter" else 0.46), ha="center",
            xycoords="axes fraction", fontsize=style.CAPTION_SIZE, color=look.colour,
        )  # fmt: skip


def _draw_marks(panel: Axes, x: float, by_seed: dict[int, list[float]], look: style.Look) -> None:
    mean, low, high = (float(values[0]) for values in over_seeds(by_seed))
    if not np.isfinite(mean):
        panel.annotate("undefined", (x, 0), rotation=90, ha="center", va="bottom", fontsize=style.CAPTION_SIZE)
        return
    style.draw_estimate(panel, x, mean, low, high, [values[0] for values in by_seed.values()], look, spread=0.11)


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
