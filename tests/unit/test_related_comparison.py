"""config/study/related.yaml, and the comparison that is made from its measures."""

import json

import numpy as np
import pytest
from scipy import stats

from kpo.methods import METHODS
from reproduction.cli import main
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.publish.methods import methods_table
from reproduction.publish.related import END, NOTEBOOK, PAGE, START, publish_related
from reproduction.related.comparison import CONTROL, PREFIX, related_record, told_apart, write_comparison
from reproduction.related.declarations import RELATED
from reproduction.related.families import BASELINE, IDEAS, RATIO, families
from reproduction.settings.configuration import load, read_resolved
from reproduction.verify.derived import verify_derived
from tests.related_results import accuracies, write_related

STUDY = load({"study": "related"})
SEEDS = [6, 7, 8, 9, 10, 11]


@pytest.fixture
def configuration(tmp_path):
    return write_related(tmp_path)


def row_of(record, label):
    (row,) = [row for row in record["rows"] if row["label"] == label]
    return row


class TestStudy:
    def test_every_related_method_is_compared(self):
        used = {STUDY.experiments[experiment].method(label).name for experiment, label, _ in STUDY.runs()}
        assert {"grpo", "krpo", "kpo-clipped"} <= used
        assert set(RELATED) <= used, "add the method to config/study/related.yaml"

    def test_only_its_own_experiments_are_run_on_the_seeds_of_the_full_study(self):
        assert {experiment for experiment, *_ in STUDY.runs()} == {
            name for name in STUDY.experiments if name.startswith(PREFIX)
        }
        assert STUDY.seeds == SEEDS == load({"study": "full"}).seeds
        assert all(STUDY.seeds_of(experiment, label) == SEEDS for experiment, label, _ in STUDY.runs())

    def test_the_task_is_that_of_krpo(self):
        krpo, related = STUDY.experiments["krpo"], STUDY.experiments[CONTROL[0]]
        apart = {"methods", "seeds", "expected_seconds"}
        assert related.model_dump(exclude=apart) == krpo.model_dump(exclude=apart)
        for name, settings in STUDY.experiments.items():
            if name.startswith(PREFIX):
                own, main = settings.training.model_dump(), related.training.model_dump()
                assert {key for key in own if own[key] != main[key]} <= {
                    "minibatches", "group_size", "prompts_per_rollout",
                }  # fmt: skip
                assert settings.late_evaluation == related.late_evaluation
                # KRPO's reward, or the functions whose sum it is.
                assert settings.reward.startswith(related.reward)

    def test_each_run_samples_as_many_responses(self):
        """Apart from the control in small groups; with what A*-PO and DVPO draw from the base model."""
        main = STUDY.experiments[CONTROL[0]].training
        wanted = main.rollout_batches * main.sequences_per_rollout
        for experiment, label in dict.fromkeys(run[:2] for run in STUDY.runs()):
            settings = STUDY.experiments[experiment]
            method, training = settings.method(label).parameters, settings.training
            prompts = training.rollout_batches * training.prompts_per_rollout
            before = method.get("base_samples", 0) * method.get("base_prompts", prompts)
            sampled = prompts * training.group_size + before
            assert sampled == (wanted / 3 if label == "grpo-four" else wanted), label

    def test_fewer_updates_have_a_control_with_as_few(self):
        """GRPO's advantages, so that the number of updates is not taken for a merit or a fault of the method."""
        main = STUDY.experiments[CONTROL[0]].training.updates
        for name, settings in STUDY.experiments.items():
            if name.startswith(PREFIX) and settings.training.updates != main:
                assert "grpo" in [settings.method(label).advantage for label in settings.methods], name

    def test_the_other_studies_do_not_have_it(self):
        for study in (None, "first", "full"):
            assert not any(name.startswith(PREFIX) for name in load({"study": study}).experiments)


class TestRecord:
    def test_numbers_are_those_of_the_measures(self, configuration):
        record, _ = related_record(configuration)
        assert record["seeds"] == SEEDS and record["not_run"] == []
        assert len(record["rows"]) == record["comparisons"] + 1
        row, control = row_of(record, "pods"), row_of(record, "grpo")
        own, base = (np.array([np.mean(accuracies(label, seed)) for seed in SEEDS]) for label in ("pods", "grpo"))
        assert row["by_seed"] == pytest.approx(own)
        assert row["accuracy"]["value"] == pytest.approx(own.mean())
        single = stats.ttest_1samp(own, 0.0).confidence_interval(0.95)
        assert (row["accuracy"]["low"], row["accuracy"]["high"]) == pytest.approx(tuple(single))
        together = stats.ttest_1samp(own - base, 0.0).confidence_interval(1 - 0.05 / record["comparisons"])
        assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx(tuple(together))
        assert control["difference"] is None
        assert row["generated_tokens"] == pytest.approx(160_008.5) and row["update_tokens"] == 40_000

    def test_a_clear_loser_is_last_and_equals_are_not_told_apart(self, configuration):
        record, page = related_record(configuration)
        assert record["rows"][-1]["label"] == "raft"
        last = row_of(record, "raft")
        assert last["place"] == [len(record["rows"])] * 2 and last["difference"]["high"] < -0.1
        krpo = row_of(record, "krpo")
        assert krpo["difference"]["low"] < 0 < krpo["difference"]["high"]
        values = [row["accuracy"]["value"] for row in record["rows"]]
        assert values == sorted(values, reverse=True)
        lines = [line for line in page.splitlines() if line.startswith("| ")]
        assert len(lines) == 1 + len(record["rows"]) and "| raft |" in lines[-1]
        assert "What this cannot say" in page
        (told,) = [line for line in page.splitlines() if line.startswith("Shown to differ")]
        worse = told.removesuffix(".").partition("; worse ")[2].split(", ")
        assert "raft" in worse and "krpo" not in worse

    def test_a_method_is_told_from_grpo_if_its_interval_leaves_out_0(self):
        ends = {"up": (0.1, 0.3), "down": (-0.3, -0.1), "both": (-0.1, 0.1), "unknown": (None, None)}
        rows = [
            {"experiment": "related", "label": label, "difference": {"value": 0.0, "low": low, "high": high}}
            for label, (low, high) in ends.items()
        ]
        rows += [{"experiment": "related", "label": "grpo", "difference": None}]
        assert told_apart(rows) == (["up"], ["down"])

    def test_what_is_missing_is_named_and_only_shared_seeds_count(self, tmp_path):
        missing = [*(f"related/pods/seed{seed}" for seed in SEEDS), "related/raft/seed9"]
        record, page = related_record(write_related(tmp_path, missing, budgets=False))
        assert record["seeds"] == [6, 7, 8, 10, 11]
        assert sorted(record["not_run"]) == sorted(missing) and "related/pods/seed6" in page
        assert "pods" not in [row["label"] for row in record["rows"]]
        assert record["rows"][0]["generated_tokens"] is None and "not recorded" in page

    def test_seeds_that_all_agree_give_no_interval(self, configuration):
        """Their spread is not known; an interval of no width would say that the accuracy is."""
        path = configuration.folder / "measures.json"
        measures = read_json(path)
        for run in measures["runs"]:
            if run["label"] == "pods":
                run["values"] |= {name: 0.25 for name in run["values"] if name.startswith("late_accuracy.")}
        write_json(path, measures)
        record, page = related_record(configuration)
        assert row_of(record, "pods")["accuracy"] == {"value": 0.25, "low": None, "high": None}
        assert "| pods | arXiv 2504.13818 | 25.0 |" in page

    def test_a_run_without_a_measure_counts_as_not_made(self, configuration):
        """As one that the grader or the disk has stopped: all its values are null."""
        path = configuration.folder / "measures.json"
        measures = read_json(path)
        (run,) = [one for one in measures["runs"] if (one["label"], one["seed"]) == ("pods", 7)]
        run["values"] = dict.fromkeys(run["values"])
        write_json(path, measures)
        record, _ = related_record(configuration)
        assert record["not_run"] == ["related/pods/seed7"] and record["seeds"] == [6, 8, 9, 10, 11]

    def test_refusals(self, tmp_path):
        gone = [f"related/grpo/seed{seed}" for seed in SEEDS]
        with pytest.raises(ValueError, match="related/grpo, with which all are compared, has no measured run"):
            related_record(write_related(tmp_path / "a", gone))
        halves = [f"related/raft/seed{seed}" for seed in SEEDS[:3]] + [f"related/opo/seed{seed}" for seed in SEEDS[3:]]
        with pytest.raises(ValueError, match="no seed has a run of every method; related/opo has"):
            related_record(write_related(tmp_path / "b", halves))
        with pytest.raises(ValueError, match="add study=related"):
            related_record(load({"results": str(tmp_path)}))

    def test_runs_of_other_code_are_refused(self, configuration):
        path = configuration.folder / "measures.json"
        measures = read_json(path)
        measures["runs"][0]["code"] = "other"
        write_json(path, measures)
        with pytest.raises(ValueError, match="are compared but differ in code; remove the folders of related/grpo"):
            related_record(configuration)


class TestStep:
    def test_it_writes_both_files_and_verify_recomputes_them(self, configuration):
        assert main(["related", "--config", str(configuration.folder / "config.yaml")]) == 0
        path = configuration.folder / "related_methods.json"
        record, page = related_record(configuration)
        assert read_json(path) == record
        assert path.with_suffix(".md").read_text(encoding="utf-8") == page

        def found():
            return [line for line in verify_derived(configuration) if "related_methods" in line]

        assert found() == []
        record["rows"][0]["accuracy"]["value"] += 0.01
        write_json(path, record)
        assert len(found()) == 1 and "rows.0.accuracy.value" in found()[0]


class TestPublishing:
    @pytest.fixture
    def repository(self, configuration, tmp_path):
        """A results folder that is ready to be published, and a page with room for the table."""
        write_comparison(configuration)
        for kind in ("png", "json"):
            atomic_write(configuration.folder / "figures" / f"related_methods.{kind}", "{}")
        record = {"source_hash": "made up", "versions": {}, "hardware": {}, "wall_seconds": 1.0, "peak_memory_bytes": 1}
        for run in [*configuration.untrained(), *configuration.runs()]:
            write_json(configuration.run_folder(*run) / "provenance.json", record)
        atomic_write(configuration.folder / NOTEBOOK, "executed\n")
        atomic_write(tmp_path / "r" / PAGE, f"# Page\n\n{START}\nnothing yet\n{END}\n\nend\n")
        return tmp_path / "r"

    def test_the_published_folder_gives_the_same_comparison(self, configuration, repository):
        publish_related(configuration, repository)
        folder = repository / "results_published" / "laptop-related"
        own = read_resolved(folder / "config.yaml").model_copy(update={"results": str(repository / "again")})
        for name in ("config.yaml", "measures.json"):
            atomic_write(own.folder / name, (folder / name).read_bytes())
        assert related_record(own)[0] == read_json(folder / "related_methods.json")
        assert str(repository.parent) not in (folder / "config.yaml").read_text()
        page, table = (repository / PAGE).read_text(), (folder / "related_methods.md").read_text()
        assert page.startswith(f"# Page\n\n{START}\nSeeds 6") and page.endswith(f"{END}\n\nend\n")
        assert (repository / NOTEBOOK).read_text() == "executed\n"
        assert all(line in page for line in table.splitlines() if line.startswith("|")) and "nothing yet" not in page
        publish_related(configuration, repository)
        assert (repository / PAGE).read_text() == page

    def test_refusals_change_nothing(self, configuration, repository, tmp_path):
        with open(configuration.folder / "measures.json", "a") as file:
            file.write("\n")
        with pytest.raises(ValueError, match="measures.json: has changed since the step related read it; compare"):
            publish_related(configuration, repository)
        gone = write_related(tmp_path / "gone", ["related/pods/seed6"])
        with pytest.raises(ValueError, match="related_methods.json is missing; compare"):
            publish_related(gone, repository)
        write_comparison(gone)
        for kind in ("png", "json"):
            atomic_write(gone.folder / "figures" / f"related_methods.{kind}", "{}")
        with pytest.raises(ValueError, match="08_.*ipynb is missing; compare"):
            publish_related(gone, repository)
        atomic_write(gone.folder / NOTEBOOK, "executed\n")
        with pytest.raises(
            ValueError, match="are missing or have no accuracy: related/pods/seed6; remove.*finish them"
        ):
            publish_related(gone, repository)
        assert not (repository / "results_published").exists() and "nothing yet" in (repository / PAGE).read_text()


class TestMethodsTable:
    def test_measured_is_what_results_have_runs_of(self, tmp_path):
        published, present = tmp_path / "published", tmp_path / "results"
        write_related(published, [f"related/pods/seed{seed}" for seed in SEEDS])
        run = present / "laptop" / "own" / "narrow" / "seed3"
        write_json(run / "evaluation.json", {})
        atomic_write(run / "config.yaml", "method: {name: pods, clip_low: 0.1}\n")
        atomic_write(present / "laptop" / "own" / "unfinished" / "seed3" / "config.yaml", "method: {name: gspo}\n")
        table = {row["name"]: row for row in methods_table(published, present)}
        assert set(table) == {*METHODS, *RELATED}
        assert table["pods"]["measured"] == ["results/laptop/own"]
        # Under another label, and in two experiments.
        assert table["opo-on-policy"]["measured"] == ["laptop/related-on-policy"]
        assert table["grpo"]["measured"] == ["laptop/related", "laptop/related-small-groups"]
        assert table["gspo"]["measured"] == [] == table["krpo-sorted"]["measured"]
        assert table["pods"]["arxiv"] == "2504.13818" and table["pods"]["values"]["keep"] == 4

    def test_the_command_prints_the_table(self, capsys):
        assert main(["methods", "--json"]) == 0
        assert {row["name"] for row in json.loads(capsys.readouterr().out)} >= set(RELATED)
        assert main(["methods"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("raft ") and "2504.11343" in line for line in lines)


class TestFamilies:
    def test_every_method_of_the_study_has_its_place(self):
        used = {STUDY.experiments[experiment].method(label).name for experiment, label, _ in STUDY.runs()}
        found = families(sorted(used))
        assert sorted(sum(found.values(), [])) == sorted(used)
        place = {name: idea for idea, names in found.items() for name in names}
        assert place["krpo"] == place["opo-on-policy"] == BASELINE and place["kpo-clipped"] == place["gmpo"] == RATIO
        assert place["pods"] == place["pf-best-worst"] == place["unbiased-pruning"] == IDEAS["selection"]
        assert place["raft"] == IDEAS["positive_samples"] and place["dppo-kl"] == IDEAS["trust_region"]
        assert set(RELATED) & {*found[BASELINE], *found[RATIO]} == {"opo-on-policy"}

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="unknown method 'pod'"):
            families(["pod"])
