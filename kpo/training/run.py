"""One run: a method trained from a base model on one seed's prompts, with everything it leaves behind."""

import random
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from kpo.config import Configuration, TrainingSettings
from kpo.data.arithmetic import Problem, normalise_question
from kpo.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from kpo.files import atomic_path, atomic_write, write_json, write_jsonl
from kpo.progress import Progress
from kpo.provenance import Stopwatch
from kpo.rewards import exact_reward, krpo_reward
from kpo.training.saving import save_model
from kpo.training.trainer import MethodTrainer

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
    """Train and write metrics.jsonl, structure.safetensors, config.yaml, provenance.json and model/ into `output`."""
    stopwatch = Stopwatch(seed)
    settings = configuration.experiments[experiment]
    method, training = settings.method(label), settings.training
    prompts = choose_prompts(problems, training, seed)
    dataset = Dataset.from_list([{"prompt": normalise_question(p.question), "answer": p.answer} for p in prompts])
    recorder = _Recorder(training, Progress(f"{experiment}/{label} seed {seed}", training.updates, progress_stream))

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
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

    with tempfile.TemporaryDirectory() as scratch:
        trainer = MethodTrainer(
            method=method,
            model=model,
            args=trainer_arguments(training, method.kl_weight, seed, scratch),
            processing_class=tokenizer,
            reward_funcs=reward,
            train_dataset=dataset,
            on_update=recorder.update,
            on_minibatch=recorder.minibatch,
            on_rollout=recorder.rollout,
        )
        trainer.train()
        if len(recorder.rows) != training.updates and trainer.stopped is None:
            raise RuntimeError(f"the run made {len(recorder.rows)} updates instead of {training.updates}")
        write_jsonl(output / "metrics.jsonl", recorder.rows)
        with atomic_path(output / "structure.safetensors") as temporary:
            save_file(recorder.tensors, temporary)
        atomic_write(output / "config.yaml", resolved_run(configuration, experiment, label, seed))
        save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, output / "model")
    # A run that could not go on is a result too; what it reached is evaluated like any other.
    write_json(output / "provenance.json", {**stopwatch.record(), "stopped": trainer.stopped})


def trainer_arguments(training: TrainingSettings, kl_weight: float, seed: int, scratch: str) -> GRPOConfig:
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
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def resolved_run(configuration: Configuration, experiment: str, label: str, seed: int) -> str:
    """What decided this run, as YAML: scale, experiment, method with every value, training protocol, data, base."""
    import dataclasses

    import yaml

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


class _Recorder:
    """Collects what a run measures and says how far it is."""

    def __init__(self, training: TrainingSettings, progress: Progress):
        self.training, self.progress = training, progress
        self.rows: list[dict] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.accuracy = 0.0
        self.rollouts_scored = 0
        self._rollout_batch = 0

    @property
    def _keeping(self) -> bool:
        return (self._rollout_batch - 1) % self.training.keep_log_ratios_every == 0

    def rollout(self, number: int, rewards_PG: torch.Tensor) -> None:
        self._rollout_batch = number
        if self._keeping:
            self.tensors[f"rollout{number}.rewards"] = rewards_PG.to(torch.float32).contiguous().clone()

    def minibatch(self, log_ratio_BT: torch.Tensor, mask_BT: torch.Tensor, advantage_B: torch.Tensor) -> None:
        if self._keeping:
            name = f"{len(self.rows) + 1:05d}"
            per_rollout = self.training.minibatches * self.training.epochs
            self.tensors[f"{name}.log_ratio"] = log_ratio_BT.to(torch.float32).contiguous().clone()
            self.tensors[f"{name}.mask"] = mask_BT.to(torch.uint8).contiguous().clone()
            self.tensors[f"{name}.advantage"] = advantage_B.to(torch.float32).contiguous().clone()
            self.tensors[f"{name}.minibatch"] = torch.tensor(len(self.rows) % per_rollout + 1)

    def update(self, row: dict) -> None:
        self.rows.append({**row, "accuracy": self.accuracy})
        self.progress.update(len(self.rows), reward=row["reward"], entropy=row["entropy"])
