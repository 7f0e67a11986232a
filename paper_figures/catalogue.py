"""Which figures there are, what each reads, where it can be drawn, and which claims it shows.

Nothing here imports matplotlib or torch, so that a workflow can ask before it starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OWN = ("kpo", "krpo")
"""The experiments of a scale itself; a study adds more, which have figures of their own."""

NOISES = ("krpo-noise-gaussian", "krpo-noise-flips", "krpo-noise-drift")
STUDY = (
    "kpo-stress-2", "kpo-stress-3", "kpo-stress-4", "kpo-clips", "kpo-q", "krpo-group4", "krpo-order", "krpo-qr",
    "krpo-kl", *NOISES,
)  # fmt: skip
"""The experiments that only the study of every claim has."""

METRICS, EVALUATION, STRUCTURE = "metrics.jsonl", "evaluation.json", "structure.safetensors"
SUMMARY, MEASURES, CLAIMS = "summary.json", "measures.json", "claims.json"
RELATED = "related_methods.json"

Needs = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Entry:
    """One figure. `files`: the files it reads, those of runs by their name in a run's folder, and of which `runs`
    (experiment to methods; no methods means all). `needs`: experiments and methods that must be configured; with
    several, one of them suffices. `claims`: ids of the claims that it shows.
    """

    name: str
    files: tuple[str, ...]
    needs: tuple[Needs, ...]
    claims: tuple[str, ...] = ()
    runs: Needs | None = None


def _ids(start: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{start}-{name}" for name in names)


_KPO_ORDER = (*_ids("kpo-1", "switching", "runs"), *_ids("kpo-2", "switching", "level", "runs", "energy"))
_KPO_STABLE = _ids("kpo-3", "reward", "collapse", "entropy", "gradient", "unclipped")
_KPO_STATED = _ids("kpo-4", "over-grpo", "over-gspo", "over-gmpo", "unclipped")
_KPO_TUNED = _ids("kpo-4", "tuned-over-grpo", "tuned-over-gspo", "tuned-over-gmpo")
_KRPO_LEVELS = _ids("krpo-1", "easy", "normal", "hard")
_KRPO_SETTINGS = (*_ids("krpo-3", "reward", "collapse", "safe", "q"), *_ids("krpo-4-over", "none", "large"))
_KRPO_ORDERS = _ids("krpo-5", "random", "sorted", "reversed", "advantages")
_KRPO_PARTS = _ids("krpo-6", "mean", "scale")
_KRPO_NOISE = (*_ids("krpo-8", "gaussian", "flips", "drift"), *_ids("krpo-9-adaptive", "gaussian", "drift"))

_ALL_KPO = (
    *_KPO_ORDER, *_KPO_STABLE, *_KPO_STATED, *_KPO_TUNED, "kpo-5-smoothing", "kpo-6-schedule", "kpo-7-overhead",
    "kpo-8-premise",
)  # fmt: skip
_ALL_KRPO = (
    *_KRPO_LEVELS, "krpo-1-speed", "krpo-2-groups", *_KRPO_SETTINGS, *_KRPO_ORDERS, *_KRPO_PARTS, "krpo-7-overhead",
    *_KRPO_NOISE,
)  # fmt: skip

_ANY_OWN: tuple[Needs, ...] = tuple({name: ()} for name in OWN)
_ALL_OWN = {name: () for name in OWN}
_GRPO = {"kpo": ("grpo",)}

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("verdicts_kpo", (CLAIMS,), _ANY_OWN, _ALL_KPO),
        Entry("verdicts_krpo", (CLAIMS,), _ANY_OWN, _ALL_KRPO),
        Entry("looks", (CLAIMS,), tuple({name: ()} for name in STUDY), (*_ALL_KPO, *_ALL_KRPO)),
        Entry("training_curves", (METRICS,), _ANY_OWN, ("kpo-3-reward", "krpo-1-speed"), _ALL_OWN),
        Entry("entropy_gradient_norm", (METRICS,), ({"kpo": ()},), _ids("kpo-3", "entropy", "gradient"), {"kpo": ()}),
        Entry("final_accuracy", (EVALUATION, SUMMARY), _ANY_OWN, (*_KPO_STATED, *_KRPO_LEVELS, *_KRPO_PARTS), _ALL_OWN),
        Entry("pass_at_k", (EVALUATION,), _ANY_OWN, (), _ALL_OWN),
        Entry("response_log_ratio", (STRUCTURE,), (_GRPO,), _ids("kpo-1", "switching", "runs"), _GRPO),
        Entry("structure", (STRUCTURE,), (_GRPO,), _KPO_ORDER, _GRPO),
        Entry("premise", (STRUCTURE,), (_GRPO,), ("kpo-8-premise",), _GRPO),
        Entry(
            "group_advantages", (STRUCTURE,), ({"krpo": ("grpo",)}, _GRPO), ("krpo-5-advantages",),
            {"krpo": ("grpo",), "kpo": ("grpo",)},
        ),
        Entry(
            "accuracy_gains", (CLAIMS,), ({"kpo": ("grpo", "kpo-clipped")}, {"krpo": ("grpo", "krpo")}),
            (*_KPO_STATED, *_KPO_TUNED, *_KRPO_LEVELS),
        ),
        Entry(
            "stress_ladder", (MEASURES, CLAIMS),
            ({"kpo": ("grpo", "kpo-clipped")}, {"kpo-stress-3": ("grpo",)}, {"kpo-stress-4": ("grpo",)}),
            _KPO_STABLE,
        ),
        Entry(
            "stress_curves", (METRICS, CLAIMS),
            tuple({f"kpo-stress-{step}": ("grpo", "kpo-clipped")} for step in (2, 3, 4)),
            _ids("kpo-3", "reward", "collapse", "unclipped"),
            {name: () for name in ("kpo", "kpo-stress-2", "kpo-stress-3", "kpo-stress-4")},
        ),
        Entry(
            "smoothing", (MEASURES, CLAIMS), ({"kpo-q": ("kpo-weakest",), "kpo-stress-2": ("kpo-clipped",)},),
            ("kpo-5-smoothing",),
        ),
        Entry("gain_schedule", (MEASURES, CLAIMS), ({"kpo": ("kpo-clipped",)},), ("kpo-6-schedule",)),
        Entry(
            "overhead", (MEASURES, CLAIMS), ({"kpo": ("grpo", "kpo-clipped")}, {"krpo": ("grpo", "krpo")}),
            ("kpo-7-overhead", "krpo-7-overhead"),
        ),
        Entry(
            "krpo_group_size", (MEASURES, CLAIMS), ({"krpo": ("grpo", "krpo"), "krpo-group4": ("grpo", "krpo")},),
            ("krpo-2-groups",),
        ),
        Entry(
            "krpo_sensitivity", (MEASURES, CLAIMS),
            ({"krpo": ("krpo",), "krpo-qr": ()}, {"krpo": ("krpo",), "krpo-kl": ()}), _KRPO_SETTINGS,
        ),
        Entry("krpo_order", (MEASURES, CLAIMS), ({"krpo": ("krpo",), "krpo-order": ()},), _KRPO_ORDERS),
        Entry(
            "krpo_parts", (MEASURES, CLAIMS), ({"krpo": ("grpo", "krpo")},),
            (*_KRPO_LEVELS, "krpo-1-speed", *_KRPO_PARTS),
        ),
        Entry("noisy_rewards", (MEASURES, CLAIMS), tuple({name: ("grpo", "krpo")} for name in NOISES), _KRPO_NOISE),
        Entry("related_methods", (RELATED,), ({"related": ("grpo",)},)),
    )
}  # fmt: skip

FIGURES = tuple(ENTRIES)
"""The names of all figures, in the order in which a reader should meet them."""


def claims_text(name: str) -> str:
    """A sentence for the captions of figures that show runs, not verdicts: the claims that they are about."""
    return f"Claims: {', '.join(ENTRIES[name].claims)}."


def missing_for(name: str, experiments: Mapping[str, Mapping | None]) -> str:
    """What a configuration lacks for a figure, in words, or "" if it can be drawn.

    experiments: experiment name to its methods, by their labels.
    """
    lacks = []
    for needs in ENTRIES[name].needs:
        lack = [f"experiment {experiment!r}" for experiment in needs if experiment not in experiments]
        for experiment, methods in needs.items():
            found = experiments.get(experiment) or ()
            if experiment in experiments:
                lack += [f"method {name!r} of experiment {experiment!r}" for name in methods if name not in found]
        if not lack:
            return ""
        lacks.append(" and ".join(lack))
    return ", or ".join(lacks)


def figures_for(experiments: Mapping[str, Mapping | None]) -> list[str]:
    """Names of the figures that can be drawn with these experiments (name to methods), in order."""
    return [name for name in FIGURES if not missing_for(name, experiments)]
