# The main job: `snakemake --cores all` trains, evaluates, judges and plots every method of both papers at the scale
# that the configuration chooses; with `--config results=published` it works from published results and trains nothing.
# This file validates the configuration, includes the rules and lists the targets.

import os
import shlex
import site
import sys
import threading
from pathlib import Path

from snakemake.exceptions import WorkflowError

# This checkout's packages and those of its own environment, for this process and for every job: not what PYTHONPATH,
# the user's site folder or the folder in which Snakemake was started hold, which may be other versions.
FOREIGN = {*os.environ.get("PYTHONPATH", "").split(os.pathsep), site.getusersitepackages(), os.getcwd(), ""}
sys.path[:] = [workflow.basedir, *(folder for folder in sys.path if folder not in FOREIGN)]
os.environ.update(PYTHONPATH=workflow.basedir, PYTHONNOUSERSITE="1", PYTHONSAFEPATH="1")
if os.pathsep in workflow.basedir:
    raise WorkflowError(f"the path of the checkout holds a {os.pathsep!r}, which separates paths; rename its folder")

from reproduction.claims.design import design_of
from reproduction.claims.scales import published_scales
from reproduction.settings.configuration import ConfigurationError, dump
from reproduction.notebook import NOTEBOOKS, RELATED_NOTEBOOK
from reproduction.jobs.code import code_hash, notebook_hash, notebook_names, step_hash
from reproduction.jobs.plan import plan_text, published_text, results_text
from reproduction.publish.published import FOLDER as PUBLISHED_FOLDERS, REPOSITORY, missing_runs, published_files
from reproduction.data.experiment_data import check_pins, model_file
from reproduction.workflow import (
    evaluation_files,
    evaluation_settings,
    is_published,
    job_devices,
    job_threads,
    prepare,
    run_files,
    run_settings,
    set_settings,
    training_files,
    update_configuration,
)
from paper_figures import ENTRIES, FIGURES, figures_for

try:
    configuration = prepare(config)
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

FOLDER = str(configuration.folder)
CONFIG = f"{FOLDER}/config.yaml"
PUBLISHED = is_published(configuration)
# The checkout's folder: Snakemake may have been started in another folder, from a checkout that cannot be
# written. (Braces mean wildcards to Snakemake.)
IS_HERE = Path.cwd().samefile(workflow.basedir)
HERE = "" if IS_HERE else f"{workflow.basedir}/".replace("{", "{{").replace("}", "}}")
# What a job asks a cluster for if its rule says nothing else. Stated here and not in a profile, whose resources are lost
# as soon as one of them is given on the command line.
ON_A_CLUSTER = {"runtime": 120, "mem_mb": 16000}
# The jobs run the same interpreter as Snakemake, whether or not its environment is activated.
PYTHON = shlex.quote(sys.executable)
STEP = f"{PYTHON} -m reproduction"
# Small models stay on the CPU, whatever devices there are: many jobs at once would all take the first one.
ON_CPU = f"CUDA_VISIBLE_DEVICES= {STEP}"
# Snakemake's own `workflow.cores` fails if a cluster runs the jobs and no number of cores is given.
CORES = workflow.resource_settings.cores

# Experiments with a small model that the workflow pretrains, and those with a Hugging Face model. No experiment has an
# upper-case name.
PRETRAINED = [name for name, experiment in configuration.experiments.items() if experiment.pretrained is not None]
SMALL = [name for name in configuration.experiments if name not in PRETRAINED]
ONLY_SMALL, ONLY_PRETRAINED = "|".join(SMALL) or "NONE", "|".join(PRETRAINED) or "NONE"


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
    include: "workflow/rules/pretrained.smk"
    include: "workflow/rules/training.smk"
    include: "workflow/rules/evaluation.smk"
    include: "workflow/rules/measures.smk"


include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/notebooks.smk"
include: "workflow/rules/related.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    figures,
    notebooks,
    related,
    # Machines that compute often have no network: what is fetched is fetched where Snakemake was called.
    configuration,
    mathematics,
    model,


rule all:
    default_target: True
    input:
        f"{FOLDER}/summary.md",
        f"{FOLDER}/claims.md",
        f"{FOLDER}/tables.md",
        rules.figures.input,
        rules.notebooks.input,
        rules.related.input,
        f"{FOLDER}/report.html",


onstart:
    if not PUBLISHED:
        try:
            check_pins(configuration)
        except ConfigurationError as error:
            raise WorkflowError(str(error)) from None
    update_configuration(Path(CONFIG), configuration)
    plan = published_text(configuration) if PUBLISHED else plan_text(configuration, CORES)
    print(plan, file=sys.stderr, flush=True)


def end_timers():
    """Cancel the timers by which Snakemake looks for jobs (profiles/default): it would wait for the last at its end."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


onsuccess:
    end_timers()
    print(f"\n{results_text(Path(FOLDER))}", file=sys.stderr)


onerror:
    end_timers()
    print(
        f"\nA job failed; its log is under {FOLDER}/logs/. The same command continues where it stopped.",
        file=sys.stderr,
    )
