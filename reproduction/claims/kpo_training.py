"""KPO's claims about training (arXiv 2602.10609): stability under off-policy updates, accuracy, amount of smoothing.

The margins were fixed before any run of the study: two points of accuracy or reward are less than one of AIME's thirty
problems (3.3 points) and about half of what the paper reports on MATH-500; a tenth of the runs is one of ten.

What the full study can say of collapses was reckoned before its results were seen. The exact test over seeds has no
two-sided p-value below 2 / 2^n: 0.25 with three seeds, 0.0625 with five. So five seeds show no difference in the rate
of collapse, whatever they give; six would, alone in a family, and eight among the five claims of `kpo-stability`. That
KPO without a clip collapses *no more often*, within a tenth, takes 42 seeds in which nothing collapses. These claims
are measured and stay open; the reward, which collapses pull down, carries the question.
"""

from reproduction.claims.declare import (
    ABOVE,
    AT_MOST,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Rule,
    Side,
    along,
    beats,
    best_of,
    cell,
    difference,
)
from reproduction.claims.measures import BENCHMARKS

PAPER = "arXiv 2602.10609 (KPO)"
LADDER = ("kpo", "kpo-stress-2", "kpo-stress-3")
"""The same methods under growing stress; the first is the paper's own number of updates per rollout batch."""

ACCURACY = "accuracy.normal"
ON_BENCHMARKS = {ACCURACY: BENCHMARKS}
"""Scales with models of the hub are evaluated on the paper's benchmarks."""


def _filter_control(name: str, question: str, effect: Comparison, control: Comparison) -> Control:
    return Control(name, question, control, beats(effect, control))


def _ratio_controls(measure: str, side: Side, baseline: Side, ema: Side, unit: Side, lower_is_better=False):
    """The claim's difference over a baseline, beside that of a constant-gain average and of no ratio at all."""

    def over_baseline(which: Side) -> Comparison:
        return difference(measure, baseline, which) if lower_is_better else difference(measure, which, baseline)

    effect = over_baseline(side)
    controls = (
        _filter_control("kpo-ema", "Does a constant-gain moving average do as well?", effect, over_baseline(ema)),
        _filter_control("kpo-unit", "Does no importance ratio at all do as well?", effect, over_baseline(unit)),
    )
    return effect, controls


def _stability_claims() -> list[Claim]:
    kpo, grpo = along(LADDER, "kpo-clipped"), along(LADDER, "grpo")
    ema, unit = along(LADDER, "kpo-ema"), along(LADDER, "kpo-unit")
    claims = []
    for name, measure, margin, lower_is_better, statement, says, certainty, effect_is in (
        (
            "reward",
            "reward_late",
            0.02,
            False,
            "Under off-policy updates KPO ends with a higher training reward than GRPO.",
            "higher, steadier reward curves; GRPO's reward crashes",
            SECOND_HAND,
            "reward over the last fifth of training, KPO minus GRPO, averaged along the stress ladder",
        ),
        (
            "collapse",
            "collapse",
            0.1,
            True,
            "Under off-policy updates fewer KPO runs than GRPO runs collapse.",
            "GRPO collapses; no rate over seeds, one run each",
            SECOND_HAND,
            "share of collapsed runs along the stress ladder, GRPO minus KPO",
        ),
        (
            "entropy",
            "entropy_drop",
            0.05,
            True,
            "GRPO's entropy falls further than KPO's.",
            "GRPO's entropy collapses; no value",
            SECOND_HAND,
            "relative fall of the entropy over training, GRPO minus KPO, averaged along the stress ladder",
        ),
        (
            "gradient",
            "gradient_spikes",
            0.01,
            True,
            "KPO removes spikes, so that its gradient norm jumps less often than GRPO's.",
            "spikes removed, more stable training",
            VERIFIED,
            "share of updates whose gradient norm is above three times the run's median, GRPO minus KPO, averaged",
        ),
    ):
        effect, controls = _ratio_controls(measure, kpo, grpo, ema, unit, lower_is_better)
        claims.append(
            Claim(
                f"kpo-3-{name}",
                PAPER,
                "training curves",
                statement,
                says,
                certainty,
                effect_is,
                effect,
                Rule(ABOVE, margin),
                "kpo-stability",
                controls,
            )  # fmt: skip
        )
    claims.append(
        Claim(
            "kpo-3-unclipped",
            PAPER,
            "training curves",
            "Filtering alone is enough: KPO without a clip collapses no more often than clipped GRPO.",
            "unclipped KPO (Q = 1e-4) trains; collapse not discussed",
            SECOND_HAND,
            "share of collapsed runs along the stress ladder, KPO-unclipped minus GRPO; five seeds can neither show it "
            "nor exclude it",
            difference("collapse", along(LADDER, "kpo-unclipped"), grpo),
            Rule(AT_MOST, 0.1),
            "kpo-stability",
            (
                Control(
                    "kpo-unit",
                    "Does training without any ratio, hence without any clip, collapse no more often either?",
                    difference("collapse", unit, grpo),
                ),
            ),
        )
    )
    return claims


_TABLE = {
    "grpo": "AIME'24 avg@16 37.91 against 27.29, MATH-500 89.42 against 85.66; on Minerva below (38.23 against 38.67)",
    "gspo": "AIME'24 avg@16 37.91 against 32.70, MATH-500 89.42 against 87.41",
    "gmpo": "AIME'24 avg@16 37.91 against 30.83; on Minerva below (38.23 against 38.48)",
}


def _accuracy_claims() -> list[Claim]:
    claims = []
    for baseline in ("grpo", "gspo", "gmpo"):
        name = baseline.upper()
        effect, controls = _ratio_controls(
            ACCURACY,
            cell("kpo", "kpo-clipped"),
            cell("kpo", baseline),
            cell("kpo", "kpo-ema"),
            cell("kpo", "kpo-unit"),
        )
        claims.append(
            Claim(
                f"kpo-4-over-{baseline}",
                PAPER,
                "Table 1",
                f"KPO (clipped) scores above {name} on held-out problems.",
                _TABLE[baseline],
                SECOND_HAND,
                f"held-out accuracy on the normal level, KPO-clipped minus {name}, each at its stated clip",
                effect,
                Rule(ABOVE, 0.02),
                "kpo-accuracy",
                controls,
                stand_ins=ON_BENCHMARKS,
            )
        )
    effect, controls = _ratio_controls(
        ACCURACY,
        cell("kpo", "kpo-unclipped"),
        cell("kpo", "grpo"),
        cell("kpo", "kpo-ema"),
        cell("kpo", "kpo-unit"),
    )
    claims.append(
        Claim(
            "kpo-4-unclipped",
            PAPER,
            "Table 1",
            "KPO without a clip also scores above GRPO.",
            "Minerva avg@16 39.15 against 38.67; other columns not found",
            SECOND_HAND,
            "held-out accuracy on the normal level, KPO-unclipped minus GRPO",
            effect,
            Rule(ABOVE, 0.02),
            "kpo-accuracy",
            controls,
            stand_ins=ON_BENCHMARKS,
        )
    )
    for baseline in ("grpo", "gspo", "gmpo"):
        name = baseline.upper()
        effect, controls = _ratio_controls(
            ACCURACY,
            _tuned("kpo-clipped", "kpo"),
            _tuned(baseline, baseline),
            _tuned("kpo-ema", "kpo-ema"),
            cell("kpo-stress-2", "kpo-unit"),
        )
        claims.append(
            Claim(
                f"kpo-4-tuned-over-{baseline}",
                PAPER,
                "Table 1",
                f"KPO scores above {name} under off-policy stress when each method has the best of three clips.",
                "clips 3e-4/4e-4 (KPO, GSPO), 0.2 (GRPO), 0.4 (GMPO); how they were chosen is not said",
                SECOND_HAND,
                f"held-out accuracy on the normal level under stress, KPO minus {name}, each at the clip with the "
                "highest late training reward on the seeds that all its clips have, which are those compared",
                effect,
                Rule(ABOVE, 0.02),
                "kpo-accuracy",
                controls,
            )
        )
    return claims


def _tuned(stated: str, stem: str) -> Side:
    """A method at the best of its stated clip, a quarter and four times it, chosen by training reward alone."""
    cells = (("kpo-stress-2", stated), ("kpo-clips", f"{stem}-narrow"), ("kpo-clips", f"{stem}-wide"))
    return best_of(cells, "reward_late")


def _smoothing_claims() -> list[Claim]:
    strong, weak = cell("kpo-stress-2", "kpo-clipped"), cell("kpo-q", "kpo-weakest")
    weaker = difference("reward_late", strong, weak)
    clipped_fitly = difference("reward_late", cell("kpo-stress-2", "grpo"), weak)
    return [
        Claim(
            "kpo-5-smoothing",
            PAPER,
            "Figure 4",
            "Weaker smoothing (larger Q/V) lowers the training reward.",
            "reward falls as Q/V grows; Q/V = 1e-2 is clearly degraded against 1e-6; grid not found",
            SECOND_HAND,
            "reward over the last fifth of training, filter as stated minus Q/V 10,000 times larger, under stress",
            weaker,
            Rule(ABOVE, 0.02),
            "kpo-smoothing",
            (
                _filter_control(
                    "grpo at clip 0.2",
                    "Is it only the clip, too narrow for an unsmoothed ratio? GRPO is that with a fitting clip.",
                    weaker,
                    clipped_fitly,
                ),
            ),
            stand_ins={
                "kpo-stress-2/kpo-clipped": "kpo/kpo-clipped",
                "kpo-stress-2/grpo": "kpo/grpo",
                "kpo-q/kpo-weakest": "kpo-q/kpo-q1e-2",
            },
        ),
    ]


KPO_TRAINING_CLAIMS = (*_stability_claims(), *_accuracy_claims(), *_smoothing_claims())
