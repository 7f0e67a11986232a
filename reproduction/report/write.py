"""report.html of a scale: read, arrange, render, write."""

import re
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from reproduction.claims.design import design_of
from reproduction.claims.page import STATISTICS, design_text
from reproduction.claims.scales import EXPLAINED, side_by_side
from reproduction.claims.verdict import VERDICTS
from reproduction.jobs.files import atomic_write
from reproduction.report.accuracy import accuracies, sizes
from reproduction.report.figures import by_claim, pictures
from reproduction.report.inputs import Inputs, ReportError, read_inputs
from reproduction.report.models import models_text
from reproduction.report.origin import Origin, configuration_text, origin
from reproduction.report.verdicts import View, anchor, badges, file_of, view
from reproduction.settings.configuration import Configuration

TEMPLATES = Path(__file__).parent / "templates"
DATA_FILES = ("claims.md", "claims.json", "measures.json", "summary.md", "summary.json", "tables.md", "tables.json",
              "config.yaml")  # fmt: skip
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")


def write_report(configuration: Configuration) -> None:
    """Write report.html of a scale from its claims, tables, summary, measures, figures and provenance.

    The page is one file that asks for nothing else; equal inputs give equal bytes. Raises ReportError naming the file
    if one is missing, damaged or of another scale.
    """
    inputs = read_inputs(configuration)
    atomic_write(configuration.folder / "report.html", render(configuration, inputs))


def render(configuration: Configuration, inputs: Inputs) -> str:
    """The page as text. Everything that comes from files is escaped by the template.

    Raises ReportError naming the template and its line if the template does not fit what is shown.
    """
    made = origin(inputs)
    claims = [view(record, inputs.folder) for record in inputs.claims]
    shown = pictures(configuration.folder / "figures")
    counts = Counter(claim.badge.text for claim in claims)
    return rendered(
        TEMPLATES,
        "report.html",
        configuration=configuration,
        configuration_text=configuration_text(configuration),
        models=models_text(configuration),
        claims=claims,
        papers=_papers(claims),
        other_code={claim.anchor: _other_code(claim, made) for claim in claims},
        verdicts=[(badge, counts[badge.text]) for badge in badges()],
        pictures=shown,
        pictures_of=by_claim(shown),
        anchors={claim.record["id"]: claim.anchor for claim in claims},
        accuracies=accuracies(inputs.summary),
        sizes=sizes(inputs.summary),
        tables=inputs.tables,
        scales=side_by_side(inputs.claims, configuration.scale, inputs.scales),
        scales_explained=EXPLAINED.replace("`", ""),
        verdict_words=VERDICTS,
        statistics=STATISTICS,
        design=design_text(design_of(configuration)),
        anchor=anchor,
        origin=made,
        data_files=[file_of(inputs.folder, name) for name in DATA_FILES],
    )


def rendered(folder: Path, template: str, **values) -> str:
    """A template of `folder` with `values` in it; ReportError naming file and line if it asks for others."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(template).render(**values)
    except TemplateError as error:
        # Jinja leaves the lines of the template in the traceback; an error of its syntax has a line of its own.
        inside = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
        line = getattr(error, "lineno", None) or (inside[-1].lineno if inside else None)
        file = getattr(error, "filename", None) or (inside[-1].filename if inside else folder / template)
        raise ReportError(
            f"{file}{f', line {line}' if line else ''}: {error.message}; the page's template does not fit these "
            "results, correct it there"
        ) from error


def _papers(claims: Sequence[View]) -> list[tuple[str, str, list[View]]]:
    """(label, arXiv number or "", its claims) of each paper, in the order of the claims."""
    labels = dict.fromkeys(claim.record["paper"] for claim in claims)
    found = {label: ARXIV.match(label) for label in labels}
    return [
        (label, match.group(1) if match else "", [claim for claim in claims if claim.record["paper"] == label])
        for label, match in found.items()
    ]


def _other_code(claim: View, made: Origin) -> list[str]:
    """The code of a claim's runs that were made by other code than most runs of the page."""
    return list(dict.fromkeys(made.other_code[run] for run in claim.runs if run in made.other_code))
