"""One run with a model of the hub: the same trainer and methods as the small scales, on one device or under accelerate.

Nothing here changes with the number of processes: the minibatch is the configuration's, and accumulation follows.
Killed and called again with as many processes, a run continues from its checkpoint: on a CPU to the bit; on a GPU as
exactly as its arithmetic repeats, and with other samples where vLLM draws them, whose random states are its own. Faults
are answered as `safety` says, like those of every run.
"""

import contextlib
import math
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from reproduction.data import Problem
from reproduction.data.mathematics import MathProblem
from reproduction.data.prompts import prompt_messages, user_text, within_length
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import atomic_path, atomic_write, only_process, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import Stopwatch
from reproduction.rewards.rules import batch_rewards
from reproduction.settings.configuration import Configuration, ExperimentSettings
from reproduction.training.agreement import EngineAgreement
from reproduction.training.arguments import adapter_arguments, pretrained_arguments
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.engine_weights import prepare_engine
from reproduction.training.faults import KINDS, FaultMonitor
from reproduction.training.processes import from_all, process_count, process_index
from reproduction.training.recorder import Recorder
from reproduction.training.run import choose_prompts, resolved_run, run_identity
from reproduction.training.saving import save_model
from reproduction.training.trainer import MethodTrainer


def train_pretrained(
    configuration: Configuration,
    experiment: str,
    label: str,
    seed: int,
    model_folder: Path,
    problems: list[Problem] | list[MathProblem],
    output: Path,
    progress_stream=None,
) -> None:
    """Train and write metrics.jsonl, structure.safetensors, config.yaml, provenance.json and model/ into `output`.

    Under a launcher every process calls this; the first writes. Raises ValueError where the processes cannot share a
    minibatch equally, and where no prompt is short enough.
    """
    stopwatch = Stopwatch(seed)
    settings = configuration.experiments[experiment]
    method, training, pretrained = settings.method(label), settings.training, settings.pretrained
    safety, processes, is_first = configuration.safety, process_count(), process_index() == 0
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        # Made first: it connects the processes.
        arguments = pretrained_arguments(settings, method.kl_weight, seed, scratch, processes, safety.checkpoint_every)
        stream = progress_stream if is_first else stack.enter_context(open(os.devnull, "w"))
        progress = Progress(f"{experiment}/{label} seed {seed}", training.updates, stream)
        if is_first:
            # A job whose workflow was killed may still be at work here; two would remove each other's checkpoints.
            waiting = "another process trains this run; waiting for its end"
            stack.enter_context(only_process(output, lambda: progress.say(waiting)))
        tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        prompts = chosen_prompts(settings, problems, tokenizer, seed)
        settings_text = resolved_run(configuration, experiment, label, seed)
        identity = _identity(settings_text, settings, model_folder, prompts) if is_first else {}
        checkpoints = CheckpointFolder(output / "checkpoint", identity, progress.say)
        recorder = Recorder(training, progress)
        faults = FaultMonitor(
            {kind: getattr(safety, kind.replace("-", "_")) for kind in KINDS}, collapse_after=safety.collapse_after
        )

        def reward(completions, answer, **_):
            texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
            own = batch_rewards(settings.reward, texts, answer, pretrained.answer_markers)
            # Groups, accuracy and noise are those of the whole rollout batch, whoever sampled which part of it.
            parts = from_all([float("nan") if value is None else value for value in own])
            found = [value for part in parts for value in part]
            known = [value for value in found if not math.isnan(value)]
            recorder.accuracy = sum(value == 1.0 for value in known) / max(len(known), 1)
            recorder.rollouts_scored += 1
            noisy = settings.noise.apply(
                found, group_size=training.group_size, rollout_batch=recorder.rollouts_scored, seed=seed
            )
            start = sum(len(part) for part in parts[: process_index()])
            return noisy[start : start + len(own)]

        try:
            trainer = MethodTrainer(
                method=method,
                # 32-bit weights under 16-bit arithmetic: a step of 1e-6 is below what 16-bit weights can tell apart.
                model=AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
                args=arguments,
                processing_class=tokenizer,
                reward_funcs=reward,
                train_dataset=Dataset.from_list(prompts),
                on_update=recorder.update,
                on_minibatch=recorder.minibatch,
                on_rollout=recorder.rollout,
                faults=faults,
                checkpoints=checkpoints,
                companions={"recorder": recorder},
                peft_config=adapter_arguments(pretrained.lora),
                agreement=EngineAgreement(pretrained.engine_log_prob_bound) if pretrained.engine == "vllm" else None,
            )
            prepare_engine(trainer, pretrained.precision)
            trainer.run()
            if len(recorder.rows) != training.updates and trainer.stopped is None:
                raise RuntimeError(f"the run made {len(recorder.rows)} updates instead of {training.updates}")
            trained = trainer.accelerator.unwrap_model(trainer.model)
            # Under FSDP every process has to take part in gathering the weights.
            weights = trainer.accelerator.get_state_dict(trainer.model) if processes > 1 else None
            if not is_first:
                return
            if pretrained.lora is not None:
                trained = trained.merge_and_unload()  # evaluation knows models without adapters alone
            write_jsonl(output / "metrics.jsonl", recorder.rows)
            with atomic_path(output / "structure.safetensors") as temporary:
                save_file(recorder.tensors, temporary)
            atomic_write(output / "config.yaml", settings_text)
            save_model(trained, tokenizer, output / "model", weights)
            record = {
                **stopwatch.record(),
                "wall_seconds": round(recorder.seconds, 3),
                "stopped": trainer.stopped,
                "faults": list(faults.records.values()),
                "interruptions": checkpoints.history(),
                "processes": processes,
            }
            write_json(output / "provenance.json", record)
            names = ["metrics.jsonl", "structure.safetensors", "config.yaml", "provenance.json", "model"]
            write_checksums(output, "train", names)
        except Exception as error:
            raise checkpoints.ended(f"{experiment}/{label} seed {seed}", len(recorder.rows), error) from error
        checkpoints.remove()


def _identity(settings_text: str, settings: ExperimentSettings, model_folder: Path, prompts: list[dict]) -> dict:
    """What decides every bit of a run apart from the hardware; JSON-ready."""
    # Of the model's section that which decides the training, not how the model is evaluated afterwards.
    pretrained = {**settings.pretrained.deciding_training(), "micro_batch": settings.pretrained.micro_batch}
    decided = {**yaml.safe_load(settings_text), "pretrained": pretrained}
    return {**run_identity(decided, model_folder, prompts), "number of processes": process_count()}


def chosen_prompts(
    settings: ExperimentSettings, problems: list[Problem] | list[MathProblem], tokenizer, seed: int
) -> list[dict]:
    """The prompts of a run in order, each with its answer: levels by weight, or sets shuffled anew for each pass.

    They depend on the seed alone, so that every method of an experiment sees the same ones. Problems whose prompt is
    too long are left out, as in KPO's release.
    """
    pretrained, training = settings.pretrained, settings.training
    style = pretrained.train_prompt.style
    fits = within_length(tokenizer, [p.question for p in problems], style, pretrained.max_prompt_length)
    short: list[Any] = [problem for problem, fit in zip(problems, fits, strict=True) if fit]
    if not short:
        raise ValueError(
            f"no prompt has at most {pretrained.max_prompt_length} tokens; raise pretrained.max_prompt_length"
        )
    if pretrained.trains_on_arithmetic:
        chosen = choose_prompts(short, training, seed)
    else:
        generator, chosen = random.Random(seed), []
        needed = training.rollout_batches * training.prompts_per_rollout
        while len(chosen) < needed:
            chosen += generator.sample(short, min(len(short), needed - len(chosen)))
    if style.template == "plain":
        return [{"prompt": user_text(problem.question, style), "answer": problem.answer} for problem in chosen]
    return [{"prompt": prompt_messages(problem.question, style), "answer": problem.answer} for problem in chosen]
