"""The base model of a seed: pretrained, resumable, recorded."""

import hashlib
import json

from reproduction.data import normalise_question
from reproduction.data.splits import problems_by_level
from reproduction.data.tokenizer import build_tokenizer
from reproduction.jobs.checksums import is_made, write_checksums
from reproduction.jobs.files import only_process, read_json, write_json, write_jsonl
from reproduction.jobs.progress import Progress
from reproduction.jobs.provenance import Stopwatch, source_hash, versions
from reproduction.settings.configuration import Configuration
from reproduction.training.base_model import pretrain
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.saving import save_model


def pretrain_base(configuration: Configuration, seed: int, progress_stream=None) -> None:
    """Pretrain the base model of a seed on the training problems; writes model/, metrics.jsonl and provenance.json.

    Killed at any moment and called again, it continues from its newest checkpoint and leaves the same bytes as if it
    had not been killed (times apart; on a CPU). `safety.checkpoint_every: null` keeps no checkpoints of it either.
    """
    stopwatch = Stopwatch(seed, "pretrain")
    folder = configuration.run_folder("base", "base", seed)
    path = configuration.folder / "problems" / "train.jsonl"
    questions = {
        name: [normalise_question(problem.question) for problem in problems]
        for name, problems in problems_by_level(configuration, path).items()
    }
    settings = configuration.base_model.model_dump(exclude={"expected_seconds"})
    progress = Progress(f"base model seed {seed}", configuration.base_model.steps, progress_stream)
    checkpoints = CheckpointFolder(folder / "checkpoint", _identity(settings, seed, questions), progress.say)
    rows: list[dict] = []

    def report(row: dict) -> None:
        rows.append(row)
        progress.update(row["step"], loss=row["loss"])

    def go_on(earlier: list[dict]) -> None:
        rows.extend(earlier)
        progress.begun_at = len(rows)
        progress.say(f"continues after step {len(rows)}")

    def go_on_without(error: OSError) -> bool:
        progress.say(str(error))
        return configuration.safety.checkpoint == "continue"

    def wait() -> None:
        progress.say("another process makes this model; waiting for its end")

    # A job whose workflow was killed may still be at work here; two would remove each other's checkpoints.
    with only_process(folder, wait) as has_waited:
        made_with = read_json(folder / "provenance.json").get("settings") if is_made(folder, "pretrain") else None
        if has_waited and made_with == settings:
            progress.say("the other process has made this model; nothing is left to do")
            return
        tokenizer = build_tokenizer()
        keeps = configuration.safety.checkpoint_every is not None
        model = pretrain(
            questions,
            configuration.base_model,
            tokenizer,
            seed,
            report,
            checkpoints if keeps else None,
            on_continue=go_on,
            on_failed_checkpoint=go_on_without,
        )
        write_jsonl(folder / "metrics.jsonl", rows)
        save_model(model, tokenizer, folder / "model")
        history = checkpoints.history()
        record = {**stopwatch.record(), "settings": settings, **({"interruptions": history} if history else {})}
        write_json(folder / "provenance.json", record)
        write_checksums(folder, "pretrain", ["metrics.jsonl", "provenance.json", "model"], [path])
        checkpoints.remove()


def _identity(settings: dict, seed: int, questions: dict[str, list[str]]) -> dict:
    """What decides every bit of a base model apart from the hardware."""
    return {
        "settings": settings,
        "seed": seed,
        "questions": hashlib.sha256(json.dumps(questions).encode()).hexdigest(),
        "code": source_hash("pretrain"),
        "versions": versions(),
    }
