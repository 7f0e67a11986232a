"""Evaluation of one model: its answers (`reproduction.sampling.answers`) made, summarised and written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reproduction.evaluation.summary import summarise_split
from reproduction.evaluation.workers import end_with_parent, own_devices, run_workers
from reproduction.jobs.checksums import is_made, write_checksums
from reproduction.jobs.files import only_process, read_json, write_json, write_jsonl
from reproduction.sampling.answers import Answers, Splits
from reproduction.settings.run import Run


def evaluate(
    run: Run,
    model_folder: Path,
    splits: Splits,
    progress_stream=None,
    *,
    worker: Sequence[str] | None = None,
    share: tuple[int, int] | None = None,
) -> None:
    """Write samples.jsonl (one record a response) and evaluation.json (a summary for each split) into `run.folder`.

    Killed at any moment and called again, it goes on with the shards in `run.folder`/shards; if sampling repeats (on a
    CPU) it leaves the same bytes. Shards of another model, of other settings, problems, code or versions are removed
    with a line each. If another process evaluates the model, this one waits, and does nothing if that one has finished.

    worker: the command that does the same in another process. It is run on each device if CUDA_VISIBLE_DEVICES names
    several, with a share of the shards. share: (i, n) makes the shards i, i + n, i + 2n, ... and leaves the rest and
    the tables to others.

    Raises ValueError if a prompt and its response do not fit into the model's window as configured.
    """
    answers = Answers(run, model_folder, splits, progress_stream)
    if share is not None:
        end_with_parent()
        answers.make(answers.shards[share[0] :: share[1]], quiet=True)
        return

    def wait() -> None:
        answers.progress.say("another process evaluates this model; waiting for its end")

    # A job whose workflow was killed may still be at work here.
    with only_process(run.folder, wait) as has_waited:
        if has_waited and _is_finished(answers):
            answers.progress.say("the other process has finished this evaluation; nothing is left to do")
            return
        devices = own_devices()
        if run.hub is not None and worker is not None and len(devices) > 1:
            run_workers(worker, devices, answers.show_progress)
        answers.make(answers.shards)
        _write(answers)


def _is_finished(answers: Answers) -> bool:
    """Whether the run's folder holds the results of this evaluation."""
    if not is_made(answers.run.folder, "evaluate"):
        return False
    found = read_json(answers.run.folder / "evaluation.json")
    return {key: found.get(key) for key in answers.decided} == answers.decided


def _write(answers: Answers) -> None:
    """Write the results from the shards, and remove these."""
    samples, summaries, grading = [], {}, {}
    for split, problems in answers.splits.items():
        records: list[dict] = []
        tables = {}
        for greedy in (False, True):
            own = [shard for shard in answers.shards if (shard.split, shard.greedy) == (split, greedy)]
            made = [record for shard in own for record in answers.kept(shard)]
            shape = len(problems), own[0].count
            if len(made) != shape[0] * shape[1]:
                raise RuntimeError(f"{split}: {len(made)} gradings instead of {shape[0]} x {shape[1]}")
            tables[greedy] = np.array([record["correct"] for record in made]).reshape(shape)
            records += made
        summaries[split] = summarise_split(tables[False], tables[True], answers.run.evaluation)
        grading[split] = _grading(records)
        samples += records
    folder = answers.run.folder
    write_jsonl(folder / "samples.jsonl", samples)
    write_json(folder / "evaluation.json", {**answers.decided, "splits": summaries, "grading": grading})
    # A Hugging Face model is outside the results; `weights` is its digest.
    inputs = [answers.model_folder / "model.safetensors"] if answers.run.hub is None else []
    write_checksums(folder, "evaluate", ["evaluation.json", "samples.jsonl"], inputs)
    answers.folder.remove()


def _grading(records: list[dict]) -> dict:
    """How often the grader gave each reason, and how often the second grader disagreed, by kind."""
    twice = [record for record in records if "second" in record]
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
