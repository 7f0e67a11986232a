"""The page of verdicts: claims.json and claims.md, made from the measured runs alone."""

from dataclasses import dataclass, replace

from kpo.checksums import write_checksums
from kpo.claims.compare import Compared, compare
from kpo.claims.declarations import CLAIMS
from kpo.claims.declare import Claim
from kpo.claims.measures import MEASURES
from kpo.claims.page import claims_markdown
from kpo.claims.runs import Study, read_measures
from kpo.claims.verdict import ControlEvidence, Verdict, correct_family, decide
from kpo.config import Configuration
from kpo.files import atomic_write, write_json


@dataclass(frozen=True)
class ControlResult:
    """A control's outcome: what it gives, and the method's effect minus it."""

    name: str
    question: str
    effect: Compared
    contrast: Compared | None


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its numbers and its verdict. `family_size`: tested claims that the p-values are corrected for."""

    claim: Claim
    compared: Compared
    controls: list[ControlResult]
    verdict: Verdict
    family_size: int
    detectable: float | None


def write_claims(configuration: Configuration) -> None:
    """Write claims.json and claims.md of a scale from its measures.json.

    Raises ClaimsError where the measures do not fit the configuration or runs that cannot be compared would be.
    """
    record, page = claims_record(configuration)
    write_json(configuration.folder / "claims.json", record)
    atomic_write(configuration.folder / "claims.md", page)
    write_checksums(
        configuration.folder, "claims", ["claims.json", "claims.md"], [configuration.folder / "measures.json"]
    )


def claims_record(configuration: Configuration) -> tuple[dict, str]:
    """What claims.json and claims.md hold, judged anew from measures.json."""
    study = read_measures(configuration)
    results = evaluate_claims(study)
    record = {
        "scale": study.scale,
        "seeds": configuration.seeds,
        "missing": study.missing,
        "code": sorted({run.code for runs in study.runs.values() for run in runs.values()}),
        "claims": [as_record(result) for result in results],
    }
    return record, claims_markdown(results, study, configuration.seeds)


def evaluate_claims(study: Study, claims: tuple[Claim, ...] = CLAIMS) -> list[ClaimResult]:
    """The result of every claim, p-values corrected within the families of those that the study tests."""
    compared = {claim.id: compare(study, claim.effect, claim.rule) for claim in claims}
    sizes = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        tested = [claim for claim in claims if claim.family == family and compared[claim.id].effect is not None]
        sizes[family] = len(tested)
        corrected = correct_family([compared[claim.id].effect for claim in tested])
        for claim, effect in zip(tested, corrected, strict=True):
            compared[claim.id] = replace(compared[claim.id], effect=effect)
    return [_result(study, claim, compared[claim.id], sizes[claim.family]) for claim in claims]


def _result(study: Study, claim: Claim, found: Compared, family_size: int) -> ClaimResult:
    controls, evidence = [], []
    for control in claim.controls:
        effect = compare(study, control.effect, claim.rule)
        contrast = compare(study, control.contrast, claim.rule) if control.contrast else None
        controls.append(ControlResult(control.name, control.question, effect, contrast))
        evidence.append(
            ControlEvidence(
                control.name,
                effect.effect,
                contrast.effect if contrast else None,
                control.margin,
                bool(control.contrast),
            )
        )
    verdict = decide(claim.rule, found.effect, evidence)
    detectable = found.effect.detectable(claim.rule, family_size) if found.effect else None
    return ClaimResult(claim, found, controls, verdict, family_size, detectable)


def as_record(result: ClaimResult) -> dict:
    """A result as JSON-ready mapping."""
    claim = result.claim
    return {
        "id": claim.id,
        "paper": claim.paper,
        "section": claim.section,
        "statement": claim.statement,
        "paper_says": claim.paper_says,
        "certainty": claim.certainty,
        "effect_is": claim.effect_is,
        "measures": {name: MEASURES[name].definition for name in claim.measures},
        "rule": {**claim.rule.__dict__, "text": claim.rule.describe()},
        "family": claim.family,
        "family_size": result.family_size,
        "effect": _compared_record(result.compared),
        "controls": [
            {
                "name": control.name,
                "question": control.question,
                "effect": _compared_record(control.effect),
                "contrast": _compared_record(control.contrast) if control.contrast else None,
            }
            for control in result.controls
        ],
        "no_control_because": claim.no_control_because,
        "minimum_detectable_effect": result.detectable,
        "verdict": result.verdict.verdict,
        "reason": result.verdict.reason,
        "data": data_files(result),
    }


def data_files(result: ClaimResult) -> list[str]:
    """The files, below the folder of the scale, from which a result was computed."""
    files = []
    parts = [result.compared, *(c for control in result.controls for c in (control.effect, control.contrast) if c)]
    for part in parts:
        for side in part.sides:
            for cell in side["cells"]:
                files += [f"{cell}/seed{seed}/{MEASURES[side['measure']].source}" for seed in part.per_seed]
    return list(dict.fromkeys(files))


def _compared_record(found: Compared) -> dict:
    effect = None if found.effect is None else dict(found.effect.__dict__)
    return {
        "estimate": effect,
        "per_seed": {str(seed): value for seed, value in found.per_seed.items()},
        "sides": found.sides,
        "left_out": found.left_out,
    }
