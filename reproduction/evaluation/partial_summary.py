"""The table over all evaluations where runs are missing: what is there, and in words what is not."""

from reproduction.evaluation.summary import rows_of, summary_markdown
from reproduction.jobs.files import atomic_write, write_json
from reproduction.settings.configuration import Configuration


def write_partial_summary(configuration: Configuration) -> None:
    """Write summary.json and summary.md from the evaluations that exist; each row names its seeds.

    Every base model must have been evaluated. Raises ValueError as `reproduction.evaluation.summary.write_summary` does for
    evaluations that cannot be averaged.
    """
    groups = dict.fromkeys((experiment, label) for experiment, label, _ in configuration.untrained())
    rows, notes = [row for group in groups for row in rows_of(configuration, *group)], []
    for experiment, settings in configuration.experiments.items():
        for method in settings.methods:
            there = [
                seed
                for seed in configuration.seeds_of(experiment)
                if (configuration.run_folder(experiment, method, seed) / "evaluation.json").is_file()
            ]
            if there:
                part = {**configuration.experiments, experiment: settings.model_copy(update={"seeds": there})}
                rows += rows_of(configuration.model_copy(update={"experiments": part}), experiment, method)
            if there != configuration.seeds_of(experiment):
                seeds = f"seeds {', '.join(map(str, there))} alone" if there else "no seed"
                notes.append(f"{experiment}/{method}: {seeds}")
    text = summary_markdown(rows, configuration)
    if notes:
        text += f"\nRuns are missing. There are of {'; of '.join(notes)}.\n"
    write_json(configuration.folder / "summary.json", {"scale": configuration.scale, "rows": rows})
    atomic_write(configuration.folder / "summary.md", text)
