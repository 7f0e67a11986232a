"""`make study`: which runs it makes and which never, what it joins and names, and that it goes on where it stopped."""

import dataclasses

import pytest
import yaml

from reproduction.claims import study as command
from reproduction.claims.measures import MEASURES
from reproduction.claims.one_run import ClaimsError, Run
from reproduction.claims.runs import _as_row, joinable_runs, measured_again
from reproduction.jobs.files import read_json, write_json
from reproduction.jobs.provenance import source_hash, versions
from reproduction.settings.configuration import ConfigurationError, dump, load


def settings_of(folder):
    return load({"study": "full", "results": str(folder)})


def run_of(experiment, label, seed, **values):
    """A made-up run; every method does the same, but for what `values` say."""
    base = {name: 0.5 + 0.001 * ((7 * seed + len(label)) % 5) for name in MEASURES}
    base |= {"collapse": 0.0, "schedule_deviation": 1e-16, "constant_gain_deviation": 0.3}
    return Run(
        experiment, label, seed, base | values, {"normal": [2, 3]}, {"normal": 4}, source_hash(), versions(), {}, {},
        {}, f"{experiment}/{label}/{seed}", late={"normal": [400, 800]},
    )  # fmt: skip


class Bench:
    """A study whose runs are made by saying so: Snakemake's place is taken by a list of what was asked for."""

    def __init__(self, folder, monkeypatch):
        self.settings, self.made, self.asked, self.said = settings_of(folder), {}, [], []
        self.fails, self.clock = False, 0.0

        def measured(configuration, experiment, label, seed, known):
            return self.made.get((experiment, label, seed))

        def seeds_here(progress, experiment, label):
            return sorted(seed for name, other, seed in self.made if (name, other) == (experiment, label))

        def run(progress, runs, cores, deadline):
            self.asked.append(list(runs))
            self.clock += progress.seconds(runs) / cores
            if self.fails:
                progress.failed = True
                return False
            self.made |= {one: run_of(*one) for one in runs}
            return True

        monkeypatch.setattr(command.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(command, "measured_again", measured)
        monkeypatch.setattr(command._Progress, "_seeds_here", seeds_here)
        monkeypatch.setattr(command._Progress, "run", run)
        monkeypatch.setattr(command, "joinable_runs", lambda configuration: ({}, []))

    def go_on(self, hours=1000.0):
        self.asked.clear()
        self.said.clear()
        command.go_on(self.settings, hours, 2, self.said.append)
        return [one for batch in self.asked for one in batch]

    def claims(self):
        return {record["id"]: record for record in read_json(self.settings.folder / "claims.json")["claims"]}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def test_the_first_look_is_made_and_settled_claims_get_no_further_run(bench, monkeypatch):
    monkeypatch.setattr(command, "BATCH_SECONDS", 1e9)
    batches = []
    original = command._Progress.batch

    def two_batches(progress, wanted, cores, left):
        batches.append(wanted)
        return original(progress, wanted, cores, left) if len(batches) < 3 else []

    monkeypatch.setattr(command._Progress, "batch", two_batches)
    bench.go_on()
    first, second = bench.asked
    assert {seed for *_, seed in first} == set(range(6, 12))
    claims = bench.claims()
    settled = {name for name, record in claims.items() if record["decided_at"] == 6}
    assert "kpo-6-schedule" in settled and settled != set(claims)
    # The second batch is the looks at 12 seeds of what is open, and nothing that only settled claims read.
    assert {seed for *_, seed in second} == set(range(12, 18))
    wanted_by = {one.claim for one in batches[1]} | {name for one in batches[1] for name in one.others}
    assert not wanted_by & settled
    open_cells = {
        tuple(cell.split("/")) for name, record in claims.items() if name not in settled
        for part in [record["effect"], *(c[k] for c in record["controls"] for k in ("effect", "contrast") if c[k])]
        for side in part["sides"] for cell in side["cells"]
    }  # fmt: skip
    assert {one[:2] for one in second} <= open_cells


def test_cheapest_claims_come_first_and_their_shared_runs_once(bench):
    bench.go_on(hours=0)
    assert bench.asked == []
    lines = [line for line in bench.said if " min" in line and "core" not in line]
    costs = [float(line.split()[-5]) for line in lines]
    assert len(lines) > 20 and costs[0] <= max(costs)
    # What `kpo-1-runs` lacks is what six claims lack, so that these are there with it.
    assert any("and with it kpo-1-switching, kpo-2-energy" in line for line in bench.said)
    assert bench.said[0].startswith("0 of 45 claims are settled: 45 inconclusive")


def test_an_interrupted_study_goes_on_and_a_part_of_a_look_is_named(bench):
    every = bench.go_on(hours=0.5)
    assert every and len(every) < 336
    # One run of a look that was taken is lost: the look is not taken, and the run is named and made again.
    lost = ("kpo", "grpo", 8)
    assert lost in bench.made
    del bench.made[lost]
    bench.go_on(hours=0)
    record = bench.claims()["kpo-1-runs"]
    assert record["effect"]["estimate"] is None and record["verdict"] == "inconclusive"
    assert "of which there are 2" in record["reason"]
    again = bench.go_on(hours=0.2)
    assert lost in again and len(set(again)) == len(again)
    assert bench.claims()["kpo-1-runs"]["effect"]["estimate"]["num_seeds"] == 6


def test_little_time_makes_the_first_seeds_of_the_cheapest_look(bench):
    asked = bench.go_on(hours=(command.RESERVE_SECONDS + 200) / 3600)
    assert asked and {seed for *_, seed in asked} < set(range(6, 12))
    assert bench.go_on(hours=command.RESERVE_SECONDS / 3600) == []


def test_a_failed_job_ends_the_study_after_judging(bench):
    bench.fails = True
    with pytest.raises(RuntimeError, match="a job failed"):
        bench.go_on()
    assert bench.claims()


def test_the_configurations_to_go_on_with_hold_each_method_s_seeds(bench):
    bench.go_on(hours=0.5)
    made = load(yaml.safe_load((bench.settings.folder / "study" / "made.yaml").read_text()))
    assert sorted(made.runs()) == sorted(bench.made)
    further = load(yaml.safe_load((bench.settings.folder / "study" / "next.yaml").read_text()))
    assert set(made.runs()) < set(further.runs())


def test_another_study_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="goes on with config/study/full.yaml"):
        command.go_on(load({"results": str(tmp_path)}), 1, 1)


class TestJoined:
    def publish(self, monkeypatch, tmp_path, runs, name="laptop", **changes):
        folder = tmp_path / "results_published" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump(load({"study": "full", **changes})))
        write_json(folder / "measures.json", {"scale": "laptop", "runs": [_as_row(run) for run in runs], "missing": []})
        monkeypatch.setattr("reproduction.claims.runs.REPOSITORY", tmp_path)
        return joinable_runs(settings_of(tmp_path / "results"))

    @pytest.mark.parametrize("name", ["laptop", "laptop-study"])
    def test_published_runs_of_this_code_count_as_made(self, monkeypatch, tmp_path, name):
        runs = [run_of("kpo", "grpo", 6), run_of("kpo", "grpo", 5), run_of("kpo", "dropped", 6)]
        found, notes = self.publish(monkeypatch, tmp_path, runs, name)
        assert list(found) == [("kpo", "grpo", 6)] and found["kpo", "grpo", 6] == runs[0] and notes == []

    @pytest.mark.parametrize(
        ("change", "why"),
        [({"code": "old"}, "kpo/grpo/seed6: other code"), ({"versions": {"torch": "1.0"}}, "versions differ in ")],
    )
    def test_runs_of_other_code_or_versions_are_named(self, monkeypatch, tmp_path, change, why):
        found, notes = self.publish(monkeypatch, tmp_path, [dataclasses.replace(run_of("kpo", "grpo", 6), **change)])
        assert found == {} and len(notes) == 1 and why in notes[0] and "1 published runs do not join" in notes[0]

    def test_runs_of_other_settings_are_named(self, monkeypatch, tmp_path):
        changed = {"experiments": {"kpo": {"training": {"learning_rate": 0.5}}}}
        found, notes = self.publish(monkeypatch, tmp_path, [run_of("kpo", "grpo", 6)], **changed)
        assert found == {} and "other settings" in notes[0]


def test_a_run_of_other_code_in_the_folder_is_refused_by_name(tmp_path):
    settings = settings_of(tmp_path)
    folder = settings.run_folder("kpo", "kpo-unit", 6)
    assert measured_again(settings, "kpo", "kpo-unit", 6, {}) is None
    folder.mkdir(parents=True)
    for name in ("metrics.jsonl", "evaluation.json", "provenance.json", "config.yaml"):
        (folder / name).write_text("{}")
    with pytest.raises(ClaimsError, match="kpo-unit/seed6: its step train was made by other code"):
        measured_again(settings, "kpo", "kpo-unit", 6, {})
