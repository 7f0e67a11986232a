"""What the filters cost over GRPO, relative to each run's own sampling: an update of KPO, a rollout batch of KRPO."""

import math
import sys

from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text
from paper_figures.command import script
from paper_figures.measured import Claims, Measures
from paper_figures.results import Results

NAME = "overhead"
BASELINE, SAMPLING = "grpo", "log_sampling_seconds"
PANELS = (
    ("kpo", "log_update_seconds", "kpo-7-overhead", "time of an update"),
    ("krpo", "log_token_seconds", "krpo-7-overhead", "time of a rollout batch"),
)


def extra_time(measures: Measures, experiment: str, measure: str) -> dict[str, dict[int, float]]:
    """Percent of time over GRPO's of the same seed, each relative to its own sampling, by method and seed."""

    def relative(method: str) -> dict[int, float]:
        time, sampling = (measures.of(name, (experiment, method)) for name in (measure, SAMPLING))
        return {seed: time[seed] - sampling[seed] for seed in time if seed in sampling}

    baseline, table = relative(BASELINE), {}
    for method in measures.results.methods(experiment):
        if method != BASELINE:
            own = relative(method)
            table[method] = {seed: 100 * math.expm1(own[seed] - baseline[seed]) for seed in own if seed in baseline}
    return table


def draw(results: Results) -> style.PaperFigure:
    """One panel an experiment; the dashed line is where a method counts as costly."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    shown = [
        panel for panel in PANELS if measures.has((panel[0], BASELINE)) and measures.has((panel[0], _claimed(panel[0])))
    ]
    tables = {experiment: extra_time(measures, experiment, measure) for experiment, measure, *_ in shown}
    methods = list(dict.fromkeys(method for table in tables.values() for method in table))
    looks = style.looks(results.own_methods)
    seeds = seeds_text((by_seed for part in tables.values() for by_seed in part.values()), measures.missing)
    margin = 100 * math.expm1(claims[shown[0][2]]["rule"]["margin"])
    caption = (
        "Median time within a run, over its median time to sample a token, in percent above the same of the GRPO run "
        "with the same seed: other work on the machine slows both alike. kpo: one update, forward and backward. krpo: "
        "sampling, advantages and updates of a rollout batch, divided by its mean response length. Dashed: "
        f"{margin:.2g}%, up to which a cost counts as little. {seeds} "
        f"{claims.note(claim_id for _, _, claim_id, _ in shown)}"
    )
    title = f"Time that the filters take ({results.scale} scale)"
    figure = style.new_figure(2.5, title, caption, {method: looks[method] for method in methods}, measures.missing)
    axes = figure.subplots(
        1, len(shown), squeeze=False, width_ratios=[max(4, len(tables[panel[0]])) for panel in shown]
    )
    for panel, (experiment, _, _, name) in zip(axes[0], shown, strict=True):
        table = tables[experiment]
        for place, (method, by_seed) in enumerate(table.items()):
            draw_cell(panel, place, by_seed, looks[method], spread=0.1)
        panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
        panel.axhline(margin, color="#0072B2", linewidth=0.7, linestyle=(0, (3, 2)), zorder=1)
        named_ticks(panel, [""] * len(table))
        panel.set_title(f"{experiment}: {name}", loc="left")
    axes[0, 0].set_ylabel("percent above GRPO")
    return figure


def _claimed(experiment: str) -> str:
    """The method whose cost the experiment's claim is about."""
    return {"kpo": "kpo-clipped", "krpo": "krpo"}[experiment]


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
