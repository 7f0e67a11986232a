"""KPO's claims about its filter (arXiv 2602.10609): structure of the token ratios, gain schedule, overhead.

The margins were fixed before any run of the study.
"""

from kpo.claims.declare import (
    ABOVE,
    AT_MOST,
    EQUAL,
    NOT_FOUND,
    SECOND_HAND,
    VERIFIED,
    Claim,
    Comparison,
    Control,
    Rule,
    beats,
    between_measures,
    cell,
    difference,
    value,
)

PAPER = "arXiv 2602.10609 (KPO)"
GRPO_RUNS = cell("kpo", "grpo")


def _null_controls(effect: Comparison, shuffled: Comparison, noise: Comparison, margin: float | None) -> tuple:
    """Shuffled tokens and white noise; `margin` None where the rule leaves no contrast to take."""
    return tuple(
        Control(
            name,
            question,
            control,
            () if margin is None else beats(effect, control),
            margin,
        )
        for name, question, control in (
            ("same tokens in shuffled order", "Does the order of the tokens matter at all?", shuffled),
            ("white noise", "Is this what any values without structure give?", noise),
        )
    )


def _structure_claims() -> list[Claim]:
    family = "kpo-structure"
    fall = between_measures("switch_raw", "switch_filtered", GRPO_RUNS)
    longer = between_measures("run_filtered", "run_raw", GRPO_RUNS)
    lower = between_measures("energy_filtered", "energy_raw", GRPO_RUNS)
    runs = "off-policy minibatches of the GRPO runs"
    return [
        Claim(
            "kpo-1-switching",
            PAPER,
            "motivation",
            "The sign of a token's deviation from the sampling policy flips from token to token nearly at random.",
            "switch frequency 0.43 before filtering (another summary: 0.41)",
            SECOND_HAND,
            f"switch frequency of the raw log-ratios, {runs}",
            value("switch_raw", GRPO_RUNS),
            Rule(EQUAL, 0.05, target=0.43),
            family,
            _null_controls((), value("switch_shuffled", GRPO_RUNS), value("switch_noise", GRPO_RUNS), None),
        ),
        Claim(
            "kpo-1-runs",
            PAPER,
            "motivation",
            "Runs of tokens that deviate in one direction are short.",
            "short-lived runs; no value",
            NOT_FOUND,
            f"mean run length in tokens of the raw log-ratios, {runs}",
            value("run_raw", GRPO_RUNS),
            Rule(AT_MOST, 3.0),
            family,
            _null_controls((), value("run_shuffled", GRPO_RUNS), value("run_noise", GRPO_RUNS), None),
        ),
        Claim(
            "kpo-2-switching",
            PAPER,
            "analysis of ratio structure",
            "Filtering makes the deviation locally consistent: the sign switches far less often.",
            "switch frequency 0.43 -> 0.01",
            SECOND_HAND,
            f"fall of the switch frequency through the filter, {runs}",
            fall,
            Rule(ABOVE, 0.2),
            family,
            _null_controls(
                fall,
                between_measures("switch_shuffled", "switch_shuffled_filtered", GRPO_RUNS),
                between_measures("switch_noise", "switch_noise_filtered", GRPO_RUNS),
                0.02,
            ),
        ),
        Claim(
            "kpo-2-level",
            PAPER,
            "analysis of ratio structure",
            "After filtering, neighbouring tokens hardly ever deviate in opposite directions.",
            "switch frequency 0.01 after filtering, over responses of thousands of tokens",
            SECOND_HAND,
            f"switch frequency of the filtered log-ratios, {runs}",
            value("switch_filtered", GRPO_RUNS),
            Rule(AT_MOST, 0.05),
            family,
            _null_controls(
                (), value("switch_shuffled_filtered", GRPO_RUNS), value("switch_noise_filtered", GRPO_RUNS), None
            ),
        ),
        Claim(
            "kpo-2-runs",
            PAPER,
            "analysis of ratio structure",
            "Filtering gives long runs of tokens that deviate in one direction.",
            "longer coherent runs; no value",
            SECOND_HAND,
            f"mean run length in tokens, filtered minus raw, {runs}",
            longer,
            Rule(ABOVE, 2.0),
            family,
            _null_controls(
                longer,
                between_measures("run_shuffled_filtered", "run_shuffled", GRPO_RUNS),
                between_measures("run_noise_filtered", "run_noise", GRPO_RUNS),
                1.0,
            ),
        ),
        Claim(
            "kpo-2-energy",
            PAPER,
            "analysis of ratio structure",
            "Filtering moves the deviation's energy to low frequencies.",
            "much higher low-frequency share; no value",
            SECOND_HAND,
            f"energy in the lowest tenth of the frequencies, filtered minus raw, {runs}",
            lower,
            Rule(ABOVE, 0.2),
            family,
            _null_controls(
                lower,
                between_measures("energy_shuffled_filtered", "energy_shuffled", GRPO_RUNS),
                between_measures("energy_noise_filtered", "energy_noise", GRPO_RUNS),
                0.02,
            ),
        ),
    ]


def _filter_claims() -> list[Claim]:
    return [
        Claim(
            "kpo-6-schedule",
            PAPER,
            "method; follow-up study EMA-KPO",
            "With fixed Q and V the filter is exactly an exponential moving average with a gain for each position.",
            "mean squared error below 1e-14 (follow-up study, abstract)",
            VERIFIED,
            "root mean square difference of filter and scheduled average, relative to the filtered log-ratios",
            value("schedule_deviation", cell("kpo", "kpo-clipped")),
            Rule(AT_MOST, 1e-9),
            "kpo-schedule",
            (
                Control(
                    "constant gain",
                    "Is any moving average the same? The one with the filter's steady gain.",
                    value("constant_gain_deviation", cell("kpo", "kpo-clipped")),
                ),
            ),
        ),
        Claim(
            "kpo-7-overhead",
            PAPER,
            "limitations",
            "The filter costs little time; the stated limitation is its sequential form.",
            "sequential processing is named a limitation; run time not disclosed",
            NOT_FOUND,
            "median time of an update, KPO-clipped over GRPO, minus 1",
            difference("log_update_seconds", cell("kpo", "kpo-clipped"), GRPO_RUNS),
            Rule(AT_MOST, 0.05),
            "kpo-overhead",
            no_control_because="time is compared with GRPO's own on the same machine; nothing cheaper could explain it",
        ),
    ]


KPO_FILTER_CLAIMS = (*_structure_claims(), *_filter_claims())
