"""Reading result files, and writing them atomically."""

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

LOCK = ".lock"
"""The file that the process at work in a folder holds, and removes when it ends."""
# 524 is Linux's ENOTSUPP, which some network file systems let through and Python has no name for.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, 524}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path next to `path`; on success flush it to disk and rename it to `path`, on failure remove it.

    A reader of `path` therefore sees the old content or the whole new one, also after a power cut or `kill -9`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes the file private to its owner; a result should have the permissions any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to `path` through `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


class NoLocks(OSError):
    """The file system has no locks."""


def lock(descriptor: int, operation: int) -> None:
    """`fcntl.flock` of a file that is open for writing, as NFS needs it; BlockingIOError if another process holds it.

    Raises NoLocks on a file system without locks.
    """
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocks(error.errno, error.strerror) from None
        raise


@contextlib.contextmanager
def only_process(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold a folder for this process only; gives whether another held it, whose end was waited for.

    waiting: called once then. The system frees a folder when its holder dies, however it does. On a file system without
    locks nothing is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor, has_waited = _locked(path, waiting)
    try:
        yield has_waited
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path, waiting: Callable[[], None]) -> tuple[int, bool]:
    has_waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not has_waited:
                    waiting()
                has_waited = True
                lock(descriptor, fcntl.LOCK_EX)
        except NoLocks:
            return descriptor, has_waited
        # Its last holder has removed the file, so that another process may hold a new one of this name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor, has_waited
        os.close(descriptor)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON with a stable key order; NaN and infinities are refused."""
    atomic_write(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_jsonl(path: str | os.PathLike, rows: Iterable[dict]) -> None:
    """Write one JSON object a line."""
    atomic_write(path, "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file. Raises ValueError with one line that names the file, and the line if it is malformed."""
    return _parsed(read_text(path), f"{path}")


def read_jsonl(path: str | os.PathLike) -> list[dict]:
    """Read a file of one JSON object a line. Raises ValueError as `read_json` does."""
    return [row for _, row in jsonl_rows(path)]


def jsonl_rows(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """The number, from 1, and the object of each line that is not empty."""
    advice = "; give one JSON object a line"
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            row = _parsed(line, f"{path}, line {number}", advice)
            if not isinstance(row, dict):
                found = type(row).__name__
                raise ValueError(f"{path}, line {number}: expected a JSON object, found {found}{advice}")
            yield number, row


def read_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file. Raises ValueError with one line that says what is wrong and what to do."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: this is a folder; name the file in it") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    try:
        if b"\x00" in content:
            raise UnicodeDecodeError("utf-8", content, content.index(b"\x00"), len(content), "binary data")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


def _parsed(text: str, place: str, advice: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if advice else f", line {error.lineno}"
        raise ValueError(f"{place}{line}: not JSON ({error.msg}, column {error.colno}){advice}") from None
    except (RecursionError, ValueError):
        reason = "nested too deeply, or a number of too many digits"
        raise ValueError(f"{place}: not readable as JSON ({reason}){advice}") from None
