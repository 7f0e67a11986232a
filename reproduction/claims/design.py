"""When a claim is judged: by a sequence of interim analyses ("looks") without a fixed end, or by a single one.

The study's verdicts rest on seeds from `FIRST_SEED` on: seeds 1 to 5 were its pilot, from which rules, measures and
clips were chosen. Look k is taken at the first n_k = 6, 12, 24, 48, ... of these seeds for which every run that a claim
compares is there, and may spend the share w_k = .40, .25, .15, .10, .05, .025, ... (halved from there on; sum 1) of the
significance a:

    p = min over looks so far of p_k / w_k          P(p <= a at any look, ever) <= a if the statement is false

by the union bound, so that no assumption on the joint distribution of the looks is needed (alpha spending without an
end; Lan and DeMets 1983). The interval is the intersection of the looks' own at the levels a w_k.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from reproduction.settings.configuration import Configuration, ConfigurationError

FULL_STUDY = "full"
FIRST_SEED = 6
FIRST_LOOK = 6
WEIGHTS = (0.40, 0.25, 0.15, 0.10, 0.05)

SEQUENTIAL, SINGLE, PILOT = "sequential", "single look", "pilot"


@dataclass(frozen=True)
class Design:
    """kind: "sequential"; "single look", at all seeds of the runs; or "pilot", the same of the study's first seeds."""

    kind: str

    def looks(self, num_seeds: int) -> list[tuple[int, float]]:
        """(seeds, share of the significance) of the looks that this many complete seeds allow."""
        if self.kind != SEQUENTIAL:
            return [(num_seeds, 1.0)] if num_seeds else []
        found = []
        for size, weight in schedule():
            if size > num_seeds:
                return found
            found.append((size, weight))
        return found


def schedule() -> Iterator[tuple[int, float]]:
    """(seeds, share of the significance) of all looks, without an end."""
    size, number, weight = FIRST_LOOK, 0, WEIGHTS[0]
    while True:
        yield size, weight
        size, number = 2 * size, number + 1
        weight = WEIGHTS[number] if number < len(WEIGHTS) else weight / 2


def next_look(num_seeds: int) -> int:
    """The seeds of the first look that this many complete seeds do not allow yet."""
    return next(size for size, _ in schedule() if size > num_seeds)


def design_of(configuration: Configuration) -> Design:
    """The design by which a configuration's runs are judged; ConfigurationError if pilot and later seeds are mixed."""
    if configuration.study != FULL_STUDY:
        return Design(SINGLE)
    seeds = configuration.seeds
    early = [seed for seed in seeds if seed < FIRST_SEED]
    if not early:
        return Design(SEQUENTIAL)
    if len(early) == len(seeds):
        return Design(PILOT)
    raise ConfigurationError(
        f"seeds {', '.join(map(str, early))} are the pilot's, from which rules and clips were chosen, and cannot be "
        f"judged together with later ones; verdicts rest on seeds from {FIRST_SEED} on: leave the others out"
    )
