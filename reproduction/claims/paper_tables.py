"""The figures of the papers' main tables, as far as public sources give them, each with its certainty.

The full text of neither paper could be read: nearly every cell is second-hand, quoted by a public summary or a
follow-up study. A cell that no source gives is not in these tables. Readers of the papers can check the values here;
everything that shows them reads them from this module.
"""

from dataclasses import dataclass

from reproduction.claims.declare import NOT_FOUND, SECOND_HAND, VERIFIED

MARKS = {VERIFIED: "v", SECOND_HAND: "s", NOT_FOUND: "n"}
LEGEND = (
    "After a paper's figure, how certain it is: (v) read in released code or on a primary page, (s) second-hand, "
    "quoted by a public summary, (n) no value found. An empty cell of a paper was not found in any public source; an "
    "empty cell of ours was not measured at this scale. Brackets hold intervals."
)
STATED_ELSEWHERE = (
    "kpo-1-switching", "kpo-2-level", "kpo-5-smoothing", "kpo-6-schedule", "krpo-2-groups", "krpo-3-reward",
    "krpo-3-collapse", "krpo-3-safe", "krpo-3-q", "krpo-4-over-none", "krpo-4-over-large", "krpo-5-random",
)  # fmt: skip
"""Claims whose value or direction the papers state outside their main tables."""

KPO_PAPER = "arXiv 2602.10609 (KPO)"
KRPO_PAPER = "arXiv 2505.07527 (KRPO)"

KPO_MODEL = (
    "Qwen3-4B trained on DAPO mathematics (public sources disagree whether from the base model), 16 samples a problem "
    "at temperature 1 (top-p 1 by a reading note, 0.7 in the released script)"
)
KPO_SOURCES = (
    "two follow-up studies that quote Table 1 and agree, a reading note (Minerva, its figures taken as avg@16), a "
    "review (two cells)"
)
KRPO_MODEL = "Llama-3.2-1B-Instruct, groups of 12"
KRPO_SOURCES = "one public technical analysis of version 3"


@dataclass(frozen=True)
class Benchmark:
    """A held-out set of KPO's Table 1. `split`: its name in an evaluation; `problems`: how many it has."""

    name: str
    split: str
    problems: int | None


KPO_BENCHMARKS = (
    Benchmark("AIME'24", "aime24", 30),
    Benchmark("AIME'25", "aime25", 30),
    Benchmark("MATH-500", "math500", 500),
    Benchmark("Minerva", "minerva", 272),
    Benchmark("AMC'23", "amc23", None),
    Benchmark("OlympiadBench", "olympiadbench", None),
)
KPO_METHODS = {
    "base": "base model",
    "grpo": "GRPO",
    "gmpo": "GMPO",
    "gspo": "GSPO",
    "kpo-unclipped": "KPO unclipped",
    "kpo-clipped": "KPO clipped",
}
"""The rows of KPO's Table 1, by the method's name here."""


@dataclass(frozen=True)
class Score:
    """avg@16 and pass@16 in percent; None if no source gives it."""

    average: float
    passed: float | None = None
    certainty: str = SECOND_HAND


KPO_TABLE_1: dict[tuple[str, str], Score] = {
    ("grpo", "AIME'24"): Score(27.29, 53.33),
    ("grpo", "AIME'25"): Score(23.12, 43.33),
    ("grpo", "MATH-500"): Score(85.66, 92.80),
    ("grpo", "Minerva"): Score(38.67),
    ("gmpo", "AIME'24"): Score(30.83, 50.00),
    ("gmpo", "Minerva"): Score(38.48),
    ("gspo", "AIME'24"): Score(32.70, 60.00),
    ("gspo", "AIME'25"): Score(29.16, 50.00),
    ("gspo", "MATH-500"): Score(87.41, 94.00),
    ("kpo-unclipped", "Minerva"): Score(39.15),
    ("kpo-clipped", "AIME'24"): Score(37.91, 63.33),
    ("kpo-clipped", "AIME'25"): Score(36.87, 60.00),
    ("kpo-clipped", "MATH-500"): Score(89.42, 94.80),
    ("kpo-clipped", "Minerva"): Score(38.23),
}
"""(method, benchmark) of KPO's Table 1; what is not here was not found."""

KPO_SWITCH_FREQUENCY = {"before the filter": 0.43, "after the filter": 0.01}
"""Share of neighbouring tokens whose log-ratios differ in sign (second-hand); its exact definition was not found."""

KPO_SMOOTHING = {1e-6: "as stated", 1e-2: "clearly degraded"}
"""Q/V of Figure 4 that public sources name (second-hand); its whole grid and its rewards were not found."""


@dataclass(frozen=True)
class Gain:
    """KRPO's accuracy over GRPO's in points."""

    points: float
    certainty: str = SECOND_HAND


KRPO_ARITHMETIC = {"easy": Gain(5.1), "normal": Gain(5.4), "hard": Gain(2.3)}
"""By level; how the paper defines its levels was not found."""

KRPO_OPENMATH = {"Algebra (the smallest gain)": Gain(4.6), "Probability (the largest gain)": Gain(17.9)}
"""The ends of the range over the categories of OpenMath-Instruct; the others were not found."""


def kpo_gains(method: str, baseline: str) -> dict[str, float]:
    """avg@16 of `method` minus that of `baseline` in points, on each benchmark that has both."""
    return {
        benchmark.name: KPO_TABLE_1[method, benchmark.name].average - KPO_TABLE_1[baseline, benchmark.name].average
        for benchmark in KPO_BENCHMARKS
        if (method, benchmark.name) in KPO_TABLE_1 and (baseline, benchmark.name) in KPO_TABLE_1
    }
