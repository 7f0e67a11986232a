"""Publishing a finished scale: its compact results into `results_published/`, its table into the README."""

import shutil
from pathlib import Path

from kpo.config import Configuration, dump
from kpo.evaluation.summary import summary_markdown
from kpo.files import atomic_path, atomic_write, read_json, write_json
from kpo.progress import clock

START, END = "<!-- results:start -->", "<!-- results:end -->"
SHOWN_FIGURES = ("training_curves", "final_accuracy")


def publish(configuration: Configuration, repository: Path) -> None:
    """Copy configuration, summary, figures (PNG) and a provenance digest, and rewrite the README's block of results.

    Raises ValueError where the scale is not finished, or its runs come from differing code or package versions.
    """
    source, target = configuration.folder, repository / "results_published" / configuration.scale
    figures = sorted((source / "figures").glob("*.png"))
    needed = [source / "summary.json", *(source / "figures" / f"{name}.png" for name in SHOWN_FIGURES)]
    for path in needed:
        if not path.exists():
            raise ValueError(f"{path} is missing; finish the workflow before publishing")
    digest = provenance_digest(configuration)
    for path in [source / "summary.json", source / "summary.md", *figures]:
        with atomic_path(target / path.relative_to(source)) as temporary:
            shutil.copyfile(path, temporary)
    atomic_write(target / "config.yaml", dump(_without_machine_paths(configuration)))
    write_json(target / "provenance.json", digest)
    readme = repository / "README.md"
    text = readme.read_text()
    if START not in text or END not in text:
        raise ValueError(f"{readme} has no block between {START} and {END}; put the two lines where the results belong")
    before, rest = text.split(START, 1)
    _, after = rest.split(END, 1)
    atomic_write(readme, before + START + "\n" + readme_block(configuration, digest) + END + after)


def provenance_digest(configuration: Configuration) -> dict:
    """What all runs share (code, versions, hardware), their commits, wall times and peak memories."""
    folders = [configuration.run_folder("base", "base", seed) for seed in configuration.seeds]
    folders += [configuration.run_folder(*run) for run in configuration.runs()]
    records = {
        str(folder.relative_to(configuration.folder)): read_json(folder / "provenance.json") for folder in folders
    }
    first = next(iter(records.values()))
    for name, record in records.items():
        for key in ("source_hash", "versions"):
            if record[key] != first[key]:
                raise ValueError(
                    f"{name}: {key} is {record[key]}, elsewhere {first[key]}; make all runs with one version"
                )
    return {
        "commits": sorted({_commit(record) for record in records.values()}),
        "source_hash": first["source_hash"],
        "versions": first["versions"],
        "hardware": first["hardware"],
        "wall_seconds": {name: record["wall_seconds"] for name, record in records.items()},
        "peak_memory_bytes": {name: record["peak_memory_bytes"] for name, record in records.items()},
    }


def _without_machine_paths(configuration: Configuration) -> Configuration:
    """Where the problem file lay on one machine says nothing to others; its name does."""
    if configuration.arithmetic_file is None:
        return configuration
    return configuration.model_copy(update={"arithmetic_file": Path(configuration.arithmetic_file).name})


def _commit(record: dict) -> str:
    return str(record["commit"])[:10] + (" with changes" if record["dirty"] else "")


def readme_block(configuration: Configuration, digest: dict) -> str:
    """The README's results: the summary's tables, where they were measured, and the pictures."""
    published = f"results_published/{configuration.scale}"
    table = summary_markdown(read_json(configuration.folder / "summary.json")["rows"], configuration)
    body = table.split("\n", 1)[1].replace("\n## ", "\n#### ").strip()
    hardware, times = digest["hardware"], digest["wall_seconds"].values()
    machine = f"{hardware['cores']} cores of {hardware['processor']}"
    memory = max(digest["peak_memory_bytes"].values()) / 2**30
    return "\n".join(
        [
            f"### Results at {configuration.scale} scale",
            "",
            body,
            "",
            f"Measured on {machine} (commit {', '.join(digest['commits'])}); a run took {clock(min(times))} to "
            f"{clock(max(times))} (min:s) on one core and at most {memory:.1f} GiB. "
            f"Files: [{published}]({published}).",
            "",
            *(f"![{name.replace('_', ' ')}]({published}/figures/{name}.png)" for name in SHOWN_FIGURES),
            "",
        ]
    )
