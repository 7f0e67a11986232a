"""All claims of both papers, each declared once."""

from reproduction.claims.declare import Claim, stand_in
from reproduction.claims.kpo_filter import KPO_FILTER_CLAIMS
from reproduction.claims.kpo_premise import KPO_PREMISE_CLAIMS
from reproduction.claims.kpo_training import KPO_TRAINING_CLAIMS
from reproduction.claims.krpo_sensitivity import KRPO_SENSITIVITY_CLAIMS
from reproduction.claims.krpo_training import KRPO_TRAINING_CLAIMS


def _by_number(claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(sorted(claims, key=lambda claim: int(claim.id.split("-")[1])))


CLAIMS: tuple[Claim, ...] = (
    *_by_number((*KPO_FILTER_CLAIMS, *KPO_TRAINING_CLAIMS, *KPO_PREMISE_CLAIMS)),
    *_by_number((*KRPO_TRAINING_CLAIMS, *KRPO_SENSITIVITY_CLAIMS)),
)
"""In the order of the report: KPO's by number, then KRPO's."""


def get_claim(claim_id: str) -> Claim:
    """The claim with an id; ValueError listing all ids otherwise."""
    for claim in CLAIMS:
        if claim.id == claim_id:
            return claim
    raise ValueError(f"unknown claim {claim_id!r}; known are {', '.join(claim.id for claim in CLAIMS)}")


def needed_cells(claims: tuple[Claim, ...] = CLAIMS) -> dict[tuple[str, str], set[str]]:
    """For each (experiment, label) the measures that some claim needs of it."""
    needed: dict[tuple[str, str], set[str]] = {}
    for claim in claims:
        for comparison in claim.comparisons:
            for term in comparison:
                others = claim.stand_ins.get(term.measure, ())
                measures = {term.measure, *([others] if isinstance(others, str) else others)}
                for cell in term.side.cells:
                    for place in {cell, stand_in(cell, claim.stand_ins)}:
                        needed.setdefault(place, set()).update(measures)
    return needed
