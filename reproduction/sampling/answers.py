"""The answers of an evaluation: each problem of every split answered k times and once greedily, and graded.

The problems of a split are cut into blocks. Each block, sampled or greedy, is a shard with its own seed, kept as
soon as it is whole (`reproduction.sampling.shards`): an interrupted evaluation continues with the missing shards, and
several devices share them without changing what any of them holds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.data.arithmetic import Problem
from reproduction.data.expressions import normalise_question
from reproduction.data.mathematics import MathProblem
from reproduction.data.prompts import prompt_tokens
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import versions
from reproduction.rewards import exact_reward, grade_math_many
from reproduction.rewards.rules import gradable_text
from reproduction.sampling.shards import ShardFolder, digest
from reproduction.settings.run import Run

Splits = Mapping[str, Sequence[Problem] | Sequence[MathProblem]]


@dataclass(frozen=True)
class Shard:
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
        """Its own seed: with one for all, every shard would draw the same numbers."""
        return int.from_bytes(hashlib.sha256(f"{seed}/{self.name}".encode()).digest()[:4]) % 2**31


def sample_ahead(run: Run, model_folder: Path, splits: Splits, progress_stream=None) -> None:
    """Make the shards that an evaluation will need, in a process that has a model's libraries loaded already.

    The evaluation then only writes tables and results, if settings, problems, code and versions are still the same. The
    caller holds the run's folder.
    """
    answers = Answers(run, model_folder, splits, progress_stream)
    answers.make(answers.shards)


class Answers:
    """The answers of one evaluation. decided: what evaluation.json says of how they were made."""

    def __init__(self, run: Run, model_folder: Path, splits: Splits, progress_stream):
        self.run, self.model_folder, self.splits = run, model_folder, splits
        self.shards = _shards(run, splits)
        shared = run.evaluation
        self.decided = {
            "model": run.name,
            "sampling": {**_sampling(run), "versions": versions()},
            "weights": weights_digest(model_folder),
            "problems": digest([split, one.id, one.question, one.answer] for split in splits for one in splits[split]),
            "confidence": shared.confidence,
            "bootstrap_resamples": shared.bootstrap_resamples,
        }
        self.progress = Progress(f"evaluate {run.name}", sum(one.responses for one in self.shards), progress_stream)
        answered = {**_sampling(run), **{key: self.decided[key] for key in ("weights", "problems")}}
        self.folder = ShardFolder(run.folder, answered, self.progress.say)
        self.progress.begun_at = self._shown = self._responses_there()

    def _responses_there(self) -> int:
        return sum(shard.responses for shard in self.shards if self.folder.is_there(shard.name))

    def show_progress(self) -> None:
        if self._shown < (done := self._responses_there()):
            self._shown = done
            self.progress.update(done)

    def make(self, wanted: Sequence[Shard], quiet: bool = False) -> None:
        """Sample and grade those of the shards that are missing."""
        missing = [shard for shard in wanted if self.folder.read(shard.name) is None]
        if not missing:
            return
        # Imported only here, since it takes seconds: tables of finished shards need no model.
        from reproduction.sampling.engine import make_engine

        engine = make_engine(self.run, self.model_folder)
        prompts = {split: _prompts(self.run, engine.tokenizer, problems) for split, problems in self.splits.items()}
        for shard in missing:
            responses = engine.sample(
                prompts[shard.split][shard.start : shard.stop],
                shard.count,
                greedy=shard.greedy,
                seed=shard.seed(self.run.evaluation.seed),
            )
            problems = self.splits[shard.split][shard.start : shard.stop]
            self.folder.write(shard.name, {"records": _records(self.run, shard, problems, responses)})
            if not quiet:
                self.show_progress()

    def kept(self, shard: Shard) -> list[dict]:
        """The graded records of a finished shard."""
        found = self.folder.read(shard.name)
        if found is None:
            raise RuntimeError(
                f"the shard {shard.name} is gone from {self.folder.folder}; the same command makes it again"
            )
        return found["records"]


def _sampling(run: Run) -> dict[str, Any]:
    """What decides the answers apart from model, problems and versions; JSON-ready."""
    settings = run.sampling("").model_dump()
    if run.hub is None:
        del settings["samples_per_problem"], settings["shard_problems"]  # these follow from the split and batch_size
        return {**settings, "top_k": 0, "engine": "decode", "seed": run.evaluation.seed}
    decided = {**run.hub.deciding_evaluation(), "reward": run.settings.reward, "seed": run.evaluation.seed}
    return {**decided, **settings, "top_k": 0}


def _shards(run: Run, splits: Splits) -> list[Shard]:
    """All shards in the order of their records: of each split the sampled ones, then the greedy ones.

    Those of a small model hold about a batch of responses each; those of a Hugging Face model as many problems each.
    """
    shards = []
    for split, problems in splits.items():
        settings = run.sampling(split)
        for greedy, count in ((False, settings.samples_per_problem), (True, 1)):
            size = settings.shard_problems if run.hub is not None else max(1, settings.batch_size // count)
            shards += [
                Shard(split, greedy, number, start, min(start + size, len(problems)), count)
                for number, start in enumerate(range(0, len(problems), size))
            ]
    return shards


def _prompts(run: Run, tokenizer: Any, problems: Sequence[Any]) -> list[list[int]]:
    hub = run.hub
    if hub is None:
        return [tokenizer(normalise_question(problem.question)).input_ids for problem in problems]
    prompts = [prompt_tokens(tokenizer, problem.question, hub.evaluation_prompt.style) for problem in problems]
    for problem, prompt in zip(problems, prompts, strict=True):
        if len(prompt) > hub.max_prompt_length:
            raise ValueError(
                f"the prompt of {problem.id} has more than {hub.max_prompt_length} tokens; raise "
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


def _records(run: Run, shard: Shard, problems: Sequence[Any], responses: list[list[Any]]) -> list[dict]:
    """Graded records of a shard; each problem must have `count` responses."""
    counts = {len(several) for several in responses}
    if len(responses) != len(problems) or counts != {shard.count}:
        raise RuntimeError(f"{shard.split}: {sorted(counts)} gradings per problem instead of {shard.count}")
    flat = [(problem, response) for problem, several in zip(problems, responses, strict=True) for response in several]
    pairs = [(response.text, problem.answer) for problem, response in flat]
    return [
        {
            "split": shard.split,
            "id": problem.id,
            "sample": index % shard.count,
            "greedy": shard.greedy,
            "response": response.text,
            "num_tokens": response.num_tokens,
            "ended": response.ended,
            **grade,
        }
        for index, ((problem, response), grade) in enumerate(zip(flat, _grades(run, shard.split, pairs), strict=True))
    ]


def _grades(run: Run, split: str, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The grade of each (response, answer): of mathematics by two graders, the configured one first.

    Where they disagree one is wrong, so the share of disagreements bounds what grading can do to an accuracy.
    """
    if split in run.generated:
        tags = (ANSWER_OPEN, ANSWER_CLOSE) if run.hub is None else run.hub.evaluation_prompt.style.answer_tags
        return [{"correct": int(exact_reward(text, answer, *tags) == 1.0)} for text, answer in pairs]
    rule = run.settings.reward
    read = [(gradable_text(rule, text), answer) for text, answer in pairs]
    methods = ("strings", "latex") if rule == "math-strings" else ("latex", "strings")
    first, second = (grade_math_many(read, markers=run.hub.answer_markers, method=method) for method in methods)
    return [
        {"correct": int(one.correct), "reason": one.reason, "second": int(two.correct), "answer": one.answer}
        for one, two in zip(first, second, strict=True)
    ]
