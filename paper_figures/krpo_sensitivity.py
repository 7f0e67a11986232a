"""KRPO at other settings: observation variance R, process variance Q and the weight of the KL term."""

import sys

from matplotlib.axes import Axes

from kpo.methods import get_method
from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures, accuracy_name
from paper_figures.results import Results

NAME = "krpo_sensitivity"
RELEASED: Cell = ("krpo", "krpo")
SWEEPS = ("krpo-qr", "krpo-kl")
SMALL_R: Cell = ("krpo-qr", "krpo-r1e-3")
RESCALED: Cell = ("krpo-qr", "grpo-rescaled-r1e-3")
KL = "KL weight"
# Setting, its name along x, and what the paper says of values of it (second-hand); empty if nothing was found.
SETTINGS = (
    ("observation_variance", "R", {1e-3: "unstable", 1e-2: "released", 1e-1: "safe"}),
    ("process_variance", "Q", {1e-5: "released"}),
    ("kl_weight", KL, {0.0: "worse", 0.01: "best", 0.05: "worse"}),
)
REWARD = "reward_half"


def variants(results: Results, setting: str) -> dict[float, Cell]:
    """The released run, and those that differ from it only in this setting, by the setting's value."""
    found = {value_of(results, RELEASED, setting): RELEASED}
    for experiment in SWEEPS:
        if experiment not in results.experiments:
            continue
        for label in results.methods(experiment):
            overrides = results.experiment(experiment)["methods"][label] or {}
            others = set(overrides) - {"method", setting}
            if overrides.get("method", label) == "krpo" and setting in overrides and not others:
                found[value_of(results, (experiment, label), setting)] = (experiment, label)
    return dict(sorted(found.items()))


def value_of(results: Results, cell: Cell, setting: str) -> float:
    """A setting of a run's method: from the configuration, else the method's own."""
    experiment, label = cell
    overrides = results.experiment(experiment)["methods"][label] or {}
    return float(overrides.get(setting, get_method(overrides.get("method", label)).parameters[setting]))


def draw(results: Results) -> style.PaperFigure:
    """One panel a setting, with the measure that its claims compare; what the paper says is at the top of a value."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    accuracy = claims.measure("krpo-4-over-none")
    swept = {name: variants(results, setting) for setting, name, _ in SETTINGS}
    shown = [(name, accuracy if name == KL else REWARD, says) for _, name, says in SETTINGS if len(swept[name]) > 1]
    tables = {name: measures.shared(measure, list(swept[name].values())) for name, measure, _ in shown}
    cells = list(dict.fromkeys(cell for name, *_ in shown for cell in swept[name].values()))
    collapse = measures.shared("collapse", cells)
    looks = {"krpo": style.LOOKS["krpo"], "grpo-rescaled": style.CONTROLS["grpo-rescaled"]}
    control = measures.of(REWARD, RESCALED) if measures.has(RESCALED) else {}
    released = ", ".join(f"{name} = {value_of(results, RELEASED, setting):g}" for setting, name, _ in SETTINGS)
    caption = (
        f"KRPO with one setting changed, and its released values ({released}). Grey words: what the paper says of a "
        "value (second-hand; for Q only its default was found). Red: runs that collapsed, of how many. GRPO rescaled, "
        "next to the smallest R: GRPO with advantages as large as KRPO's there. "
        f"{seeds_text(tables[shown[0][0]].values(), measures.missing)} {claims.notes_for(NAME)}"
    )
    title = f"KRPO at other settings ({results.scale} scale)"
    figure = style.new_figure(2.6, title, caption, looks if control else None, measures.missing)
    widths = [len(swept[name]) + 0.8 for name, *_ in shown]
    axes = figure.subplots(1, len(shown), squeeze=False, width_ratios=widths)[0]
    for panel, (name, measure, says) in zip(axes, shown, strict=True):
        for place, (value, cell) in enumerate(swept[name].items()):
            draw_cell(panel, place, tables[name].get(cell, {}), looks["krpo"], spread=0.12)
            if cell == SMALL_R:
                draw_cell(panel, place + 0.4, control, looks["grpo-rescaled"], spread=0.12)
            _note(panel, place, says.get(value, ""), "#666666", 1.0)
            if fallen := sum(collapse.get(cell, {}).values()):
                _note(panel, place, f"{fallen:.0f} of {len(collapse[cell])}", "#a00000", 0.02)
        named_ticks(panel, [f"{value:g}" for value in swept[name]])
        panel.set_xlabel(name)
        panel.set_ylabel(accuracy_name(measure) if measure == accuracy else "reward, second half of training")
    return figure


def _note(panel: Axes, place: float, text: str, colour: str, height: float) -> None:
    panel.annotate(
        text, (place, height), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
        ha="center", va="bottom", fontsize=style.CAPTION_SIZE, color=colour,
    )  # fmt: skip


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
