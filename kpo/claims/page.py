"""claims.md: a table of verdicts for each paper, then one paragraph a claim."""

from collections import Counter

from kpo.claims.verdict import INCONCLUSIVE, VERDICTS

MARKS = {"verified": "verified", "second-hand": "second-hand", "not found": "figure not found"}


def claims_markdown(results, study, seeds: list[int]) -> str:
    """The page for readers of a list of `ClaimResult`s."""
    counts = Counter(result.verdict.verdict for result in results)
    lines = [
        f"# What the papers claim and what was measured at scale {study.scale}",
        "",
        f"{len(results)} claims, seeds {', '.join(map(str, seeds))}: "
        + "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        + ".",
        "",
        "Each verdict follows by a rule that was fixed before the runs; rules, data and details stand below the tables."
        " Brackets after what the paper says tell how sure that is: read in released code or on a primary page"
        " (verified), quoted from a public summary (second-hand), or not found. Intervals are over seeds. A claim"
        " counts as reproduced only where its controls, cheaper explanations, do worse.",
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
        f"- Rule: {claim.rule.describe()}; p-values corrected after Holm for the {result.family_size} tested"
        f" claims of the family {claim.family}.",
    ]
    if effect is not None and effect.p_for is not None:
        lines.append(f"- p = {effect.p_for:.2g} for the claim, {effect.p_against:.2g} against it, both corrected.")
    for control in result.controls:
        contrast = f"; beyond it: {interval_text(control.contrast.effect)}" if control.contrast else ""
        lines.append(
            f"- Control, {control.name}: {control.question} It gives {interval_text(control.effect.effect)}{contrast}."
        )
    if claim.no_control_because:
        lines.append(f"- No control: {claim.no_control_because}.")
    lines.append(f"- Verdict: **{result.verdict.verdict}**: {result.verdict.reason}.")
    if result.verdict.verdict == INCONCLUSIVE and result.detectable is not None:
        lines.append(
            f"- Could have been found with probability 0.8: an effect of {result.detectable:.2g} (minimum detectable"
            " effect)."
        )
    left_out = list(dict.fromkeys(_left_out(result)))
    if left_out:
        lines.append(f"- Left out: {'; '.join(left_out)}.")
    folders = list(dict.fromkeys(cell for part in _parts(result) for side in part.sides for cell in side["cells"]))
    if folders:
        lines.append(f"- Data: {', '.join(f'[{folder}]({folder})' for folder in folders)}; every number: claims.json.")
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
