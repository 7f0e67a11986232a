"""Training in one or several processes of this machine, for tests: `python -m tests.processes` serves jobs.

Reads jobs from standard input, one JSON object a line, and answers with the exit statuses of the job's processes. They
are forked from one process that has imported everything and started no thread, to spend the time on training; what is
set in them besides (addresses, ranks, FSDP's settings) is what accelerate's launcher sets.
"""

import contextlib
import json
import math
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from tests.running import QUIET

LETTERS, ENDS = range(100, 130), 1  # tokens of tests/byte_tokenizer.py
GRACE = 15.0
"""Seconds that the other processes of a job have to end by themselves."""


class Server:
    """Runs jobs; a context manager."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent.parent,
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=QUIET)

    def run(self, **job) -> list[int]:
        """Exit status of each process. For what a job can say see `train_one`."""
        self.process.stdin.write(json.dumps(job, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def train_one(
    config, model, label, output, fixed_rollouts=None, gradients=None, kill_at=None, full_at=None, fsdp=False, **_
):
    """One process of a training of experiment `kpo`.

    fixed_rollouts: for comparisons between numbers of processes, in place of sampling: completions that depend on the
    update and on the place in the rollout batch alone, shuffled as so many processes would. gradients: a file for the
    gradients of every update. kill_at: the update at which the process kills itself, before it is recorded.
    full_at: the update at whose checkpoint the last process finds no room on its disk.
    fsdp: share the model as config/accelerate/fsdp2.yaml says.
    """
    import trl.trainer.grpo_trainer as trl_module

    from reproduction.data.mathematics import MathProblem
    from reproduction.settings.configuration import read_resolved
    from reproduction.settings.run import get_run
    from reproduction.training.faults import FaultMonitor
    from reproduction.training.recorder import Recorder
    from reproduction.training.train import train

    if fsdp:
        _let_accelerate_shard_on_cpus()
    if fixed_rollouts:
        trl_module.GRPOTrainer._generate_single_turn = _fixed_completions
        trl_module.shuffle_sequence_dict = lambda batch: _shuffled_as(batch, fixed_rollouts)
    if gradients:
        found = {}
        may_update = FaultMonitor.may_update

        def keeping(self, update, parameters):
            parameters = list(parameters)
            for index, parameter in enumerate(parameters):
                grad = parameter.grad
                whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
                found[f"{update}.{index:03d}"] = whole.detach().clone()
            return may_update(self, update, parameters)

        FaultMonitor.may_update = keeping
    if kill_at:
        update_ = Recorder.update

        def killing(self, row):
            if row["update"] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            update_(self, row)

        Recorder.update = killing
    if full_at and os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1):
        _let_files_be_small(full_at)
    configuration = read_resolved(Path(config))
    problems = [MathProblem(str(number), f"What is {number} + {number}?", str(2 * number)) for number in range(6)]
    train(get_run(configuration, "kpo", label, 42, Path(output)), Path(model), problems)
    if gradients and os.environ["RANK"] == "0":
        from safetensors.torch import save_file

        save_file(found, gradients)


def _let_files_be_small(update):
    """The system's own limit on the size of a file while the checkpoint of `update` is written."""
    from reproduction.training.resume import ResumableTrainer

    fill, limits = ResumableTrainer._fill, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self, folder):
        if self.state.global_step == update:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            fill(self, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    ResumableTrainer._fill = limited


def _fixed_completions(trainer, prompt_ids, *_, **__):
    start = int(os.environ["RANK"]) * len(prompt_ids)
    completions = []
    for place in range(start, start + len(prompt_ids)):
        generator = random.Random(f"{trainer.state.global_step} {place}")
        tokens = generator.choices(LETTERS, k=generator.randint(1, trainer.max_completion_length))
        completions.append(tokens if len(tokens) == trainer.max_completion_length else [*tokens[:-1], ENDS])
    return completions, None


def _shuffled_as(batch, processes):
    """Rows in such an order that consecutive minibatches hold what those of `processes` hold together, unshuffled."""
    together = processes // int(os.environ["WORLD_SIZE"])
    rows, minibatches = len(batch["completion_ids"]), 2
    order = torch.arange(rows).view(together, minibatches, -1).transpose(0, 1).reshape(-1)
    return {name: value[order] if isinstance(value, torch.Tensor) and value.dim() else value
            for name, value in batch.items()}  # fmt: skip


def _let_accelerate_shard_on_cpus():
    """accelerate offers FSDP for accelerators only; torch's FSDP2 works on CPUs too, with gloo."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from accelerate.utils.launch import prepare_multi_gpu_env

    from reproduction.jobs.launch import FSDP

    asked = ["--config_file", str(FSDP), "--num_processes", "2", "--main_process_port", "0", "-m", "reproduction"]
    arguments = _validate_launch_command(launch_command_parser().parse_args(asked))[0]
    own = {name: os.environ[name] for name in os.environ if name.startswith(("MASTER", "RANK", "WORLD", "LOCAL"))}
    os.environ.update(prepare_multi_gpu_env(arguments))
    os.environ.update(own)
    begin = AcceleratorState.__init__

    def as_accelerator(self, *arguments, **keywords):
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_HPU
        begin(self, *arguments, **keywords)

    AcceleratorState.__init__ = as_accelerator


def _serve():
    import reproduction.training.train  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        count, children = job.get("processes", 1), []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(count):
            child = os.fork()
            if child == 0:
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                os.environ.update({name: str(value) for name, value in places.items()} if count > 1 else {"RANK": "0"})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                os.environ.setdefault("WORLD_SIZE", "1")
                code = 1
                with contextlib.suppress(BaseException):
                    try:
                        train_one(**job)
                        code = 0
                    except BaseException:
                        traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        statuses, deadline = {}, None
        while len(statuses) < count:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                statuses[child] = os.waitstatus_to_exitcode(status)
                if statuses[child] and deadline is None:
                    deadline = time.monotonic() + GRACE
            elif deadline is not None and time.monotonic() > deadline:
                # As a launcher does when one of its processes ends badly: the others get a while to end.
                for other in set(children) - statuses.keys():
                    os.kill(other, signal.SIGKILL)
                deadline = math.inf
            else:
                time.sleep(0.02)
        answers.write(json.dumps([statuses[child] for child in children]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
