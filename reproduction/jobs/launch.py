"""The command that a job on devices runs as: plain Python on one device, accelerate's launcher on several."""

import os
import shlex
import sys
from pathlib import Path

from reproduction.jobs.devices import run_with_lease, visible_devices
from reproduction.jobs.sizing import planned_count
from reproduction.settings.configuration import CONFIG_FOLDER, Configuration, ConfigurationError
from reproduction.settings.experiment import ExperimentSettings

FSDP = CONFIG_FOLDER / "accelerate" / "fsdp2.yaml"


def step_command(step: str, processes: int, arguments: list[str], python: str = sys.executable) -> list[str]:
    """`python -m reproduction <step>` with `arguments`, one process per device; several share the model by FSDP2."""
    if processes <= 1:
        return [python, "-m", "reproduction", step, *arguments]
    launcher = [python, "-m", "accelerate.commands.launch", "--config_file", str(FSDP)]
    # Port 0: any free one, so that two such jobs can run on one machine.
    launcher += ["--num_processes", str(processes), "--main_process_port", "0"]
    return [*launcher, "-m", "reproduction", step, *arguments]


def run_arguments(config: Path | str, experiment: str, method: str, seed: int) -> list[str]:
    """What `python -m reproduction train` and `python -m reproduction evaluate` are told of a run."""
    return ["--config", str(config), "--experiment", experiment, "--method", method, "--seed", str(seed)]


def launch(
    configuration: Configuration,
    step: str,
    experiment: str,
    arguments: list[str],
    wait: float | None,
    devices: int | None = None,
) -> None:
    """Lease the devices of a job and become it; never returns.

    Training and evaluation take the same number: what training needs. An evaluation starts a process on each itself.

    devices: how many a scheduler gave the job, which are then what it takes; None for as many as the experiment needs
    on this machine. Raises ConfigurationError or DeviceError with one line, before any device is touched.
    """
    settings, found = configuration.experiments[experiment], visible_devices()
    if devices is not None and devices < 0:
        raise ConfigurationError(f"--devices must be at least 0, found {devices}")
    try:
        count = planned_count(settings, found)
        if devices is not None and devices != count:
            # Training has to fit into them; an evaluation shares out its shards over any number.
            count = planned_count(_with_devices(settings, devices), found) if step == "train" else devices
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    processes = count if step == "train" and settings.pretrained.trainer == "trl" else 1  # verl starts its own
    run_with_lease(count, step_command(step, processes, arguments), wait)


def _with_devices(settings: ExperimentSettings, count: int) -> ExperimentSettings:
    pretrained = settings.pretrained
    chosen = pretrained.devices.model_copy(update={"count": count})
    return settings.model_copy(update={"pretrained": pretrained.model_copy(update={"devices": chosen})})


def printed_command(configuration: Configuration, experiment: str, count: int) -> str:
    """The launch command of an experiment's first run, as a person would type it in the repository."""
    settings = configuration.experiments[experiment]
    first = next(run for run in configuration.runs() if run[0] == experiment)
    arguments = run_arguments(configuration.folder / "config.yaml", *first)
    command = step_command("train", count if settings.pretrained.trainer == "trl" else 1, arguments, python="python")
    command = [str(Path(part).relative_to(CONFIG_FOLDER.parent)) if part == str(FSDP) else part for part in command]
    lease = ["python", "-m", "reproduction", "lease", "--devices", str(count), "--"] if count else []
    return shlex.join([*lease, *command])
