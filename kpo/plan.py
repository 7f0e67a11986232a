"""The plan printed before a workflow starts: scale, runs, devices and the time they should take."""

from pathlib import Path

from kpo.config import Configuration
from kpo.progress import clock
from kpo.published import FOLDER


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


def plan_text(configuration: Configuration, cores: int | None) -> str:
    """A few lines a person reads before the start; the times are those the configuration states for one job each."""
    import torch

    cores = max(1, cores or 1)
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    seeds = len(configuration.seeds)
    evaluations = seeds + len(configuration.runs())
    seconds = seeds * configuration.base_model.expected_seconds
    seconds += evaluations * configuration.evaluation.expected_seconds
    lines = [
        f"kpo, scale {configuration.scale}: results go to {configuration.folder}/",
        f"  devices      {cores} CPU cores, {', '.join(devices) if devices else 'no CUDA device'}",
        f"  base models  {seeds}, one for each of the seeds {', '.join(map(str, configuration.seeds))}",
    ]
    for name, experiment in configuration.experiments.items():
        count = len(experiment.methods) * len(configuration.seeds_of(name))
        seconds += count * experiment.expected_seconds
        lines.append(f"  {name:<12} {count} runs: {', '.join(experiment.methods)}")
    lines.append(f"  evaluations  {evaluations}")
    lines.append(
        f"  expected     about {clock(seconds / cores)} (min:s) with {cores} jobs side by side, if all is still to do"
    )
    return "\n".join(lines)
