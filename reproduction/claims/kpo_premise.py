"""KPO's premise as a claim (arXiv 2602.10609, method section): token log-ratios are a slowly drifting state plus noise.

The margin was set after seeds 1 to 5 of the laptop scale were seen; it is about a tenth of the gain that log-ratios
would have if they did what the filter assumes (`reproduction.claims.premise`).
"""

from reproduction.claims.declare import ABOVE, NOT_FOUND, Claim, Control, Rule, Supplement, minus, value
from reproduction.claims.kpo_filter import GRPO_RUNS, PAPER

MARGIN = 0.05  # nats per memory of the filter
GAIN = value("drift_gain_raw", GRPO_RUNS)
SHUFFLED_GAIN = value("drift_gain_shuffled", GRPO_RUNS)

KPO_PREMISE_CLAIMS = (
    Claim(
        id="kpo-8-premise",
        paper=PAPER,
        section="method, state-space model",
        statement="Token log-ratios behave like a slowly drifting state that is observed with noise.",
        paper_says="assumed by the filter, with Q/V = 1e-6; no test of it found",
        certainty=NOT_FOUND,
        effect_is="nats per memory of the filter, sqrt(V/Q) tokens, by which a random walk plus noise with the most "
        "likely Q and V is likelier than independent noise, off-policy minibatches of the GRPO runs; 0.4 to 0.5 if "
        "log-ratios drift as the filter assumes",
        effect=GAIN,
        rule=Rule(
            ABOVE, MARGIN, paper=0.4, paper_from="the gain of log-ratios that drift as the filter assumes, simulated"
        ),
        family="kpo-premise",
        controls=(
            Control(
                name="same tokens in shuffled order",
                question="Is it drift from token to token, or the mean of a response and its heavy tails?",
                effect=SHUFFLED_GAIN,
                contrast=minus(GAIN, SHUFFLED_GAIN),
                margin=MARGIN,
            ),
        ),
        beside=(
            Supplement("Q/(Q+V)", "most likely Q / (Q + V)", value("drift_share_raw", GRPO_RUNS)),
            Supplement(
                "as assumed", "gain with the Q/V that the filter assumes", value("drift_assumed_raw", GRPO_RUNS)
            ),
        ),
    ),
)
