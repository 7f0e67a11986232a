"""claims.md: a table of verdicts for each paper, then one paragraph a claim."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reproduction.claims.declare import Claim
from reproduction.claims.design import FIRST_SEED, PILOT, SEQUENTIAL, Design
from reproduction.claims.verdict import INCONCLUSIVE, NOT_AT_SIZE, VERDICTS

MARKS = {"verified": "verified", "second-hand": "second-hand", "not found": "figure not found"}
NO_EVIDENCE = "none found"
NO_ESTIMATE = "no estimate"
"""Of what was not run, or has fewer runs than a look takes."""

STATISTICS = (
    "Seeds are the unit of chance. p-values and intervals are Student's over seeds, one-sided at 5% for each "
    "statement, so that both ends of an interval together leave out 10%; a standard deviation below the noise "
    "known to be in it is raised to that. Shares of runs that say yes or no, such as collapses, are tested by "
    "betting, which holds at any number of seeds. A claim counts as reproduced only if its effect and its "
    "advantage over every control are shown: the largest of their p-values is corrected after Holm over the "
    "tested claims of its family. So are, each kind by itself, the p-values against the claims, those against the "
    "paper's size, and those by which a control does as well. Rules, measures, thresholds and their history: "
    "docs/verdicts.md in the repository."
)
DESIGNS = {
    SEQUENTIAL: (
        f"These are the study's verdicts: seeds from {FIRST_SEED} on, judged at 6, 12, 24, 48, ... complete seeds by"
        " rules that were written down before the first of them was run. A look may spend 40, 25, 15, 10, 5% and so on"
        " of each claim's 5%, so that the study may go on, and claims may stop, at any look."
    ),
    PILOT: (
        "These verdicts are the pilot's. Rules, measures and clips were chosen from these seeds; only the study's"
        f" later seeds, from {FIRST_SEED} on, confirm anything."
    ),
}
SINGLE_LOOK = (
    "These verdicts are a single look at the runs of this scale. They do not join the study's, which has seeds of its"
    " own, and spend no error of its."
)


def design_text(design: Design) -> str:
    """When and from which seeds claims were judged."""
    return DESIGNS.get(design.kind, SINGLE_LOOK)


def rule_text(claim: Claim) -> str:
    """The rule of a claim as a sentence."""
    return claim.rule.describe()


def names_of(runs: Iterable[str], most: int = 12) -> str:
    """Run names in one line, those of a cell together, no more than `most` cells."""
    cells: dict[str, list[str]] = {}
    for name in runs:
        cell, _, seed = name.rpartition("/seed")
        cells.setdefault(cell, []).append(seed)
    said = [f"{cell} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" for cell, seeds in cells.items()]
    return "; ".join(said[:most]) + (f"; and {len(said) - most} further cells" if len(said) > most else "")


def claims_markdown(results, study, seeds: list[int], design: Design, scales: Sequence[str] = ()) -> str:
    """The page for readers of a list of `ClaimResult`s. scales: lines that show other scales with this one."""
    counts = Counter(result.verdict.verdict for result in results)
    lines = [
        f"# What the papers claim and what was measured at scale {study.scale}",
        "",
        f"{len(results)} claims, seeds {', '.join(map(str, seeds))}: "
        + "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        + ".",
        "",
        design_text(design),
        "",
        "Each verdict follows from the numbers by a rule, and is never set by hand; rules, data and details are below"
        " the tables."
        " Brackets after what the paper says tell how sure that is: read in released code or on a primary page"
        " (verified), quoted from a public summary (second-hand), or not found. Independent results are others' public"
        " ones, with the same mark.",
        "",
        STATISTICS,
    ]
    if study.missing:
        lines += ["", f"**Missing runs:** {names_of(study.missing, 1000)}."]
    for paper in dict.fromkeys(result.claim.paper for result in results):
        own = [result for result in results if result.claim.paper == paper]
        lines += ["", f"## {paper}", ""]
        lines += [
            "| claim | paper says | measured | control | independent results | verdict |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(result) for result in own]
    lines += ["", *scales] if scales else []
    lines += ["", "## Details"]
    for result in results:
        lines += ["", f"### {result.claim.id}", "", *_details(result)]
    return "\n".join(lines) + "\n"


def interval_text(effect) -> str:
    """`estimate [low, high], n seeds`."""
    if effect is None:
        return NO_ESTIMATE
    seeds = f"{effect.num_seeds} seed{'s' * (effect.num_seeds != 1)}"
    if effect.low is None:
        return f"{effect.value:.3g} (no interval), {seeds}"
    return f"{effect.value:.3g} [{effect.low:.3g}, {effect.high:.3g}], {seeds}"


def verdict_text(result) -> str:
    """The verdict, with the bound and the convention that one at the paper's size rests on."""
    verdict, effect, rule = result.verdict.verdict, result.compared.effect, result.claim.rule
    excluded = excluded_text(effect.high, rule.paper, rule.paper_from) if verdict == NOT_AT_SIZE else ""
    return f"**{verdict}**{excluded}"


def excluded_text(high: float | None, size: float, source: str) -> str:
    """The bound of an effect that is smaller than the paper's, the paper's, and where that is from."""
    return f": {'' if high is None else f'at most {high:.3g}; '}the paper's size is {size:.3g} ({source})"


def published_text(found) -> str:
    """What a `judge.Published` says: verdict and effect of the published study, and whether this run's agrees."""
    effect = "no effect" if found.value is None else f"{found.value:.3g}"
    if found.low is not None and found.high is not None:
        effect += f" [{found.low:.3g}, {found.high:.3g}]"
    says = {True: "this run agrees with it", False: "**this run differs from it**", None: "nothing to compare here"}
    return f"published study: {found.verdict}, {effect}, {found.num_seeds} seeds; {says[found.agrees]}"


def _row(result) -> str:
    claim = result.claim
    controls = "; ".join(f"{control.name}: {_short(control.effect.effect)}" for control in result.controls) or "none"
    says = f"{claim.paper_says} ({MARKS[claim.certainty]})"
    measured = interval_text(result.compared.effect)
    elsewhere = "; ".join(f"{one.says} ({one.source}; {MARKS[one.certainty]})" for one in claim.elsewhere)
    cells = [
        f"[{claim.id}](#{claim.id}) {claim.statement}", says, measured, controls, elsewhere or NO_EVIDENCE,
        "; ".join([verdict_text(result), *([published_text(result.published)] if result.published else [])]),
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(effect) -> str:
    if effect is None:
        return NO_ESTIMATE
    return f"{effect.value:.3g}" if effect.low is None else f"{effect.value:.3g} [{effect.low:.3g}, {effect.high:.3g}]"


def _details(result) -> list[str]:
    claim, effect = result.claim, result.compared.effect
    lines = [
        f"{claim.statement} ({claim.paper}, {claim.section}.)",
        f"The paper: {claim.paper_says} ({MARKS[claim.certainty]}).",
        "",
        f"- Measured: {claim.effect_is}: {interval_text(effect)}{_taken_instead(result)}.",
        f"- Rule: {rule_text(claim)}; p-values corrected after Holm for the {result.family_size} tested"
        f" claims of the family {claim.family}.",
    ]
    if effect is not None and effect.p_for is not None:
        p = result.corrected
        beyond = f", {p.claim:.2g} for the effect beyond every control" if result.controls else ""
        size = f", {p.size:.2g} against the paper's size" if claim.rule.paper is not None else ""
        flip = f" Flipping signs over seeds, uncorrected: p = {effect.p_flip:.2g}." if effect.p_flip is not None else ""
        lines.append(
            f"- p = {p.effect:.2g} for the effect{beyond}, {p.against:.2g} against it{size}, all corrected.{flip}"
        )
        if effect.raised:
            lines.append(f"- The seeds' standard deviation was raised to the known noise, {effect.deviation:.3g}.")
    for control in result.controls:
        contrast = f"; beyond it: {interval_text(control.contrast.effect)}" if control.contrast else ""
        lines.append(
            f"- Control, {control.name}: {control.question} It gives {interval_text(control.effect.effect)}{contrast}."
        )
    if claim.no_control_because:
        lines.append(f"- No control: {claim.no_control_because}.")
    for name, what, found in result.beside:
        lines.append(f"- Shown with it, {name}: {what}: {interval_text(found.effect)}.")
    for one in claim.elsewhere:
        lines.append(f"- Independent result: {one.says} ({one.source}; {MARKS[one.certainty]}).")
    if len(result.looks) > 1:
        looks = "; ".join(
            f"{look.seeds} seeds: {look.value:.3g}"
            + ("" if look.low is None else f" [{look.low:.3g}, {look.high:.3g}]")
            + f", {look.verdict}"
            for look in result.looks
        )
        lines.append(f"- Looks: {looks}.")
    decided = f", decided at {result.decided_at} seeds" if result.decided_at and len(result.looks) > 1 else ""
    lines.append(f"- Verdict: **{result.verdict.verdict}**{decided}: {result.verdict.reason}.")
    if result.published is not None:
        lines.append(f"- Beyond this run, {published_text(result.published)}.")
    if result.verdict.verdict == NOT_AT_SIZE:
        lines.append(f"- The size that is excluded, {claim.rule.paper:.3g}: {claim.rule.paper_from}.")
    if result.verdict.verdict in (INCONCLUSIVE, NOT_AT_SIZE) and result.needed.text:
        lines.append(f"- Seeds: {result.needed.text}.")
    if result.waiting:
        lines.append(f"- Next: {result.waiting}.")
    left_out = list(dict.fromkeys(line for part in result.deciding for line in part.left_out))
    if left_out:
        lines.append(f"- Left out: {_grouped(left_out)}.")
    folders = list(dict.fromkeys(cell for part in result.deciding for side in part.sides for cell in side["cells"]))
    if folders:
        links = ", ".join(f"[{folder}]({folder})" for folder in folders)
        lines.append(f"- Data: {links}; every run's numbers: measures.json; every number of the verdict: claims.json.")
    return lines


def _taken_instead(result) -> str:
    """Which measures took the place of those that no run has."""
    declared = {term.measure for term in result.claim.effect}
    taken = {side["measure"] for side in result.compared.sides}
    if not taken - declared or result.compared.effect is None:
        return ""
    return f" (by {', '.join(sorted(taken - declared))}, in the place of {', '.join(sorted(declared - taken))})"


def _grouped(lines: list[str]) -> str:
    """`run: reason` lines with the runs of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        name, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{names_of(names)}: {reason}" for reason, names in by_reason.items())


def without_dead_links(page: str, folder: Path) -> str:
    """The page with links only to runs that are in `folder`; of the others it keeps the names."""
    return re.sub(r"\[([^\]\n]+)\]\(\1\)", lambda m: m[0] if (folder / m[1]).exists() else f"`{m[1]}`", page)
