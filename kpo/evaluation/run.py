"""Evaluation of one model: each held-out problem answered k times and once greedily, every answer kept."""

from pathlib import Path

import numpy as np

from kpo.checksums import write_checksums
from kpo.config import Configuration
from kpo.data.arithmetic import Problem
from kpo.data.expressions import normalise_question
from kpo.data.scratchpad import ANSWER_CLOSE, ANSWER_OPEN
from kpo.evaluation.sampling import Response, sample_responses
from kpo.evaluation.statistics import question_bootstrap
from kpo.files import write_json, write_jsonl
from kpo.progress import Progress
from kpo.provenance import versions
from kpo.rewards import exact_reward
from kpo.steps import FILE_SPLIT
from kpo.training.saving import load_model


def evaluate_run(
    configuration: Configuration,
    label: str,
    model_folder: Path,
    splits: dict[str, list[Problem]],
    output: Path,
    progress_stream=None,
) -> None:
    """Write samples.jsonl (one record a response) and evaluation.json (a summary for each split) into `output`."""
    settings = configuration.evaluation
    model, tokenizer = load_model(model_folder)
    model.eval()
    samples_of = {
        split: settings.file_samples_per_problem if split == FILE_SPLIT else settings.samples_per_problem
        for split in splits
    }
    total = sum(len(problems) * (samples_of[split] + 1) for split, problems in splits.items())
    progress = Progress(f"evaluate {label}", total)
    if progress_stream is not None:
        progress.stream = progress_stream
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
        {
            "model": label,
            "sampling": {
                "engine": "transformers",
                "versions": versions(),
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": 0,
                "max_completion_length": settings.max_completion_length,
                "batch_size": settings.batch_size,
                "seed": settings.seed,
            },
            "confidence": settings.confidence,
            "splits": summaries,
        },
    )
    weights = model_folder / "model.safetensors"
    write_checksums(output, "evaluate", ["evaluation.json", "samples.jsonl"], [weights])


def summarise_split(correct: np.ndarray, greedy: np.ndarray, configuration: Configuration) -> dict:
    """avg@k, pass@1 and pass@k, and greedy accuracy, each with its question-level bootstrap interval.

    correct: (problems, k) of 0/1, greedy: (problems, 1) of 0/1.
    """
    settings = configuration.evaluation
    num_problems, samples = correct.shape

    def interval(table, statistic="avg_at_k", k=None):
        found = question_bootstrap(
            table,
            statistic,
            k,
            num_resamples=settings.bootstrap_resamples,
            seed=settings.seed,
            confidence=settings.confidence,
        )
        return found.estimate, [found.low, found.high]

    average, average_interval = interval(correct)
    passes = {k: interval(correct, "pass_at_k", k) for k in (1, samples)}
    greedy_accuracy, greedy_interval = interval(greedy)
    return {
        "num_problems": num_problems,
        "samples_per_problem": samples,
        "avg_at_k": average,
        "avg_at_k_interval": average_interval,
        "pass_at": {str(k): estimate for k, (estimate, _) in passes.items()},
        "pass_at_interval": {str(k): bounds for k, (_, bounds) in passes.items()},
        "greedy": greedy_accuracy,
        "greedy_interval": greedy_interval,
        "correct": correct.sum(axis=1).tolist(),
    }


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
