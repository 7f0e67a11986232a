"""The results folder as the figures read it: every file checked, nothing averaged over different seeds in silence."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from paper_figures.catalogue import OWN, missing_for
from paper_figures.errors import NotConfigured, ResultsError
from paper_figures.kept import KeptUpdate, Structure, read_structure
from reproduction.jobs.files import read_json, read_jsonl
from reproduction.publish.published import DRAWN_SEEDS, LARGE, METRICS
from reproduction.settings.configuration import Configuration, ConfigurationError, read_resolved

__all__ = ["METRICS", "KeptUpdate", "NotConfigured", "Results", "ResultsError", "Structure", "read_structure"]


class Results:
    """Reader of `results/<scale>`.

    A method is complete when each seed of the configuration has its file. By default an incomplete one raises
    `ResultsError` naming the first missing file. With `allow_missing` the seeds that exist are given, and `missing`
    says which are not, so that the figure can write it into the panel.
    """

    def __init__(self, root: str | Path, *, allow_missing: bool = False):
        self.root = Path(root)
        self.allow_missing = allow_missing
        self._metrics_read: dict[tuple[str, str], dict[int, list[dict]]] = {}
        if not self.root.is_dir():
            raise ResultsError(f"{self.root}: no such folder; give --results a scale's folder, such as results/laptop")

    @cached_property
    def configuration(self) -> Configuration:
        """The scale's config.yaml; ResultsError if it is missing or not valid."""
        try:
            return read_resolved(self._existing(self.root / "config.yaml"))
        except ConfigurationError as error:
            raise ResultsError(f"{error}; run the workflow again") from None

    @property
    def scale(self) -> str:
        """The name of the scale."""
        return self.configuration.scale

    @property
    def seeds(self) -> list[int]:
        """All seeds of the scale; an experiment or method may have fewer, see `seeds_of`."""
        return self.configuration.seeds

    @property
    def seed_counts(self) -> tuple[int, int]:
        """The fewest and the most seeds of a method of the scale's own experiments."""
        counts = [len(self.seeds_of(name, method)) for name in self.own_experiments for method in self.methods(name)]
        return min(counts, default=0), max(counts, default=0)

    @property
    def has_shared_base(self) -> bool:
        """Whether experiments start from the workflow's own base models, one per seed, not from Hugging Face models."""
        return self.configuration.base_model is not None

    def seeds_of(self, experiment: str, method: str) -> list[int]:
        """The seeds of a method's runs; a Hugging Face model (`base`) is evaluated once, for the first."""
        if method == "base" and self.has_shared_base:
            return self.seeds
        seeds = self.configuration.seeds_of(experiment, None if method == "base" else method)
        return seeds[:1] if method == "base" else seeds

    def drawn_seeds(self, experiment: str, method: str, name: str) -> list[int]:
        """The seeds whose file `name` figures read: of large files a study's first ones, see `DRAWN_SEEDS`."""
        seeds = self.seeds_of(experiment, method)
        return seeds[:DRAWN_SEEDS] if name in LARGE else seeds

    @property
    def experiments(self) -> list[str]:
        """The names of all experiments, in the order of the configuration."""
        return list(self.configuration.experiments)

    def experiment(self, name: str) -> dict:
        """The configuration of one experiment."""
        if name not in self.configuration.experiments:
            raise NotConfigured(f"{self.root / 'config.yaml'}: no experiment {name!r}, which this figure shows")
        return self.configuration.experiments[name].model_dump()

    def methods(self, experiment: str) -> list[str]:
        """The labels of an experiment's methods, without `base` and those that a study has not run yet."""
        labels = self.experiment(experiment)["methods"]
        return [label for label in labels if self.configuration.seeds_of(experiment, label)]

    @property
    def own_experiments(self) -> list[str]:
        """The scale's own experiments, without those that a study adds."""
        return [name for name in self.experiments if name in OWN]

    @property
    def own_methods(self) -> list[str]:
        """The base models and the methods of the scale's own experiments, each once: the order of their looks."""
        names = [method for experiment in self.own_experiments for method in self.methods(experiment)]
        return list(dict.fromkeys(["base", *names]))

    def require(self, figure: str) -> None:
        """Raise NotConfigured if the configuration lacks what the figure of that name shows."""
        lacks = missing_for(figure, self.configuration.methods_run())
        if lacks:
            raise NotConfigured(f"{self.root / 'config.yaml'}: no {lacks}, which this figure shows")

    def require_method(self, experiment: str, method: str) -> None:
        """Raise NotConfigured if an experiment has no such method."""
        if method not in self.methods(experiment):
            raise NotConfigured(
                f"{self.root / 'config.yaml'}: experiment {experiment!r} has no method {method!r}, "
                "which this figure shows"
            )

    def time_constant(self, experiment: str) -> float:
        """The Kalman filter's time constant sqrt(V/Q) in tokens, from the configuration."""
        return self.experiment(experiment)["kalman_time_constant"]

    @property
    def confidence(self) -> float:
        """The confidence of the evaluation's intervals, such as 0.95, from the configuration."""
        return self.configuration.evaluation.confidence

    def run_folder(self, experiment: str, method: str, seed: int) -> Path:
        """The folder of one run; method `base` names the base models."""
        experiment = "base" if method == "base" and self.has_shared_base else experiment
        folder = self.configuration.run_folder(experiment, method, seed)
        return self.root / folder.relative_to(self.configuration.folder)

    def missing(self, experiment: str, method: str, name: str) -> list[int]:
        """The seeds whose file `name` does not exist."""
        seeds = self.drawn_seeds(experiment, method, name)
        folders = {seed: self.run_folder(experiment, method, seed) for seed in seeds}
        return [seed for seed, folder in folders.items() if not (folder / name).is_file()]

    def missing_notes(self, experiment: str, methods: Iterable[str], name: str) -> list[str]:
        """One phrase for each method of which seeds are missing, such as `kpo/gspo seed 3`."""
        lines = []
        for method in methods:
            gone = self.missing(experiment, method, name)
            if gone:
                run = method if method == "base" and self.has_shared_base else f"{experiment}/{method}"
                lines.append(f"{run} seed{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}")
        return lines

    def missing_everywhere(self, name: str, *, base: bool) -> list[str]:
        """`missing_notes` of the scale's own experiments, and with `base` of the base models."""
        notes = self.missing_notes("base", ["base"], name) if base and self.has_shared_base else []
        for experiment in self.own_experiments:
            own = ["base"] if base and not self.has_shared_base else []
            notes += self.missing_notes(experiment, [*own, *self.methods(experiment)], name)
        return notes

    def metrics(self, experiment: str, method: str) -> dict[int, list[dict]]:
        """Rows of metrics.jsonl by seed, one row per update.

        Refused: updates that are not 1, 2, ..., rollout batches that are not 1, 2, ..., a rollout batch with other
        minibatches than the first one has (a run that was cut off), another number of rollout batches than the
        configuration's, and seeds that differ in their number of updates. A run whose provenance says that it was
        stopped (its gradient was no longer finite) is given rows without values for the updates that it lacks.
        """
        key = (experiment, method)
        if key not in self._metrics_read:
            self._metrics_read[key] = self._read_metrics(experiment, method)
        return self._metrics_read[key]

    def _read_metrics(self, experiment: str, method: str) -> dict[int, list[dict]]:
        training = self.experiment(experiment)["training"]
        planned, per_batch = training["rollout_batches"], training["minibatches"] * training["epochs"]
        table = {}
        for seed, path in self._files(experiment, method, "metrics.jsonl").items():
            padded_to = planned * per_batch if self._stopped(path.parent) else 0
            table[seed] = self._metrics(path, padded_to, per_batch)
        for seed, rows in table.items():
            if rows[-1]["rollout_batch"] != planned:
                raise ResultsError(
                    f"{self.run_folder(experiment, method, seed) / 'metrics.jsonl'}: {rows[-1]['rollout_batch']} "
                    f"rollout batches of the {planned} that config.yaml asks for; "
                    "the run is partial, finish it or remove it"
                )
        lengths = {seed: len(rows) for seed, rows in table.items()}
        if len(set(lengths.values())) > 1:
            seed = min(lengths, key=lengths.get)
            raise ResultsError(
                f"{self.run_folder(experiment, method, seed) / 'metrics.jsonl'}: {lengths[seed]} updates, but "
                f"another seed has {max(lengths.values())}; the run is partial, finish it or remove it"
            )
        return table

    def _stopped(self, folder: Path) -> bool:
        """Whether a run ended before its time for a reason that its provenance gives."""
        path = folder / "provenance.json"
        return path.is_file() and bool(_checked(read_json, path).get("stopped"))

    def _metrics(self, path: Path, padded_to: int, per_batch: int) -> list[dict]:
        rows = _checked(read_jsonl, path)
        if not rows:
            raise ResultsError(f"{path}: no updates; the run is partial, finish it or remove it")
        for index in range(len(rows), padded_to):
            place = {"rollout_batch": index // per_batch + 1, "minibatch": index % per_batch + 1}
            rows.append({**dict.fromkeys(METRICS), "update": index + 1, **place})
        batches: dict[int, list] = {}
        for number, row in enumerate(rows, start=1):
            for key in ("update", "rollout_batch", "minibatch"):
                if not isinstance(row.get(key), int):
                    raise ResultsError(f"{path}, row {number}: {key!r} must be a whole number, found {row.get(key)!r}")
            for key in METRICS:
                if key not in row or not isinstance(row[key], int | float | None):
                    raise ResultsError(
                        f"{path}, row {number}: {key!r} must be a number or null, found {row.get(key, 'nothing')!r}"
                    )
            if row["update"] != number:
                raise ResultsError(
                    f"{path}, row {number}: expected update {number}, found {row['update']}; the run is partial"
                )
            batches.setdefault(row["rollout_batch"], []).append(row["minibatch"])
        if list(batches) != list(range(1, len(batches) + 1)):
            raise ResultsError(f"{path}: rollout batches are not 1 to {len(batches)} in order; the run is partial")
        for batch, minibatches in batches.items():
            if minibatches != list(range(1, len(batches[1]) + 1)):
                raise ResultsError(
                    f"{path}: rollout batch {batch} has minibatches {minibatches}, the first has {len(batches[1])}; "
                    "the run is partial, finish it or remove it"
                )
        return rows

    def evaluations(self, experiment: str, method: str) -> dict[int, dict]:
        """evaluation.json by seed, with the keys that the figures use checked."""
        table = {}
        for seed, path in self._files(experiment, method, "evaluation.json").items():
            table[seed] = evaluation = _checked(read_json, path)
            sections = evaluation if isinstance(evaluation, dict) else {}
            if not all(isinstance(sections.get(key), dict) and sections[key] for key in ("sampling", "splits")):
                raise ResultsError(f"{path}: needs the sections 'sampling' and 'splits'; evaluate the model again")
            for level, split in sections["splits"].items():
                absent = [
                    key
                    for key in ("num_problems", "samples_per_problem", "avg_at_k", "correct")
                    if split.get(key) is None
                ]
                if absent:
                    raise ResultsError(f"{path}: split {level!r} has no {', '.join(absent)}; evaluate the model again")
                if len(split["correct"]) != split["num_problems"]:
                    raise ResultsError(
                        f"{path}: split {level!r} has {len(split['correct'])} counts in 'correct' for "
                        f"{split['num_problems']} problems; evaluate the model again"
                    )
        return table

    def summary_rows(self) -> dict[tuple[str, str, str], dict]:
        """Rows of summary.json by (experiment, method, split)."""
        path = self._existing(self.root / "summary.json")
        summary = _checked(read_json, path)
        rows = summary.get("rows") if isinstance(summary, dict) else None
        if not isinstance(rows, list) or not rows:
            raise ResultsError(f"{path}: no rows; make the summary again")
        try:
            return {(row["experiment"], row["method"], row["split"]): row for row in rows}
        except (KeyError, TypeError):
            raise ResultsError(f"{path}: a row lacks experiment, method or split; make the summary again") from None

    def structures(self, experiment: str, method: str) -> dict[int, Structure]:
        """What each run kept in structure.safetensors, by seed."""
        return {
            seed: read_structure(path)
            for seed, path in self._files(experiment, method, "structure.safetensors").items()
        }

    def _files(self, experiment: str, method: str, name: str) -> dict[int, Path]:
        seeds = self.drawn_seeds(experiment, method, name)
        paths = {seed: self.run_folder(experiment, method, seed) / name for seed in seeds}
        if self.allow_missing:
            return {seed: path for seed, path in paths.items() if path.is_file()}
        return {seed: self._existing(path) for seed, path in paths.items()}

    @staticmethod
    def _existing(path: Path) -> Path:
        if not path.is_file():
            raise ResultsError(
                f"{path}: missing; run the workflow to the end, or pass --allow-missing for runs that are not there"
            )
        return path


def _checked(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except ValueError as error:
        raise ResultsError(str(error)) from None
