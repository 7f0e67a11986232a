"""KRPO's claims about its settings (arXiv 2505.07527): observation and process variance, KL weight, order of rewards.

The margin of `krpo-5-advantages` is three times what independent rewards give by chance in one seed's kept groups (see
`reproduction.claims.measures.order_bias`). docs/verdicts.md has the history of every rule.
"""

from reproduction.claims.declare import (
    ABOVE,
    AT_MOST,
    CONVENTION,
    EQUAL,
    NOT_FOUND,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Evidence,
    Rule,
    Side,
    Supplement,
    cell,
    difference,
    minus,
    value,
)
from reproduction.claims.krpo_training import ACCURACY, ACCURACY_IS, ON_NORMAL, PAPER, TWO_POINTS

REWARD = "reward_half"
REWARD_IS = "reward over the second half of training"
RELEASED = cell("krpo", "krpo")
SMALL_R = cell("krpo-qr", "krpo-r1e-3")
RESCALED = cell("krpo-qr", "grpo-rescaled-r1e-3")
STAND_INS = {**ON_NORMAL, REWARD: "reward_late"}
ROBUST = "the claim is that nothing changes; the other settings of the sweep are its controls"
ORDERS = "the claim is that nothing changes; the three orders are controls of each other"
DISPUTED = Evidence("the paper's invariance to order is disputed; no result", "ICLR 2026 reviews", VERIFIED)


def _only_a_larger_step(effect: Comparison, control: Comparison) -> tuple[Control, ...]:
    question = "Is it only the larger step? GRPO with advantages as large as those of R = 1e-3."
    return (Control("grpo-rescaled at R = 1e-3's size", question, control, minus(effect, control)),)


def _more_kl(other: Side) -> dict:
    """Weight 0.01 minus another, and as control weight 0.1 minus that."""
    effect = difference(ACCURACY, RELEASED, other)
    control = difference(ACCURACY, cell("krpo-kl", "krpo-kl0.1"), other)
    question = "Does ten times the weight, to match KRPO's ten times larger advantages, do as well?"
    return {"effect": effect, "controls": (Control("KL weight 0.1", question, control, minus(effect, control)),)}


_LOWER_REWARD = difference(REWARD, RELEASED, SMALL_R)
_MORE_COLLAPSES = difference("collapse", SMALL_R, RELEASED)

SENSITIVITY = (
    Claim(
        id="krpo-3-reward",
        paper=PAPER,
        section="sensitivity to R",
        statement="With R = 1e-3 training is unstable: it ends at a lower reward than with R = 1e-2.",
        paper_says="R = 1e-3 unstable; values not found",
        certainty=SECOND_HAND,
        effect_is=f"{REWARD_IS}, R = 1e-2 minus R = 1e-3",
        effect=_LOWER_REWARD,
        rule=Rule(ABOVE, 0.05, paper=0.05, paper_from=CONVENTION),
        family="krpo-sensitivity",
        controls=_only_a_larger_step(_LOWER_REWARD, difference(REWARD, RELEASED, RESCALED)),
        stand_ins=STAND_INS,
    ),
    Claim(
        id="krpo-3-collapse",
        paper=PAPER,
        section="sensitivity to R",
        statement="With R = 1e-3 training is unstable: more runs collapse than with R = 1e-2.",
        paper_says="R = 1e-3 unstable; values not found",
        certainty=SECOND_HAND,
        effect_is="share of collapsed runs, R = 1e-3 minus R = 1e-2",
        effect=_MORE_COLLAPSES,
        rule=Rule(
            ABOVE,
            0.1,
            paper=0.2,
            paper_from="the paper gives no rate: 20 points by convention, since 5 would take 85 seeds without a "
            "collapse",
        ),
        family="krpo-sensitivity",
        controls=_only_a_larger_step(_MORE_COLLAPSES, difference("collapse", RESCALED, RELEASED)),
        stand_ins=STAND_INS,
    ),
    Claim(
        id="krpo-3-safe",
        paper=PAPER,
        section="sensitivity to Q and R",
        statement="R = 1e-1 trains as well as the released values.",
        paper_says="R of 1e-2 and above is safe",
        certainty=SECOND_HAND,
        effect_is=f"{REWARD_IS}, released values minus R = 1e-1",
        effect=difference(REWARD, RELEASED, cell("krpo-qr", "krpo-r1e-1")),
        rule=Rule(AT_MOST, 0.05),
        family="krpo-sensitivity",
        no_control_because=ROBUST,
        stand_ins=STAND_INS,
    ),
    Claim(
        id="krpo-3-q",
        paper=PAPER,
        section="sensitivity to Q and R",
        statement="Q = 1e-3 trains as well as the released values.",
        paper_says="default Q = 1e-5; effect of Q not found",
        certainty=NOT_FOUND,
        effect_is=f"{REWARD_IS}, released values minus Q = 1e-3",
        effect=difference(REWARD, RELEASED, cell("krpo-qr", "krpo-q1e-3")),
        rule=Rule(AT_MOST, 0.05),
        family="krpo-sensitivity",
        no_control_because=ROBUST,
        stand_ins=STAND_INS,
    ),
    Claim(
        id="krpo-4-over-none",
        paper=PAPER,
        section="ablation of the KL weight",
        statement="A KL weight of 0.01 is better than 0.",
        paper_says="0.01 best; 0 and 0.05 worse",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, weight 0.01 minus weight 0",
        **_more_kl(cell("krpo-kl", "krpo-kl0")),
        rule=TWO_POINTS,
        family="krpo-kl",
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-4-over-large",
        paper=PAPER,
        section="ablation of the KL weight",
        statement="A KL weight of 0.01 is better than 0.05.",
        paper_says="0.01 best; 0 and 0.05 worse",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, weight 0.01 minus weight 0.05",
        **_more_kl(cell("krpo-kl", "krpo-kl0.05")),
        rule=TWO_POINTS,
        family="krpo-kl",
        stand_ins=ON_NORMAL,
    ),
)

ORDER = (
    Claim(
        id="krpo-5-random",
        paper=PAPER,
        section="discussion of order",
        statement="The order in which a group's rewards are filtered does not matter: random order trains as well.",
        paper_says="robust to order, because responses are exchangeable draws; disputed by reviewers",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, random minus sampled order; the two are alike by construction, so that this "
        "measures "
        "the noise of runs",
        effect=difference(ACCURACY, cell("krpo-order", "krpo-random-order"), RELEASED),
        rule=Rule(EQUAL, 0.05),
        family="krpo-order",
        no_control_because=ORDERS,
        elsewhere=(DISPUTED,),
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-5-sorted",
        paper=PAPER,
        section="discussion of order",
        statement="The order in which a group's rewards are filtered does not matter: ascending order trains as well.",
        paper_says="robust to order, because responses are exchangeable draws; disputed by reviewers",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, ascending minus sampled order",
        effect=difference(ACCURACY, cell("krpo-order", "krpo-sorted"), RELEASED),
        rule=Rule(EQUAL, 0.05),
        family="krpo-order",
        no_control_because=ORDERS,
        elsewhere=(DISPUTED,),
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-5-reversed",
        paper=PAPER,
        section="discussion of order",
        statement="The order in which a group's rewards are filtered does not matter: descending order trains as well.",
        paper_says="robust to order, because responses are exchangeable draws; disputed by reviewers",
        certainty=SECOND_HAND,
        effect_is=f"{ACCURACY_IS}, descending minus sampled order",
        effect=difference(ACCURACY, cell("krpo-order", "krpo-reversed"), RELEASED),
        rule=Rule(EQUAL, 0.05),
        family="krpo-order",
        no_control_because=ORDERS,
        elsewhere=(DISPUTED,),
        stand_ins=ON_NORMAL,
    ),
    Claim(
        id="krpo-5-advantages",
        paper=PAPER,
        section="discussion of order",
        statement="On average over rollouts the order of a group's rewards does not matter to the advantages.",
        paper_says="permutation-invariant in expectation, says the paper; disputed by reviewers",
        certainty=SECOND_HAND,
        effect_is="how far KRPO's advantages in sampled order lie from their mean over random orders, in that mean's "
        "direction and relative to its size, on kept rewards of the runs",
        effect=value("order_bias", RELEASED),
        rule=Rule(EQUAL, 0.1),
        family="krpo-order",
        no_control_because="GRPO's advantages give 0 whatever the order; orders that are not random are the other "
        "claims of this family",
        beside=(
            Supplement(
                "one draw",
                "root mean square change of the advantages under one random order, relative to their size: in an "
                "update it is noise",
                value("order_sensitivity", RELEASED),
            ),
        ),
        elsewhere=(DISPUTED,),
        stand_ins=ON_NORMAL,
    ),
)

KRPO_SENSITIVITY_CLAIMS = (*SENSITIVITY, *ORDER)
