"""How a claim is written down: what the paper says, what is compared here, and the rule that decides.

A comparison is a sum of weighted measures of methods, one number for each seed. A difference of two methods is +1 and
-1; the widening of a gap is a difference of differences; a single measured value is one term with weight 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

VERIFIED = "verified"
SECOND_HAND = "second-hand"
NOT_FOUND = "not found"
CERTAINTIES = (VERIFIED, SECOND_HAND, NOT_FOUND)

ABOVE = "above"
EQUAL = "equal"
AT_MOST = "at most"
RULES = (ABOVE, EQUAL, AT_MOST)

Cell = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """A method as it enters a comparison: one cell (experiment, label), or several.

    choose: "mean" averages a seed's value over those of the cells that the configuration has; "best" takes the one cell
    whose mean of the measure `by` over seeds is highest, so that every method gets the same number of tries.
    """

    cells: tuple[tuple[str, str], ...]
    choose: str = "mean"
    by: str = ""

    def __post_init__(self):
        if not self.cells or self.choose not in ("mean", "best") or (self.choose == "best") != bool(self.by):
            raise ValueError(f"a side needs cells, choose 'mean' or 'best', and with 'best' a measure in by: {self}")

    def __str__(self) -> str:
        if len(self.cells) == 1:
            return "/".join(self.cells[0])
        labels = list(dict.fromkeys(label for _, label in self.cells))
        if self.choose == "best":
            return f"best of {', '.join(labels)}"
        return f"{', '.join(labels)} over {', '.join(dict.fromkeys(experiment for experiment, _ in self.cells))}"


def cell(experiment: str, label: str) -> Side:
    """One method of one experiment."""
    return Side(((experiment, label),))


def along(experiments: tuple[str, ...], label: str) -> Side:
    """One method along several experiments, averaged over those that the configuration has."""
    return Side(tuple((experiment, label) for experiment in experiments))


def best_of(cells: tuple[tuple[str, str], ...], by: str) -> Side:
    """The one of several variants whose `by` is highest on average."""
    return Side(cells, "best", by)


@dataclass(frozen=True)
class Term:
    """`weight` times a measure (a name of `reproduction.claims.measures.MEASURES`) of a side."""

    weight: float
    measure: str
    side: Side


Comparison = tuple[Term, ...]


def value(measure: str, side: Side) -> Comparison:
    """The measure itself."""
    return (Term(1.0, measure, side),)


def difference(measure: str, first: Side, second: Side) -> Comparison:
    """The measure at `first` minus that at `second`."""
    return (Term(1.0, measure, first), Term(-1.0, measure, second))


def between_measures(first: str, second: str, side: Side) -> Comparison:
    """One measure minus another of the same runs."""
    return (Term(1.0, first, side), Term(-1.0, second, side))


def minus(first: Comparison, second: Comparison) -> Comparison:
    """One comparison minus another; terms that cancel are left out."""
    negated = tuple(Term(-term.weight, term.measure, term.side) for term in second)
    kept = [term for term in first if Term(-term.weight, term.measure, term.side) not in negated]
    opposite = [Term(-term.weight, term.measure, term.side) for term in first]
    return tuple(kept) + tuple(term for term in negated if term not in opposite)


@dataclass(frozen=True)
class Rule:
    """What decides, fixed before any run.

    kind, with the effect e and `margin`, the smallest effect that counts, in the effect's unit:
        "above"    shown where e > 0 and the estimate is at least the margin; refuted where e < margin
        "equal"    shown where |e - target| <= margin; refuted where it is larger
        "at most"  shown where e <= margin; refuted where it is larger
    "where" means with the whole `confidence` interval and with the p-value corrected within the claim's family; for
    shares of runs that say yes or no the exact p-value alone decides. min_seeds: with fewer seeds nothing is decided.
    """

    kind: str
    margin: float
    target: float = 0.0
    confidence: float = 0.95
    min_seeds: int = 3

    def __post_init__(self):
        if self.kind not in RULES:
            raise ValueError(f"kind must be one of {RULES}, got {self.kind!r}")
        if self.target and self.kind != EQUAL:
            raise ValueError(f"target belongs to the rule {EQUAL!r}, got {self.kind!r}")
        if not 0 < self.confidence < 1 or self.min_seeds < 2 or self.margin < 0:
            raise ValueError(f"a rule needs a confidence between 0 and 1, two seeds or more and a margin >= 0: {self}")

    def describe(self, exact: bool = False) -> str:
        """The rule as a sentence. exact: where an exact test decides, as for shares, and not an interval."""
        what = {
            ABOVE: f"above 0 and estimated at {self.margin:g} or more",
            EQUAL: f"within {self.margin:g} of {self.target:g}",
            AT_MOST: f"at most {self.margin:g}",
        }[self.kind]
        how = f"with its {self.confidence:.0%} interval"
        if exact:
            how = f"by an exact sign-flip test over seeds at the {1 - self.confidence:.0%} level"
        return f"effect {what}, {how}, on at least {self.min_seeds} seeds"


@dataclass(frozen=True)
class Control:
    """A cheaper explanation and how it is held against the claim.

    effect: what the control gives where the claim's method gives its effect; it is judged by the claim's rule.
    contrast: the method's effect minus the control's; empty where it makes no sense (rules other than "above").
    margin: by how much the method must beat the control; None takes the rule's margin.
    """

    name: str
    question: str
    effect: Comparison
    contrast: Comparison = ()
    margin: float | None = None


@dataclass(frozen=True)
class Beside:
    """A number that is shown beside a claim and decides nothing. what: it in words."""

    name: str
    what: str
    measured: Comparison


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with everything that decides its verdict.

    beside: numbers that are shown and decide nothing.
    stand_ins: what takes the place of an experiment, a cell (`experiment/label`) or a measure at a scale that lacks it,
    such as `krpo-normal` of `krpo`, or the mathematics benchmarks of arithmetic.
    """

    id: str
    paper: str
    section: str
    statement: str
    paper_says: str
    certainty: str
    effect_is: str
    """What the measured number is, in words."""
    effect: Comparison
    rule: Rule
    family: str
    controls: tuple[Control, ...] = field(default=())
    no_control_because: str = ""
    beside: tuple[Beside, ...] = field(default=())
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.certainty not in CERTAINTIES:
            raise ValueError(f"{self.id}: certainty must be one of {CERTAINTIES}, got {self.certainty!r}")
        if bool(self.controls) == bool(self.no_control_because):
            raise ValueError(f"{self.id}: give controls, or say in no_control_because why there is none")

    @property
    def comparisons(self) -> Iterator[Comparison]:
        """The claim's own comparison, those of its controls, and what is shown beside them."""
        yield self.effect
        for beside in self.beside:
            yield beside.measured
        for control in self.controls:
            yield control.effect
            if control.contrast:
                yield control.contrast

    @property
    def measures(self) -> list[str]:
        """Names of all measures that the claim needs."""
        terms = [term for comparison in self.comparisons for term in comparison]
        by = [term.side.by for term in terms if term.side.by]
        return list(dict.fromkeys([term.measure for term in terms] + by))

    @property
    def cells(self) -> list[tuple[str, str]]:
        """All (experiment, label) that the claim can use."""
        return list(
            dict.fromkeys(pair for comparison in self.comparisons for term in comparison for pair in term.side.cells)
        )

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments that the claim can use."""
        return list(dict.fromkeys(experiment for experiment, _ in self.cells))


def stand_in(cell: Cell, stand_ins: Mapping[str, str]) -> Cell:
    """The cell that takes the place of one, by its own name or by that of its experiment; itself without any."""
    experiment, label = cell
    found = stand_ins.get(f"{experiment}/{label}")
    if found is None:
        return stand_ins.get(experiment, experiment), label
    experiment, label = found.split("/")
    return experiment, label


def beats(control_of: Comparison, control: Comparison) -> Comparison:
    """The contrast of a claim's effect with its control's."""
    return minus(control_of, control)
