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

CONVENTION = "the paper gives no value: 5 points by convention"
"""Where the size that a verdict excludes comes from if no source gives the paper's own."""

Cell = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """A method as it enters a comparison: one cell (experiment, label), or several.

    A seed's value is the mean over those of the cells that the configuration has.
    """

    cells: tuple[Cell, ...]

    def __post_init__(self):
        if not self.cells:
            raise ValueError("a side needs at least one cell")

    def __str__(self) -> str:
        if len(self.cells) == 1:
            return "/".join(self.cells[0])
        labels = list(dict.fromkeys(label for _, label in self.cells))
        return f"{', '.join(labels)} over {', '.join(dict.fromkeys(experiment for experiment, _ in self.cells))}"


def cell(experiment: str, label: str) -> Side:
    """One method of one experiment."""
    return Side(((experiment, label),))


def along(experiments: tuple[str, ...], label: str) -> Side:
    """One method in several experiments, averaged over those that the configuration has."""
    return Side(tuple((experiment, label) for experiment in experiments))


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
    """What decides, fixed before any run, with the effect e in its own unit.

    kind "above":    shown if e > 0 and the estimate is at least `margin`, the smallest effect that counts;
                     refuted if e < margin; otherwise the paper's size is excluded if e < paper
    kind "equal":    shown if |e - target| <= margin; refuted if it is larger
    kind "at most":  shown if e <= margin; refuted if it is larger

    Each of these is a one-sided statement at the level `significance` (two of them for "equal": Schuirmann 1987).
    paper: the paper's own effect, for the kind "above" only; paper_from: its source, or `CONVENTION`.
    min_seeds: with fewer seeds nothing is decided.
    """

    kind: str
    margin: float
    paper: float | None = None
    paper_from: str = ""
    target: float = 0.0
    significance: float = 0.05
    min_seeds: int = 3

    def __post_init__(self):
        if self.kind not in RULES:
            raise ValueError(f"kind must be one of {RULES}, got {self.kind!r}")
        if self.target and self.kind != EQUAL:
            raise ValueError(f"target belongs to the rule {EQUAL!r}, got {self.kind!r}")
        if not 0 < self.significance < 0.5 or self.min_seeds < 2 or self.margin < 0:
            raise ValueError(f"a rule needs a significance below 0.5, two seeds or more and a margin >= 0: {self}")
        if self.paper is not None and (self.kind != ABOVE or self.paper < self.margin or not self.paper_from):
            raise ValueError(f"paper belongs to {ABOVE!r}, is at least the margin, and says where it is from: {self}")

    def describe(self) -> str:
        """The rule as a sentence."""
        what = {
            ABOVE: f"effect above 0 and estimated at {self.margin:g} or more",
            EQUAL: f"effect within {self.margin:g} of {self.target:g}",
            AT_MOST: f"effect at most {self.margin:g}",
        }[self.kind]
        size = f"; the paper's size is {self.paper:.3g} ({self.paper_from})" if self.paper is not None else ""
        return f"{what}, each statement one-sided at the {self.significance:.0%} level{size}"


@dataclass(frozen=True)
class Control:
    """A cheaper explanation and how it is held against the claim.

    effect: what the control gives if it takes the place of the claim's method; it is judged by the claim's rule.
    contrast: the method's effect minus the control's; empty if it makes no sense (rules other than "above").
    margin: by how much the method must beat the control; None takes the rule's margin.
    """

    name: str
    question: str
    effect: Comparison
    contrast: Comparison = ()
    margin: float | None = None


@dataclass(frozen=True)
class Supplement:
    """A number reported with a claim; it does not affect the verdict. what: its description."""

    name: str
    what: str
    measured: Comparison


@dataclass(frozen=True)
class Evidence:
    """An independent public result on a claim. certainty: how certain its figures are; source: who says so."""

    says: str
    source: str
    certainty: str


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with everything that decides its verdict.

    beside: numbers that are shown and decide nothing. elsewhere: what others have published on it.
    stand_ins: what takes the place of an experiment or a cell (`experiment/label`) at a scale that lacks it, such as
    `krpo-normal` of `krpo`; and of a measure that no run has, several in the order of preference.
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
    beside: tuple[Supplement, ...] = field(default=())
    elsewhere: tuple[Evidence, ...] = field(default=())
    stand_ins: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self):
        if self.certainty not in CERTAINTIES:
            raise ValueError(f"{self.id}: certainty must be one of {CERTAINTIES}, got {self.certainty!r}")
        if bool(self.controls) == bool(self.no_control_because):
            raise ValueError(f"{self.id}: give controls, or say in no_control_because why there is none")

    @property
    def deciding(self) -> Iterator[Comparison]:
        """The claim's own comparison and those of its controls."""
        yield self.effect
        for control in self.controls:
            yield control.effect
            if control.contrast:
                yield control.contrast

    @property
    def comparisons(self) -> Iterator[Comparison]:
        """All comparisons: those that decide, and what is shown with them."""
        yield from self.deciding
        for beside in self.beside:
            yield beside.measured

    @property
    def measures(self) -> list[str]:
        """Names of all measures that the claim needs."""
        return list(dict.fromkeys(term.measure for comparison in self.comparisons for term in comparison))

    @property
    def cells(self) -> list[Cell]:
        """All (experiment, label) that the claim can use."""
        return list(
            dict.fromkeys(pair for comparison in self.comparisons for term in comparison for pair in term.side.cells)
        )

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments that the claim can use."""
        return list(dict.fromkeys(experiment for experiment, _ in self.cells))


def stand_in(cell: Cell, stand_ins: Mapping[str, str | tuple[str, ...]]) -> Cell:
    """The cell that takes the place of one, by its own name or by that of its experiment; itself without any."""
    experiment, label = cell
    found = stand_ins.get(f"{experiment}/{label}", f"{stand_ins.get(experiment, experiment)}/{label}")
    experiment, _, label = str(found).partition("/")
    return experiment, label
