"""The noise that is known to be in a seed's value of a comparison, below which no standard deviation is taken.

Two runs that differ in nothing differ by the sampling of their evaluations; that is always known. With fewer than six
seeds, as in a single look at a small scale, a small deviation is more likely luck than quiet runs: then the deviations
of the first study are known as well, pooled over all pairs of its stable methods (28 or 16 degrees of freedom).
"""

import math
from collections.abc import Sequence

from reproduction.claims.design import FIRST_LOOK
from reproduction.claims.one_run import Run
from reproduction.claims.resolve import Resolved
from reproduction.claims.runs import Study

PILOT_DEVIATIONS = {
    "accuracy.easy": (0.038, 0.050, 0.048, 0.110),
    "accuracy.normal": (0.064, 0.075, 0.088, 0.160),
    "accuracy.hard": (0.100, 0.073, 0.087, 0.117),
    "reward_late": (0.057, 0.064, 0.087, 0.149),
    "reward_half": (0.043, 0.048, 0.056, 0.107),
    "reward_area": (0.032, 0.037, 0.047, 0.072),
}
"""Standard deviation over seeds of the difference of two methods in the first study: kpo, krpo, two steps of stress."""
# The mean of several checkpoints varies less: by a fifth of the variance on seeds 101 to 105 (docs/verdicts.md).
_LATE = 0.9
BOUNDARY_DEVIATIONS = {"drift_gain_raw": 0.0057, "drift_gain_shuffled": 0.0034}
"""Standard deviation over the first study's seeds of a gain in likelihood, used at any number of seeds: its smallest
value, 0, is a common one (the most likely Q is 0), so that all seeds can agree exactly."""
_STRESS = {"kpo-stress-2": 2, "kpo-clips": 2, "kpo-q": 2, "kpo-stress-3": 3, "kpo-stress-4": 3}


def floor(study: Study, part: Resolved, seeds: Sequence[int]) -> float:
    """The standard deviation that known noise gives a seed's value of a comparison."""
    variance = 0.0
    for weight, measure, cells in part.terms:
        for cell in cells:
            own = sum(sampling_variance(study.runs[cell][seed], measure) for seed in seeds) / max(1, len(seeds))
            if len(seeds) < FIRST_LOOK:
                own = max(own, pilot_deviation(measure, cell[0]) ** 2 / 2)
            variance += weight**2 * own / len(cells) ** 2
    return math.sqrt(variance)


def sampling_variance(run: Run, measure: str) -> float:
    """The variance of an accuracy over the sampling of its answers, or of a gain at its boundary; 0 for other measures.

    With c of k answers right, c (k - c) / (k^2 (k - 1)) estimates a problem's share without bias; of problems that are
    answered once only the sum of both, the draw of the problem and that of the answer, is known: p (1 - p).
    """
    kind, _, split = measure.partition(".")
    if kind == "late_accuracy" and split in run.late:
        right, answers = run.late[split]
        return right * (answers - right) / answers**3
    if kind == "accuracy" and split in run.correct:
        counts, k = run.correct[split], run.samples[split]
        if k < 2:
            return 0.0
        return sum(c * (k - c) for c in counts) / (k * k * (k - 1)) / len(counts) ** 2
    return BOUNDARY_DEVIATIONS.get(measure, 0.0) ** 2


def pilot_deviation(measure: str, experiment: str) -> float:
    """The first study's standard deviation of a difference of two methods; 0 for measures that it does not give."""
    late = measure.startswith("late_")
    found = PILOT_DEVIATIONS.get(measure.removeprefix("late_") if late else measure)
    if found is None:
        return 0.0
    column = _STRESS.get(experiment, 1 if experiment.startswith("krpo") else 0)
    return found[column] * (_LATE if late else 1.0)
