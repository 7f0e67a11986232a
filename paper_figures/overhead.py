"""What the filters cost over GRPO: time of an update in KPO's comparison, of a generated token in KRPO's."""

import math
import sys

from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text, threshold
from paper_figures.command import script
from paper_figures.measured import Claims, Measures
from paper_figures.results import Results

NAME = "overhead"
BASELINE = "grpo"
PANELS = (
    ("kpo", "log_update_seconds", "kpo-7-overhead", "time of an update"),
    ("krpo", "log_token_seconds", "krpo-7-overhead", "time of a token"),
)


def extra_time(measures: Measures, experiment: str, measure: str) -> dict[str, dict[int, float]]:
    """Percent of time over GRPO's of the same seed, by method and seed."""
    baseline = measures.of(measure, (experiment, BASELINE))
    table = {}
    for method in measures.results.methods(experiment):
        if method != BASELINE:
            own = measures.of(measure, (experiment, method))
            table[method] = {
                seed: 100 * math.expm1(own[seed] - baseline[seed]) for seed in sorted(set(own) & set(baseline))
            }
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
    caption = (
        "Medians within a run, in percent above those of the GRPO run with the same seed. Left: one update, forward "
        "and backward. Right: sampling, advantages and updates of a rollout batch, divided by its mean response "
        "length, since methods that answer at greater length take longer without costing more. Runs of a machine that "
        f"does other work as well differ only for that reason. {seeds} "
        f"{claims.note(claim_id for _, _, claim_id, _ in shown)}"
    )
    title = f"Time that the filters take ({results.scale} scale)"
    figure = style.new_figure(2.5, title, caption, {method: looks[method] for method in methods}, measures.missing)
    axes = figure.subplots(
        1, len(shown), squeeze=False, width_ratios=[max(4, len(tables[panel[0]])) for panel in shown]
    )
    for panel, (experiment, _, claim_id, name) in zip(axes[0], shown, strict=True):
        table = tables[experiment]
        for place, (method, by_seed) in enumerate(table.items()):
            draw_cell(panel, place, by_seed, looks[method], spread=0.1)
        panel.axhline(0, color="#444444", linewidth=0.6, zorder=1)
        margin = 100 * math.expm1(claims[claim_id]["rule"]["margin"])
        threshold(panel, margin, f"negligible below {margin:.2g}%")
        named_ticks(panel, [""] * len(table))
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + 0.1 * (high - low))  # room for the line's name
        panel.set_title(f"{experiment}: {name}", loc="left")
    axes[0, 0].set_ylabel("percent above GRPO")
    return figure


def _claimed(experiment: str) -> str:
    """The method whose cost the experiment's claim is about."""
    return {"kpo": "kpo-clipped", "krpo": "krpo"}[experiment]


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
