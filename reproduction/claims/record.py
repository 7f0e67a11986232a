"""claims.json and claims.md: the results of all claims as records and as a page, made only from measures.json."""

import math
from dataclasses import replace
from typing import Any

from reproduction.claims.design import SEQUENTIAL, design_of
from reproduction.claims.judge import ClaimResult, Compared, Published, evaluate_claims
from reproduction.claims.measures import MEASURES
from reproduction.claims.page import claims_markdown, rule_text, without_dead_links
from reproduction.claims.runs import read_measures
from reproduction.claims.scales import is_held_against_study, other_scales, side_by_side, side_by_side_lines
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.settings.configuration import Configuration


def write_claims(configuration: Configuration) -> None:
    """Write claims.json and claims.md of a scale from its measures.json.

    Raises ClaimsError if the measures do not fit the configuration, or runs that cannot be compared would be;
    ConfigurationError if pilot and later seeds are mixed.
    """
    record, page = claims_record(configuration)
    write_json(configuration.folder / "claims.json", record)
    atomic_write(configuration.folder / "claims.md", page)
    write_checksums(
        configuration.folder, "claims", ["claims.json", "claims.md"], [configuration.folder / "measures.json"]
    )


def claims_record(configuration: Configuration) -> tuple[dict, str]:
    """What claims.json and claims.md hold, judged from measures.json."""
    design = design_of(configuration)
    study = read_measures(configuration)
    results = evaluate_claims(study, design)
    if is_held_against_study(configuration):
        known = published_claims(configuration)
        results = [replace(one, published=_published(one, known.get(one.claim.id))) for one in results]
    claims = [as_record(result) for result in results]
    record: dict[str, Any] = {
        "scale": study.scale,
        "seeds": configuration.seeds,
        "design": design.kind,
        "missing": study.missing,
        "code": sorted({run.code for runs in study.runs.values() for run in runs.values()}),
        "claims": claims,
    }
    others = other_scales(configuration)
    if others:
        record["scales"] = others
    scales = side_by_side_lines(side_by_side(claims, study.scale, others))
    page = claims_markdown(results, study, configuration.seeds, design, scales)
    # Of published results not every run was published.
    return record, without_dead_links(page, configuration.folder)


def published_claims(configuration: Configuration) -> dict[str, dict]:
    """The claims of the published study of a scale, by id; none if there is no such study."""
    path = REPOSITORY / FOLDER / configuration.scale / "claims.json"
    found = read_json(path) if path.is_file() else {}
    return {one["id"]: one for one in found["claims"]} if found.get("design") == SEQUENTIAL else {}


def _published(result: ClaimResult, record: dict | None) -> Published | None:
    if record is None:
        return None
    own, other = result.compared.effect, record["effect"]["estimate"]
    if other is None:
        return Published(record["verdict"], None, None, None, 0, None)
    agrees = None
    if own is not None and None not in (own.low, own.high, other["low"], other["high"]):
        halves = (own.high - own.low) / 2, (other["high"] - other["low"]) / 2
        agrees = abs(own.value - other["value"]) <= math.hypot(*halves)
    return Published(record["verdict"], other["value"], other["low"], other["high"], other["num_seeds"], agrees)


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
        "measures": {name: MEASURES[name].definition for name in _measures_taken(result)},
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
        "elsewhere": [dict(one.__dict__) for one in claim.elsewhere],
        "looks": [dict(look.__dict__) for look in result.looks],
        "decided_at": result.decided_at,
        "published": None if result.published is None else dict(result.published.__dict__),
        "waiting": result.waiting,
        "minimum_detectable_effect": result.needed.detectable,
        "seeds_needed": result.needed.seeds,
        "resolution": result.needed.text,
        "verdict": result.verdict.verdict,
        "reason": result.verdict.reason,
        "data": _data_files(result),
    }


def _data_files(result: ClaimResult) -> list[str]:
    """The files, below the folder of the scale, from which a result was computed."""
    files = []
    for part in [*result.deciding, *(found for _, _, found in result.beside)]:
        for side in part.sides:
            for cell in side["cells"]:
                files += [f"{cell}/seed{seed}/{MEASURES[side['measure']].source}" for seed in part.per_seed]
    return list(dict.fromkeys(files))


def _measures_taken(result: ClaimResult) -> list[str]:
    """The measures that the claim names, and those that took their place."""
    taken = [side["measure"] for part in result.deciding for side in part.sides]
    return list(dict.fromkeys([*result.claim.measures, *taken]))


def _compared_record(found: Compared) -> dict:
    effect = None if found.effect is None else dict(found.effect.__dict__)
    return {
        "estimate": effect,
        "per_seed": {str(seed): value for seed, value in found.per_seed.items()},
        "sides": found.sides,
        "left_out": found.left_out,
    }
