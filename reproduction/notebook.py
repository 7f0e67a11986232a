"""What the notebooks share: results, tables of claims and runs, pictures.

All that is shown is an HTML table, with whatever was read escaped, or a PNG.
"""

import dataclasses
import html
import io
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.claims.measures_file import read_measures_file
from reproduction.jobs.files import read_json

NOTEBOOKS = (
    "01_kalman_filter_over_ratios",
    "02_structure_in_the_ratios",
    "03_stability_under_off_policy_updates",
    "04_accuracy_and_what_explains_it",
    "05_krpo_baseline_order_and_scale",
    "06_adaptive_and_noisy_rewards",
    "07_kpo_in_your_own_trl_training",
)
RELATED_NOTEBOOK = "08_kpo_and_krpo_among_their_related_work"
"""Executed if the results have runs of the related methods."""
REPOSITORY = Path(__file__).resolve().parent.parent
# Captions are broken into lines for 200 dots an inch; on a screen fewer are enough.
DPI, SHARE = 200, 0.55
UNMEASURED = (
    "**Nothing is measured in these results**: `python -m reproduction measure` and `python -m reproduction claims` "
    "come after the runs."
)

# Jupyter starts a notebook in its own folder, from which the repository's packages could not be imported.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))


@dataclasses.dataclass(frozen=True)  # a NamedTuple is printed as a tuple, whatever it says itself
class Shown:
    """HTML for a notebook, with a plain form for terminals."""

    markup: str
    plain: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.markup, "text/plain": self.plain}


def results_folder(results: str | Path | None = None) -> Path:
    """The folder of a scale: the given one, else one of `results/`; else the published; ValueError without any."""
    asked = [Path(results)] if results else [REPOSITORY / "results" / scale for scale in ("paper", "gpu", "laptop")]
    published = [REPOSITORY / "results_published" / folder.name for folder in asked]
    for folder in (*asked, *published):
        if (folder / ("config.yaml" if results else "measures.json")).is_file():
            return folder
    names = " or ".join(f"{folder.parent.name}/{folder.name}" for folder in (asked[-1], published[-1]))
    raise ValueError(f"no measured results in {names}; run `make reproduce` first, or give the folder of a scale")


def related_folder(results: str | Path | None = None) -> Path:
    """As `results_folder`; the published comparison of the related methods if nothing is given and that has none."""
    from reproduction.related.comparison import NAME

    folder = results_folder(results)
    published = REPOSITORY / "results_published" / f"{folder.name}-related"
    has_one = results or (folder / f"{NAME}.json").is_file()
    return folder if has_one or not published.is_dir() else published


def about(folder: Path) -> Shown:
    """Which results a notebook shows: experiments, how many methods and seeds of each, and what is missing."""
    cells: dict[str, set] = {}
    for run in read_runs(folder):
        cells.setdefault(run["experiment"], set()).add((run["label"], run["seed"]))
    if not cells:
        return table([], [], UNMEASURED)
    parts = [f"`{name}` ({len({a for a, _ in c})} x {len({b for _, b in c})})" for name, c in cells.items()]
    which = "published results" if "published" in folder.parent.name else "results at hand"
    text = f"The {which}, scale {folder.name}. Experiments (methods x seeds): {', '.join(parts)}. Missing runs: "
    return table([], [], text + (", ".join(read_json(folder / "measures.json")["missing"]) or "none") + ".")


def read_runs(folder: Path) -> list[dict]:
    """The measured runs of measures.json (see `reproduction.claims.one_run.Run`); none if the file does not exist."""
    path = folder / "measures.json"
    return read_measures_file(path)["runs"] if path.is_file() else []


def values(folder: Path, measure: str, experiment: str, label: str) -> dict[int, float]:
    """A measure of `reproduction.claims.measures.MEASURES` by seed; empty if it was not run, or is not defined."""
    runs = [run for run in read_runs(folder) if (run["experiment"], run["label"]) == (experiment, label)]
    return {run["seed"]: run["values"][measure] for run in runs if run["values"].get(measure) is not None}


def accuracy_measure(folder: Path, level: str = "normal") -> str:
    """The accuracy that claims compare: over the last third of training if some run has it, else after training."""
    late = f"late_accuracy.{level}"
    return late if any(run["values"].get(late) is not None for run in read_runs(folder)) else f"accuracy.{level}"


def read_claims(folder: Path) -> list[dict]:
    """Records of claims.json; computed if only measures.json was published; none if neither is there."""
    if (folder / "claims.json").is_file():
        return read_json(folder / "claims.json")["claims"]
    if not read_runs(folder):
        return []
    from reproduction.claims.record import claims_record
    from reproduction.settings.configuration import validate
    from reproduction.settings.files import read_yaml

    raw = read_yaml(folder / "config.yaml") | {"results": str(folder.parent)}
    return claims_record(validate(raw, f"{folder.name}/config.yaml"))[0]["claims"]


def opening(*claim_ids: str) -> Shown:
    """What the papers claim, as declared in `reproduction.claims`: statement, the paper's figure, how sure that is."""
    from reproduction.claims import get_claim
    from reproduction.claims.page import MARKS, rule_text

    claims = [get_claim(claim_id) for claim_id in claim_ids]
    rows = [[f"{c.statement} (`{c.id}`)", f"{c.paper_says} ({MARKS[c.certainty]})", rule_text(c)] for c in claims]
    papers = " and ".join(dict.fromkeys(f"{claim.paper}" for claim in claims))
    return table(["the claim", "what the paper gives", "what would show it here"], rows, f"Claims of {papers}.")


def claims_table(folder: Path, *which: str) -> Shown:
    """The measured verdicts on the claims whose ids are, or begin with, one of `which`."""
    from reproduction.claims import CLAIMS
    from reproduction.claims.verdict import INCONCLUSIVE, NOT_AT_SIZE
    from reproduction.report.numbers import estimate_with_seeds

    wanted = [claim for claim in CLAIMS if claim.id.startswith(which)]
    records = {record["id"]: record for record in read_claims(folder)}
    rows = []
    for claim in wanted:
        record, named = records.get(claim.id), f"{claim.statement} (`{claim.id}`)"
        if record is None:
            rows.append([named, "", "", "**not judged in these results**"])
            continue
        measured = f"**{estimate_with_seeds(record['effect']['estimate'])}** {record['effect_is']}"
        controls = "; ".join(f"{c['name']}: {estimate_with_seeds(c['effect']['estimate'])}" for c in record["controls"])
        verdict = f"**{record['verdict']}**: {record['reason']}"
        if record["verdict"] in (INCONCLUSIVE, NOT_AT_SIZE) and record["resolution"]:
            verdict += f". Seeds: {record['resolution']}"
        rows.append([named, measured, controls or "none", verdict])
    caption = "Estimate (interval over seeds), and the verdict by the rule at the top."
    return table(["claim", "measured here", "controls", "verdict"], rows, caption if records else UNMEASURED)


def runs_table(folder: Path, measures: Sequence[str], experiments: Mapping[str, Sequence[str] | None]) -> Shown:
    """Mean over seeds and each seed's value of some measures; experiments maps a name to labels (None: all it has)."""
    from reproduction.claims.measures import MEASURES

    rows = []
    for experiment, labels in experiments.items():
        found = dict.fromkeys(run["label"] for run in read_runs(folder) if run["experiment"] == experiment)
        for label in labels or found or ["all methods"]:
            cells = []
            for measure in measures:
                each = list(values(folder, measure, experiment, label).values())
                few = f"**{statistics.fmean(each):.3g}** ({', '.join(f'{one:.3g}' for one in each)})" if each else ""
                cells.append(few or "not run here")
            rows.append([experiment, label, *cells])
    text = ". ".join(f"`{name}`: {MEASURES[name].definition}" for name in measures)
    return table(["experiment", "method", *measures], rows, f"Mean over seeds (each seed). {text}.")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Shown:
    """A table of escaped text, in which **bold** and `code` are marked up; numbers are given four digits."""
    texts = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = [("th", heads), *(("td", row) for row in texts)] if rows else []
    left = 'style="text-align:left;vertical-align:top"'
    html_rows = ["".join(f"<{kind} {left}>{_markup(cell)}</{kind}>" for cell in row) for kind, row in lines]
    markup = "<table>\n" + "\n".join(f"<tr>{row}</tr>" for row in html_rows) + "\n</table>\n" if rows else ""
    plain = "\n".join([*(" | ".join(row) for _, row in lines), caption])
    return Shown(markup + (f"<p>{_markup(caption)}</p>" if caption else ""), plain.strip())


def show(figure, text: str) -> None:
    """Display a matplotlib figure as PNG; `text` says what it shows to those who cannot see it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    _display(drawn, text)


def paper_figure(name: str, folder: Path) -> Shown | None:
    """Display figures/NAME.png of a folder of results with the words of its NAME.json; a note if it was not drawn."""
    words, picture = (folder / "figures" / f"{name}.{kind}" for kind in ("json", "png"))
    if not (words.is_file() and picture.is_file()):
        again = f"python -m paper_figures.{name} --results {folder.name} --output {folder.name}/figures"
        return table([], [], f"**Not drawn from these results.** `{again}` draws it, or says what it lacks.")
    _display(picture, read_json(words)["about"])
    return None


def _display(png: Path | io.BytesIO, text: str) -> None:
    from IPython.display import Image, display
    from PIL import Image as Picture

    small = io.BytesIO()
    with Picture.open(png) as picture:
        scaled = picture.convert("RGB").resize(
            [round(SHARE * side) for side in picture.size], Picture.Resampling.LANCZOS
        )
    # A palette makes the file half as large; 256 colours keep those of the methods apart.
    scaled.quantize(256, dither=Picture.Dither.NONE).save(small, "png", optimize=True)
    display(Image(data=small.getvalue(), alt=text, width=scaled.width))


def _markup(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text)))
