"""A run through verl instead of TRL: its prompts and launch command, and verl's log as metrics.jsonl.

verl needs other versions, so it runs in its own environment: `KPO_VERL_PYTHON` names its Python, which also needs `kpo`
and what `reproduction.rewards` imports. Metrics have one row per rollout batch, because verl averages over its updates,
and no token log-ratios are kept.
"""

import contextlib
import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpo.verl_settings import ACTOR, overrides
from reproduction.jobs.code import REPOSITORY
from reproduction.jobs.files import read_jsonl
from reproduction.settings.experiment import TrainingSettings
from reproduction.settings.run import Run

PYTHON = "KPO_VERL_PYTHON"
COLUMNS = {
    "learning_rate": "actor/lr",
    "gradient_norm": "actor/grad_norm",
    "loss": "actor/pg_loss",
    "entropy": "actor/entropy",
    "clip_share": "actor/pg_clipfrac",
    "log_ratio_std": "actor/log_ratio_std",
    "log_ratio_abs_max": "actor/log_ratio_abs_max",
    "effective_sample_size": "actor/effective_sample_size",
    "mean_ratio": "actor/mean_ratio",
    "kl": "actor/kl_loss",
    "reward": "critic/rewards/mean",
    "response_length": "response_length/mean",
    "truncation": "response_length/clip_ratio",
    "rollout_seconds": "timing_s/gen",
    "update_seconds": "timing_s/update_actor",
}
"""Column of metrics.jsonl -> name in verl's log."""


def _for_hydra(path: Path | str) -> str:
    """A path as Hydra's command line reads it back, whatever characters it has."""
    text = str(path)
    return text if re.fullmatch(r"[\w./-]+", text) else "'" + text.replace("'", r"\'") + "'"


def launch_command(run: Run, model: Path | str, folder: Path, devices: int, python: str = "python") -> list[str]:
    """verl's command line for the run; `folder` holds prompts.parquet and gets the checkpoint."""
    training, hub = run.settings.training, run.hub
    micro_batch, float32 = hub.micro_batch, hub.precision == "float32"
    settings: dict[str, Any] = {
        "data.train_files": _for_hydra(folder / "prompts.parquet"),
        "data.val_files": _for_hydra(folder / "prompts.parquet"),
        "data.train_batch_size": training.prompts_per_rollout,
        "data.shuffle": "false",  # the order is that of the run's seed
        "data.max_prompt_length": hub.max_prompt_length,
        "data.max_response_length": training.max_completion_length,
        "actor_rollout_ref.model.path": _for_hydra(model),
        "actor_rollout_ref.model.enable_gradient_checkpointing": str(hub.activation_checkpointing).lower(),
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": training.prompts_per_rollout // training.minibatches,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro_batch,
        f"{ACTOR}.ppo_epochs": training.epochs,
        f"{ACTOR}.data_loader_seed": run.seed,
        f"{ACTOR}.optim.clip_grad": training.gradient_clip,
        f"{ACTOR}.optim.lr": training.learning_rate,
        f"{ACTOR}.optim.weight_decay": training.weight_decay,
        f"{ACTOR}.optim.lr_warmup_steps": round(hub.warmup_ratio * training.rollout_batches),
        f"{ACTOR}.checkpoint.save_contents": "[hf_model]",
        f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype": "fp32" if float32 else "bf16",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": training.group_size,
        "actor_rollout_ref.rollout.temperature": training.temperature,
        "actor_rollout_ref.rollout.top_p": training.top_p,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.gpu_memory_utilization": hub.engine_memory_share,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": micro_batch,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": micro_batch,
        "reward.custom_reward_function.path": _for_hydra(REPOSITORY / "reproduction" / "training" / "verl_reward.py"),
        "trainer.total_training_steps": training.rollout_batches,
        "trainer.total_epochs": 1,
        "trainer.n_gpus_per_node": devices,
        "trainer.logger": "[console,file]",
        "trainer.val_before_train": "false",
        "trainer.save_freq": training.rollout_batches,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": _for_hydra(folder / "checkpoint"),
        "hydra.run.dir": _for_hydra(folder / "hydra"),
    }
    style = hub.train_prompt.style.template_arguments
    settings |= {f"+data.apply_chat_template_kwargs.{name}": str(value).lower() for name, value in style.items()}
    lines = [f"{name}={value}" for name, value in settings.items()]
    own = [line for line in overrides(run.method, run.method) if not line.startswith("+algorithm.kpo.seed=")]
    return [python, "-m", "verl.trainer.main_ppo", *lines, *own, f"+algorithm.kpo.seed={run.seed}"]


def prompt_rows(run: Run, prompts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run's prompts as verl's dataset has them; the reward finds its rule in `extra_info`."""
    extra = {"rule": run.settings.reward, "markers": list(run.hub.answer_markers)}
    return [
        {
            "prompt": row["prompt"],
            "data_source": run.settings.reward,
            "reward_model": {"style": "rule", "ground_truth": row["answer"]},
            "extra_info": extra | {"index": i},
        }
        for i, row in enumerate(prompts)
    ]


def metrics_rows(log: Path, training: TrainingSettings) -> list[dict[str, Any]]:
    """verl's log as rows of metrics.jsonl, one for each rollout batch; what verl does not know is None."""
    rows = []
    for entry in read_jsonl(log):
        found = {column: entry["data"].get(name) for column, name in COLUMNS.items()}
        finite = {name: x if x is not None and math.isfinite(x) else None for name, x in found.items()}
        updates = training.minibatches * training.epochs
        place = {"update": entry["step"] * updates, "rollout_batch": entry["step"], "minibatch": updates}
        rows.append(place | finite)
    return rows


def _version_of_verl(python: str, environment: dict[str, str], rule: str) -> str:
    """Raises ValueError with one line unless this Python can import a verl that `kpo.verl` supports, and grade."""
    grading = ", math_verify" if rule.startswith("math") else ""
    code = f"import kpo.verl, verl, reproduction.training.verl_reward{grading}; print(verl.__version__)"
    try:
        done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True)
    except OSError as error:
        raise ValueError(f"{PYTHON}={python} cannot be run ({error.strerror})") from None
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        raise ValueError(f"{PYTHON}={python} cannot train through verl: {reason}")
    return done.stdout.split()[-1]


def train_through_verl(run: Run, model: Path, problems: Sequence, progress_stream=None) -> None:
    """Train by verl's main program and leave in `run.folder` what `reproduction.training.train` leaves.

    Raises ValueError with one line if verl cannot do the run here, or if `KPO_VERL_PYTHON` is not set: then the prompts
    and the command are written, and verl/launch.sh can be taken to a cluster. RuntimeError if verl fails.
    """
    import pandas

    from reproduction.jobs.devices import visible_devices
    from reproduction.jobs.files import atomic_path, atomic_write
    from reproduction.jobs.progress import Progress
    from reproduction.jobs.provenance import Stopwatch
    from reproduction.jobs.sizing import planned_count
    from reproduction.training.prompts import chosen_prompts
    from reproduction.training.saving import load_model, save_model
    from reproduction.training.train import is_finished_by_another, write_results

    stopwatch, training = Stopwatch(run.seed), run.settings.training
    folder, python, found = (run.folder / "verl").resolve(), os.environ.get(PYTHON), visible_devices()
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": str(folder / "log.jsonl"), "PYTHONPATH": str(REPOSITORY)}
    # A command for a cluster names as many devices as the run is planned for.
    devices = len(found) if found or python else planned_count(run.settings, [])
    if not devices:
        raise ValueError(
            f"{run.name}: verl trains on CUDA devices and there is none to use here; "
            + (
                f"run it on a machine with one, or unset {PYTHON} to get the command for a cluster"
                if python
                else "set pretrained.devices.count above 0, or pretrained.trainer to trl"
            )
        )
    version = _version_of_verl(python, environment, run.settings.reward) if python else None
    progress = Progress(run.name, training.rollout_batches, progress_stream)
    with contextlib.ExitStack() as stack:
        if is_finished_by_another(run, stack, progress):
            return
        folder.mkdir(parents=True, exist_ok=True)
        _, tokenizer = load_model(model)
        prompts = prompt_rows(run, chosen_prompts(run.settings, problems, tokenizer, run.seed))
        with atomic_path(folder / "prompts.parquet") as temporary:
            pandas.DataFrame(prompts).to_parquet(temporary)
        command = launch_command(run, model.resolve(), folder, devices, python or "python")
        log = shlex.quote(environment["VERL_FILE_LOGGER_PATH"])
        atomic_write(folder / "launch.sh", f"VERL_FILE_LOGGER_PATH={log} {shlex.join(command)}\n")
        if not python:
            raise ValueError(f"{PYTHON} is not set to a Python that has verl; the command is in {folder / 'launch.sh'}")
        progress.say(f"runs through verl; its output is in {folder / 'output.txt'}")
        # What an earlier attempt left must not pass for this one's.
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        (folder / "log.jsonl").write_text("")
        with (folder / "output.txt").open("w") as output:
            done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{run.name}: verl ended with status {done.returncode}; see {folder / 'output.txt'}")
        rows = metrics_rows(folder / "log.jsonl", training)
        saved = sorted((folder / "checkpoint").rglob("config.json"))
        if len(rows) != training.rollout_batches or not saved:
            made = f"{len(rows)} of {training.rollout_batches} rollout batches and {'a' if saved else 'no'} model"
            raise RuntimeError(f"{run.name}: verl left {made} in {folder}; see {folder / 'output.txt'}")
        save_model(*load_model(saved[-1].parent), run.folder / "model")
        ended = {"stopped": None, "faults": [], "interruptions": [], "processes": devices, "verl": version}
        write_results(run, rows, {}, stopwatch.record() | ended)
        shutil.rmtree(folder / "checkpoint")
