"""KPO's claims about training (arXiv 2602.10609): stability under off-policy updates, accuracy, amount of smoothing.

What counts, 2 points of accuracy or reward, is less than one of AIME's thirty problems (3.3 points). The clips of the
tuned comparisons are those with the highest late reward on seeds 1-3 of the first study, the pilot; they are compared
on later seeds. docs/verdicts.md has the history of every rule.
"""

from reproduction.claims.declare import (
    ABOVE,
    AT_MOST,
    CONVENTION,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Evidence,
    Rule,
    Side,
    along,
    cell,
    difference,
    minus,
)
from reproduction.claims.measures import BENCHMARKS
from reproduction.claims.paper_tables import kpo_gains

PAPER = "arXiv 2602.10609 (KPO)"
LADDER = ("kpo", "kpo-stress-2", "kpo-stress-3")
"""The same methods under growing stress; the first is the paper's own number of updates per rollout batch."""
COLLAPSES = "kpo-stress-4"
"""The step of stress on which GRPO itself collapses, chosen on seed 0; a mean over milder steps would dilute it."""

ACCURACY = "late_accuracy.normal"
REWARD = "reward_half"
STAND_INS: dict[str, str | tuple[str, ...]] = {
    # Scales with Hugging Face models are evaluated on the paper's benchmarks, and only at the end of training.
    ACCURACY: ("accuracy.normal", BENCHMARKS),
    # Runs of the first study were measured so.
    REWARD: "reward_late",
    COLLAPSES: "kpo-stress-3",
}
NO_RATE = "the paper gives no rate: 20 points by convention, since 5 would take 85 seeds without a collapse"
ACCURACY_IS = "accuracy on fresh normal problems, mean over the last third of training"
REWARD_IS = "reward over the second half of training"

EMA_SCORES = Evidence(
    "KPO clipped and a moving average of its scheduled gain both 12.29% on AIME'24, the average 1.45 points above on "
    "MATH-500; one run each",
    "abstract of the follow-up EMA-KPO",
    VERIFIED,
)
EMA_ENTROPY = Evidence(
    "GRPO shows entropy collapse; one run", "abstract of the follow-up EMA-KPO", VERIFIED
)  # fmt: skip
FIXED_GAINS = Evidence(
    "a fixed gain ten times larger loses 1 to 3 points, one ten times smaller collapses; one run each",
    "a review of the follow-up EMA-KPO",
    SECOND_HAND,
)
SATURATION = Evidence(
    "Q/V = 1e-2 trains worse than 1e-6 over 16 steps; clipping its innovations recovers 6.6% of the gap; one run each",
    "the follow-up on innovation saturation",
    SECOND_HAND,
)


def _control(name: str, question: str, effect: Comparison, control: Comparison) -> Control:
    return Control(name, question, control, minus(effect, control))


def _instead_of_filter(effect: Comparison, ema: Comparison, unit: Comparison) -> tuple[Control, ...]:
    """What a constant-gain average, and no ratio at all, give in the place of KPO's filter."""
    return (
        _control("kpo-ema", "Does a constant-gain moving average do as well?", effect, ema),
        _control("kpo-unit", "Does no importance ratio at all do as well?", effect, unit),
    )


def _above(measure: str, baseline: Side, method: Side, ema: Side, unit: Side) -> dict:
    """`method` minus `baseline`, with what the two controls give in the place of the method."""
    effect = difference(measure, method, baseline)
    controls = _instead_of_filter(effect, difference(measure, ema, baseline), difference(measure, unit, baseline))
    return {"effect": effect, "controls": controls}


def _below(measure: str, baseline: Side, method: Side, ema: Side, unit: Side) -> dict:
    """`baseline` minus `method`, with what the two controls give in the place of the method."""
    effect = difference(measure, baseline, method)
    controls = _instead_of_filter(effect, difference(measure, baseline, ema), difference(measure, baseline, unit))
    return {"effect": effect, "controls": controls}


_ON_LADDER = {
    "baseline": along(LADDER, "grpo"),
    "method": along(LADDER, "kpo-clipped"),
    "ema": along(LADDER, "kpo-ema"),
    "unit": along(LADDER, "kpo-unit"),
}
_ON_TOP = {
    "baseline": cell(COLLAPSES, "grpo"),
    "method": cell(COLLAPSES, "kpo-clipped"),
    "ema": cell(COLLAPSES, "kpo-ema"),
    "unit": cell(COLLAPSES, "kpo-unit"),
}
_AT_STATED_CLIPS = {"ema": cell("kpo", "kpo-ema"), "unit": cell("kpo", "kpo-unit")}
_AT_BEST_CLIPS = {
    "method": cell("kpo-clips", "kpo-wide"),
    "ema": cell("kpo-clips", "kpo-ema-wide"),
    "unit": cell("kpo-stress-2", "kpo-unit"),
}

STABILITY = (
    Claim(
        id="kpo-3-reward",
        paper=PAPER,
        section="training curves",
        statement="Under off-policy updates KPO ends with a higher training reward than GRPO.",
        paper_says="higher, steadier reward curves; GRPO's reward crashes",
        certainty=SECOND_HAND,
        effect_is=f"{REWARD_IS}, KPO minus GRPO, averaged along the stress ladder",
        **_above(REWARD, **_ON_LADDER),
        rule=Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION),
        family="kpo-stability",
        stand_ins={REWARD: "reward_late"},
    ),
    Claim(
        id="kpo-3-collapse",
        paper=PAPER,
        section="training curves",
        statement="Under off-policy updates fewer KPO runs than GRPO runs collapse.",
        paper_says="GRPO collapses; no rate over seeds, one run each",
        certainty=SECOND_HAND,
        effect_is="share of collapsed runs under the strongest stress, GRPO minus KPO",
        **_below("collapse", **_ON_TOP),
        rule=Rule(ABOVE, 0.1, paper=0.2, paper_from=NO_RATE),
        family="kpo-stability",
        stand_ins=STAND_INS,
    ),
    Claim(
        id="kpo-3-entropy",
        paper=PAPER,
        section="training curves",
        statement="GRPO's entropy falls further than KPO's.",
        paper_says="GRPO's entropy collapses; no value",
        certainty=SECOND_HAND,
        effect_is="logarithm of the fall of the entropy over training, GRPO minus KPO, averaged along the stress "
        "ladder",
        **_below("entropy_fall", **_ON_LADDER),
        rule=Rule(ABOVE, 0.05, paper=0.05, paper_from=CONVENTION),
        family="kpo-stability",
        elsewhere=(EMA_ENTROPY,),
    ),
    Claim(
        id="kpo-3-gradient",
        paper=PAPER,
        section="training curves",
        statement="KPO removes spikes, so that its gradient norm jumps less often than GRPO's.",
        paper_says="spikes removed, more stable training",
        certainty=VERIFIED,
        effect_is="share of updates whose gradient norm is above three times the run's median, GRPO minus KPO, "
        "averaged "
        "along the stress ladder",
        **_below("gradient_spikes", **_ON_LADDER),
        rule=Rule(ABOVE, 0.01, paper=0.05, paper_from=CONVENTION),
        family="kpo-stability",
    ),
    Claim(
        id="kpo-3-unclipped",
        paper=PAPER,
        section="training curves",
        statement="Filtering is enough by itself: KPO without a clip collapses no more often than clipped GRPO.",
        paper_says="unclipped KPO (Q = 1e-4) trains; collapse not discussed",
        certainty=SECOND_HAND,
        effect_is="share of collapsed runs on the ladder's last step, on which GRPO did not collapse in the pilot, "
        "KPO-unclipped minus GRPO",
        effect=difference("collapse", cell(LADDER[-1], "kpo-unclipped"), cell(LADDER[-1], "grpo")),
        rule=Rule(AT_MOST, 0.1),
        family="kpo-stability",
        controls=(
            Control(
                "kpo-unit",
                "Does training without any ratio, hence without any clip, collapse no more often either?",
                difference("collapse", cell(LADDER[-1], "kpo-unit"), cell(LADDER[-1], "grpo")),
            ),
        ),
        stand_ins={LADDER[-1]: "kpo"},
    ),
)


def _table_1(baseline: str) -> Rule:
    """2 points count; the paper's size is its mean gain in avg@16 over the benchmarks of Table 1 that were found."""
    gains = kpo_gains("kpo-clipped", baseline)
    mean = sum(gains.values()) / len(gains)
    source = f"mean of Table 1's gains on {', '.join(gains)} (second-hand)"
    return Rule(ABOVE, 0.02, paper=round(mean / 100, 4), paper_from=source)


ACCURACIES = (
    Claim(
        id="kpo-4-over-grpo",
        paper=PAPER,
        section="Table 1",
        statement="KPO (clipped) scores above GRPO on held-out problems.",
        paper_says="AIME'24 avg@16 37.91 against 27.29, AIME'25 36.87 against 23.12, MATH-500 89.42 against 85.66; on "
        "Minerva below (38.23 against 38.67)",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, KPO-clipped minus GRPO, each at its stated clip",
        **_above(ACCURACY, cell("kpo", "grpo"), cell("kpo", "kpo-clipped"), **_AT_STATED_CLIPS),
        rule=_table_1("grpo"),
        family="kpo-accuracy",
        elsewhere=(EMA_SCORES,),
        stand_ins=STAND_INS,
    ),
    Claim(
        id="kpo-4-over-gspo",
        paper=PAPER,
        section="Table 1",
        statement="KPO (clipped) scores above GSPO on held-out problems.",
        paper_says="AIME'24 avg@16 37.91 against 32.70, AIME'25 36.87 against 29.16, MATH-500 89.42 against 87.41",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, KPO-clipped minus GSPO, each at its stated clip",
        **_above(ACCURACY, cell("kpo", "gspo"), cell("kpo", "kpo-clipped"), **_AT_STATED_CLIPS),
        rule=_table_1("gspo"),
        family="kpo-accuracy",
        elsewhere=(EMA_SCORES,),
        stand_ins=STAND_INS,
    ),
    Claim(
        id="kpo-4-over-gmpo",
        paper=PAPER,
        section="Table 1",
        statement="KPO (clipped) scores above GMPO on held-out problems.",
        paper_says="AIME'24 avg@16 37.91 against 30.83; on Minerva below (38.23 against 38.48)",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, KPO-clipped minus GMPO, each at its stated clip",
        **_above(ACCURACY, cell("kpo", "gmpo"), cell("kpo", "kpo-clipped"), **_AT_STATED_CLIPS),
        rule=_table_1("gmpo"),
        family="kpo-accuracy",
        elsewhere=(EMA_SCORES,),
        stand_ins=STAND_INS,
    ),
    Claim(
        id="kpo-4-unclipped",
        paper=PAPER,
        section="Table 1",
        statement="KPO without a clip also scores above GRPO.",
        paper_says="Minerva avg@16 39.15 against 38.67; other columns not found",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, KPO-unclipped minus GRPO",
        **_above(ACCURACY, cell("kpo", "grpo"), cell("kpo", "kpo-unclipped"), **_AT_STATED_CLIPS),
        rule=Rule(
            ABOVE,
            0.02,
            paper=0.05,
            paper_from="5 points by convention; the only value found, 0.48 points on Minerva, is less than what counts",
        ),
        family="kpo-accuracy",
        stand_ins=STAND_INS,
    ),
    Claim(
        id="kpo-4-tuned-over-grpo",
        paper=PAPER,
        section="Table 1",
        statement="KPO scores above GRPO under off-policy stress if each method has the best of three clips.",
        paper_says="clips 3e-4/4e-4 (KPO), 0.2 (GRPO); how they were chosen is not said",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, under stress, KPO at clip 0.02 minus GRPO at clip 0.8, the best of three on the "
        "pilot",
        **_above(ACCURACY, cell("kpo-clips", "grpo-wide"), **_AT_BEST_CLIPS),
        rule=Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION),
        family="kpo-accuracy",
        stand_ins={ACCURACY: "accuracy.normal"},
    ),
    Claim(
        id="kpo-4-tuned-over-gspo",
        paper=PAPER,
        section="Table 1",
        statement="KPO scores above GSPO under off-policy stress if each method has the best of three clips.",
        paper_says="clips 3e-4/4e-4 (both); how they were chosen is not said",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, under stress, KPO at clip 0.02 minus GSPO at clip 0.005, the best of three on the "
        "pilot",
        **_above(ACCURACY, cell("kpo-stress-2", "gspo"), **_AT_BEST_CLIPS),
        rule=Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION),
        family="kpo-accuracy",
        stand_ins={ACCURACY: "accuracy.normal"},
    ),
    Claim(
        id="kpo-4-tuned-over-gmpo",
        paper=PAPER,
        section="Table 1",
        statement="KPO scores above GMPO under off-policy stress if each method has the best of three clips.",
        paper_says="clips 3e-4/4e-4 (KPO), 0.4 (GMPO); how they were chosen is not said",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, under stress, KPO at clip 0.02 minus GMPO at clip 0.1, the best of three on the "
        "pilot",
        **_above(ACCURACY, cell("kpo-clips", "gmpo-narrow"), **_AT_BEST_CLIPS),
        rule=Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION),
        family="kpo-accuracy",
        stand_ins={ACCURACY: "accuracy.normal"},
    ),
)

_WEAKER = difference(REWARD, cell("kpo-stress-2", "kpo-clipped"), cell("kpo-q", "kpo-weakest"))
SMOOTHING = (
    Claim(
        id="kpo-5-smoothing",
        paper=PAPER,
        section="Figure 4",
        statement="Weaker smoothing (larger Q/V) lowers the training reward.",
        paper_says="reward falls as Q/V grows; Q/V = 1e-2 is clearly degraded against 1e-6; grid not found",
        certainty=SECOND_HAND,
        effect_is=f"{REWARD_IS}, filter as stated minus Q/V 10,000 times larger, under stress",
        effect=_WEAKER,
        rule=Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION),
        family="kpo-smoothing",
        controls=(
            _control(
                "grpo at clip 0.2",
                "Is it only the clip, too narrow for an unsmoothed ratio? GRPO is that with a fitting clip.",
                _WEAKER,
                difference(REWARD, cell("kpo-stress-2", "grpo"), cell("kpo-q", "kpo-weakest")),
            ),
        ),
        elsewhere=(SATURATION, FIXED_GAINS),
        stand_ins={
            REWARD: "reward_late",
            "kpo-stress-2/kpo-clipped": "kpo/kpo-clipped",
            "kpo-stress-2/grpo": "kpo/grpo",
            "kpo-q/kpo-weakest": "kpo-q/kpo-q1e-2",
        },
    ),
)


KPO_TRAINING_CLAIMS = (*STABILITY, *ACCURACIES, *SMOOTHING)
