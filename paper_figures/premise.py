"""Do token log-ratios drift? The likelihood of a random walk plus noise by Q / V, compared with shuffled tokens."""

import sys
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from kpo.kalman import VarianceFit, fit_variances
from paper_figures import style
from paper_figures.aggregate import seeds_phrase
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import Results, ResultsError
from paper_figures.structure import EXPERIMENT, FILE, METHOD, stacked
from reproduction.claims.structure import shuffled_order
from reproduction.publish.published import DRAWN_SEEDS

NAME = "premise"
SMALLEST = 1e-5  # of Q / V on the axes; what is smaller is drawn there
ASSUMED = "if the filter's model held"
LOOKS = {
    "log-ratios": style.Look("#0072B2", "-", "o"),
    "shuffled tokens": style.Look("#6e6e6e", (0, (3, 1.5)), "s"),
    ASSUMED: style.Look("#D55E00", (0, (8, 1)), "D"),
}


@dataclass(frozen=True)
class Fits:
    """The fits of one run: of its log-ratios, of these in shuffled order, and of values that the filter's model made.

    The last have the run's mask, Gaussian noise, and the Q / V that the run's filter assumes.
    """

    raw: VarianceFit
    shuffled: VarianceFit
    assumed: VarianceFit


def fitted(results: Results) -> dict[int, Fits]:
    """The fits of each GRPO run, over all its kept off-policy minibatches, by seed."""
    results.require_method(EXPERIMENT, METHOD)
    ratio = results.time_constant(EXPERIMENT) ** -2
    fits = {}
    for seed, structure in results.structures(EXPERIMENT, METHOD).items():
        path = results.run_folder(EXPERIMENT, METHOD, seed) / FILE
        if not structure.off_policy:
            raise ResultsError(
                f"{path}: no update after the first of its rollout batch was kept; keep later minibatches"
            )
        log_ratio_BT, mask_BT = stacked(structure)
        generator = torch.Generator().manual_seed(seed)
        steps, noise = torch.randn(2, *mask_BT.shape, generator=generator, dtype=torch.float64)
        # Masked tokens take no step of the walk.
        model_BT = (steps * mask_BT).cumsum(dim=1) * ratio**0.5 + noise
        try:
            fits[seed] = Fits(
                fit_variances(log_ratio_BT, mask_BT),
                fit_variances(shuffled_order(log_ratio_BT, mask_BT, generator), mask_BT),
                fit_variances(model_BT, mask_BT),
            )
        except ValueError as error:
            raise ResultsError(f"{path}: {error}") from None
    if not fits:
        raise ResultsError(f"{results.root / EXPERIMENT / METHOD}: {FILE} missing for every seed; run the training")
    return fits


def draw(results: Results) -> style.PaperFigure:
    """Left the log-likelihood over that of independent noise by Q / V; right the most likely Q / V of each seed."""
    fits = fitted(results)
    memory = results.time_constant(EXPERIMENT)
    missing, seeds = results.missing_notes(EXPERIMENT, [METHOD], FILE), len(results.seeds_of(EXPERIMENT, METHOD))
    caption = (
        f"GRPO's kept off-policy minibatches, experiment {EXPERIMENT}, "
        f"{seeds_phrase((seeds, seeds), missing, DRAWN_SEEDS)}. Model: a random walk (variance Q a token) plus noise "
        "(V) from 0 at each response's start, fitted by maximum likelihood. Left: nats per memory of the filter over "
        "independent noise (Q = 0), with the best V at each Q/V, a line for each seed; one that stays below 0 prefers "
        "noise. Orange: the same for values that the model "
        f"made for the same tokens, with the Q/V that the filter assumes (1/{memory:g}\u00b2, dotted). Right: the "
        "most likely Q/V of each seed with 95% intervals from the spread of the score over responses, which allow "
        f"for heavy tails; what lies below {SMALLEST:g}, 0 included, is drawn there. What shuffled tokens gain is not "
        f"drift. {claims_text(NAME)}"
    )
    title = f"Do log-ratios drift from token to token? ({results.scale} scale)"
    figure = style.new_figure(2.5, title, caption, LOOKS, missing)
    curves, estimates = figure.subplots(1, 2, width_ratios=[3, 2])
    for each in fits.values():
        for fit, look in zip((each.shuffled, each.raw, each.assumed), _looks(), strict=True):
            _draw_curve(curves, fit, memory, look)
    top = max(
        memory * (fit.log_likelihood - fit.log_likelihood_without_drift) / fit.num_observations
        for each in fits.values()
        for fit in (each.raw, each.shuffled, each.assumed)
    )
    curves.set(xscale="log", xlim=(SMALLEST, 1), ylim=(-1.5 * max(top, 0.1), 1.2 * max(top, 0.1)))
    curves.axhline(0, color="#444444", linewidth=0.6, zorder=1)
    curves.axvline(memory**-2, color=LOOKS[ASSUMED].colour, linestyle=":", linewidth=0.9, zorder=1)
    curves.set(xlabel="Q/V", ylabel="nats per memory over Q = 0")
    for place, each in enumerate(fits.values()):
        for fit, shift, look in zip((each.shuffled, each.raw, each.assumed), (0.0, -0.22, 0.22), _looks(), strict=True):
            _draw_estimate(estimates, place + shift, fit, look)
    estimates.axhline(memory**-2, color=LOOKS[ASSUMED].colour, linestyle=":", linewidth=0.9, zorder=1)
    estimates.set(yscale="log", ylim=(SMALLEST / 1.3, None), xlabel="seed", ylabel="most likely Q/V")
    estimates.yaxis.set_minor_locator(NullLocator())
    estimates.set_xticks(range(len(fits)), [str(seed) for seed in fits])
    estimates.tick_params(axis="x", length=0)
    return figure


def _looks() -> tuple[style.Look, style.Look, style.Look]:
    return LOOKS["shuffled tokens"], LOOKS["log-ratios"], LOOKS[ASSUMED]


def _draw_curve(panel: Axes, fit: VarianceFit, memory: float, look: style.Look) -> None:
    gain = memory * (fit.profile_log_likelihood - fit.log_likelihood_without_drift) / fit.num_observations
    # A logarithmic axis has no place for Q / V = 0 and infinity.
    panel.plot(fit.profile_ratio[1:-1], gain[1:-1], color=look.colour, linestyle=look.line, linewidth=0.9, zorder=3)


def _draw_estimate(panel: Axes, x: float, fit: VarianceFit, look: style.Look) -> None:
    low, high = (min(max(end, SMALLEST), 1.0) for end in fit.robust_ratio_interval)
    middle = min(max(fit.ratio, SMALLEST), 1.0)
    panel.vlines(x, min(low, middle), max(high, middle), color=look.colour, linewidth=1.1, zorder=2)
    panel.plot(x, middle, color=look.colour, marker=look.marker, linestyle="none", zorder=3, clip_on=False)


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
