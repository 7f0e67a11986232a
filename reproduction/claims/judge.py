"""The page of verdicts: claims.json and claims.md, made from the measured runs alone."""

from dataclasses import dataclass

from reproduction.claims.compare import Compared, compare
from reproduction.claims.declarations import CLAIMS
from reproduction.claims.declare import Claim, Comparison
from reproduction.claims.measures import MEASURES
from reproduction.claims.page import claims_markdown, rule_text
from reproduction.claims.resolution import Resolution, resolution
from reproduction.claims.runs import Study, read_measures
from reproduction.claims.shares import can_be_shown
from reproduction.claims.verdict import (
    ControlEvidence,
    PValues,
    Verdict,
    contrast_rule,
    correct_family,
    decide,
    p_values,
)
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import atomic_write, write_json
from reproduction.settings.configuration import Configuration


@dataclass(frozen=True)
class ControlResult:
    """A control's outcome: what it gives, and the method's effect minus it."""

    name: str
    question: str
    effect: Compared
    contrast: Compared | None


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its numbers and its verdict.

    beside: (name, in words, outcome) of what is shown and decides nothing. family_size: tested claims that the p-values
    are corrected for. corrected: the p-values of the verdict's statements after that correction.
    """

    claim: Claim
    compared: Compared
    controls: list[ControlResult]
    beside: list[tuple[str, str, Compared]]
    verdict: Verdict
    family_size: int
    corrected: PValues
    resolution: Resolution


FULL_STUDY = "full"


def is_confirmatory(configuration: Configuration) -> bool:
    """Whether these runs are those that the rules were made for: at laptop scale the full study, else all of a scale.

    Smaller studies are parts of the full one, which judges the same runs anew together with more, so that their
    verdicts are looks at it on the way.
    """
    return configuration.base_model is None or configuration.study == FULL_STUDY


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
    confirmatory = is_confirmatory(configuration)
    record = {
        "scale": study.scale,
        "seeds": configuration.seeds,
        "confirmatory": confirmatory,
        "missing": study.missing,
        "code": sorted({run.code for runs in study.runs.values() for run in runs.values()}),
        "claims": [as_record(result) for result in results],
    }
    return record, claims_markdown(results, study, configuration.seeds, confirmatory)


def evaluate_claims(study: Study, claims: tuple[Claim, ...] = CLAIMS) -> list[ClaimResult]:
    """The result of every claim, p-values corrected within the families of those that the study tests."""

    def measured(claim: Claim, comparison: Comparison, rule=None) -> Compared:
        return compare(study, comparison, rule or claim.rule, stand_ins=claim.stand_ins)

    compared = {claim.id: measured(claim, claim.effect) for claim in claims}
    controls = {
        claim.id: [
            ControlResult(
                control.name,
                control.question,
                measured(claim, control.effect),
                measured(claim, control.contrast, contrast_rule(claim.rule, control.margin))
                if control.contrast
                else None,
            )
            for control in claim.controls
        ]
        for claim in claims
    }
    evidence = {
        claim.id: [
            ControlEvidence(
                control.name,
                found.effect.effect,
                found.contrast.effect if found.contrast else None,
                control.margin,
                bool(control.contrast),
            )
            for control, found in zip(claim.controls, controls[claim.id], strict=True)
        ]
        for claim in claims
    }
    sizes, corrected = {}, {}
    for family in dict.fromkeys(claim.family for claim in claims):
        tested = [claim for claim in claims if claim.family == family and compared[claim.id].effect is not None]
        raw = [p_values(claim.rule, compared[claim.id].effect, evidence[claim.id]) for claim in tested]
        showable = [can_be_shown(claim.rule, compared[claim.id].effect) for claim in tested]
        sizes |= {
            claim.id: sum(showable) if able else len(tested) for claim, able in zip(tested, showable, strict=True)
        }
        corrected |= {claim.id: found for claim, found in zip(tested, correct_family(raw, showable), strict=True)}
    results = []
    for claim in claims:
        found, p = compared[claim.id], corrected.get(claim.id, PValues())
        verdict = decide(claim.rule, found.effect, evidence[claim.id], p, found.why_none)
        undefined = list(dict.fromkeys(name for part in _parts(found, controls[claim.id]) for name in part.undefined))
        if undefined and found.effect is not None:
            # A run that broke must not leave the comparison unseen.
            verdict = Verdict(verdict.verdict, f"{verdict.reason}; without {', '.join(undefined)}, not defined there")
        beside = [(one.name, one.what, measured(claim, one.measured)) for one in claim.beside]
        could = resolution(found.effect, claim.rule, max(1, sizes.get(claim.id, 0)), claim.effect)
        results.append(ClaimResult(claim, found, controls[claim.id], beside, verdict, sizes.get(claim.id, 0), p, could))
    return results


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
        "rule": {**claim.rule.__dict__, "text": rule_text(claim)},
        "family": claim.family,
        "family_size": result.family_size,
        "corrected_p": dict(result.corrected.__dict__),
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
        "beside": [{"name": name, "what": what, **_compared_record(found)} for name, what, found in result.beside],
        "minimum_detectable_effect": result.resolution.detectable,
        "resolution": result.resolution.text,
        "verdict": result.verdict.verdict,
        "reason": result.verdict.reason,
        "data": data_files(result),
    }


def data_files(result: ClaimResult) -> list[str]:
    """The files, below the folder of the scale, from which a result was computed."""
    files = []
    for part in [*_parts(result.compared, result.controls), *(found for _, _, found in result.beside)]:
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
        "described": found.described,
    }


def _parts(compared: Compared, controls: list[ControlResult]) -> list[Compared]:
    """All outcomes that decide."""
    return [compared, *(part for control in controls for part in (control.effect, control.contrast) if part)]
