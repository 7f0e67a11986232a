"""One run with a model of the hub: the same trainer and methods as the small scales, on one device or under accelerate.

Nothing here changes with the number of processes: the minibatch is the configuration's, and accumulation follows.
Such a run keeps no checkpoints, since those of `kpo.training.checkpoint` are written by one process that holds the
whole model: one that is interrupted starts anew, and says so where `safety.checkpoint_every` asks for them. Faults are
answered as `safety` says, like those of every run.
"""

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from kpo.checksums import write_checksums
from kpo.config import Configuration, ExperimentSettings
from kpo.data import Problem
from kpo.data.mathematics import MathProblem
from kpo.data.prompts import prompt_messages, user_text, within_length
from kpo.files import atomic_path, atomic_write, write_json, write_jsonl
from kpo.progress import Progress
from kpo.provenance import Stopwatch
from kpo.rewards.rules import batch_rewards
from kpo.training.agreement import EngineAgreement
from kpo.training.engine_weights import prepare_engine
from kpo.training.faults import KINDS, FaultMonitor
from kpo.training.recorder import Recorder
from kpo.training.run import choose_prompts, resolved_run
from kpo.training.saving import save_model
from kpo.training.trainer import MethodTrainer


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
    safety = configuration.safety
    processes, is_first = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"
    if processes > 1 and not settings.noise.is_clean:
        raise ValueError("reward_noise is drawn for whole rollout batches; train such an experiment with one process")
    tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # 32-bit weights under 16-bit arithmetic: a step of 1e-6 is below what 16-bit weights can tell apart.
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    prompts = chosen_prompts(settings, problems, tokenizer, seed)
    with open(os.devnull, "w") as nowhere:
        progress = Progress(
            f"{experiment}/{label} seed {seed}", training.updates, progress_stream if is_first else nowhere
        )
        recorder = Recorder(training, progress)
        if safety.checkpoint_every is not None:
            progress.say("safety.checkpoint_every: runs with models of the hub keep no checkpoints; a kill loses all")
        faults = FaultMonitor(
            {kind: getattr(safety, kind.replace("-", "_")) for kind in KINDS}, collapse_after=safety.collapse_after
        )

        def reward(completions, answer, **_):
            texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
            found = batch_rewards(settings.reward, texts, answer, pretrained.answer_markers)
            known = [value for value in found if value is not None]
            right, number = _sum_over_processes(sum(value == 1.0 for value in known), len(known))
            recorder.accuracy = right / max(number, 1)
            recorder.rollouts_scored += 1
            if settings.noise.is_clean:
                return found
            return settings.noise.apply(
                [float("nan") if value is None else value for value in found],
                group_size=training.group_size, rollout_batch=recorder.rollouts_scored, seed=seed,
            )  # fmt: skip

        with tempfile.TemporaryDirectory() as scratch:
            trainer = MethodTrainer(
                method=method,
                model=model,
                args=pretrained_arguments(settings, method.kl_weight, seed, scratch, processes),
                processing_class=tokenizer,
                reward_funcs=reward,
                train_dataset=Dataset.from_list(prompts),
                on_update=recorder.update,
                on_minibatch=recorder.minibatch,
                on_rollout=recorder.rollout,
                faults=faults,
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
        write_jsonl(output / "metrics.jsonl", recorder.rows)
        with atomic_path(output / "structure.safetensors") as temporary:
            save_file(recorder.tensors, temporary)
        atomic_write(output / "config.yaml", resolved_run(configuration, experiment, label, seed))
        save_model(trained, tokenizer, output / "model", weights)
        record = {
            **stopwatch.record(),
            "stopped": trainer.stopped,
            "faults": list(faults.records.values()),
            "interruptions": [],
            "processes": processes,
        }
        write_json(output / "provenance.json", record)
        names = ["metrics.jsonl", "structure.safetensors", "config.yaml", "provenance.json", "model"]
        write_checksums(output, "train", names)


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


def pretrained_arguments(
    settings: ExperimentSettings, kl_weight: float, seed: int, scratch: str, processes: int
) -> GRPOConfig:
    """The settings as TRL names them: one optimiser step a minibatch, made of as many micro-batches as it takes."""
    training, pretrained = settings.training, settings.pretrained
    minibatch, together = training.sequences_per_rollout // training.minibatches, processes * pretrained.micro_batch
    if minibatch % together:
        raise ValueError(
            f"{processes} processes with micro-batches of {pretrained.micro_batch} cannot share a minibatch of "
            f"{minibatch} responses equally; change the number of devices or pretrained.micro_batch"
        )
    accumulation = minibatch // together
    warmup = round(pretrained.warmup_ratio * training.updates)
    engine = {}
    if pretrained.engine == "vllm":
        engine = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": pretrained.engine_memory_share,
            "vllm_max_model_length": pretrained.max_prompt_length + training.max_completion_length,
            # Old log-probabilities are the trainer's own, as in KPO's release; nothing is reweighted by the engine's.
            "vllm_importance_sampling_correction": False,
        }
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=not torch.cuda.is_available(),
        bf16=pretrained.precision == "bfloat16",
        seed=seed,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant_with_warmup" if warmup else "constant",
        warmup_steps=warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        max_steps=training.updates,
        per_device_train_batch_size=pretrained.micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=training.minibatches * accumulation,
        num_iterations=training.epochs,
        num_generations=training.group_size,
        max_completion_length=training.max_completion_length,
        temperature=training.temperature,
        top_p=training.top_p,
        top_k=0,
        beta=kl_weight,
        chat_template_kwargs=pretrained.train_prompt.style.template_arguments,
        shuffle_dataset=False,
        gradient_checkpointing=pretrained.activation_checkpointing,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **engine,
    )


def _sum_over_processes(*values: float) -> list[float]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(values)
    gathered: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, values)
    return [sum(column) for column in zip(*gathered, strict=True)]
