"""KRPO at other settings: observation variance R, process variance Q and the weight of the KL term."""

import sys

from kpo.methods import get_method
from paper_figures import style
from paper_figures.cells import draw_cell, named_ticks, seeds_text
from paper_figures.command import script
from paper_figures.measured import Cell, Claims, Measures
from paper_figures.results import Results

NAME = "krpo_sensitivity"
RELEASED: Cell = ("krpo", "krpo")
SWEEPS = ("krpo-qr", "krpo-kl")
# Setting, its name along x, and what the paper says of values of it (second-hand); empty if nothing was found.
SETTINGS = (
    ("observation_variance", "R", {1e-3: "unstable", 1e-2: "released", 1e-1: "safe"}),
    ("process_variance", "Q", {1e-5: "released"}),
    ("kl_weight", "KL weight", {0.0: "worse", 0.01: "best", 0.05: "worse"}),
)
PANELS = (("reward_late", "late reward"), ("accuracy.normal", "accuracy, normal level"))


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
    """Columns are settings, rows reward and accuracy; what the paper says is at the top of a value."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    swept = {setting: variants(results, setting) for setting, *_ in SETTINGS}
    shown = [setting for setting in SETTINGS if len(swept[setting[0]]) > 1]
    cells = list(dict.fromkeys(cell for setting, *_ in shown for cell in swept[setting].values()))
    tables = {measure: measures.shared(measure, cells) for measure, _ in PANELS}
    collapse = measures.shared("collapse", cells)
    looks = {"krpo": style.LOOKS["krpo"], "grpo-rescaled": style.CONTROLS["grpo-rescaled"]}
    control: Cell = ("krpo-qr", "grpo-rescaled-r1e-3")
    controls = {measure: measures.of(measure, control) if measures.has(control) else {} for measure, _ in PANELS}
    released = ", ".join(f"{name} = {value_of(results, RELEASED, setting):g}" for setting, name, _ in SETTINGS)
    caption = (
        f"KRPO with one setting changed, and its released values ({released}). Grey words: what the paper says of a "
        "value (second-hand; for Q only its default was found). Red: runs that collapsed, of how many. GRPO rescaled, "
        "next to the smallest R: GRPO with advantages as large as KRPO's there. "
        f"{seeds_text(tables['reward_late'].values(), measures.missing)} {claims.notes_for(NAME)}"
    )
    title = f"KRPO at other settings ({results.scale} scale)"
    figure = style.new_figure(3.9, title, caption, looks if any(controls.values()) else None, measures.missing)
    axes = figure.subplots(
        len(PANELS), len(shown), sharey="row", sharex="col", squeeze=False,
        width_ratios=[len(swept[setting]) + 0.8 for setting, *_ in shown],
    )  # fmt: skip
    for column, (setting, name, says) in enumerate(shown):
        for row, (measure, axis_label) in enumerate(PANELS):
            panel = axes[row, column]
            for place, (value, cell) in enumerate(swept[setting].items()):
                draw_cell(panel, place, tables[measure].get(cell, {}), looks["krpo"], spread=0.12)
                fallen = sum(collapse.get(cell, {}).values())
                if row == 0:
                    _note(panel, place, says.get(value, ""), "#666666", 1.0, "bottom")
                    if fallen:
                        _note(panel, place, f"{fallen:.0f} of {len(collapse[cell])}", "#a00000", 0.02, "bottom")
                if cell == (control[0], "krpo-r1e-3"):
                    draw_cell(panel, place + 0.4, controls[measure], looks["grpo-rescaled"], spread=0.12)
            named_ticks(panel, [f"{value:g}" for value in swept[setting]])
            panel.tick_params(labelbottom=row == len(PANELS) - 1)
            if column == 0:
                panel.set_ylabel(axis_label)
        axes[-1, column].set_xlabel(name)
    return figure


def _note(panel, place: float, text: str, colour: str, height: float, align: str) -> None:
    panel.annotate(
        text, (place, height), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
        ha="center", va=align, fontsize=style.CAPTION_SIZE, color=colour,
    )  # fmt: skip


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
