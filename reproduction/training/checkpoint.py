"""Checkpoints of a run: a folder of safetensors and JSON, written atomically.

    <run folder>/checkpoint/update-00040/     checkpoint.json  state.json  state.safetensors  model.safetensors
                                              trainer_state.json (transformers' own)

Of a run in several processes, process k writes all but checkpoint.json into its own folder process-0000k, with
what it holds of the model (`reproduction.training.fsdp`); they must see the same file system.

A checkpoint is written into a temporary folder, flushed to disk and renamed; only then is the previous one removed. It
holds nested dicts and lists of numbers, text and tensors, so reading it runs no code (no pickle).

`checkpoint.json` says what decided the run. A checkpoint of other settings, data, code or versions is not continued,
since half a run of each would be a result of neither: `CheckpointFolder.latest` removes it and reports one line.
"""

import contextlib
import functools
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from reproduction.jobs.files import read_json, write_json
from reproduction.training.faults import as_os_error, describe
from reproduction.training.processes import from_all, in_all, in_first, process_count, process_index

MODEL = "model.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name that transformers reads
_TENSOR, _NUMBER = "tensor", "number"  # marks in state.json of a tensor, and of a number that JSON lacks


class CheckpointFolder:
    """The checkpoints of one run, of which only the newest whole one is kept.

    folder: holds them and the history of the run's interruptions, nothing else. identity: JSON-ready; what must be
    equal for a checkpoint to be continued; the first process's counts. report: called, only there, with a line for
    each checkpoint that cannot be.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], report: Callable[[str], None] = lambda line: None):
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))
        self.report = report

    def write(self, update: int, fill: Callable[[Path], None]) -> Path:
        """Make the checkpoint of `update` with what `fill` writes into the folder it is given.

        Every process of the run calls this. Raises OSError in all of them if one cannot write (a full disk); the
        earlier checkpoint is then still there.
        """
        final = self.folder / f"update-{update:05d}"
        temporary = None
        try:
            temporary = in_first(lambda: self._temporary(final))
            in_all(lambda: _fill(self.part(temporary), fill))
            in_first(lambda: self._complete(temporary, final, update))
        except OSError as error:
            raise OSError(error.errno, f"the checkpoint of update {update} was not written: {error}") from error
        finally:
            if temporary is not None and process_index() == 0:
                shutil.rmtree(temporary, ignore_errors=True)
        return final

    def part(self, checkpoint: Path) -> Path:
        """The folder of this process's files in a checkpoint."""
        return checkpoint if process_count() == 1 else checkpoint / f"process-{process_index():05d}"

    def _temporary(self, final: Path) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{final.name}."))

    def _complete(self, temporary: Path, final: Path, update: int) -> None:
        write_json(temporary / "checkpoint.json", {"update": update, "identity": self.identity})
        _flush(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        _flush(self.folder)
        for other in self.folder.iterdir():
            if other.is_dir() and other != final:
                shutil.rmtree(other, ignore_errors=True)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """This process's part of the checkpoint to continue from and its state, or None.

        Every process of the run calls this. Those that cannot be continued are removed, with a line each.
        """
        while True:
            checkpoint = in_first(self._newest_of_this_run)
            if checkpoint is None:
                return None
            part, problem, state = self.part(checkpoint), None, {}
            try:
                with safe_open(part / MODEL, framework="pt"):  # checks that the file is whole
                    state = load_state(part)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
                problem = f"not a whole checkpoint ({error})"
            problems = [found for found in from_all(problem) if found]
            if not problems:
                return part, state
            in_first(functools.partial(self._discard, checkpoint, problems[0]))

    def _newest_of_this_run(self) -> Path | None:
        for path in sorted(self.folder.glob("update-*"), reverse=True):
            try:
                found = read_json(path / "checkpoint.json")["identity"]
                differing = [name for name in self.identity if found.get(name) != self.identity[name]]
                if not differing:
                    return path
                problem = f"made with another {', '.join(differing)}"
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                problem = f"not a whole checkpoint ({error})"
            self._discard(path, problem)
        return None

    def _discard(self, path: Path, problem: str) -> None:
        self.report(f"{path}: {problem}; removed, the run starts again")
        shutil.rmtree(path)

    def note(self, event: dict[str, Any]) -> None:
        """Add an event (JSON-ready) to the run's history, which is next to the checkpoints; a full disk loses it."""
        with contextlib.suppress(OSError):
            history = {"identity": self.identity, "events": [*self.history(), event]}
            write_json(self.folder / "history.json", history)

    def history(self) -> list[dict[str, Any]]:
        """The events of this run noted so far, oldest first."""
        try:
            found = read_json(self.folder / "history.json")
            return list(found["events"]) if found["identity"] == self.identity else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def ended(self, run: str, update: int, error: Exception) -> RuntimeError:
        """One line for a run that cannot go on, and a note of it: what ended it, what the same command will do."""
        what = describe(error)
        if process_index() == 0:
            self.note({"failed_after_update": update, "error": type(error).__name__, "message": what})
        kept = any(self.folder.glob("update-*"))
        then = f"continues from {self.folder}" if kept else "starts it again"
        return RuntimeError(f"{run} ended after update {update}: {what}; the same command {then}")

    def remove(self) -> None:
        """Remove all checkpoints, when the run has left its results."""
        shutil.rmtree(self.folder, ignore_errors=True)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of numbers, text, None and tensors as state.json and state.safetensors.

    Raises TypeError naming the first entry of another type. Tuples come back as lists.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, "", tensors)
    # Keys stay in their order, in which sums over them are made and rows are written.
    (folder / "state.json").write_text(json.dumps(tree, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(tensors, folder / "state.safetensors")


def load_state(folder: Path) -> dict[str, Any]:
    """What `save_state` wrote, its tensors on the CPU in separate memory."""
    # Cloned because a file's tensors share one block: each must be as aligned as one that torch made.
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "state.safetensors").items()}
    return _unpack(read_json(folder / "state.json"), tensors)


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, CUDA's included."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put the global generators where `random_states` found them, on as many CUDA devices."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.random.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # A clone: safetensors refuses tensors that are views of one another, as the parts of a rollout batch are.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str) or key in (_TENSOR, _NUMBER)]
        if wrong:
            raise TypeError(f"{name or 'state'} has the key {wrong[0]!r}; a checkpoint's keys are text")
        return {key: _pack(inner, f"{name}/{key}", tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(inner, f"{name}/{index}", tensors) for index, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_NUMBER: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint keeps numbers, text and tensors")


def _unpack(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        if set(tree) == {_TENSOR}:
            return tensors[tree[_TENSOR]]
        if set(tree) == {_NUMBER}:
            return float(tree[_NUMBER])
        return {key: _unpack(inner, tensors) for key, inner in tree.items()}
    if isinstance(tree, list):
        return [_unpack(inner, tensors) for inner in tree]
    return tree


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    folder.mkdir(exist_ok=True)
    try:
        fill(folder)
    except SafetensorError as error:
        raise as_os_error(error) from error
    for path in [*folder.iterdir(), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
