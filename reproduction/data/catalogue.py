"""The mathematics datasets, each declared once: repository, revision, number of rows, fields, licence.

What could be checked. No machine that built this project reaches Hugging Face, so no revision, row count or licence
below was seen there. A `revision` is given only if several independent public repositories name the same commit for the
same dataset; Hugging Face refuses one that does not exist, and the row count is checked on loading. If no public text
names a commit, `revision` is None and the dataset cannot be loaded before the configuration pins it
(`data.pins.<name>.revision`); if no count is documented, the same holds for `rows`. Licences are second-hand too: "not
stated" means that texts about the card say that it names no licence.

KPO's release reads other copies of some sets (its data script, 2602.10609); these are declared as `<name>-release`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kpo.checks import unknown_name

_COMMIT = re.compile(r"[0-9a-f]{40}")

# MATH's subjects with the number of its training problems of each (Hendrycks et al. 2021): 7,500 in all.
MATH_SUBJECTS = {
    "algebra": 1744,
    "counting_and_probability": 771,
    "geometry": 870,
    "intermediate_algebra": 1295,
    "number_theory": 869,
    "prealgebra": 1205,
    "precalculus": 746,
}


@dataclass(frozen=True)
class MathematicsSet:
    """One dataset of problems on Hugging Face.

    name: what configurations call it. repository, configuration, split, revision: its place; a revision is a whole
    commit. rows: how many the split has. question, answer: fields, with dots into mappings and lists
    ("prompt.0.content"). answer_is_solution: the answer is the last box of a worked solution. drop: an instruction that
    ends some questions and is taken off. only: field and value of the rows to keep. subject_of: keep the questions that
    another set of the catalogue holds too. distinct: how many differ in their text, if duplicates are dropped;
    None leaves duplicates in, and 0 drops them without knowing how many stay. licence, source: as found.
    """

    name: str
    repository: str
    split: str
    question: str
    answer: str
    licence: str
    source: str
    revision: str | None = None
    rows: int | None = None
    configuration: str | None = None
    distinct: int | None = None
    answer_is_solution: bool = False
    drop: str | None = None
    only: tuple[str, str] | None = None
    subject_of: str | None = None

    def __post_init__(self):
        if self.revision is not None:
            check_revision(self.name, self.revision)


def check_revision(name: str, revision: str) -> str:
    """`revision` if it is a whole commit; ValueError for a branch or an abbreviated one, which may move."""
    if not isinstance(revision, str) or not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"{name}: the revision must be a whole commit (40 hexadecimal digits), found {revision!r}; "
            "the history of the dataset's or model's page on Hugging Face shows it"
        )
    return revision


def get_set(name: str) -> MathematicsSet:
    """The declaration of a set; ValueError naming the closest one for an unknown name."""
    if name not in CATALOGUE:
        raise ValueError(unknown_name("mathematics set", name, CATALOGUE))
    return CATALOGUE[name]


_RELEASE = "KPO's released data script; no public text names a commit of it"
_SETS = [
    MathematicsSet(
        name="dapo",
        repository="open-r1/DAPO-Math-17k-Processed",
        configuration="all",
        split="train",
        revision="31dd309567e3da778038cc87d868b6097a3ccf68",
        rows=17_398,
        distinct=17_398,
        question="prompt",
        answer="solution",
        licence="not stated on the card; derived from BytedTsinghua-SIA/DAPO-Math-17k (Apache-2.0)",
        source="DAPO-Math-17k without its hundredfold repetition (1,791,700 rows): arXiv 2503.14476, issue 36 there",
    ),
    MathematicsSet(
        name="dapo-release",
        repository="aaabiao/dapo_filter",
        split="train",
        distinct=0,
        question="prompt.0.content",
        answer="reward_model.ground_truth",
        drop="Let's think step by step and output the final answer within \\boxed{}.",
        licence="not known",
        source=f"{_RELEASE}, and none its number of rows",
    ),
    MathematicsSet(
        name="math500",
        repository="HuggingFaceH4/MATH-500",
        split="test",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        rows=500,
        question="problem",
        answer="answer",
        licence="MIT (of MATH, from which it is taken)",
        source="arXiv 2305.20050; the copy that KPO's release reads",
    ),
    MathematicsSet(
        name="aime24",
        repository="HuggingFaceH4/aime_2024",
        split="train",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        rows=30,
        question="problem",
        answer="answer",
        licence="not stated on the card; problems by the Mathematical Association of America",
        source="the copy that KPO's release reads",
    ),
    MathematicsSet(
        name="aime25",
        repository="MathArena/aime_2025",
        split="train",
        revision="c94da77eb22bbd6439e62a323bec18493a421302",
        rows=30,
        question="problem",
        answer="answer",
        licence="CC BY-NC-SA 4.0",
        source="the copy that KPO's release reads",
    ),
    MathematicsSet(
        name="amc23",
        repository="math-ai/amc23",
        split="test",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        rows=40,
        question="question",
        answer="answer",
        licence="not stated on the card; problems by the Mathematical Association of America",
        source="the AMC 12 problems of 2023 with answers made integers; KPO's release reads amc23-release",
    ),
    MathematicsSet(
        name="amc23-release",
        repository="knoveleng/AMC-23",
        split="train",
        rows=40,
        question="problem",
        answer="answer",
        licence="not known",
        source=_RELEASE,
    ),
    MathematicsSet(
        name="minerva",
        repository="math-ai/minervamath",
        split="test",
        revision="ee46ddc498933b1977577953250ca5c66be64f96",
        rows=272,
        question="question",
        answer="answer",
        licence="not known; problems from MIT OpenCourseWare",
        source="arXiv 2206.14858, its OCWCourses set; KPO's release reads minerva-release",
    ),
    MathematicsSet(
        name="minerva-release",
        repository="zwhe99/simplerl-minerva-math",
        split="test",
        rows=272,
        question="problem",
        answer="answer",
        licence="not known",
        source=_RELEASE,
    ),
    MathematicsSet(
        name="olympiadbench",
        repository="math-ai/olympiadbench",
        split="test",
        revision="4faaf1e6ec17d11a4218a9bf4c049ecaf954dd84",
        rows=674,
        question="question",
        answer="final_answer",
        licence="Apache-2.0 (of OlympiadBench, from which it is taken)",
        source="arXiv 2402.14008, open-ended English text-only competition problems; KPO's: olympiadbench-release",
    ),
    MathematicsSet(
        name="olympiadbench-release",
        repository="realtreetune/olympiadbench",
        split="test",
        question="problem",
        answer="answer",
        licence="not known",
        source=f"{_RELEASE}, and none its number of rows (674 and 675 are both given for other copies)",
    ),
]


def _by_subject(subject: str, rows: int) -> list[MathematicsSet]:
    """MATH's training problems of a subject, and the problems of OpenMathInstruct-2 that are taken from them.

    KRPO reports OpenMath-Instruct by category (Algebra, Probability, ...), but OpenMathInstruct-2 has no such field and
    no source says how KRPO assigned one. Here a category is MATH's own subject: the rows that OpenMathInstruct-2 marks
    as MATH's (problem_source "math"), joined with MATH's training problems by their text.
    """
    name = subject.replace("_and_", "-").replace("_", "-")
    return [
        MathematicsSet(
            name=f"math-{name}",
            repository="EleutherAI/hendrycks_math",
            configuration=subject,
            split="train",
            revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
            rows=rows,
            question="problem",
            answer="solution",
            answer_is_solution=True,
            licence="MIT",
            source="arXiv 2103.03874",
        ),
        MathematicsSet(
            name=f"openmath-{name}",
            repository="nvidia/OpenMathInstruct-2",
            split="train_1M",
            revision="469216e3f46f4dacf476b382e192485ea51a143e",
            rows=1_000_000,
            distinct=0,
            question="problem",
            answer="expected_answer",
            only=("problem_source", "math"),
            subject_of=f"math-{name}",
            licence="CC BY 4.0",
            source="arXiv 2410.01560; category by MATH's subject, see _by_subject",
        ),
    ]


for _subject, _rows in MATH_SUBJECTS.items():
    _SETS += _by_subject(_subject, _rows)

CATALOGUE: Mapping[str, MathematicsSet] = {declared.name: declared for declared in _SETS}
