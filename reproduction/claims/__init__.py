"""The papers' claims: what was said, how it is measured here, and the verdict that the data give."""

from reproduction.claims.declarations import CLAIMS, get_claim
from reproduction.claims.verdict import VERDICTS

__all__ = ["CLAIMS", "VERDICTS", "get_claim"]
