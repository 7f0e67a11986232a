"""The process in which answers of models are parsed and compared: expendable, and limited in memory and time.

Started by `reproduction.rewards.grading_pool`. It reads one JSON job a line from its standard input and writes one JSON
reply a line to its standard output; JSON, because a reply may come from a process that a hostile answer has confused.
"""

import json
import logging
import os
import resource
import signal
import sys

# The pool kills a worker that overruns. Should the pool itself be gone by then, the kernel does, this much later.
SELF_DESTRUCTION_DELAY = 1.0


def main() -> None:
    """Serve jobs until the input ends."""
    memory_limit = int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    # Whatever a library prints must not be taken for a reply.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        compare = _load()
        _limit_resources(memory_limit)
    except Exception as error:
        _send(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    _send(replies, {"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        # No handler: the kernel ends the process even in the midst of a C function that never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, job["timeout"] + SELF_DESTRUCTION_DELAY)
        reply = compare(job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, {"id": job["id"], **reply})


def _load():
    """Import the libraries and grade once, so that no later job pays for imports and compiled patterns."""
    logging.disable(logging.CRITICAL)
    from reproduction.rewards.comparison import compare_latex, compare_strings

    methods = {"latex": compare_latex, "strings": compare_strings}

    def compare(job: dict) -> dict:
        try:
            return {"outcome": methods[job["method"]](job["answer"], job["gold"])}
        except (MemoryError, RecursionError) as error:
            # What such an error leaves behind in the libraries' caches is unknown: the worker asks to be replaced.
            return {"outcome": "error", "detail": type(error).__name__, "retire": True}
        except Exception as error:
            return {"outcome": "error", "detail": f"{type(error).__name__}: {error}"[:200]}

    for method, function in methods.items():
        if function(r"\frac{1}{2}", "0.5") != "equal" or function("x + 1", "x + 2") != "unequal":
            raise RuntimeError(f"the {method} comparison fails on 1/2 = 0.5 or x + 1 = x + 2; reinstall math-verify")
    return compare


def _limit_resources(memory_limit: int) -> None:
    # macOS knows the limit by name only and refuses any value.
    if sys.platform != "darwin":
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Grading writes no files; the answers it reads come from a model.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.dont_write_bytecode = True


def _send(replies, message: dict) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()
