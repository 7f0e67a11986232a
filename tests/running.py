"""The workflow in tests: a copy of the checkout, and commands bounded by their progress.

A machine under load is slow, and no test may fail for that: a command is given up if nothing new has been said for
`QUIET` seconds, however long it takes in all.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = (
    "Snakefile", "config", "kpo", "notebooks", "paper_figures", "profiles", "reproduction", "requirements", "workflow",
)  # fmt: skip
QUIET = 1800.0


def copy_checkout(folder: Path) -> Path:
    """Copy what the workflow needs of this checkout."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


class Command:
    """A command under way; `output` and `errors` are the files that it writes."""

    def __init__(self, arguments, cwd=None, quiet: float = QUIET, **environment):
        self.folder = Path(tempfile.mkdtemp())
        self.output, self.errors = self.folder / "output", self.folder / "errors"
        self.quiet = quiet
        with open(self.output, "w") as output, open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [*map(str, arguments)], cwd=cwd, stdout=output, stderr=errors, env={**os.environ, **environment}
            )
        self._said, self._last = 0, time.monotonic()

    def said(self) -> str:
        """All that it has written so far."""
        return self.output.read_text(errors="replace") + self.errors.read_text(errors="replace")

    def until(self, condition, every: float = 0.02) -> bool:
        """Wait until `condition` holds (True) or the command ends (False); AssertionError if it makes no progress."""
        while self.process.poll() is None:
            if condition():
                return True
            self._check_progress()
            time.sleep(every)
        return bool(condition())

    def finish(self) -> subprocess.CompletedProcess:
        """Wait for its end."""
        self.until(lambda: False, every=0.05)
        return subprocess.CompletedProcess(
            self.process.args, self.process.returncode, self.output.read_text(), self.errors.read_text()
        )

    def kill(self) -> int:
        """Kill it with all processes that it has started; its exit status."""
        inside = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for process in [*inside, self.process]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return self.process.wait()

    def _check_progress(self) -> None:
        said = self.output.stat().st_size + self.errors.stat().st_size
        if said != self._said:
            self._said, self._last = said, time.monotonic()
        elif time.monotonic() - self._last > self.quiet:
            self.kill()
            raise AssertionError(f"nothing new for {self.quiet:g} s from {self.process.args}:\n{self.said()[-3000:]}")


def snakemake(checkout: Path, *arguments, config=(), cores="all", **keywords) -> subprocess.CompletedProcess:
    """Run Snakemake in a copy of the checkout."""
    command = [sys.executable, "-m", "snakemake", "--cores", cores, *arguments]
    return Command([*command, *(["--config", *config] if config else [])], cwd=checkout, **keywords).finish()
