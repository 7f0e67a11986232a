"""Advantages that GRPO and KRPO give to the same rewards: one group, and the mean size by place in the group."""

import sys

import numpy as np
import torch

from kpo.advantages import group_advantages
from paper_figures import style
from paper_figures.aggregate import band_phrase, over_seeds
from paper_figures.catalogue import claims_text
from paper_figures.command import script
from paper_figures.results import NotConfigured, Results, ResultsError
from reproduction.publish.published import DRAWN_SEEDS

NAME = "group_advantages"
FILE = "structure.safetensors"
EXPERIMENTS = ("krpo", "kpo")
KINDS = ("grpo", "krpo")


def find_experiment(results: Results) -> str:
    """The experiment whose GRPO runs give the rewards: `krpo` if it is configured, else `kpo`."""
    for experiment in EXPERIMENTS:
        if experiment in results.experiments and "grpo" in results.methods(experiment):
            return experiment
    path = results.root / "config.yaml"
    raise NotConfigured(
        f"{path}: no experiment {' or '.join(EXPERIMENTS)} has the method 'grpo', which this figure shows"
    )


def rewards_by_seed(results: Results, experiment: str) -> dict[int, torch.Tensor]:
    """Kept reward groups (P, G) of the experiment's GRPO runs by seed, all kept rollout batches below one another."""
    table = {}
    for seed, structure in results.structures(experiment, "grpo").items():
        if not structure.rewards_PG:
            path = results.run_folder(experiment, "grpo", seed) / FILE
            raise ResultsError(f"{path}: no rewards of rollout batches were kept; run the training again")
        rewards_PG = torch.cat(list(structure.rewards_PG.values())).double()
        # An ungraded response (NaN) has no advantage; its whole group is left out: each place has the same groups.
        table[seed] = rewards_PG[rewards_PG.isfinite().all(dim=1)]
        if not len(table[seed]):
            path = results.run_folder(experiment, "grpo", seed) / FILE
            raise ResultsError(f"{path}: every kept group has an ungraded response; grade again")
    sizes = {rewards.shape[1] for rewards in table.values()}
    if len(sizes) != 1:
        raise ResultsError(
            f"{results.root / experiment / 'grpo'}: {FILE} missing, or groups of different sizes {sorted(sizes)}"
        )
    return table


def mean_size_by_place(rewards_PG: torch.Tensor, kind: str) -> np.ndarray:
    """Mean absolute advantage at each place in the group, over all groups (P, G), shape (G,)."""
    return group_advantages(kind, rewards_PG).abs().mean(dim=0).numpy()


def example_group(rewards_PG: torch.Tensor) -> int:
    """The first of the groups whose rewards spread most."""
    spread = rewards_PG.std(dim=1, unbiased=False)
    # Equal spreads may differ in the last bit with the order of the sum; the first of them should win on every machine.
    return int(torch.argmax((spread >= spread.max() - 1e-9).int()))


def draw(results: Results) -> style.PaperFigure:
    """Left one group, rewards above and advantages below; right the mean size by place."""
    experiment = find_experiment(results)
    missing = results.missing_notes(experiment, ["grpo"], FILE)
    looks = style.looks(KINDS)
    rewards = rewards_by_seed(results, experiment)
    seed, first = next(iter(rewards.items()))
    index = example_group(first)
    counts = sorted({len(rewards_PG) for rewards_PG in rewards.values()})
    caption = (
        f"Rewards of the GRPO runs of experiment {experiment}, in the order of sampling; both estimators are given the "
        f"same rewards. Left: the first of seed {seed}'s kept groups whose rewards spread most. Right: "
        f"{' to '.join(map(str, counts))} fully graded groups a seed, those with equal rewards included. "
        f"{band_phrase(results.seed_counts, missing, DRAWN_SEEDS)} "
        "KRPO's baseline follows the samples seen so far and the variance "
        "that it divides by shrinks with each, so that an advantage depends on the place at which the response was "
        f"drawn. {claims_text(NAME)}"
    )
    figure = style.new_figure(
        3.4, f"Group advantages under GRPO and KRPO ({results.scale} scale)", caption, looks, missing
    )
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 2])
    right = figure.add_subplot(grid[:, 1])
    bottom = figure.add_subplot(grid[1, 0])
    top = figure.add_subplot(grid[0, 0], sharex=bottom)
    places = np.arange(1, first.shape[1] + 1)
    top.bar(places, first[index].numpy(), width=0.55, color="#9a9a9a", edgecolor="#333333", linewidth=0.6)
    bottom.axhline(0, color="#444444", linewidth=0.6)
    for kind in KINDS:
        look = looks[kind]
        advantages = group_advantages(kind, first[index][None, :])[0].numpy()
        bottom.plot(
            places, advantages, color=look.colour, linestyle=look.line, marker=look.marker, markeredgecolor="white",
            markeredgewidth=0.4,
        )  # fmt: skip
        by_seed = {seed: mean_size_by_place(rewards_PG, kind) for seed, rewards_PG in rewards.items()}
        style.draw_seeds(right, places, by_seed, *over_seeds(by_seed), look, range(len(places)))
    top.set_title("one group", loc="left")
    top.set_ylabel("reward")
    top.tick_params(labelbottom=False)
    bottom.set_ylabel("advantage")
    right.set_title("mean size of the advantage by place", loc="left")
    right.set_ylabel("mean |advantage|")
    right.set_ylim(bottom=0)
    for panel in (bottom, right):
        panel.set_xlabel("place in the group")
        panel.set_xticks(places if len(places) <= 16 else places[::4])
    figure.align_ylabels([top, bottom])
    return figure


main = script(NAME, draw)

if __name__ == "__main__":
    sys.exit(main())
