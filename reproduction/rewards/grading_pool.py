"""A pool of processes that compare answers, each killed when an answer makes it run too long or grow too large."""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

STARTUP_SECONDS = 120.0
MEMORY_LIMIT = 1 << 30
# The libraries cache what they parse; a worker is replaced before its caches grow large.
JOBS_PER_WORKER = 5_000

# The package's own folder is put on the path explicitly: the worker must import the `kpo` that started it, installed or
# not, and nothing from the current directory.
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from reproduction.rewards.grading_worker import main; main()"
_SOURCE_FOLDER = str(Path(__file__).resolve().parents[2])


class WorkerTimeoutError(Exception):
    """A job ran longer than it may."""


class WorkerDiedError(Exception):
    """A worker ended in the midst of a job."""


@dataclass(frozen=True)
class Comparison:
    """Outcome of comparing two answers: 'equal', 'unequal', 'timeout' or 'error', and what is known about an error."""

    outcome: str
    detail: str = ""


class _Worker:
    def __init__(self, memory_limit: int):
        # PYTHONSAFEPATH's option -P keeps the current directory off the path, where a file could pose as a library.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, _SOURCE_FOLDER, str(memory_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # Out of reach of the terminal's Ctrl-C: the pool, not a traceback, ends the worker.
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.jobs = 0
        self._received = b""
        try:
            greeting = self._receive(STARTUP_SECONDS)
        except (WorkerTimeoutError, WorkerDiedError) as error:
            self.kill()
            raise RuntimeError(
                f"a grading process did not start ({type(error).__name__}); make sure that there is memory for it"
            ) from None
        if "failed" in greeting:
            self.kill()
            raise RuntimeError(f"a grading process cannot work: {greeting['failed']}")

    def ask(self, job: dict, timeout: float) -> dict:
        """Send a job and wait for its reply.

        Raises WorkerTimeoutError or WorkerDiedError; the worker is of no use after either.
        """
        self.jobs += 1
        message = json.dumps({"id": self.jobs, "timeout": timeout, **job}).encode() + b"\n"
        try:
            view = memoryview(message)
            while view:
                view = view[self.process.stdin.write(view) :]
        except OSError:
            raise WorkerDiedError from None
        reply = self._receive(timeout)
        if reply.get("id") != self.jobs:
            raise WorkerDiedError
        return reply

    def _receive(self, timeout: float) -> dict:
        deadline = time.monotonic() + timeout
        output = self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerTimeoutError
                chunk = os.read(output.fileno(), 65_536)
                if not chunk:
                    raise WorkerDiedError
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            raise WorkerDiedError from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def abandon(self) -> None:
        """Let go of a worker that belongs to the process this one was forked from."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.returncode = 0


class GradingPool:
    """Compares answers in up to `max_workers` processes, from any number of threads.

    Workers start when they are first needed and take about a second each; a worker that overruns its time is killed
    and replaced at the next comparison. memory_limit is each worker's address space in bytes. `close` ends them all; so
    does the end of the program. After a fork the child starts its own workers.

    Raises RuntimeError if a worker cannot start at all.
    """

    def __init__(self, max_workers: int | None = None, memory_limit: int = MEMORY_LIMIT):
        self.max_workers = _available_cores() if max_workers is None else max_workers
        if self.max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, got {max_workers}")
        if memory_limit < 1 << 28:
            raise ValueError(f"memory_limit must be at least {1 << 28} bytes for a worker to start, got {memory_limit}")
        self.memory_limit = memory_limit
        self._closed = False
        self._start_afresh()
        _POOLS.add(self)

    def compare(self, answer: str, gold: str, timeout: float, method: str = "latex") -> Comparison:
        """Compare two answers by a method of the grading worker, 'latex' (math-verify) or 'strings'."""
        worker = self._lease()
        keep = False
        try:
            reply = worker.ask({"method": method, "answer": answer, "gold": gold}, timeout)
            keep = not reply.get("retire") and worker.jobs < JOBS_PER_WORKER
            return Comparison(reply["outcome"], reply.get("detail", ""))
        except WorkerTimeoutError:
            return Comparison("timeout", f"no result within {timeout:g} s")
        except WorkerDiedError:
            return Comparison("error", "the grading process died, most likely of its memory limit")
        finally:
            self._give_back(worker, keep)

    def worker_ids(self) -> list[int]:
        """Process ids of the workers alive."""
        with self._condition:
            return [worker.process.pid for worker in self._all]

    def close(self) -> None:
        """End all workers; the pool cannot be used again. Workers at work end when their comparison does."""
        with self._condition:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            self._all.difference_update(idle)
            self._condition.notify_all()
        for worker in idle:
            worker.kill()

    def _start_afresh(self) -> None:
        self._condition = threading.Condition()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._starting = 0

    def _lease(self) -> _Worker:
        with self._condition:
            while not self._closed and not self._idle and len(self._all) + self._starting >= self.max_workers:
                self._condition.wait()
            if self._closed:
                raise RuntimeError("the grading pool is closed")
            if self._idle:
                return self._idle.pop()
            self._starting += 1
        worker = None
        try:
            worker = _Worker(self.memory_limit)
            return worker
        finally:
            with self._condition:
                self._starting -= 1
                if worker is not None:
                    self._all.add(worker)
                self._condition.notify()

    def _give_back(self, worker: _Worker, keep: bool) -> None:
        with self._condition:
            keep = keep and not self._closed
            if keep:
                self._idle.append(worker)
            else:
                self._all.discard(worker)
            self._condition.notify()
        if not keep:
            worker.kill()

    def _after_fork(self) -> None:
        inherited = self._all
        self._start_afresh()
        for worker in inherited:
            worker.abandon()


def _available_cores() -> int:
    # The cores this process may use, if the system tells them apart from those there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_POOLS: "weakref.WeakSet[GradingPool]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_POOLS):
        pool._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
