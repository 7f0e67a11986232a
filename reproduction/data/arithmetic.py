"""Integer arithmetic problems like those of KRPO's Arithmetic set (arXiv 2505.07527), generated from a seed.

The published test rows are sums, differences and products of 2 to 6 signed numbers of at most 1 to 6 digits, bracketed
and spaced at random, in five phrasings. The constants below were measured on those rows; `generate_problems` draws from
the same distribution if a level asks for it, and from simpler ones (no products, no brackets) for a small model.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from reproduction.data.expressions import evaluate_chain, normalise_question

OPERATORS = "+-*"

# The five phrasings occur equally often.
PHRASINGS = ("{}", "Solve {}", "What is {}?", "{} =", "{} = ?")

# Terms come in chunks whose size is uniform between 1 and the terms still to come. A chunk of two or more is bracketed
# with this probability (first chunks of the published rows: .485 +- .006), and half of the brackets are negated.
BRACKET_PROBABILITY = 0.485
NEGATED_BRACKET_PROBABILITY = 0.5

# In the published rows each gap between tokens, and the place before the first, is widened by two spaces with this
# probability, again and again (.150 +- .001 of the gaps, .148 +- .003 of the widened ones).
WIDER_GAP_PROBABILITY = 0.15

# After this many refused draws in a row (answer out of range, excluded, a duplicate) the level counts as exhausted.
MAX_REFUSED_DRAWS = 20_000


@dataclass(frozen=True)
class Level:
    """A difficulty: what problems may be drawn.

    name: its name, e.g. "easy". num_terms, num_digits: the values to draw from, uniformly; a number of a problem with
    num_digits d is uniform in -(10^d - 1) .. 10^d - 1, so d is a maximum. operators: binary operators, each equally
    likely. brackets: whether chunks of terms are bracketed. min_answer, max_answer: bounds on the answer's magnitude
    (None: unbounded). numbers: (lowest, highest), from which numbers are drawn uniformly instead. Raises ValueError or
    TypeError naming the field that is wrong.
    """

    name: str
    num_terms: tuple[int, ...]
    num_digits: tuple[int, ...]
    operators: str = OPERATORS
    brackets: bool = False
    min_answer: int = 0
    max_answer: int | None = None
    numbers: tuple[int, int] | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"Level.name must be a non-empty string, got {self.name!r}")
        for field, lowest in (("num_terms", 2), ("num_digits", 1)):
            values = getattr(self, field)
            values = (values,) if isinstance(values, int) else tuple(values)
            if not values or any(isinstance(value, bool) or not isinstance(value, int) for value in values):
                raise TypeError(f"Level.{field} must be one or more integers, got {values!r}")
            if min(values) < lowest or max(values) > 100:
                raise ValueError(f"Level.{field} must be between {lowest} and 100, got {values}")
            object.__setattr__(self, field, values)
        if not self.operators or set(self.operators) - set(OPERATORS) or len(set(self.operators)) < len(self.operators):
            raise ValueError(f"Level.operators must name some of '+', '-', '*', each once, got {self.operators!r}")
        if self.min_answer < 0 or (self.max_answer is not None and self.max_answer < self.min_answer):
            raise ValueError(
                "Level.min_answer and max_answer must satisfy 0 <= min <= max, "
                f"got {self.min_answer} and {self.max_answer}"
            )
        if self.numbers is not None and self.numbers[0] > self.numbers[1]:
            raise ValueError(f"Level.numbers must be (lowest, highest), got {self.numbers}")
        if self.numbers is not None and len(str(max(map(abs, self.numbers)))) > min(self.num_digits):
            raise ValueError(f"Level.numbers {self.numbers} have more digits than num_digits {self.num_digits}")


@dataclass(frozen=True)
class Problem:
    """One problem.

    question: as asked, spaces and all. answer: an integer in decimal. num_digits: a maximum. level: name of its level.
    """

    id: str
    question: str
    answer: str
    num_terms: int
    num_digits: int
    level: str


def published_level(name: str, max_terms: int, max_digits: int) -> Level:
    """A level of the published form: 2 to `max_terms` terms of 1 to `max_digits` digits, + - *, brackets.

    The published answers all have 2 to 8 digits, so answers outside are not drawn.
    """
    return Level(
        name,
        num_terms=tuple(range(2, max_terms + 1)),
        num_digits=tuple(range(1, max_digits + 1)),
        brackets=True,
        min_answer=10,
        max_answer=99_999_999,
    )


# KRPO names the levels, but no public source defines them. Its release trains on at most 5 terms and 5 digits, the code
# it derives from on at most 3 and 3, and the rows go to 6 and 6: hence 3, 5 and 6, which the paper has not confirmed.
LEVELS: Mapping[str, Level] = {
    "easy": published_level("easy", 3, 3),
    "normal": published_level("normal", 5, 5),
    "hard": published_level("hard", 6, 6),
}


def generate_problems(
    level: Level,
    count: int,
    seed: int,
    exclude: Collection[str] = frozenset(),
    one_digit_share: float = 0.0,
    *,
    unique: bool = False,
    id_prefix: str | None = None,
) -> list[Problem]:
    """Draw `count` problems of a level; the same arguments give the same problems.

    exclude: normalised questions (`normalise_question`) that may not be drawn, e.g. those of a held-out split.
    one_digit_share: probability that all numbers of a problem have one digit, whatever the level's num_digits.
    unique: no normalised question occurs twice. id_prefix: ids are '<prefix>-<number>', by default the level's name.

    Raises ValueError for a negative count or a share outside 0..1, and if the level has too few problems that are not
    excluded.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"count must be an integer of at least 0, got {count!r}")
    if not 0.0 <= one_digit_share <= 1.0:
        raise ValueError(f"one_digit_share must be between 0 and 1, got {one_digit_share!r}")
    prefix = level.name if id_prefix is None else id_prefix
    # A string seed is hashed by `random` itself, so that levels and splits with the same number do not share draws.
    rng = random.Random(f"{seed}/{prefix}/{level.name}")
    taken = set(exclude)
    problems: list[Problem] = []
    refused = 0
    while len(problems) < count:
        num_digits = 1 if rng.random() < one_digit_share else rng.choice(level.num_digits)
        num_terms = rng.choice(level.num_terms)
        tokens, answer = _draw_expression(rng, num_terms, num_digits, level)
        normalised = "".join(tokens) + "="
        magnitude = abs(answer)
        in_range = magnitude >= level.min_answer and (level.max_answer is None or magnitude <= level.max_answer)
        if not in_range or normalised in taken:
            refused += 1
            if refused >= MAX_REFUSED_DRAWS:
                raise ValueError(
                    f"level {level.name!r} gave {len(problems)} of {count} problems and then {refused} draws in a row "
                    "that are used already or have an answer out of range; ask for fewer problems, or allow more "
                    "terms, digits or operators"
                )
            continue
        refused = 0
        if unique:
            taken.add(normalised)
        question = rng.choice(PHRASINGS).format(_space_out(rng, tokens))
        problems.append(
            Problem(f"{prefix}-{len(problems):06d}", question, str(answer), num_terms, num_digits, level.name)
        )
    return problems


def make_splits(
    levels: Sequence[Level], train_count: int, held_out_count: int, seed: int, one_digit_share: float = 0.0
) -> tuple[list[Problem], list[Problem]]:
    """Draw a training and a held-out split: (train, held_out), each the levels' problems one after the other.

    The counts are per level. No normalised question of held_out occurs in train, nor twice in held_out; train may
    repeat one if a level is small.

    Raises ValueError for two levels of one name, and a level that is too small.
    """
    names = [level.name for level in levels]
    if not levels or len(set(names)) < len(names):
        raise ValueError(f"levels must be one or more, with different names, got {names}")

    held_out: list[Problem] = []
    used: set[str] = set()
    for level in levels:
        prefix = f"held_out-{level.name}"
        drawn = generate_problems(level, held_out_count, seed, used, one_digit_share, unique=True, id_prefix=prefix)
        used.update(normalise_question(problem.question) for problem in drawn)
        held_out += drawn
    train: list[Problem] = []
    for level in levels:
        prefix = f"train-{level.name}"
        train += generate_problems(level, train_count, seed, used, one_digit_share, id_prefix=prefix)
    return train, held_out


def _draw_expression(rng: random.Random, num_terms: int, num_digits: int, level: Level) -> tuple[list[str], int]:
    """Draw a chain of terms: its tokens ('-(' is one token) and its exact value."""
    largest = 10**num_digits - 1
    numbers = (-largest, largest) if level.numbers is None else level.numbers
    tokens: list[str] = []
    values: list[int] = []
    operators: list[str] = []

    def join() -> None:
        if values:
            operators.append(rng.choice(level.operators))
            tokens.append(operators[-1])

    remaining = num_terms
    while remaining:
        size = rng.randint(1, remaining) if level.brackets else remaining
        remaining -= size
        if level.brackets and size > 1 and rng.random() < BRACKET_PROBABILITY:
            negated = rng.random() < NEGATED_BRACKET_PROBABILITY
            inner_tokens, inner_value = _draw_expression(rng, size, num_digits, level)
            join()
            tokens += ["-(" if negated else "(", *inner_tokens, ")"]
            values.append(-inner_value if negated else inner_value)
            continue
        for _ in range(size):
            join()
            values.append(rng.randint(*numbers))
            tokens.append(str(values[-1]))
    return tokens, evaluate_chain(values, operators)


def _space_out(rng: random.Random, tokens: list[str]) -> str:
    """Join tokens by a space, here and there by more, also before the first."""
    parts = []
    for token in tokens:
        while rng.random() < WIDER_GAP_PROBABILITY:
            parts.append("  ")
        parts += [token, " "]
    return "".join(parts[:-1])
