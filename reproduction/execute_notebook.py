"""`python -m reproduction notebook 02_structure_in_the_ratios --results results/laptop --output executed.ipynb`.

An executed notebook saw one thread, this Python and no start-up file of the user's, and holds no date, path, duration,
version or warning of a library: same inputs, same bytes.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reproduction.jobs.files import atomic_write, write_json
from reproduction.notebook import NOTEBOOKS, RELATED_NOTEBOOK, REPOSITORY, related_folder, results_folder

CELL_SECONDS, KERNEL = 900, "kpo-this-python"


def execute(name: str, results: Path | None, output: Path) -> None:
    """Execute notebooks/NAME.ipynb on a folder of results and write it to `output`, whole or not at all.

    Raises ValueError naming the cell and its exception; NAME.failed.ipynb next to the output holds how far it came.
    """
    known = (*NOTEBOOKS, RELATED_NOTEBOOK)
    if name not in known:
        raise ValueError(f"unknown notebook {name!r}; known are {', '.join(known)}")
    import nbformat
    import papermill
    import traitlets.config

    find = related_folder if name == RELATED_NOTEBOOK else results_folder
    source, folder = REPOSITORY / "notebooks" / f"{name}.ipynb", find(results).resolve()
    failed = output.parent / f"{output.stem}.failed.ipynb"
    with _kernel() as scratch:
        done = str(scratch / "done.ipynb")
        # Sockets in the file system cannot meet another kernel's ports; their names have to be short.
        transport = "ipc" if sys.platform == "linux" and len(str(scratch)) < 50 else "tcp"
        manager = {"transport": transport} | ({"ip": str(scratch / "socket")} if transport == "ipc" else {})
        config = traitlets.config.Config({"KernelManager": manager})
        settings = {"cwd": str(REPOSITORY), "progress_bar": False, "execution_timeout": CELL_SECONDS, "config": config}
        settings["start_timeout"] = CELL_SECONDS
        try:
            papermill.execute_notebook(str(source), done, {"results": str(folder)}, kernel_name=KERNEL, **settings)
        except papermill.PapermillExecutionError as error:
            atomic_write(failed, Path(done).read_bytes())
            line = error.source.strip().split("\n")[0]
            raise ValueError(f"{name}: the cell {line!r} failed: {error.ename}: {error.evalue}") from None
        notebook = nbformat.read(done, as_version=4)
    _stderr_to_log(notebook)
    write_json(output, _portable(notebook, folder))
    failed.unlink(missing_ok=True)


def _stderr_to_log(notebook) -> None:
    """Move standard error (what libraries say about this machine) from the notebook to that of this process."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            said = [output for output in cell.outputs if output.get("name") == "stderr"]
            cell.outputs = [output for output in cell.outputs if output not in said]
            print(end="".join(output["text"] for output in said), file=sys.stderr)


@contextlib.contextmanager
def _kernel() -> Iterator[Path]:
    """A temporary folder with a kernel of this Python, and an environment in which Jupyter finds only that."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as name:
        argv = [sys.executable, "-m", "ipykernel_launcher", "--HistoryManager.enabled=False", "--log-level=50"]
        spec = {"argv": [*argv, "-f", "{connection_file}"], "display_name": KERNEL, "language": "python"}
        atomic_write(Path(name) / "kernels" / KERNEL / "kernel.json", json.dumps(spec))
        folders = {"JUPYTER_PATH": name, "JUPYTER_RUNTIME_DIR": name, "IPYTHONDIR": f"{name}/ipython"}
        fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
        try:
            os.environ.update(folders | fixed)
            # The kernel's launcher takes the first entry of sys.path for its own folder and removes it.
            os.environ.pop("PYTHONSAFEPATH", None)
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _portable(notebook, folder: Path) -> dict:
    """The executed notebook without what differs from run to run or is about the machine."""
    cells: list[dict] = []
    places = {str(folder): folder.name, str(REPOSITORY): ".", sys.prefix: "python", str(Path.home()): "~"}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        # The injected cell holds nothing but the folder's place on this machine.
        if "injected-parameters" in tags:
            continue
        kept = {key: cell[key] for key in ("cell_type", "id", "source")} | {"metadata": {"tags": tags} if tags else {}}
        if cell.cell_type == "code":
            kept["execution_count"] = 1 + sum("outputs" in other for other in cells)
            text = json.dumps(cell.outputs)
            for path, name in places.items():
                text = text.replace(json.dumps(path)[1:-1], name)
            kept["outputs"] = _outputs(json.loads(text), kept["execution_count"])
        cells.append(kept)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _outputs(outputs: list[dict], number: int) -> list[dict]:
    kept: list[dict] = []
    for output in outputs:
        if "execution_count" in output:
            output["execution_count"] = number
        # How a stream is cut into messages depends on timing.
        if kept and output["output_type"] == "stream" and kept[-1].get("name") == output["name"]:
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    return kept
