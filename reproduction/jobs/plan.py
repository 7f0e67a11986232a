"""The plan printed before a workflow starts: scale, runs, devices and the time they should take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.jobs.devices import Device, visible_devices
from reproduction.jobs.launch import printed_command
from reproduction.jobs.progress import clock
from reproduction.jobs.sizing import (
    BANDWIDTH_SHARE,
    COMPUTE_SHARE,
    LENGTH_SHARE,
    PROMPT_SHARE,
    evaluation_hours,
    fits,
    planned_count,
    planned_memory,
    speed_of,
    training_hours,
)
from reproduction.publish.published import FOLDER
from reproduction.settings.configuration import DEFAULT_SCALE, Configuration, load
from reproduction.settings.experiment import ExperimentSettings


def published_text(configuration: Configuration) -> str:
    """The line read before work on published results starts."""
    return (
        f"kpo, scale {configuration.scale}: works from {FOLDER}/{configuration.scale}/, copied to "
        f"{configuration.folder}/; nothing is trained"
    )


def results_text(folder: Path) -> str:
    """Where to look after a workflow: what exists of its results."""
    places = {
        "report.html": "everything on one page",
        "claims.md": "the verdicts",
        "summary.md": "the accuracies",
        "tables.md": "the papers' tables",
        "figures/": "PDF and PNG",
        "notebooks/": "executed",
    }
    found = [f"  {folder}/{name:<12} {what}" for name, what in places.items() if (folder / name).exists()]
    return "\n".join(["Done. Where to look:", *found])


def plan_text(configuration: Configuration, cores: int | None, devices: Sequence[Device] | None = None) -> str:
    """A few lines a person reads before the start.

    The times of jobs on the CPU are those that the configuration states for one job each; on devices they are estimated
    from sizes (`reproduction.jobs.sizing`). devices: None for those of this machine.
    """
    cores = max(1, cores or 1)
    devices = visible_devices() if devices is None else list(devices)
    names = ", ".join(_device_name(device) for device in devices) or "no CUDA device"
    seeds = len(configuration.seeds)
    timed = [name for name, experiment in configuration.experiments.items() if _is_on_cpu(experiment)]
    seconds, evaluations = 0.0, len(configuration.untrained()) + len(configuration.runs())
    lines = [
        f"kpo, scale {configuration.scale}: results go to {configuration.folder}/",
        f"  devices      {cores} CPU cores, {names}",
    ]
    if configuration.base_model is not None:
        lines.append(f"  base models  {seeds}, one for each of the seeds {', '.join(map(str, configuration.seeds))}")
        seconds += seeds * configuration.base_model.expected_seconds
        seconds += seeds * configuration.evaluation.expected_seconds
    for name, experiment in configuration.experiments.items():
        runs = {label: len(configuration.seeds_of(name, label)) for label in experiment.methods}
        count, labels = sum(runs.values()), [label for label, number in runs.items() if number]
        if name in timed:
            seconds += (experiment.pretrained is not None and count > 0) * configuration.evaluation.expected_seconds
            seconds += count * (experiment.expected_seconds + configuration.evaluation.expected_seconds)
        if labels:
            lines.append(f"  {name:<12} {count} runs: {', '.join(labels)}")
    lines.append(f"  evaluations  {evaluations}")
    if timed:
        lines.append(
            f"  expected     about {clock(seconds / cores)} (min:s) with {cores} jobs at once, if all is still to do"
        )
    if len(timed) < len(configuration.experiments):
        lines += _on_devices(configuration, devices)
    elif configuration.scale == DEFAULT_SCALE:
        lines += _larger_scale(devices)
    return "\n".join(lines)


def _is_on_cpu(experiment: ExperimentSettings) -> bool:
    return experiment.pretrained is None or experiment.pretrained.devices.count == 0


def _larger_scale(devices: list[Device]) -> list[str]:
    """The largest scale that these devices hold, as a hint: it takes days, so only a person chooses it."""
    for scale in ("paper", "gpu"):
        larger = load({"scale": scale})
        if fits(larger, devices):
            hours = sum(_estimate(larger, name, devices).hours for name in larger.experiments)
            fits_in = f"would fit on these devices, in about {hours:,.0f} device-hours (estimated)"
            return [f"  hint         scale={scale} {fits_in}"]
    return []


@dataclass(frozen=True)
class _Estimate:
    """An experiment's runs, devices of a training, device-hours of one training and evaluation, and of what devices."""

    runs: int
    count: int
    training: float
    evaluation: float
    assumed: str

    @property
    def hours(self) -> float:
        """Device-hours of the experiment; its model is evaluated untrained as well."""
        return self.runs * self.training + (self.runs + 1) * self.evaluation


def _estimate(configuration: Configuration, name: str, devices: list[Device]) -> _Estimate:
    """Raises ValueError if no number of devices is enough."""
    experiment = configuration.experiments[name]
    memory = planned_memory(experiment, devices)
    speed = speed_of(devices[0].name if devices else "", memory)
    count = planned_count(experiment, devices)
    return _Estimate(
        runs=sum(len(configuration.seeds_of(name, label)) for label in experiment.methods),
        count=count,
        training=training_hours(experiment, max(count, 1), speed, memory),
        evaluation=evaluation_hours(configuration, experiment, speed),
        assumed=f"{memory / 1e9:.0f} GB at the speed of an {speed.name}",
    )


def _on_devices(configuration: Configuration, devices: list[Device]) -> list[str]:
    """Device-hours and launch command of every experiment with a Hugging Face model that is not for the CPU."""
    lines, commands, total, assumed = ["  on devices   device-hours, estimated and not measured:"], [], 0.0, {}
    for name, experiment in configuration.experiments.items():
        if _is_on_cpu(experiment) or not configuration.seeds_of(name):
            continue
        try:
            one = _estimate(configuration, name, devices)
        except ValueError as error:
            lines.append(f"    {name:<26} cannot run here: {error}")
            continue
        assumed[one.assumed] = None
        total += one.hours
        where = f"{one.count} device{'s' if one.count > 1 else ''} each"
        lines.append(
            f"    {name:<26} {one.hours:8.1f} = {one.runs} x {one.training:.1f} training ({where}) + "
            f"{one.runs + 1} x {one.evaluation:.1f}"
        )
        commands.append(f"    {printed_command(configuration, name, one.count)}")
        if experiment.pretrained.trainer == "verl":
            commands.append(
                f"      {name} trains through verl (docs/verl.md), by the command in a run's verl/launch.sh"
            )
        if one.count > len(devices) > 0:
            lines.append(f"      needs {one.count} devices at once, and this machine has {len(devices)}")
    lines.append(f"    {'all':<26} {total:8.1f} on devices of {'; '.join(assumed)}")
    lines.append(
        f"    how: reproduction/jobs/sizing.py; responses of {LENGTH_SHARE:.0%} of their limit, prompts of "
        f"{PROMPT_SHARE:.0%}, {BANDWIDTH_SHARE:.0%} of the bandwidth and {COMPUTE_SHARE:.0%} of the operations that "
        "the makers state"
    )
    return [*lines, "  launch       the first run of each experiment, after the data and model steps:", *commands]


def _device_name(device: Device) -> str:
    return device.name if device.memory_bytes is None else f"{device.name} ({device.memory_bytes / 1e9:.0f} GB)"
