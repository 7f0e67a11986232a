"""KRPO's claims about training (arXiv 2505.07527): accuracy and speed, its parts, overhead, and its open questions.

The margins were fixed before any run of the study. The paper's differences on arithmetic are 2.3 to 5.4 points.
"""

from reproduction.claims.declare import (
    ABOVE,
    AT_MOST,
    NOT_FOUND,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Rule,
    beats,
    cell,
    difference,
    minus,
)

PAPER = "arXiv 2505.07527 (KRPO)"
ACCURACY_RULE = Rule(ABOVE, 0.02)
ON_NORMAL = {"krpo": "krpo-normal"}
"""The paper's scale trains on each level apart; what is not about another level is compared on normal arithmetic."""
NOISY_MOTIVE = "noisy rewards are the motive of v2's abstract; no experiment found"
LARGER_STEP = "Does GRPO with advantages as large as KRPO's do as well?"


def _over_grpo(measure: str, experiment: str, label: str = "krpo") -> Comparison:
    return difference(measure, cell(experiment, label), cell(experiment, "grpo"))


def _step_control(effect: Comparison, control: Comparison) -> tuple[Control, ...]:
    return (Control("grpo-rescaled", LARGER_STEP, control, beats(effect, control)),)


def _claim_over_grpo(
    claim_id: str,
    section: str,
    statement: str,
    paper_says: str,
    certainty: str,
    measure: str,
    what: str,
    experiment: str,
    family: str,
    label: str = "krpo",
    level: str | None = None,
) -> Claim:
    """Effect: `label` minus GRPO; control: GRPO with advantages rescaled to KRPO's size minus GRPO."""
    effect = _over_grpo(measure, experiment, label)
    return Claim(
        claim_id, PAPER, section, statement, paper_says, certainty, f"{what}, {label} minus GRPO", effect,
        ACCURACY_RULE, family, _step_control(effect, _over_grpo(measure, experiment, "grpo-rescaled")),
        stand_ins=ON_NORMAL if level is None else {"krpo": f"krpo-{level}"},
    )  # fmt: skip


def _accuracy_claims() -> list[Claim]:
    claims = [
        _claim_over_grpo(
            f"krpo-1-{level}",
            "results on Arithmetic",
            f"KRPO scores above GRPO on {level} arithmetic.",
            f"+{gain} points",
            SECOND_HAND,
            f"accuracy.{level}",
            f"held-out accuracy on the {level} level",
            "krpo",
            "krpo-accuracy",
            level=level,
        )
        for level, gain in (("easy", 5.1), ("normal", 5.4), ("hard", 2.3))
    ]
    claims.append(
        _claim_over_grpo(
            "krpo-1-speed",
            "training curves",
            "KRPO learns faster than GRPO.",
            "reward curves consistently above GRPO's",
            VERIFIED,
            "reward_area",
            "mean reward over the whole of training",
            "krpo",
            "krpo-accuracy",
        )
    )
    small, large = _over_grpo("accuracy.normal", "krpo-group4"), _over_grpo("accuracy.normal", "krpo")
    widening = minus(small, large)
    rescaled = minus(
        _over_grpo("accuracy.normal", "krpo-group4", "grpo-rescaled"),
        _over_grpo("accuracy.normal", "krpo", "grpo-rescaled"),
    )
    claims.append(
        Claim(
            "krpo-2-groups",
            PAPER,
            "Figure 7a",
            "The gap over GRPO widens in smaller groups.",
            "wider gap in smaller groups; values not found",
            SECOND_HAND,
            "held-out accuracy on the normal level: KRPO minus GRPO with groups of 4, minus the same with groups of 12",
            widening,
            ACCURACY_RULE,
            "krpo-accuracy",
            (Control("grpo-rescaled", LARGER_STEP, rescaled, minus(widening, rescaled)),),
            stand_ins=ON_NORMAL,
        )
    )
    return claims


def _parts_claims() -> list[Claim]:
    return [
        _claim_over_grpo(
            f"krpo-6-{part}",
            "method",
            statement,
            "both parts are credited; no ablation of the parts found",
            NOT_FOUND,
            "accuracy.normal",
            "held-out accuracy on the normal level",
            "krpo",
            "krpo-parts",
            label=f"krpo-{part}",
        )
        for part, statement in (
            ("mean", "The Kalman baseline alone, with the group's standard deviation, is better than GRPO."),
            ("scale", "The Kalman scale alone, around the group's mean, is better than GRPO."),
        )
    ]


def _overhead_claim() -> Claim:
    return Claim(
        "krpo-7-overhead",
        PAPER,
        "abstract",
        "The filter over a group's rewards costs negligible time.",
        "negligible overhead; no figures",
        VERIFIED,
        "logarithm of a rollout batch's time per generated token (sampling, advantages, updates), KRPO minus GRPO",
        difference("log_token_seconds", cell("krpo", "krpo"), cell("krpo", "grpo")),
        Rule(AT_MOST, 0.05),
        "krpo-overhead",
        no_control_because="time is compared with GRPO's own on the same machine; nothing cheaper could explain it",
        stand_ins=ON_NORMAL,
    )


def _open_questions() -> list[Claim]:
    """What the paper leaves open, put as the statement that would speak for the method."""
    claims = [
        _claim_over_grpo(
            f"krpo-8-{name}",
            "open questions",
            f"KRPO scores above GRPO when {what}.",
            says,
            certainty,
            "accuracy.normal",
            "held-out accuracy on the normal level",
            f"krpo-noise-{name}",
            "krpo-noise",
        )
        for name, what, says, certainty in (
            ("gaussian", "Gaussian noise makes the rewards noisy and continuous", NOISY_MOTIVE, VERIFIED),
            ("flips", "some rewards are judged the wrong way round", NOISY_MOTIVE, VERIFIED),
            ("drift", "the rewards shift during training", "named an open question", SECOND_HAND),
        )
    ]
    for name, kind in (("gaussian", "noisy"), ("drift", "shifting")):
        experiment = f"krpo-noise-{name}"
        effect = difference("accuracy.normal", cell(experiment, "krpo-adaptive"), cell(experiment, "krpo"))
        control = difference("accuracy.normal", cell(experiment, "grpo"), cell(experiment, "krpo"))
        claims.append(
            Claim(
                f"krpo-9-adaptive-{name}",
                PAPER,
                "open questions",
                f"Q and R estimated during training do better than the fixed ones under {kind} rewards.",
                "named an open question",
                SECOND_HAND,
                "held-out accuracy on the normal level, adaptive minus fixed Q and R",
                effect,
                ACCURACY_RULE,
                "krpo-noise",
                (
                    Control(
                        "grpo",
                        "Does GRPO, which has nothing to tune, do as well?",
                        control,
                        beats(effect, control),
                    ),
                ),
            )
        )
    return claims


KRPO_TRAINING_CLAIMS = (*_accuracy_claims(), *_parts_claims(), _overhead_claim(), *_open_questions())
