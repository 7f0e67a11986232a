"""One line every few seconds from a long job: step, metrics and time remaining."""

import sys
import time
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Prints ``label  40/160  reward 0.52  1:05 left`` to `stream`, the first and last step always."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None):
        self.label = label
        self.total = total
        self.stream = stream if stream is not None else sys.stderr
        self.started = self.last_line = time.monotonic()
        self.begun_at = 0  # steps that an earlier process has done

    def say(self, text: str) -> None:
        """Print a separate line, after the label."""
        print(f"{self.label:<28} {text}", file=self.stream, flush=True)

    def update(self, done: int, **values: float) -> None:
        """Say that `done` of the total steps are done; `values` are shown with three digits."""
        now = time.monotonic()
        if done < self.total and now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        elapsed = now - self.started
        if done < self.total:
            time_text = f"{clock(elapsed / max(done - self.begun_at, 1) * (self.total - done))} left"
        else:
            time_text = f"done in {clock(elapsed)}"
        shown = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        width = len(str(self.total))
        print(f"{self.label:<28} {done:>{width}}/{self.total}  {shown}  {time_text}", file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """65 seconds are "1:05", 3,700 are "1:01:40"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
