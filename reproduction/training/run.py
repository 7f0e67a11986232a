"""One run: a method trained from a base model on one seed's prompts, with everything it leaves behind."""

import dataclasses
import hashlib
import json
import random
import tempfile
from pathlib import Path

import torch
import yaml
from datasets import Dataset
from safetensors.torch import save_file
from trl import GRPOConfig

from reproduction.data.arithmetic import Problem, normalise_question
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.jobs.checksums import is_made, sha256, write_checksums
from reproduction.jobs.files import atomic_path, atomic_write, only_process, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import Stopwatch, source_hash, versions
from reproduction.rewards import exact_reward, krpo_reward
from reproduction.settings.configuration import Configuration, TrainingSettings
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.faults import KINDS, FaultMonitor
from reproduction.training.recorder import Recorder
from reproduction.training.saving import load_model, save_model
from reproduction.training.trainer import MethodTrainer

REWARDS = {"exact": exact_reward, "krpo": krpo_reward}


def choose_prompts(problems: list[Problem], settings: TrainingSettings, seed: int) -> list[Problem]:
    """The prompts of a run in order: the level of each drawn by its weight, each level's problems shuffled and cycled.

    They depend on the seed alone, so that every method of an experiment sees the same prompts at the same update.
    """
    generator = random.Random(seed)
    by_level = {level: [problem for problem in problems if problem.level == level] for level in settings.level_weights}
    for level, found in by_level.items():
        if not found and settings.level_weights[level]:
            raise ValueError(f"the training problems hold none of level {level!r}; generate them anew")
        generator.shuffle(found)
    levels = generator.choices(
        list(settings.level_weights),
        weights=list(settings.level_weights.values()),
        k=settings.rollout_batches * settings.prompts_per_rollout,
    )
    taken = dict.fromkeys(by_level, 0)
    chosen = []
    for level in levels:
        chosen.append(by_level[level][taken[level] % len(by_level[level])])
        taken[level] += 1
    return chosen


def train_run(
    configuration: Configuration,
    experiment: str,
    label: str,
    seed: int,
    base_model: Path,
    problems: list[Problem],
    output: Path,
    progress_stream=None,
) -> None:
    """Train and write metrics.jsonl, structure.safetensors, config.yaml, provenance.json and model/ into `output`.

    Killed at any moment and called again, it continues from `output`/checkpoint and leaves the same bytes as if it had
    not been killed (times apart; on a CPU). A checkpoint of other settings, data, code or versions is removed with a
    line in the log. Where another process trains the run, this one waits, and does nothing if that one has finished it.
    Raises RuntimeError with one line where the process cannot go on (memory, disk).
    """
    stopwatch = Stopwatch(seed)
    settings = configuration.experiments[experiment]
    method, training, safety = settings.method(label), settings.training, configuration.safety
    prompts = choose_prompts(problems, training, seed)
    dataset = Dataset.from_list([{"prompt": normalise_question(p.question), "answer": p.answer} for p in prompts])
    progress = Progress(f"{experiment}/{label} seed {seed}", training.updates, progress_stream)
    recorder = Recorder(training, progress)
    faults = FaultMonitor(
        {kind: getattr(safety, kind.replace("-", "_")) for kind in KINDS}, collapse_after=safety.collapse_after
    )
    settings_text = resolved_run(configuration, experiment, label, seed)
    checkpoints = CheckpointFolder(
        output / "checkpoint", run_identity(yaml.safe_load(settings_text), base_model, prompts), progress.say
    )

    model, tokenizer = load_model(base_model)
    rule = REWARDS[settings.reward]

    def reward(completions, answer, **_):
        pairs = list(zip(completions, answer, strict=True))
        exact = [exact_reward(text, gold, ANSWER_OPEN, ANSWER_CLOSE) for text, gold in pairs]
        recorder.accuracy = sum(exact) / len(exact)
        ruled = exact if rule is exact_reward else [rule(text, gold, ANSWER_OPEN, ANSWER_CLOSE) for text, gold in pairs]
        recorder.rollouts_scored += 1
        return settings.noise.apply(
            ruled, group_size=training.group_size, rollout_batch=recorder.rollouts_scored, seed=seed
        )

    waited = []

    def wait() -> None:
        waited.append(True)
        progress.say("another process trains this run; waiting for its end")

    # A job whose workflow was killed may still be at work here; two would remove each other's checkpoints.
    with only_process(output, wait):
        if waited and is_made(output, "train") and (output / "config.yaml").read_text("utf-8") == settings_text:
            progress.say("the other process has finished this run; nothing is left to do")
            return
        try:
            with tempfile.TemporaryDirectory() as scratch:
                trainer = MethodTrainer(
                    method=method,
                    model=model,
                    args=trainer_arguments(training, method.kl_weight, seed, scratch, safety.checkpoint_every),
                    processing_class=tokenizer,
                    reward_funcs=reward,
                    train_dataset=dataset,
                    on_update=recorder.update,
                    on_minibatch=recorder.minibatch,
                    on_rollout=recorder.rollout,
                    faults=faults,
                    checkpoints=checkpoints,
                    companions={"recorder": recorder},
                )
                trainer.run()
            if len(recorder.rows) != training.updates and trainer.stopped is None:
                raise RuntimeError(f"the run made {len(recorder.rows)} updates instead of {training.updates}")
            atomic_write(output / "config.yaml", settings_text)
            _write_results(output, recorder, trainer)
            # A run that could not go on is a result too; what it reached is evaluated like any other.
            record = {
                **stopwatch.record(),
                "wall_seconds": round(recorder.seconds, 3),
                "stopped": trainer.stopped,
                "faults": list(faults.records.values()),
                "interruptions": checkpoints.history(),
            }
            write_json(output / "provenance.json", record)
            names = ["metrics.jsonl", "structure.safetensors", "config.yaml", "provenance.json", "model"]
            write_checksums(output, "train", names, [base_model / "model.safetensors"])
        except Exception as error:
            raise checkpoints.ended(f"{experiment}/{label} seed {seed}", len(recorder.rows), error) from error
        checkpoints.remove()


def _write_results(output: Path, recorder: Recorder, trainer: MethodTrainer) -> None:
    write_jsonl(output / "metrics.jsonl", recorder.rows)
    with atomic_path(output / "structure.safetensors") as temporary:
        save_file(recorder.tensors, temporary)
    save_model(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, output / "model")


def run_identity(settings: dict, base_model: Path, prompts: list) -> dict:
    """What decides every bit of a run apart from the hardware; JSON-ready. A checkpoint holds it.

    prompts: problems, or what is JSON-ready itself. base_model: its weights may be in several files.
    """
    # The base model and the problems count by their content, not by the settings that made them.
    kept = {f"settings ({key})": settings[key] for key in settings if key not in ("base_model", "problems")}
    text = json.dumps([[row.question, row.answer] if isinstance(row, Problem) else row for row in prompts])
    return {
        **kept,
        "base model": [sha256(path) for path in sorted(base_model.glob("*.safetensors"))],
        "prompts": hashlib.sha256(text.encode()).hexdigest(),
        "code": source_hash(),
        "versions": {name: version for name, version in versions().items() if name != "snakemake"},
        "CUDA devices": torch.cuda.device_count(),
    }


def trainer_arguments(
    training: TrainingSettings, kl_weight: float, seed: int, scratch: str, checkpoint_every: int | None = None
) -> GRPOConfig:
    """The settings as TRL names them: one optimiser step a minibatch, a constant learning rate."""
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        seed=seed,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        max_steps=training.updates,
        per_device_train_batch_size=training.sequences_per_rollout // training.minibatches,
        gradient_accumulation_steps=1,
        steps_per_generation=training.minibatches,
        num_iterations=training.epochs,
        num_generations=training.group_size,
        max_completion_length=training.max_completion_length,
        temperature=training.temperature,
        top_p=training.top_p,
        top_k=0,
        beta=kl_weight,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no" if checkpoint_every is None else "steps",
        save_steps=checkpoint_every or training.updates,
        report_to="none",
        disable_tqdm=True,
    )


def resolved_run(configuration: Configuration, experiment: str, label: str, seed: int) -> str:
    """What decided this run, as YAML: scale, experiment, method with every value, training protocol, data, base."""
    settings = configuration.experiments[experiment]
    return yaml.safe_dump(
        {
            "scale": configuration.scale,
            "experiment": experiment,
            "label": label,
            "seed": seed,
            "method": dataclasses.asdict(settings.method(label)),
            "reward": settings.reward,
            "reward_noise": settings.reward_noise,
            "training": settings.training.model_dump(),
            "problems": configuration.problems.model_dump(),
            "base_model": configuration.base_model and configuration.base_model.model_dump(),
            **({} if settings.pretrained is None else {"pretrained": settings.pretrained.model_dump()}),
        },
        sort_keys=False,
    )
