"""Evaluation of a model of the hub, or of one trained from it: every split answered k times and once greedily.

The problems of a split are cut into blocks (`pretrained.sampling.shard_problems`). Each block, sampled or greedy, is a
shard with a seed of its own, kept when it is whole (`reproduction.evaluation.shards`): an evaluation that was stopped goes on
with the shards that are missing, and several devices share them without changing what any of them holds.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from reproduction.data.experiment_data import is_arithmetic
from reproduction.data.mathematics import MathProblem
from reproduction.data.prompts import prompt_tokens
from reproduction.evaluation.engine import make_engine
from reproduction.evaluation.shards import ShardFolder, digest
from reproduction.evaluation.summary import summarise_split
from reproduction.evaluation.workers import end_with_parent, own_devices, run_workers
from reproduction.jobs.checksums import write_checksums
from reproduction.jobs.files import only_process, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import versions
from reproduction.rewards import exact_reward, grade_math_twice
from reproduction.rewards.rules import gradable_text
from reproduction.settings.configuration import Configuration
from reproduction.settings.hub import PretrainedSettings, SamplingSettings


@dataclass(frozen=True)
class _Shard:
    """Problems `start` to `stop` of a split, each answered `count` times."""

    split: str
    greedy: bool
    number: int
    start: int
    stop: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.split}.{'greedy' if self.greedy else 'sampled'}.{self.number:05d}"

    @property
    def responses(self) -> int:
        return (self.stop - self.start) * self.count

    def seed(self, seed: int) -> int:
        """A seed of its own: with one for all, every shard would draw the same numbers."""
        return int.from_bytes(hashlib.sha256(f"{seed}/{self.name}".encode()).digest()[:4]) % 2**31


def evaluate_pretrained(
    configuration: Configuration,
    experiment: str,
    label: str,
    model_folder: Path,
    splits: dict[str, list[MathProblem]],
    output: Path,
    progress_stream=None,
    *,
    worker: Sequence[str] | None = None,
    share: tuple[int, int] | None = None,
) -> None:
    """Write samples.jsonl (one record a response) and evaluation.json (a summary for each split) into `output`.

    worker: the command that does the same in another process. It is run on each device where CUDA_VISIBLE_DEVICES names
    several, with a share of the shards. share: (i, n) makes the shards i, i + n, i + 2n, ... and leaves the rest and
    the tables to others.

    Raises ValueError where a prompt and its response do not fit into the model's window as configured.
    """
    settings = configuration.experiments[experiment].pretrained
    decided = {
        **settings.deciding_evaluation(),
        "reward": configuration.experiments[experiment].reward,
        "seed": configuration.evaluation.seed,
        "weights": weights_digest(model_folder),
    }
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prompts = {split: _prompts(settings, tokenizer, problems) for split, problems in splits.items()}
    asked = digest([split, one.id, one.question, one.answer] for split in splits for one in splits[split])
    shards = _shards(settings.sampling, splits)
    total = sum(shard.responses for shard in shards)
    progress = Progress(f"evaluate {label}", total, progress_stream)
    folder = ShardFolder(output, {**decided, "problems": asked}, progress.say)

    def there() -> int:
        return sum(shard.responses for shard in shards if folder.is_there(shard.name))

    def make(wanted: list[_Shard]) -> None:
        missing = [shard for shard in wanted if folder.read(shard.name) is None]
        if not missing:
            return
        window = settings.max_prompt_length + settings.sampling.max_completion_length
        engine = make_engine(settings.engine, model_folder, settings.sampling, settings.precision, window)
        for shard in missing:
            problems = splits[shard.split][shard.start : shard.stop]
            responses = engine.sample(
                prompts[shard.split][shard.start : shard.stop],
                shard.count,
                greedy=shard.greedy,
                seed=shard.seed(configuration.evaluation.seed),
                report=lambda _: None,
            )
            folder.write(shard.name, {"records": _records(configuration, experiment, shard, problems, responses)})
            if share is None:
                progress.update(there())

    progress.begun_at = there()
    if share is not None:
        end_with_parent()
        make(shards[share[0] :: share[1]])
        return
    # A job whose workflow was killed may still be at work here.
    with only_process(output, lambda: progress.say("another process evaluates this model; waiting for its end")):
        devices = own_devices()
        if worker is not None and len(devices) > 1:
            run_workers(worker, devices, lambda: progress.update(min(there(), total - 1)))
            progress.update(total)
        make(shards)
        _write_summary(configuration, experiment, label, shards, splits, folder, output, decided)
        folder.remove()


def _shards(settings: SamplingSettings, splits: dict[str, list[MathProblem]]) -> list[_Shard]:
    """All shards in the order of their records: of each split the sampled ones, then the greedy ones."""
    size = settings.shard_problems
    return [
        _Shard(split, greedy, number, start, min(start + size, len(problems)), count)
        for split, problems in splits.items()
        for greedy, count in ((False, settings.samples_per_problem), (True, 1))
        for number, start in enumerate(range(0, len(problems), size))
    ]


def _prompts(settings: PretrainedSettings, tokenizer: Any, problems: list[MathProblem]) -> list[list[int]]:
    prompts = [prompt_tokens(tokenizer, problem.question, settings.evaluation_prompt.style) for problem in problems]
    for problem, prompt in zip(problems, prompts, strict=True):
        if len(prompt) > settings.max_prompt_length:
            raise ValueError(
                f"the prompt of {problem.id} has more than {settings.max_prompt_length} tokens; raise "
                "pretrained.max_prompt_length (a problem left out would change the score)"
            )
    return prompts


def weights_digest(folder: Path) -> str:
    """SHA-256 over the model's weight files, by which evaluations of one model are told from another's."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _records(configuration, experiment, shard: _Shard, problems, responses) -> list[dict]:
    """Graded records of a shard; each problem must have `count` responses."""
    split, greedy, count = shard.split, shard.greedy, shard.count
    settings, rule = configuration.experiments[experiment].pretrained, configuration.experiments[experiment].reward
    counts = {len(several) for several in responses}
    if len(responses) != len(problems) or counts != {count}:
        raise RuntimeError(f"{split}: {sorted(counts)} gradings per problem instead of {count}")
    flat = [(problem, response) for problem, several in zip(problems, responses, strict=True) for response in several]
    graded: list[dict[str, Any]]
    if is_arithmetic(configuration, split):
        graded = [
            {"correct": int(exact_reward(response.text, problem.answer) == 1.0), "reason": None, "second": None}
            for problem, response in flat
        ]
    else:
        pairs = [(gradable_text(rule, response.text), problem.answer) for problem, response in flat]
        opinion = grade_math_twice(pairs, markers=settings.answer_markers)
        graders = (opinion.first, opinion.second) if rule != "math-strings" else (opinion.second, opinion.first)
        graded = [
            {"correct": int(one.correct), "reason": one.reason, "second": int(two.correct), "answer": one.answer}
            for one, two in zip(*graders, strict=True)
        ]
    return [
        {
            "split": split,
            "id": problem.id,
            "sample": index % count,
            "greedy": greedy,
            "response": response.text,
            "num_tokens": response.num_tokens,
            "ended": response.ended,
            **grade,
        }
        for index, ((problem, response), grade) in enumerate(zip(flat, graded, strict=True))
    ]


def _write_summary(
    configuration: Configuration,
    experiment: str,
    label: str,
    shards: list[_Shard],
    splits: dict[str, list[MathProblem]],
    folder: ShardFolder,
    output: Path,
    decided: dict[str, Any],
) -> None:
    settings = configuration.experiments[experiment].pretrained
    samples, summaries, grading = [], {}, {}
    for split, problems in splits.items():
        records: list[dict] = []
        tables = {}
        for greedy in (False, True):
            own = [shard for shard in shards if (shard.split, shard.greedy) == (split, greedy)]
            made = [record for shard in own for record in _kept(folder, shard)]
            count = own[0].count
            if len(made) != len(problems) * count:
                raise RuntimeError(f"{split}: {len(made)} gradings instead of {len(problems)} x {count}")
            tables[greedy] = np.array([record["correct"] for record in made]).reshape(len(problems), count)
            records += made
        summaries[split] = summarise_split(tables[False], tables[True], configuration)
        grading[split] = _grading(records)
        samples += records
    write_jsonl(output / "samples.jsonl", samples)
    write_json(
        output / "evaluation.json",
        {
            "model": label,
            "sampling": {
                **{key: value for key, value in decided.items() if key != "weights"},
                "versions": versions(),
                **settings.sampling.model_dump(),
                "top_k": 0,
            },
            "weights": decided["weights"],
            "confidence": configuration.evaluation.confidence,
            "splits": summaries,
            "grading": grading,
        },
    )
    write_checksums(output, "evaluate", ["evaluation.json", "samples.jsonl"])


def _kept(folder: ShardFolder, shard: _Shard) -> list[dict]:
    found = folder.read(shard.name)
    if found is None:
        raise RuntimeError(f"the shard {shard.name} is gone from {folder.folder}; the same command makes it again")
    return found["records"]


def _grading(records: list[dict]) -> dict:
    """How often the grader gave each reason, and how often and where the second grader disagreed."""
    twice = [record for record in records if record["second"] is not None]
    differing = [record for record in twice if record["second"] != record["correct"]]
    reasons: dict[str, int] = {}
    for record in twice:
        reasons[record["reason"]] = reasons.get(record["reason"], 0) + 1
    return {
        "graded_twice": len(twice),
        "reasons": reasons,
        "disagreements": len(differing),
        "examples": [{key: record[key] for key in ("id", "sample", "answer", "correct")} for record in differing[:20]],
    }
