"""Steps of the command line in their own processes, which can be killed at any moment.

To spend the time on the steps and not on imports, these processes are forked from one that has imported everything,
compiled the filter, and started no thread.
"""

import json
import os
import subprocess
import sys

from tests.running import REPOSITORY

# Reads lines [seconds, arguments] from standard input; answers "killed" or the exit status of the step.
FORKER = """
import json, os, psutil, signal, sys, time
from tests.running import QUIET
import reproduction.data, reproduction.data.splits, reproduction.evaluation.evaluate
import reproduction.sampling.answers, reproduction.sampling.engine
import reproduction.training.base_model, reproduction.training.train
import torch
from reproduction.cli import main
from kpo.kalman import kalman_filter
for mask in (None, torch.tensor([[1, 0]])):
    kalman_filter(torch.zeros(1, 2), mask, process_variance=1.0, observation_variance=1.0)
for line in sys.stdin:
    seconds, arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # only answers go to the output
        os._exit(main(arguments))
    begun = last = time.monotonic()
    status, used = None, 0.0
    while status is None and (seconds is None or time.monotonic() < begun + seconds):
        found, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if found else None
        if seconds is None and status is None:
            times = psutil.Process(child).cpu_times()
            if times.user + times.system > used + 0.1:
                last, used = time.monotonic(), times.user + times.system
            elif time.monotonic() > last + QUIET:
                break
        time.sleep(0.02 if seconds is None else 0.005)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print(status if status is not None else "hung" if seconds is None else "killed", flush=True)
"""


class Forker:
    """Runs steps one after the other, in the folder `cwd`."""

    def __init__(self, cwd=None):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=cwd,
            text=True,
        )

    def run(self, *arguments, seconds=None):
        """The exit status of a step, or "killed" if it was killed after `seconds`; None lets it end."""
        print(json.dumps([seconds, [str(argument) for argument in arguments]]), file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
