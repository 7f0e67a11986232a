"""Evaluation of a model of the hub, or of one trained from it: every split answered k times and once greedily.

Each split is kept as soon as it is whole (`benchmarks/<split>.jsonl` with what decided it), so that an evaluation that
was stopped goes on with the splits that are missing.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from kpo.checksums import write_checksums
from kpo.config import Configuration
from kpo.data.mathematics import MathProblem
from kpo.data.prompts import prompt_tokens
from kpo.evaluation.engine import make_engine
from kpo.evaluation.run import summarise_split
from kpo.files import read_json, read_jsonl, write_json, write_jsonl
from kpo.progress import Progress
from kpo.provenance import versions
from kpo.rewards import exact_reward, grade_math_twice
from kpo.rewards.rules import gradable_text
from kpo.tasks import is_arithmetic


def evaluate_pretrained(
    configuration: Configuration,
    experiment: str,
    label: str,
    model_folder: Path,
    splits: dict[str, list[MathProblem]],
    output: Path,
    progress_stream=None,
) -> None:
    """Write samples.jsonl (one record a response) and evaluation.json (a summary for each split) into `output`.

    Raises ValueError where a prompt and its response do not fit into the model's window as configured.
    """
    settings = configuration.experiments[experiment].pretrained
    window = settings.max_prompt_length + settings.sampling.max_completion_length
    decided = {
        **settings.deciding_evaluation(),
        "reward": configuration.experiments[experiment].reward,
        "seed": configuration.evaluation.seed,
        "weights": weights_digest(model_folder),
        "versions": versions(),
    }
    asked = {split: [problem.id for problem in problems] for split, problems in splits.items()}
    missing = [split for split in splits if not _is_kept(output, split, {**decided, "problems": asked[split]})]
    progress = Progress(f"evaluate {label}", sum(len(splits[split]) for split in missing) or 1, progress_stream)
    if missing:
        engine = make_engine(settings.engine, model_folder, settings.sampling, settings.precision, window)
    done = 0
    for split in missing:
        problems = splits[split]
        prompts = [prompt_tokens(engine.tokenizer, p.question, settings.evaluation_prompt.style) for p in problems]
        too_long = [
            p.id for p, prompt in zip(problems, prompts, strict=True) if len(prompt) > settings.max_prompt_length
        ]
        if too_long:
            raise ValueError(
                f"the prompt of {too_long[0]} has more than {settings.max_prompt_length} tokens; raise "
                "pretrained.max_prompt_length (a problem left out would change the score)"
            )
        records = []
        for greedy, count in ((False, settings.sampling.samples_per_problem), (True, 1)):
            responses = engine.sample(
                prompts, count, greedy=greedy, seed=configuration.evaluation.seed, report=lambda _: None
            )
            records += _records(configuration, experiment, split, problems, responses, greedy, count)
        folder = output / "benchmarks"
        write_jsonl(folder / f"{split}.jsonl", records)
        write_json(folder / f"{split}.settings.json", {**decided, "problems": asked[split]})
        done += len(problems)
        progress.update(done)
    _write_summary(configuration, experiment, label, splits, output, decided)


def weights_digest(folder: Path) -> str:
    """SHA-256 over the model's weight files, by which evaluations of one model are told from another's."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _is_kept(output: Path, split: str, decided: dict) -> bool:
    settings = output / "benchmarks" / f"{split}.settings.json"
    return settings.exists() and read_json(settings) == decided


def _records(configuration, experiment, split, problems, responses, greedy, count) -> list[dict]:
    """Graded records of a split; each problem must have `count` responses."""
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


def _write_summary(configuration, experiment, label, splits, output, decided) -> None:
    settings = configuration.experiments[experiment].pretrained
    samples, summaries, grading = [], {}, {}
    for split, problems in splits.items():
        records = read_jsonl(output / "benchmarks" / f"{split}.jsonl")
        tables = {}
        for greedy, count in ((False, settings.sampling.samples_per_problem), (True, 1)):
            graded = np.array([record["correct"] for record in records if record["greedy"] == greedy])
            if graded.size != len(problems) * count:
                raise RuntimeError(f"{split}: {graded.size} gradings instead of {len(problems)} x {count}")
            tables[greedy] = graded.reshape(len(problems), count)
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
