"""`python -m reproduction study --hours H`: goes on with the study of every claim, and judges it.

A study has no end: each call finds the existing runs, here and in `results_published/`, judges the claims by the
interim analyses that they allow, and makes the runs that the next ones of open claims lack, the cheapest claim first,
until the time is over or no claim is open. Settled claims get no run. An interrupted run is made the next time.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from reproduction.claims.design import FIRST_SEED, FULL_STUDY, SEQUENTIAL, Design, next_look
from reproduction.claims.judge import ClaimResult, evaluate_claims
from reproduction.claims.one_run import Run
from reproduction.claims.record import write_claims
from reproduction.claims.resolve import resolve
from reproduction.claims.runs import (
    RunName,
    Study,
    joinable_runs,
    measured_again,
    study_of,
    write_study_measures,
)
from reproduction.claims.verdict import DECIDED, NOT_TESTED, VERDICTS
from reproduction.jobs.files import atomic_write, only_process, read_json
from reproduction.settings.configuration import CONFIG_FOLDER, Configuration, ConfigurationError, dump, load

BATCH_SECONDS = 900.0
"""Jobs are handed to Snakemake in batches of about this length, so that what a look settles is not run again."""
RESERVE_SECONDS = 90.0
"""Kept for judging at the end."""
SHOWN = "figures of the scale's own experiments"


@dataclass(frozen=True)
class Wanted:
    """The runs that a claim's next look lacks beyond those of cheaper ones: at how many seeds, which, and their
    processor seconds. others: the claims that lack nothing else."""

    claim: str
    look: int
    runs: tuple[RunName, ...]
    seconds: float
    others: list[str] = field(default_factory=list)


def go_on(configuration: Configuration, hours: float, cores: int, say=print) -> None:
    """Go on with the study for this many hours and cores; 0 hours judge what there is and say what is next.

    configuration: `load({"study": "full", ...})`. Writes config.yaml, measures.json, claims.json and claims.md of the
    results folder for the runs that were made, and study/made.yaml and study/next.yaml: `snakemake --configfile` of the
    first makes figures and report of these runs, of the second the runs of the next looks (on a cluster, say).
    Raises ConfigurationError if the configuration is not a study.
    """
    if configuration.study != FULL_STUDY:
        raise ConfigurationError("study: goes on with config/study/full.yaml; leave out another study or scale")
    deadline = time.monotonic() + hours * 3600
    with only_process(configuration.folder / "study"):
        progress = _Progress(configuration, say)
        while True:
            results = progress.judge()
            wanted = progress.wanted(results)
            left = deadline - time.monotonic() - RESERVE_SECONDS
            progress.report(results, wanted, cores, max(0.0, left))
            batch = progress.batch(wanted, cores, left) if left > 0 else []
            if not batch:
                break
            if not progress.run(batch, cores, deadline - RESERVE_SECONDS):
                wanted = progress.wanted(progress.judge())
                break
        progress.write(wanted)
    if progress.failed:
        raise RuntimeError(f"a job failed; its log is under {configuration.folder}/logs/. The same command goes on")


class _Progress:
    """The state of a study: the runs that there are, each measured once, and what each costs."""

    def __init__(self, configuration: Configuration, say):
        self.settings, self.say = configuration, say
        self.folder = configuration.folder
        self.joined, notes = joinable_runs(configuration)
        self.measured: dict[tuple[RunName, str], Run] = {}
        self.failed = False
        for note in notes:
            say(note)

    def made(self) -> dict[tuple[str, str], dict[int, Run]]:
        """Every run of the study that was made, here or in the published results, measured."""
        cells: dict[tuple[str, str], dict[int, Run]] = {}
        for experiment, settings in self.settings.experiments.items():
            for label in settings.methods:
                own = cells.setdefault((experiment, label), {})
                for seed in self._seeds_here(experiment, label):
                    run = measured_again(self.settings, experiment, label, seed, self.measured)
                    if run is not None:
                        own[seed] = run
        for name, run in self.joined.items():
            cells[name[:2]].setdefault(name[2], run)
        return cells

    def _seeds_here(self, experiment: str, label: str) -> list[int]:
        folder = self.folder / experiment / label
        found = (path.name.removeprefix("seed") for path in folder.glob("seed*") if path.is_dir())
        return sorted(int(seed) for seed in found if seed.isdecimal() and int(seed) >= FIRST_SEED)

    def judge(self) -> list[ClaimResult]:
        """Every claim at the looks that the runs allow."""
        self.cells = self.made()
        self.study: Study = study_of(self.settings.scale, self.cells, self.settings)
        self.cost = self._costs()
        return evaluate_claims(self.study, Design(SEQUENTIAL))

    def wanted(self, results: Iterable[ClaimResult]) -> list[Wanted]:
        """What the next looks of open claims lack, cheapest first; a run that two lack counts for the cheaper."""
        lacking = {}
        for result in results:
            if result.verdict.verdict in DECIDED:
                continue
            parts = [resolve(self.study, one, result.claim.stand_ins) for one in result.claim.deciding]
            cells = dict.fromkeys(cell for part in parts for _, cell in part.uses)
            if not all(part.terms and all(cells for *_, cells in part.terms) for part in parts[:1]):
                continue
            look = next_look(result.looks[-1].seeds if result.looks else 0)
            undefined = len({seed for cell in cells for seed in self._undefined(cell, parts)})
            seeds = range(FIRST_SEED, FIRST_SEED + look + undefined)
            lacking[result.claim.id] = look, [(*cell, seed) for cell in cells for seed in seeds]
        own = load({"scale": self.settings.scale}).experiments
        shown = [(name, label) for name, settings in own.items() for label in settings.methods]
        first = range(FIRST_SEED, FIRST_SEED + next_look(0))
        lacking[SHOWN] = next_look(0), [(*cell, seed) for cell in shown for seed in first]
        return self._cheapest_first(lacking)

    def _undefined(self, cell, parts) -> set[int]:
        measures = {measure for part in parts for measure, other in part.uses if other == cell}
        return {
            seed
            for seed, run in self.cells.get(cell, {}).items()
            if any(run.values.get(measure) is None for measure in measures)
        }

    def _cheapest_first(self, lacking: Mapping[str, tuple[int, list[RunName]]]) -> list[Wanted]:
        found: list[Wanted] = []
        taken = {(*cell, seed) for cell, runs in self.cells.items() for seed in runs}
        remaining = dict(lacking)
        while remaining:
            left = {name: [run for run in runs if run not in taken] for name, (_, runs) in remaining.items()}
            costs = {name: self.seconds(runs, taken) for name, runs in left.items()}
            name = min(costs, key=lambda one: (costs[one], one))
            look, _ = remaining.pop(name)
            if left[name]:
                found.append(Wanted(name, look, tuple(left[name]), costs[name]))
                taken.update(left[name])
            elif found:
                found[-1].others.append(name)
        return found

    def seconds(self, runs: Iterable[RunName], besides: Iterable[RunName] = ()) -> float:
        """Processor seconds of runs, with the base models that their seeds lack after the runs of `besides`."""
        runs, known = list(runs), {seed for *_, seed in besides}
        bases = {
            seed
            for seed in {seed for *_, seed in runs} - known
            if not (self.settings.run_folder("base", "base", seed) / "model").exists()
        }
        return sum(self.cost[experiment] for experiment, *_ in runs) + len(bases) * self.cost["base"]

    def _costs(self) -> dict[str, float]:
        """Seconds of a run of each experiment: the mean of those made here, or what the configuration expects."""
        evaluation = self.settings.evaluation.expected_seconds
        costs = {"base": self.settings.base_model.expected_seconds + evaluation}
        for name, settings in self.settings.experiments.items():
            paths = (self.settings.run_folder(*cell, seed) for cell, own in self.cells.items() if cell[0] == name
                     for seed in own)  # fmt: skip
            seconds = [
                read_json(path / "provenance.json")["wall_seconds"]
                for path in paths
                if (path / "provenance.json").is_file()
            ]
            costs[name] = (sum(seconds) / len(seconds) if seconds else settings.expected_seconds) + evaluation
        return costs

    def batch(self, wanted: list[Wanted], cores: int, left: float) -> list[RunName]:
        """The next runs: those of the cheapest claims that fit into the time left, up to a batch.

        If not even the cheapest claim's look fits, its first seeds that do; they count at the next call.
        """
        runs: list[RunName] = []
        room = min(BATCH_SECONDS, left) * cores
        for one in wanted:
            if runs and self.seconds([*runs, *one.runs]) > room:
                break
            runs += one.runs
        if self.seconds(runs) > left * cores:
            by_seed = sorted(runs, key=lambda run: run[2])
            while by_seed and self.seconds(by_seed) > left * cores:
                by_seed.pop()
            return by_seed
        return runs

    def run(self, runs: list[RunName], cores: int, deadline: float) -> bool:
        """Make runs through Snakemake; whether all were made.

        At the deadline its jobs are ended; they go on from their checkpoints next time.
        """
        path = self.folder / "study" / "next.yaml"
        self._write_configuration(path, self._seeds(runs))
        targets = [
            f"{self.settings.run_folder(*run)}/{name}" for run in runs for name in ("metrics.jsonl", "evaluation.json")
        ]
        bases = {seed for *_, seed in runs}
        targets += [f"{self.settings.run_folder('base', 'base', seed)}/evaluation.json" for seed in sorted(bases)]
        command = [
            sys.executable, "-m", "snakemake", *targets, "--cores", str(cores), "--configfile", str(path), "--nolock",
            "--rerun-incomplete", "--keep-going",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=CONFIG_FOLDER.parent, start_new_session=True)
        try:
            status = process.wait(max(1.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            _end(process)
            if isinstance(error, KeyboardInterrupt):
                raise
            self.say("the time is over; jobs under way go on from their checkpoints next time")
            return False
        self.failed = status != 0
        return not self.failed

    def report(self, results: list[ClaimResult], wanted: list[Wanted], cores: int, left: float) -> None:
        """Say what is settled, what is open, what its next look costs, and when it should be there."""
        counts = Counter(result.verdict.verdict for result in results)
        settled = sum(counts[verdict] for verdict in DECIDED)
        self.say(
            f"{settled} of {len(results)} claims are settled: "
            + "; ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        )
        if wanted:
            self.say(f"{'open claim':<28}{'next look':>9} {'runs':>5} {'core-min':>9}  there after")
        total = 0.0
        for one in wanted:
            total += one.seconds
            hours, minutes = divmod(round(total / cores / 60), 60)
            late = ", beyond this time" if 0 < left < total / cores else ""
            name = "(figures)" if one.claim == SHOWN else one.claim
            self.say(
                f"{name:<28}{one.look:>9} {len(one.runs):>5} {one.seconds / 60:>9.1f}  {hours} h {minutes:02} min{late}"
            )
            if one.others:
                self.say(f"  and with it {', '.join(one.others)}")
        untested = [result.claim.id for result in results if result.verdict.verdict == NOT_TESTED]
        if untested:
            self.say(f"not tested: {', '.join(untested)}")

    def write(self, wanted: list[Wanted]) -> None:
        """Write measures and verdicts of the runs that there are, and the configurations to go on with."""
        self._write_configuration(self.folder / "study" / "made.yaml", self._seeds([]))
        self._write_configuration(self.folder / "study" / "next.yaml", self._seeds([r for w in wanted for r in w.runs]))
        made = _configuration(self.folder / "study" / "made.yaml")
        atomic_write(self.folder / "config.yaml", dump(made))
        write_study_measures(made, self.cells)
        write_claims(made)
        self.say(f"verdicts: {self.folder}/claims.md; figures and report of these runs:")
        self.say(f"  snakemake --cores all --configfile {self.folder}/study/made.yaml")

    def _seeds(self, more: Iterable[RunName]) -> dict[tuple[str, str], list[int]]:
        """The seeds of each cell: those made, and those of further runs."""
        seeds = {cell: set(runs) for cell, runs in self.cells.items()}
        for experiment, label, seed in more:
            seeds[experiment, label].add(seed)
        return {cell: sorted(own) for cell, own in seeds.items()}

    def _write_configuration(self, path: Path, seeds: Mapping[tuple[str, str], list[int]]) -> None:
        """What `snakemake --configfile` takes for these seeds of each cell."""
        experiments: dict[str, dict] = {}
        for (experiment, label), own in seeds.items():
            experiments.setdefault(experiment, {"seeds": {}})["seeds"][label] = own
        every = sorted({seed for own in seeds.values() for seed in own}) or [FIRST_SEED]
        text = yaml.safe_dump(
            {"study": FULL_STUDY, "results": self.settings.results, "seeds": every, "experiments": experiments},
            sort_keys=False,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)


def _configuration(path: Path) -> Configuration:
    return load(yaml.safe_load(path.read_text(encoding="utf-8")))


def _end(process: subprocess.Popen) -> None:
    """End Snakemake and the jobs that it started."""
    for number, patience in ((signal.SIGINT, 20.0), (signal.SIGTERM, 20.0), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
