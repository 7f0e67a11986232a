"""Communication between the processes of one run. A run in one process sends nothing.

The processes are those of torch.distributed's default group, which accelerate opens when the training arguments are
made.
"""

import concurrent.futures
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed

Result = TypeVar("Result")
SECONDS_BETWEEN_TALKS = 1.0


def _connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def process_count() -> int:
    """How many processes make the run, as the launcher says."""
    return torch.distributed.get_world_size() if _connected() else int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The number of this process, from 0."""
    return torch.distributed.get_rank() if _connected() else int(os.environ.get("RANK", "0"))


def from_all(value: Any) -> list[Any]:
    """The value of every process, in the order of their numbers."""
    if not _connected():
        return [value]
    values: list[Any] = [None] * process_count()
    torch.distributed.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, in every process."""
    if not _connected():
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def in_all(action: Callable[[], Result]) -> Result:
    """This process's result of what every process does; an exception in any of them is raised in all."""
    result, error = _attempt(action)
    for other in [error, *from_all(_to_send(error))]:
        if other is not None:
            raise other
    return result


def in_first(action: Callable[[], Result]) -> Result:
    """The result of what only the first process does, in every process; an exception there is raised in all."""
    result, error = _attempt(action) if process_index() == 0 else (None, None)
    result, other = from_first((result, _to_send(error)))
    if other is not None:
        raise other if error is None else error
    return result


def in_first_while_others_wait(action: Callable[[], Result]) -> Result:
    """The result of what only the first process does, in every process, however long it takes.

    A collective call has a time limit, so the others are told every second that the first is still at work.
    """
    if not _connected():
        return action()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(action) if process_index() == 0 else None

        def is_done() -> bool:
            return future is not None and bool(concurrent.futures.wait([future], SECONDS_BETWEEN_TALKS).done)

        while not from_first(is_done()):
            pass
        return in_first(lambda: future.result())


def _attempt(action: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:  # of any kind: the other processes would wait for this one forever
        return None, error


def _to_send(error: Exception | None) -> Exception | None:
    """The exception in a form that every process can unpickle."""
    if error is None or isinstance(error, MemoryError):
        return error
    if isinstance(error, OSError):
        return OSError(error.errno, str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
