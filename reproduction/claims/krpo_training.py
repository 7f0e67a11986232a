"""KRPO's claims about training (arXiv 2505.07527): accuracy and speed, its parts, overhead, and its open questions.

The paper's differences on arithmetic are 2.3 to 5.4 points; 2 points count. docs/verdicts.md has the history of every
rule.
"""

from reproduction.claims.declare import (
    ABOVE,
    AT_MOST,
    CONVENTION,
    NOT_FOUND,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Evidence,
    Rule,
    between_measures,
    cell,
    difference,
    minus,
)
from reproduction.claims.paper_tables import KRPO_ARITHMETIC

PAPER = "arXiv 2505.07527 (KRPO)"
ACCURACY = "late_accuracy.normal"
ON_NORMAL = {"krpo": "krpo-normal", ACCURACY: "accuracy.normal"}
"""The paper's scale trains on each level apart; what is not about another level is compared on normal arithmetic.
Scales with Hugging Face models, and the first study, are evaluated only at the end of training."""
TWO_POINTS = Rule(ABOVE, 0.02, paper=0.05, paper_from=CONVENTION)
NOISY_MOTIVE = "noisy rewards are the motive of v2's abstract; no experiment found"
ACCURACY_IS = "accuracy on fresh normal problems, mean over the last third of training"

ONE_SEED = Evidence("one seed suspected; p-values without the name of a test", "ICLR 2026 reviews 2 and 3", VERIFIED)
GROUPS_ASKED = Evidence("a study of group sizes was asked for; no result", "ICLR 2026 reviews", VERIFIED)
PARTS_ASKED = Evidence(
    "the parts apart were asked for; no result", "ICLR 2026 reviews and a public analysis of version 3", SECOND_HAND
)


def _over_grpo(measure: str, experiment: str, label: str = "krpo") -> Comparison:
    return difference(measure, cell(experiment, label), cell(experiment, "grpo"))


def _krpo_over_grpo(measure: str, experiment: str, label: str = "krpo") -> dict:
    """`label` minus GRPO, and as control GRPO with advantages rescaled to KRPO's size minus GRPO."""
    effect = _over_grpo(measure, experiment, label)
    return {"effect": effect, "controls": _larger_step(effect, _over_grpo(measure, experiment, "grpo-rescaled"))}


def _larger_step(effect: Comparison, control: Comparison) -> tuple[Control, ...]:
    question = "Does GRPO with advantages as large as KRPO's do as well?"
    return (Control("grpo-rescaled", question, control, minus(effect, control)),)


def _gain(level: str) -> Rule:
    """2 points count; the paper's size is its own gain on the level."""
    return Rule(ABOVE, 0.02, paper=KRPO_ARITHMETIC[level].points / 100, paper_from="the paper's gain (second-hand)")


ACCURACIES = (
    Claim(
        id="krpo-1-easy",
        paper=PAPER,
        section="results on Arithmetic",
        statement="KRPO scores above GRPO on easy arithmetic.",
        paper_says="+5.1 points",
        certainty=SECOND_HAND,
        effect_is="accuracy on fresh easy problems, mean over the last third of training, krpo minus GRPO",
        **_krpo_over_grpo("late_accuracy.easy", "krpo"),
        rule=_gain("easy"),
        family="krpo-accuracy",
        elsewhere=(ONE_SEED,),
        stand_ins={"krpo": "krpo-easy", "late_accuracy.easy": "accuracy.easy"},
    ),
    Claim(
        id="krpo-1-normal",
        paper=PAPER,
        section="results on Arithmetic",
        statement="KRPO scores above GRPO on normal arithmetic.",
        paper_says="+5.4 points",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, krpo minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo"),
        rule=_gain("normal"),
        family="krpo-accuracy",
        elsewhere=(ONE_SEED,),
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-1-hard",
        paper=PAPER,
        section="results on Arithmetic",
        statement="KRPO scores above GRPO on hard arithmetic.",
        paper_says="+2.3 points",
        certainty=SECOND_HAND,
        effect_is="accuracy on fresh hard problems, mean over the last third of training, krpo minus GRPO",
        **_krpo_over_grpo("late_accuracy.hard", "krpo"),
        rule=_gain("hard"),
        family="krpo-accuracy",
        elsewhere=(ONE_SEED,),
        stand_ins={"krpo": "krpo-hard", "late_accuracy.hard": "accuracy.hard"},
    ),
    Claim(
        id="krpo-1-speed",
        paper=PAPER,
        section="training curves",
        statement="KRPO learns faster than GRPO.",
        paper_says="reward curves consistently above GRPO's",
        certainty=VERIFIED,
        effect_is="mean reward over the whole of training, krpo minus GRPO",
        **_krpo_over_grpo("reward_area", "krpo"),
        rule=TWO_POINTS,
        family="krpo-accuracy",
        stand_ins={"krpo": "krpo-normal"},
    ),
)

_IN_SMALL_GROUPS = minus(_over_grpo(ACCURACY, "krpo-group4"), _over_grpo(ACCURACY, "krpo"))
_RESCALED_IN_SMALL_GROUPS = minus(
    _over_grpo(ACCURACY, "krpo-group4", "grpo-rescaled"), _over_grpo(ACCURACY, "krpo", "grpo-rescaled")
)
GROUPS = (
    Claim(
        id="krpo-2-groups",
        paper=PAPER,
        section="Figure 7a",
        statement="The gap over GRPO widens in smaller groups.",
        paper_says="wider gap in smaller groups; values not found",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}: KRPO minus GRPO with groups of 4, minus the same with groups of 12",
        effect=_IN_SMALL_GROUPS,
        rule=TWO_POINTS,
        family="krpo-accuracy",
        controls=_larger_step(_IN_SMALL_GROUPS, _RESCALED_IN_SMALL_GROUPS),
        elsewhere=(GROUPS_ASKED,),
        stand_ins=ON_NORMAL,
    ),
)

PARTS = (
    Claim(
        id="krpo-6-mean",
        paper=PAPER,
        section="method",
        statement="The Kalman baseline with the group's standard deviation, without the Kalman scale, is better than "
        "GRPO.",
        paper_says="both parts are credited; no ablation of the parts found",
        certainty=NOT_FOUND,
        effect_is=f"{ACCURACY_IS}, krpo-mean minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo", "krpo-mean"),
        rule=TWO_POINTS,
        family="krpo-parts",
        elsewhere=(PARTS_ASKED,),
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-6-scale",
        paper=PAPER,
        section="method",
        statement="The Kalman scale around the group's mean, without the Kalman baseline, is better than GRPO.",
        paper_says="both parts are credited; no ablation of the parts found",
        certainty=NOT_FOUND,
        effect_is=f"{ACCURACY_IS}, krpo-scale minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo", "krpo-scale"),
        rule=TWO_POINTS,
        family="krpo-parts",
        elsewhere=(PARTS_ASKED,),
        stand_ins=ON_NORMAL,
    ),
)

OVERHEAD = (
    Claim(
        id="krpo-7-overhead",
        paper=PAPER,
        section="abstract",
        statement="The filter over a group's rewards costs negligible time.",
        paper_says="negligible overhead; no figures",
        certainty=VERIFIED,
        effect_is="logarithm of a rollout batch's whole time relative to the same run's own sampling, KRPO minus GRPO "
        "(0.05 is 5% more)",
        effect=minus(
            between_measures("log_token_seconds", "log_sampling_seconds", cell("krpo", "krpo")),
            between_measures("log_token_seconds", "log_sampling_seconds", cell("krpo", "grpo")),
        ),
        rule=Rule(AT_MOST, 0.05),
        family="krpo-overhead",
        no_control_because="time is compared with GRPO's own on the same machine; nothing cheaper could explain it",
        stand_ins=ON_NORMAL,
    ),
)


def _adaptive_over_fixed(experiment: str) -> dict:
    """Adaptive minus fixed Q and R, and as control GRPO minus fixed Q and R."""
    effect = difference(ACCURACY, cell(experiment, "krpo-adaptive"), cell(experiment, "krpo"))
    control = difference(ACCURACY, cell(experiment, "grpo"), cell(experiment, "krpo"))
    question = "Does GRPO, which has nothing to tune, do as well?"
    return {"effect": effect, "controls": (Control("grpo", question, control, minus(effect, control)),)}


OPEN_QUESTIONS = (
    Claim(
        id="krpo-8-gaussian",
        paper=PAPER,
        section="open questions",
        statement="KRPO scores above GRPO when Gaussian noise makes the rewards noisy and continuous.",
        paper_says=NOISY_MOTIVE,
        certainty=VERIFIED,
        effect_is=f"{ACCURACY_IS}, krpo minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo-noise-gaussian"),
        rule=TWO_POINTS,
        family="krpo-noise",
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-8-flips",
        paper=PAPER,
        section="open questions",
        statement="KRPO scores above GRPO when some rewards are judged the wrong way round.",
        paper_says=NOISY_MOTIVE,
        certainty=VERIFIED,
        effect_is=f"{ACCURACY_IS}, krpo minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo-noise-flips"),
        rule=TWO_POINTS,
        family="krpo-noise",
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-8-drift",
        paper=PAPER,
        section="open questions",
        statement="KRPO scores above GRPO when the rewards shift during training.",
        paper_says="named an open question",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, krpo minus GRPO",
        **_krpo_over_grpo(ACCURACY, "krpo-noise-drift"),
        rule=TWO_POINTS,
        family="krpo-noise",
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-9-adaptive-gaussian",
        paper=PAPER,
        section="open questions",
        statement="Q and R estimated during training do better than the fixed ones under noisy rewards.",
        paper_says="named an open question",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, adaptive minus fixed Q and R",
        **_adaptive_over_fixed("krpo-noise-gaussian"),
        rule=TWO_POINTS,
        family="krpo-noise",
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-9-adaptive-drift",
        paper=PAPER,
        section="open questions",
        statement="Q and R estimated during training do better than the fixed ones under shifting rewards.",
        paper_says="named an open question",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, adaptive minus fixed Q and R",
        **_adaptive_over_fixed("krpo-noise-drift"),
        rule=TWO_POINTS,
        family="krpo-noise",
        stand_ins=ON_NORMAL,
    ),
)

KRPO_TRAINING_CLAIMS = (*ACCURACIES, *GROUPS, *PARTS, *OVERHEAD, *OPEN_QUESTIONS)
