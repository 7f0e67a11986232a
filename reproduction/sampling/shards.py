"""Finished parts of an evaluation, from which an interrupted one continues.

    <run folder>/shards/easy.sampled.00003.json     {"settings": what decided it, ...: what was made}

A shard is a block of work that the configuration fixes. It is written atomically and says what decided
it: weights, sampling, seed, problems, code, versions. One of other settings is not used, since half an evaluation of
each would be a result of neither. When the evaluation is complete, its shards are removed.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reproduction.jobs.files import read_json, write_json
from reproduction.jobs.provenance import source_hash, versions

FOLDER = "shards"


class ShardFolder:
    """The shards of one evaluation, in `output`/shards.

    decided: JSON-ready; with the code and the versions, what must be equal for a shard to be used. report: called with
    a line for each shard that is not.
    """

    def __init__(self, output: Path, decided: dict[str, Any], report: Callable[[str], None] = lambda line: None):
        self.folder = output / FOLDER
        self.settings = json.loads(json.dumps({**decided, "code": source_hash("evaluate"), "versions": versions()}))
        self.report = report

    def read(self, name: str) -> dict[str, Any] | None:
        """What was kept under `name`, or None if it is missing, not whole or of other settings (then removed)."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            found = read_json(path)
            differing = [key for key, value in self.settings.items() if found["settings"].get(key) != value]
            if not differing:
                return found
            problem = f"made with another {', '.join(differing)}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"not a whole shard ({error})"
        self.report(f"{path}: {problem}; removed and made again")
        path.unlink(missing_ok=True)
        return None

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Keep JSON-ready `content` under `name`."""
        write_json(self.folder / f"{name}.json", {**content, "settings": self.settings})

    def is_there(self, name: str) -> bool:
        """Whether there is a shard of that name, whatever it was made with."""
        return (self.folder / f"{name}.json").exists()

    def remove(self) -> None:
        """Remove all shards, when the evaluation has left its results."""
        shutil.rmtree(self.folder, ignore_errors=True)


def digest(values: Iterable[Any]) -> str:
    """SHA-256 of JSON-ready values in their order."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()
