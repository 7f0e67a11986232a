"""What the processes of one run tell one another. In a run of one process nothing is sent.

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
    """This process's result of what every process does; an OSError in any of them is raised in all."""
    result, error = _attempt(action)
    for other in from_all(error):
        if other is not None:
            raise other
    return result


def in_first(action: Callable[[], Result]) -> Result:
    """The result of what only the first process does, in every process; an OSError there is raised in all."""
    result, error = from_first(_attempt(action) if process_index() == 0 else None)
    if error is not None:
        raise error
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


def _attempt(action: Callable[[], Result]) -> tuple[Result | None, OSError | None]:
    try:
        return action(), None
    except OSError as error:
        return None, error
