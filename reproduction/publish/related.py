"""Publishing the comparison of the related methods: `results_published/<scale>-related/`, its table and notebook."""

import shutil
from pathlib import Path

from reproduction.jobs.checksums import check_files, read_checksums
from reproduction.jobs.files import atomic_write, only_process, read_json, write_json
from reproduction.notebook import RELATED_NOTEBOOK
from reproduction.publish.publish import provenance_digest, replace_folder
from reproduction.publish.published import FOLDER, copy, without_machine_paths
from reproduction.related.comparison import NAME
from reproduction.settings.configuration import Configuration, dump

PAGE = "docs/related_methods.md"
START, END = "<!-- related:start -->", "<!-- related:end -->"
FILES = ("measures.json", f"{NAME}.json", f"{NAME}.md", f"figures/{NAME}.png", f"figures/{NAME}.json")
NOTEBOOK = f"notebooks/{RELATED_NOTEBOOK}.ipynb"


def publish_related(configuration: Configuration, repository: Path) -> None:
    """Replace the published comparison by that of a results folder.

    Raises ValueError if it is not finished, was not made from these measures, has runs missing, or if runs come from
    differing code or package versions; nothing has been changed then.
    """
    source, page = configuration.folder, repository / PAGE
    for name in (*FILES, NOTEBOOK):
        if not (source / name).is_file():
            raise ValueError(f"{source / name} is missing; compare the related methods first (make related)")
    changed = check_files(source, read_checksums(source, "related"))
    if changed:
        raise ValueError(f"{changed[0]}; compare the methods again (python -m reproduction related)")
    if not_run := read_json(source / f"{NAME}.json")["not_run"]:
        raise ValueError(
            f"{source}: runs are missing or have no accuracy: {', '.join(not_run)}; remove the folder of one that a "
            "fault of the grader or the disk has stopped, and finish them (make related)"
        )
    digest = provenance_digest(configuration, [])
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{page} has no block between {START} and {END}; put the two lines where the table belongs")
    before, rest = text.split(START, 1)
    table = (source / f"{NAME}.md").read_text(encoding="utf-8").split("\n", 2)[2]
    target = repository / FOLDER / f"{configuration.scale}-related"
    with only_process(target.parent):
        new = target.parent / f".{target.name}.new"
        shutil.rmtree(new, ignore_errors=True)
        try:
            for name in FILES:
                copy(source / name, new / name)
            atomic_write(new / "config.yaml", dump(without_machine_paths(configuration)))
            write_json(new / "provenance.json", digest)
            replace_folder(target, new)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    atomic_write(page, f"{before}{START}\n{table}{END}{rest.split(END, 1)[1]}")
    copy(source / NOTEBOOK, repository / NOTEBOOK)
