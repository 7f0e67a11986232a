"""One evaluation on several devices: one process per device, which answers its own shards and sees no other device."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 20.0
PARENT = "KPO_WORKER_OF"


def own_devices() -> list[str]:
    """The devices that CUDA_VISIBLE_DEVICES names, as a lease sets it; none if it is not set."""
    return [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]


def run_workers(command: Sequence[str], devices: Sequence[str], watch: Callable[[], None]) -> None:
    """Run `command --share <number>/<devices>` on each device and wait for all; `watch` is called while they work.

    Raises RuntimeError if one fails; the others are ended then, as they are when this process ends.
    """
    workers: list[subprocess.Popen] = []
    try:
        for number, device in enumerate(devices):
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device, PARENT: str(os.getpid())}
            # The lease's locks are inherited (close_fds), so that no device is free before its worker has ended.
            workers.append(
                subprocess.Popen(
                    [*command, "--share", f"{number}/{len(devices)}"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    close_fds=False,
                )
            )
        while True:
            states = [worker.poll() for worker in workers]
            for device, state in zip(devices, states, strict=True):
                if state not in (None, 0):
                    raise RuntimeError(
                        f"the process on device {device} ended with status {state}; its last lines in the log say why, "
                        "and the same command goes on with what is there"
                    )
            watch()
            if None not in states:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            try:
                worker.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def end_with_parent() -> None:
    """In a worker: end soon after the process that started it, however that ended."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def look() -> None:
        while os.getppid() == int(parent):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
