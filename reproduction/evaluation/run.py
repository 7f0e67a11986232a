"""Evaluation of one model: each held-out problem answered k times and once greedily, every answer kept.

Each batch of answers is kept as soon as it is whole (`reproduction.evaluation.shards`), until the evaluation is.
"""

from pathlib import Path

import numpy as np

from reproduction.data.arithmetic import Problem
from reproduction.data.expressions import normalise_question
from reproduction.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from reproduction.data.splits import FILE_SPLIT
from reproduction.evaluation.sampling import Response, sample_responses
from reproduction.evaluation.shards import ShardFolder, digest
from reproduction.evaluation.summary import summarise_split
from reproduction.jobs.checksums import sha256, write_checksums
from reproduction.jobs.files import only_process, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import versions
from reproduction.rewards import exact_reward
from reproduction.settings.configuration import Configuration
from reproduction.training.saving import load_model


def evaluate_run(
    configuration: Configuration,
    label: str,
    model_folder: Path,
    splits: dict[str, list[Problem]],
    output: Path,
    progress_stream=None,
) -> None:
    """Write samples.jsonl (one record a response) and evaluation.json (a summary for each split) into `output`.

    Killed at any moment and called again, it goes on with the batches in `output`/shards and leaves the same bytes as
    if it had not been killed (on a CPU). Shards of another model, of other settings, problems, code or versions are
    removed with a line each.
    """
    settings = configuration.evaluation
    sampling = {
        "engine": "transformers",
        "versions": versions(),
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": settings.max_completion_length,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
    }
    weights = model_folder / "model.safetensors"
    samples_of = {
        split: settings.file_samples_per_problem if split == FILE_SPLIT else settings.samples_per_problem
        for split in splits
    }
    total = sum(len(problems) * (samples_of[split] + 1) for split, problems in splits.items())
    progress = Progress(f"evaluate {label}", total)
    if progress_stream is not None:
        progress.stream = progress_stream
    # A job whose workflow was killed may still be at work here.
    with only_process(output, lambda: progress.say("another process evaluates this model; waiting for its end")):
        model, tokenizer = load_model(model_folder)
        model.eval()
        decided = {name: value for name, value in sampling.items() if name != "versions"}
        decided |= {"samples": samples_of, "weights": sha256(weights)}
        decided["problems"] = digest([split, one.id, one.question] for split in splits for one in splits[split])
        shards = ShardFolder(output, decided, progress.say)
        records, summaries, done = [], {}, 0
        for split, problems in splits.items():
            correct = {}
            for greedy, num_samples in ((False, samples_of[split]), (True, 1)):
                responses = sample_responses(
                    model,
                    tokenizer,
                    [normalise_question(problem.question) for problem in problems],
                    num_samples,
                    max_new_tokens=settings.max_completion_length,
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    greedy=greedy,
                    report=lambda count, done=done: progress.update(done + count),
                    shards=shards,
                    name=f"{split}.{'greedy' if greedy else 'sampled'}",
                )
                done += len(problems) * num_samples
                made = _records(split, problems, responses, greedy)
                records += made
                graded = np.array([record["correct"] for record in made]).reshape(len(problems), -1)
                if graded.shape[1] != num_samples:
                    raise RuntimeError(f"{graded.shape[1]} gradings per problem of {split} instead of {num_samples}")
                correct[greedy] = graded
            summaries[split] = summarise_split(correct[False], correct[True], configuration)
        write_jsonl(output / "samples.jsonl", records)
        write_json(
            output / "evaluation.json",
            {"model": label, "sampling": sampling, "confidence": settings.confidence, "splits": summaries},
        )
        write_checksums(output, "evaluate", ["evaluation.json", "samples.jsonl"], [weights])
        shards.remove()


def _records(split: str, problems: list[Problem], responses: list[list[Response]], greedy: bool) -> list[dict]:
    return [
        {
            "split": split,
            "id": problem.id,
            "sample": index,
            "greedy": greedy,
            "response": response.text,
            "num_tokens": response.num_tokens,
            "ended": response.ended,
            "correct": int(exact_reward(response.text, problem.answer, ANSWER_OPEN, ANSWER_CLOSE) == 1.0),
        }
        for problem, several in zip(problems, responses, strict=True)
        for index, response in enumerate(several)
    ]
