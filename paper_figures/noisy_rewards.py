"""KRPO's open questions: rewards with Gaussian noise, judged the wrong way round, or shifting during training."""

import sys
from collections.abc import Mapping

from paper_figures import style
from paper_figures.catalogue import NOISES
from paper_figures.cells import draw_groups, seeds_text
from paper_figures.command import script
from paper_figures.measured import Claims, Measures, accuracy_name
from paper_figures.results import Results

NAME = "noisy_rewards"
CLAIM = "krpo-8-gaussian"
METHODS = ("grpo", "krpo", "grpo-rescaled", "krpo-adaptive")


def noise_label(noise: Mapping[str, float]) -> str:
    """What is done to the rewards, in a few words with its size."""
    words = []
    if noise.get("gaussian"):
        words.append(f"Gaussian noise,\nstandard deviation {noise['gaussian']:g}")
    if noise.get("flips"):
        words.append(f"judged wrongly\nwith chance {noise['flips']:g}")
    if noise.get("drift") or noise.get("drift_in_group"):
        words.append(
            f"rising and falling by {noise.get('drift', 0):g} in {noise.get('drift_period', 0):g} batches,\n"
            f"growing by {noise.get('drift_in_group', 0):g} within a group"
        )
    return "\n".join(words) or "no noise"


def draw(results: Results) -> style.PaperFigure:
    """Left the accuracy, right its difference from GRPO's under the same noise."""
    results.require(NAME)
    measures, claims = Measures(results), Claims(results)
    names = [name for name in NOISES if name in results.experiments]
    cells = {
        (place, method): (name, method)
        for place, name in enumerate(names)
        for method in METHODS
        if measures.has((name, method))
    }
    measure = claims.measure(CLAIM)
    accuracy = {key: measures.of(measure, cell) for key, cell in cells.items()}
    gaps = {
        (place, method): {
            seed: 100 * (value - accuracy[place, "grpo"][seed])
            for seed, value in by_seed.items()
            if seed in accuracy.get((place, "grpo"), {})
        }
        for (place, method), by_seed in accuracy.items()
        if method != "grpo"
    }
    methods = [method for method in METHODS if any(method == found for _, found in cells)]
    looks = {method: {**style.LOOKS, **style.CONTROLS}[method] for method in methods}
    labels = [noise_label(results.experiment(name).get("reward_noise") or {}) for name in names]
    caption = (
        "Answers to held-out problems are judged exactly; only the rewards of the training are changed. "
        "Shifting: a wave is added to the rewards over the batches, and a ramp within each group. KRPO adaptive: Q and "
        "R estimated from the rewards of earlier batches. GRPO rescaled: GRPO with advantages as large as KRPO's. The "
        "paper gives noisy rewards as a motive and leaves them, shifting rewards and adaptive Q and R open; no "
        f"experiment of its own was found. {seeds_text(accuracy.values(), measures.missing)} {claims.notes_for(NAME)}"
    )
    title = f"Noisy and shifting rewards ({results.scale} scale)"
    figure = style.new_figure(4.4, title, caption, looks, measures.missing)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_groups(upper, labels, accuracy, methods, looks)
    draw_groups(lower, labels, gaps, methods, looks)
    lower.axhline(0, color="#444444", linewidth=0.6, zorder=1)
    upper.set_title(accuracy_name(measure), loc="left")
    lower.set_title("the same in points above GRPO under the same noise", loc="left")
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
