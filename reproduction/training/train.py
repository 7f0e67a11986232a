"""Training of one run: a method trained from a base model on one seed's prompts, with everything it leaves behind.

One path for the small models of the laptop scale and for Hugging Face models, in one process or in several under
accelerate. The number of processes changes nothing: the minibatch is the configuration's, and accumulation follows.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file

from reproduction.data.arithmetic import Problem
from reproduction.data.mathematics import MathProblem
from reproduction.data.model_source import model_source
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.jobs.checksums import is_made, sha256, write_checksums
from reproduction.jobs.files import atomic_path, atomic_write, only_process, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import Stopwatch, source_hash, versions
from reproduction.rewards.rules import batch_rewards, reward_weights
from reproduction.sampling.engine import end_tokens
from reproduction.settings.run import Run
from reproduction.training.agreement import EngineAgreement
from reproduction.training.arguments import adapter_arguments, trainer_arguments
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.engine_weights import prepare_engine
from reproduction.training.faults import KINDS, FaultMonitor
from reproduction.training.late_evaluation import LateEvaluation
from reproduction.training.processes import from_all, in_first_while_others_wait, process_count, process_index
from reproduction.training.prompts import chosen_prompts
from reproduction.training.recorder import Recorder
from reproduction.training.rollouts import DecodingTrainer
from reproduction.training.saving import load_model, save_model
from reproduction.training.trainer import MethodTrainer


def train(
    run: Run,
    base_model: Path,
    problems: Sequence[Problem] | Sequence[MathProblem],
    progress_stream=None,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Train and write metrics.jsonl, structure.safetensors, config.yaml, provenance.json and model/ into `run.folder`.

    Killed at any moment and called again with as many processes, it continues from `run.folder`/checkpoint: on a CPU it
    leaves the same bytes (times apart) as an undisturbed run; on a GPU as exactly as its arithmetic repeats, and with
    other samples if vLLM draws them, whose random states are its own. A checkpoint of other settings, data, code or
    versions is removed with a line in the log. If another process trains the run, this one waits, and does nothing if
    that one has finished it.

    then: called when the results are written. The last checkpoint is removed after it, so that a run whose files are
    removed while it is at work need not begin again.

    Under a launcher every process calls this; the first writes. Raises ValueError if the processes cannot share a
    minibatch equally or no prompt is short enough, and RuntimeError with one line if the process cannot go on (memory,
    disk).
    """
    stopwatch = Stopwatch(run.seed)
    training, hub, safety = run.settings.training, run.hub, run.safety
    processes, is_first = process_count(), process_index() == 0
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        # Made first: it connects the processes.
        arguments = trainer_arguments(
            training, run.method.kl_weight, run.seed, scratch, safety.checkpoint_every, hub, processes
        )
        arguments.reward_weights = list(reward_weights(run.settings.reward).values())
        stream = progress_stream if is_first else stack.enter_context(open(os.devnull, "w"))
        progress = Progress(run.name, training.updates, stream)
        if in_first_while_others_wait(lambda: is_finished_by_another(run, stack, progress)):
            return
        model, tokenizer = load_model(base_model)
        prompts = chosen_prompts(run.settings, problems, tokenizer, run.seed)
        identity = run_identity(run, base_model, prompts) if is_first else {}
        checkpoints = CheckpointFolder(run.folder / "checkpoint", identity, progress.say)
        recorder = Recorder(training, progress)
        late = LateEvaluation(run, problems, tokenizer, lambda: trainer.accelerator.unwrap_model(trainer.model))
        faults = FaultMonitor(
            {kind: getattr(safety, kind.replace("-", "_")) for kind in KINDS}, collapse_after=safety.collapse_after
        )
        try:
            own_ends = model.generation_config.eos_token_id
            if hub is not None and hub.train_prompt.style.end_tokens(tokenizer):
                # TRL ends responses at what the model names.
                ends = end_tokens(model.generation_config, tokenizer, hub.train_prompt.style)
                model.generation_config.eos_token_id = ends
            trainer_class: Callable[..., MethodTrainer] = MethodTrainer
            if getattr(run.method, "objective", None) is not None:  # a related method, which trains small models only
                from reproduction.related.trainer import ObjectiveTrainer

                grade = functools.partial(_grades, run, run.settings.reward)
                trainer_class = functools.partial(ObjectiveTrainer, grade=grade)
            elif hub is None or hub.engine == "decode":
                trainer_class = DecodingTrainer
            trainer = trainer_class(
                method=run.method,
                # 32-bit weights under 16-bit arithmetic: a step of 1e-6 is below what 16-bit weights can tell apart.
                model=model,
                args=arguments,
                processing_class=tokenizer,
                reward_funcs=[_reward_function(run, recorder, rule) for rule in reward_weights(run.settings.reward)],
                train_dataset=Dataset.from_list(prompts),
                on_update=lambda row: recorder.update(late.added_to(row)),
                on_minibatch=recorder.minibatch,
                on_rollout=recorder.rollout,
                faults=faults,
                checkpoints=checkpoints,
                companions={"recorder": recorder},
                min_completion_length=training.min_completion_length,
                peft_config=None if hub is None else adapter_arguments(hub.lora),
                agreement=EngineAgreement(hub.engine_log_prob_bound) if hub and hub.engine == "vllm" else None,
            )
            if hub is not None:
                prepare_engine(trainer, hub.precision)
            trainer.run()
            if len(recorder.rows) != training.updates and trainer.stopped is None:
                raise RuntimeError(f"the run made {len(recorder.rows)} updates instead of {training.updates}")
            trained = trainer.accelerator.unwrap_model(trainer.model)
            # Under FSDP every process has to take part in gathering the weights.
            weights = trainer.accelerator.get_state_dict(trainer.model) if processes > 1 else None
            if not is_first:
                return
            if hub is not None and hub.lora is not None:
                trained = trained.merge_and_unload()  # evaluation knows only models without adapters
            trained.generation_config.eos_token_id = own_ends
            save_model(trained, tokenizer, run.folder / "model", weights)
            # A run that could not go on is a result too; what it reached is evaluated as usual.
            record = {
                **stopwatch.record(),
                "wall_seconds": round(recorder.seconds, 3),
                "stopped": trainer.stopped,
                "faults": list(faults.records.values()),
                "interruptions": checkpoints.history(),
                "processes": processes,
                **({} if hub is None else {"base_model": model_source(base_model)}),
            }
            # A Hugging Face model is outside the results; its revision is in config.yaml.
            inputs = [base_model / "model.safetensors"] if hub is None else []
            write_results(run, recorder.rows, recorder.tensors, record, inputs)
        except Exception as error:
            raise checkpoints.ended(run.name, len(recorder.rows), error) from error
        then()
        checkpoints.remove()


def is_finished_by_another(run: Run, stack: contextlib.ExitStack, progress: Progress) -> bool:
    """Lock the run's folder until `stack` closes; whether another process held it and has finished the run."""

    def wait() -> None:
        progress.say("another process trains this run; waiting for its end")

    # A job whose workflow was killed may still be at work here; two would remove each other's checkpoints.
    if not stack.enter_context(only_process(run.folder, wait)) or not is_made(run.folder, "train"):
        return False
    if (run.folder / "config.yaml").read_text("utf-8") != run.resolved_text:
        return False
    progress.say("the other process has finished this run; nothing is left to do")
    return True


def write_results(
    run: Run, rows: list[dict], tensors: dict[str, torch.Tensor], record: dict[str, Any], inputs: Sequence[Path] = ()
) -> None:
    """Write all that a run leaves next to its model: metrics, kept log-ratios, settings, provenance and checksums."""
    write_jsonl(run.folder / "metrics.jsonl", rows)
    with atomic_path(run.folder / "structure.safetensors") as temporary:
        save_file(tensors, temporary)
    atomic_write(run.folder / "config.yaml", run.resolved_text)
    write_json(run.folder / "provenance.json", record)
    names = ["metrics.jsonl", "structure.safetensors", "config.yaml", "provenance.json", "model"]
    write_checksums(run.folder, "train", names, inputs)


def _grades(run: Run, rule: str, texts: Sequence[str], answers: Sequence[str]) -> list[float | None]:
    """The rewards by `rule` as the run's model writes its answers."""
    form = {"tags": (ANSWER_OPEN, ANSWER_CLOSE)}
    if run.hub is not None:
        form = {"markers": run.hub.answer_markers, "tags": run.hub.train_prompt.style.answer_tags}
    return batch_rewards(rule, texts, answers, **form)


def _reward_function(run: Run, recorder: Recorder, rule: str) -> Callable[..., list[float]]:
    """The reward by `rule` as TRL calls it; it counts rollout batches and notes their accuracy in `recorder`."""
    settings = run.settings

    def reward(completions, answer, **_) -> list[float]:
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        own = _grades(run, rule, texts, answer)
        # Groups, accuracy and noise are those of the whole rollout batch, whichever process sampled which part of it.
        parts = from_all([math.nan if value is None else value for value in own])
        found = [value for part in parts for value in part]
        known = [value for value in found if not math.isnan(value)]
        recorder.accuracy = sum(value == 1.0 for value in known) / max(len(known), 1)
        recorder.rollouts_scored += 1
        noisy = settings.noise.apply(
            found, group_size=settings.training.group_size, rollout_batch=recorder.rollouts_scored, seed=run.seed
        )
        start = sum(len(part) for part in parts[: process_index()])
        return noisy[start : start + len(own)]

    reward.__name__ = rule
    return reward


def run_identity(run: Run, base_model: Path, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """What decides every bit of a run apart from the hardware; JSON-ready. A checkpoint holds it."""
    # The base model and the problems count by their content, not by the settings that made them.
    settings = {key: value for key, value in run.resolved.items() if key not in ("base_model", "problems")}
    if run.hub is not None:
        # Of the model's section only what decides the training, not how the model is evaluated afterwards.
        settings["pretrained"] = {**run.hub.deciding_training(), "micro_batch": run.hub.micro_batch}
    return {
        **{f"settings ({key})": value for key, value in settings.items()},
        "base model": [sha256(path) for path in sorted(base_model.glob("*.safetensors"))],
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "code": source_hash(),
        "versions": versions(),
        "CUDA devices": 0 if run.hub is None else torch.cuda.device_count(),
        "number of processes": process_count(),
    }
