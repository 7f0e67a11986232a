# The main job: `snakemake --cores all` trains, evaluates, judges and plots every method of both papers at the scale
# that the configuration chooses; with `--config results=published` it works from published results and trains nothing.
# This file validates the configuration, includes the rules and lists the targets.

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from kpo.config import ConfigurationError, dump
from kpo.notebook import NOTEBOOKS
from kpo.plan import plan_text, published_text, results_text
from kpo.published import FOLDER as PUBLISHED_FOLDERS, missing_runs, published_files
from kpo.workflow import is_published, notebook_source, prepare, run_files, run_settings, update_configuration
from paper_figures import ENTRIES, FIGURES, figures_for

try:
    configuration = prepare(config)
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

FOLDER = str(configuration.folder)
CONFIG = f"{FOLDER}/config.yaml"
PUBLISHED = is_published(configuration)
# The jobs run the same interpreter as Snakemake, whether or not its environment is activated.
PYTHON = shlex.quote(sys.executable)
KPO = f"{PYTHON} -m kpo"


wildcard_constraints:
    experiment="|".join(configuration.experiments),
    method=r"[a-z0-9][a-z0-9.-]*",
    seed=r"\d+",
    figure="|".join(FIGURES),
    notebook="|".join(NOTEBOOKS),


if PUBLISHED:

    include: "workflow/rules/published.smk"

else:

    include: "workflow/rules/data.smk"
    include: "workflow/rules/training.smk"
    include: "workflow/rules/evaluation.smk"
    include: "workflow/rules/measures.smk"


include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/notebooks.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    figures,
    notebooks,


rule all:
    default_target: True
    input:
        f"{FOLDER}/summary.md",
        f"{FOLDER}/claims.md",
        f"{FOLDER}/tables.md",
        rules.figures.input,
        rules.notebooks.input,
        f"{FOLDER}/report.html",


onstart:
    update_configuration(Path(CONFIG), configuration)
    plan = published_text(configuration) if PUBLISHED else plan_text(configuration, workflow.cores)
    print(plan, file=sys.stderr, flush=True)


onsuccess:
    print(f"\n{results_text(Path(FOLDER))}", file=sys.stderr)


onerror:
    print(
        f"\nA job failed; its log is under {FOLDER}/logs/. The same command continues where it stopped.",
        file=sys.stderr,
    )
