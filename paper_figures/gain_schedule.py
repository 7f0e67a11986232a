"""KPO's filter is a moving average with a gain for each position: the gains, and how far the two are apart."""

import sys

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from kpo.kalman import kalman_gains
from paper_figures import style
from paper_figures.cells import draw_cell, seeds_text, threshold
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures
from paper_figures.results import Results

NAME = "gain_schedule"
CELL: Cell = ("kpo", "kpo-clipped")
CLAIM = "kpo-6-schedule"
STEPS = 4096
PAPER_RATIO = 1e-6
PAPER_LOOK = style.Look("#222222", (0, (2, 1)), "")
DEVIATIONS = (
    ("schedule_deviation", "gain K_t\nat token t", "kpo-clipped"),
    ("constant_gain_deviation", "constant\nsteady gain", "kpo-ema"),
)
# An exact agreement has no logarithm; it is drawn at the rounding error of one float64 operation.
SMALLEST = 1e-16


def gains(variance_ratio: float, steps: int = STEPS) -> np.ndarray:
    """K_t for t = 1 .. steps of the filter with Q/V = `variance_ratio`, started at 0 with certainty, shape (steps,)."""
    return kalman_gains(steps, variance_ratio, 1.0)[0].numpy()


def steady_gain(variance_ratio: float) -> float:
    """The gain that K_t tends to: the positive root of K^2 + (Q/V) (K - 1) = 0."""
    return (np.sqrt(variance_ratio**2 + 4 * variance_ratio) - variance_ratio) / 2


def draw(results: Results) -> style.PaperFigure:
    """Left the gains by token, right the deviations of two moving averages from the filter."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    time_constant = results.time_constant(CELL[0])
    tables = {measure: measures.of(measure, CELL) for measure, *_ in DEVIATIONS}
    margin = claims[CLAIM]["rule"]["margin"]
    curves = (
        (f"here, Q/V = 1/{time_constant:g}\u00b2", time_constant**-2, style.LOOKS["kpo-clipped"]),
        ("the paper's Q/V = 1e-6", PAPER_RATIO, PAPER_LOOK),
    )
    caption = (
        "Left: K_t by token, from Q and V alone, so that no log-ratio changes it; dotted: the gain it tends to. Both "
        "start at 0 with certainty: early tokens hardly move the state. Right: root mean square difference from the "
        "filter on kept off-policy log-ratios, relative to the filtered values, token by token in float64; differences "
        f"below {SMALLEST:g} are drawn there. A follow-up study gives a mean squared error below 1e-14 for the "
        f"schedule (its abstract); its measure is not ours. {seeds_text(tables.values(), measures.missing)} "
        f"{claims.notes_for(NAME)}"
    )
    title = f"The filter's gains, and moving averages with them ({results.scale} scale)"
    figure = style.new_figure(2.7, title, caption, missing=measures.missing)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    tokens = np.arange(1, STEPS + 1)
    for name, ratio, look in curves:
        left.plot(tokens, gains(ratio), color=look.colour, linestyle=look.line, label=name)
        left.axhline(steady_gain(ratio), color=look.colour, linestyle=":", linewidth=0.9)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("token of the response")
    left.set_title("gain K_t", loc="left")
    left.legend(loc="lower right")
    right.set_yscale("log")
    for place, (measure, _, method) in enumerate(DEVIATIONS):
        by_seed = {seed: max(SMALLEST, value) for seed, value in tables[measure].items()}
        draw_cell(right, place, by_seed, {**style.LOOKS, **style.CONTROLS}[method])
    right.set_ylim(SMALLEST / 5, 10)
    right.yaxis.set_major_locator(LogLocator(numticks=5))
    right.yaxis.set_minor_locator(NullLocator())
    right.set_xticks(range(len(DEVIATIONS)), [name for _, name, _ in DEVIATIONS])
    right.tick_params(axis="x", length=0)
    right.set_xlim(-0.6, 1.6)
    right.set_title("relative deviation from the filter", loc="left")
    threshold(right, margin, f"counts as equal: {margin:g}")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
