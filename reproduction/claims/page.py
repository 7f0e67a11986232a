"""claims.md: a table of verdicts for each paper, then one paragraph a claim."""

from collections import Counter

from reproduction.claims.declare import Claim
from reproduction.claims.measures import MEASURES
from reproduction.claims.verdict import INCONCLUSIVE, VERDICTS

MARKS = {"verified": "verified", "second-hand": "second-hand", "not found": "figure not found"}


STATISTICS = (
    "Seeds are the unit of chance: intervals are Student's over seeds, for accuracies widened to the bootstrap over"
    " seeds and problems where that is wider; shares of runs that say yes or no, such as collapses, have an exact"
    " sign-flip test over seeds, with Clopper and Pearson's bounds as interval. p-values are two-sided. A claim counts"
    " as reproduced only where its effect and its advantage over every control are shown: the largest of their p-values"
    " is corrected after Holm over the tested claims of its family. So are, each kind by itself, the p-values against"
    " the claims and those by which a control does as well. Claims that no outcome of the seeds at hand could show,"
    " as collapses with fewer than six, are left out of what is corrected for (Tarone 1990)."
)
FIXED = (
    "Margins, effects and controls were fixed before any run, but for what was mended after the results of the first"
    " three seeds had been published and a pilot of the strongest stress had been seen, from the papers and from"
    " statistics alone: the test of collapses, the correction of what is held against controls, the rules of"
    " kpo-2-level and krpo-5-advantages, and that kpo-1-switching and kpo-1-runs have no control. Three seeds of most"
    " comparisons (the core study) were published before the full study's other runs were made; no rule and no run of"
    " the plan was changed after that."
)
ON_THE_WAY = (
    "**These verdicts are a look on the way.** They come from a part of the full study, which judges the same runs anew"
    " together with more; no allowance is made for looking twice. Only the full study's verdicts are confirmatory."
)
CONFIRMATORY = "These verdicts are confirmatory: they come from all runs that the rules were made for."


def rule_text(claim: Claim) -> str:
    """The rule of a claim as a sentence, with the test that decides."""
    return claim.rule.describe(any(MEASURES[term.measure].binary for term in claim.effect))


def claims_markdown(results, study, seeds: list[int], confirmatory: bool) -> str:
    """The page for readers of a list of `ClaimResult`s."""
    counts = Counter(result.verdict.verdict for result in results)
    lines = [
        f"# What the papers claim and what was measured at scale {study.scale}",
        "",
        f"{len(results)} claims, seeds {', '.join(map(str, seeds))}: "
        + "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        + ".",
        "",
        CONFIRMATORY if confirmatory else ON_THE_WAY,
        "",
        "Each verdict follows from the numbers by a rule, none is set by hand; rules, data and details stand below the"
        " tables."
        " Brackets after what the paper says tell how sure that is: read in released code or on a primary page"
        " (verified), quoted from a public summary (second-hand), or not found.",
        "",
        STATISTICS,
        "",
        FIXED,
    ]
    if study.missing:
        lines += ["", f"**Missing runs:** {', '.join(study.missing)}."]
    for paper in dict.fromkeys(result.claim.paper for result in results):
        own = [result for result in results if result.claim.paper == paper]
        lines += ["", f"## {paper}", ""]
        lines += ["| claim | paper says | measured | control | verdict |", "|---|---|---|---|---|"]
        lines += [_row(result) for result in own]
    lines += ["", "## Details"]
    for result in results:
        lines += ["", f"### {result.claim.id}", "", *_details(result)]
    return "\n".join(lines) + "\n"


def interval_text(effect) -> str:
    """`estimate [low, high], n seeds`."""
    if effect is None:
        return "not run"
    seeds = f"{effect.num_seeds} seed{'s' * (effect.num_seeds != 1)}"
    if effect.low is None:
        return f"{effect.value:.3g} (no interval), {seeds}"
    return f"{effect.value:.3g} [{effect.low:.3g}, {effect.high:.3g}], {seeds}"


def _row(result) -> str:
    claim = result.claim
    controls = "; ".join(f"{control.name}: {_short(control.effect.effect)}" for control in result.controls) or "none"
    says = f"{claim.paper_says} ({MARKS[claim.certainty]})"
    measured = interval_text(result.compared.effect)
    cells = [f"[{claim.id}](#{claim.id}) {claim.statement}", says, measured, controls, f"**{result.verdict.verdict}**"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(effect) -> str:
    if effect is None:
        return "not run"
    return f"{effect.value:.3g}" if effect.low is None else f"{effect.value:.3g} [{effect.low:.3g}, {effect.high:.3g}]"


def _details(result) -> list[str]:
    claim, effect = result.claim, result.compared.effect
    lines = [
        f"{claim.statement} ({claim.paper}, {claim.section}.)",
        f"The paper: {claim.paper_says} ({MARKS[claim.certainty]}).",
        "",
        f"- Measured: {claim.effect_is}: {interval_text(effect)}.",
        f"- Rule: {rule_text(claim)}; p-values corrected after Holm for the {result.family_size} tested"
        f" claims of the family {claim.family}.",
    ]
    if effect is not None and effect.p_for is not None:
        p = result.corrected
        beyond = f", {p.claim:.2g} for the effect beyond every control" if result.controls else ""
        lines.append(f"- p = {p.effect:.2g} for the effect{beyond}, {p.against:.2g} against it, all corrected.")
    for control in result.controls:
        contrast = f"; beyond it: {interval_text(control.contrast.effect)}" if control.contrast else ""
        lines.append(
            f"- Control, {control.name}: {control.question} It gives {interval_text(control.effect.effect)}{contrast}."
        )
    if claim.no_control_because:
        lines.append(f"- No control: {claim.no_control_because}.")
    for name, what, found in result.beside:
        lines.append(f"- Beside it, {name}: {what}: {interval_text(found.effect)}.")
    described = result.compared.described
    if described:
        bounds = described["interquartile_mean_interval"]
        between = " [{:.3g}, {:.3g}]".format(*bounds) if bounds else ""
        lines.append(
            f"- Described: interquartile mean over seeds {described['interquartile_mean']:.3g}{between} (bootstrap);"
            f" the first scores above the second with probability {described['probability_of_improvement']:.2g}."
        )
    lines.append(f"- Verdict: **{result.verdict.verdict}**: {result.verdict.reason}.")
    if result.verdict.verdict == INCONCLUSIVE and result.resolution.text:
        lines.append(f"- Could have been shown: {result.resolution.text}.")
    left_out = list(dict.fromkeys(_left_out(result)))
    if left_out:
        lines.append(f"- Left out: {'; '.join(left_out)}.")
    folders = list(dict.fromkeys(cell for part in _parts(result) for side in part.sides for cell in side["cells"]))
    if folders:
        links = ", ".join(f"[{folder}]({folder})" for folder in folders)
        lines.append(f"- Data: {links}; every run's numbers: measures.json; every number of the verdict: claims.json.")
    return lines


def _parts(result):
    yield result.compared
    for control in result.controls:
        yield control.effect
        if control.contrast is not None:
            yield control.contrast


def _left_out(result):
    for part in _parts(result):
        yield from part.left_out
