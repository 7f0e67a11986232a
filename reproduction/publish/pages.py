"""What readers see of published results: the folder's own page, and its short form in the repository's README.

Both are made only from the files of the published folder, so that no number is typed.
"""

from collections import Counter
from pathlib import Path

from reproduction.claims.page import excluded_text
from reproduction.claims.verdict import INCONCLUSIVE, NOT_AT_SIZE, NOT_TESTED, VERDICTS
from reproduction.evaluation.summary import summary_markdown
from reproduction.jobs.files import read_json
from reproduction.jobs.progress import clock
from reproduction.publish.changes import changes_page
from reproduction.publish.published import FOLDER
from reproduction.report.numbers import estimate, seeds
from reproduction.settings.configuration import CONFIG_FOLDER, Configuration, read_resolved
from reproduction.settings.files import read_yaml

SHOWN_FIGURES = ("training_curves", "final_accuracy")
HEADLINE_FIGURE = "final_accuracy"


def results_page(published: Path) -> str:
    """README.md of a published folder: accuracy tables, verdict counts, every decided claim, machine, figures.

    The tables show the scale's own experiments; those that a study adds are in the verdicts.
    """
    configuration, digest = read_resolved(published / "config.yaml"), read_json(published / "provenance.json")
    table = summary_markdown(_shown_rows(configuration, published), configuration)
    claims = read_json(published / "claims.json")["claims"]
    lines = [
        f"# Results at {configuration.scale} scale",
        "",
        table.split("\n", 1)[1].strip(),
        "",
        "## Verdicts",
        "",
        verdict_line(claims, "claims.md"),
        "",
        *decided_rows(claims, "claims.md"),
        "",
        *changes_page(published),
        _made_with(digest),
    ]
    if digest["missing"]:
        lines += ["", f"Missing runs, so that some means are over fewer seeds: {', '.join(digest['missing'])}."]
    return "\n".join([*lines, "", *(_picture(name, "figures") for name in SHOWN_FIGURES), ""])


def readme_block(published: Path) -> str:
    """The README's results: how often each verdict was given, the decided claims in a line each, and one figure."""
    configuration, digest = read_resolved(published / "config.yaml"), read_json(published / "provenance.json")
    folder = f"{FOLDER}/{configuration.scale}"
    claims = read_json(published / "claims.json")["claims"]
    lines = [
        f"### Results at {configuration.scale} scale",
        "",
        verdict_line(claims, f"{folder}/claims.md"),
        "",
        *(f"- *{verdict}*: {named}." for verdict, named in _named(claims)),
        "",
        f"[Accuracy of every method, and each decided claim with its controls]({folder}/README.md).",
        _made_with(digest),
        "",
        _picture(HEADLINE_FIGURE, f"{folder}/figures"),
        "",
    ]
    return "\n".join(lines)


def verdict_line(claims: list[dict], page: str) -> str:
    """How often each verdict was given, with a link to the page of all."""
    counts = Counter(claim["verdict"] for claim in claims)
    said = "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"Verdicts on the {len(claims)} claims of both papers: {said}. [Each with its numbers and its rule]({page})."


def decided(claims: list[dict]) -> list[dict]:
    """The claims with a verdict for or against, in the order of the verdicts."""
    order = [verdict for verdict in VERDICTS if verdict not in (INCONCLUSIVE, NOT_TESTED)]
    return [claim for verdict in order for claim in claims if claim["verdict"] == verdict]


def decided_rows(claims: list[dict], page: str) -> list[str]:
    """A table of the decided claims; nothing if there is none."""
    found = decided(claims)
    if not found:
        return []
    lines = ["| claim | what was measured | what its controls give | verdict |", "|---|---|---|---|"]
    for claim in found:
        effect = claim["effect"]["estimate"]
        cells = (
            f"[{claim['id']}]({page}#{claim['id']}): {claim['statement']}",
            f"{claim['effect_is']}: {estimate(effect)}, {seeds(effect['num_seeds'])}",
            "; ".join(f"{c['name']}: {estimate(c['effect']['estimate'])}" for c in claim["controls"]) or "none",
            f"**{claim['verdict']}**{_excluded(claim)}",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _excluded(claim: dict) -> str:
    if claim["verdict"] != NOT_AT_SIZE:
        return ""
    return excluded_text(claim["effect"]["estimate"]["high"], claim["rule"]["paper"], claim["rule"]["paper_from"])


def _named(claims: list[dict]) -> list[tuple[str, str]]:
    """Each verdict for or against with the names of its claims, those apart whose size is a convention."""
    found: dict[str, list[str]] = {}
    for claim in decided(claims):
        by_convention = claim["verdict"] == NOT_AT_SIZE and "by convention" in claim["rule"]["paper_from"]
        verdict = claim["verdict"] + "; the paper gives none, so it is ours by convention" * by_convention
        found.setdefault(verdict, []).append(f"`{claim['id']}`")
    return [(verdict, ", ".join(names)) for verdict, names in found.items()]


def _made_with(digest: dict) -> str:
    hardware, times = digest["hardware"], digest["wall_seconds"].values()
    memory = max(digest["peak_memory_bytes"].values()) / 2**30
    return (
        f"Measured on {hardware['cores']} cores of {hardware['processor']} (commit {', '.join(digest['commits'])}); a "
        f"run took {clock(min(times))} to {clock(max(times))} (min:s) on one core and at most {memory:.1f} GiB."
    )


def _picture(name: str, folder: str) -> str:
    return f"![{name.replace('_', ' ')}]({folder}/{name}.png)"


def _shown_rows(configuration: Configuration, published: Path) -> list[dict]:
    rows = read_json(published / "summary.json")["rows"]
    if configuration.study is None:
        return rows
    own = read_yaml(CONFIG_FOLDER / f"{configuration.scale}.yaml")["experiments"]
    return [row for row in rows if row["experiment"] == "base" or row["experiment"] in own]
