# The main job: `snakemake --cores all` trains, evaluates and plots every method of both papers at the scale that the
# configuration chooses. This file validates the configuration, includes the rules and lists the targets.

import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from kpo.config import ConfigurationError, dump
from kpo.plan import plan_text
from kpo.tasks import check_pins
from kpo.workflow import (
    evaluation_files,
    evaluation_settings,
    job_devices,
    job_threads,
    model_file,
    prepare,
    run_settings,
    set_settings,
    training_files,
    update_configuration,
)
from paper_figures import FIGURES

try:
    configuration = prepare(config)
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

FOLDER = str(configuration.folder)
CONFIG = f"{FOLDER}/config.yaml"
# The jobs run the same interpreter as Snakemake, whether or not its environment is activated.
PYTHON = shlex.quote(sys.executable)
KPO = f"{PYTHON} -m kpo"
# Snakemake's own `workflow.cores` fails where a cluster runs the jobs and no number of cores is given.
CORES = workflow.resource_settings.cores
# The jobs' tensors of some megabytes are kept by the process rather than handed back to the system and cleared anew at
# each step, which took a tenth of sampling's time. glibc reads these; elsewhere they mean nothing.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))


# Experiments with a small model pretrained by the workflow itself, and those with a model of the hub. An upper-case
# word is no experiment's name.
PRETRAINED = [name for name, experiment in configuration.experiments.items() if experiment.pretrained is not None]
SMALL = [name for name in configuration.experiments if name not in PRETRAINED]
ONLY_SMALL, ONLY_PRETRAINED = "|".join(SMALL) or "NONE", "|".join(PRETRAINED) or "NONE"


wildcard_constraints:
    experiment="|".join(configuration.experiments),
    method=r"[a-z0-9][a-z0-9.-]*",
    seed=r"\d+",


include: "workflow/rules/data.smk"
include: "workflow/rules/pretrained.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"


localrules:
    all,
    figures,
    # Machines that compute often have no network: what is fetched is fetched where Snakemake was called.
    configuration,
    mathematics,
    model,


rule all:
    default_target: True
    input:
        f"{FOLDER}/summary.md",
        rules.figures.input,


onstart:
    try:
        check_pins(configuration)
    except ConfigurationError as error:
        raise WorkflowError(str(error)) from None
    update_configuration(Path(CONFIG), configuration)
    print(plan_text(configuration, CORES), file=sys.stderr, flush=True)


onsuccess:
    print(f"\nDone: the table is {FOLDER}/summary.md, the figures are in {FOLDER}/figures/", file=sys.stderr)


onerror:
    print(
        f"\nA job failed; its log is under {FOLDER}/logs/. The same command continues where it stopped.",
        file=sys.stderr,
    )
