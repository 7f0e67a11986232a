"""Publishing: from the compact copy come the same verdicts and figures, byte for byte; what is unfinished or mixed is
refused and changes nothing."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paper_figures.catalogue import ENTRIES
from paper_figures.results import METRICS
from reproduction.claims.record import write_claims
from reproduction.claims.runs import write_measures
from reproduction.claims.tables import write_tables
from reproduction.evaluation.summary import write_summary
from reproduction.jobs.files import atomic_write, read_json, read_jsonl, write_json
from reproduction.notebook import NOTEBOOKS
from reproduction.publish.publish import publish, publish_unfinished
from reproduction.publish.published import compact_structure, published_configuration, unpack, write_lines_of_numbers
from reproduction.settings.configuration import ConfigurationError, read_resolved
from reproduction.workflow import is_published, prepare, run_files
from tests.finished_results import FIGURES, README, draw
from tests.hub_results import write_hub_results


def summary_rows(configuration):
    return read_json(configuration.folder / "summary.json")["rows"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verdicts_and_figures_come_out_the_same_from_the_published_files(finished, tmp_path):
    configuration, repository = finished
    publish(configuration, repository)
    original = contents(configuration.folder)
    # Nothing but the published folder is left to work from.
    shutil.rmtree(configuration.folder)
    source = repository / "results_published/laptop"
    unpack(read_resolved(source / "config.yaml"), source, tmp_path / "back")
    back = read_resolved(tmp_path / "back/laptop/config.yaml")
    assert back.folder == tmp_path / "back/laptop"
    write_claims(back)
    draw(back.folder)
    made = contents(back.folder)
    for name in (
        "claims.json",
        "claims.md",
        "summary.md",
        *(f"figures/{figure}.png" for figure in FIGURES),
        *(f"figures/{figure}.json" for figure in FIGURES),
    ):
        assert made[name] == original[name], name
        if name != "summary.md":
            assert (source / name).read_bytes() == original[name]


def test_what_is_published_and_what_is_not(finished):
    configuration, repository = finished
    publish(configuration, repository)
    published = contents(repository / "results_published/laptop")
    runs = {"/".join((*run[:2], f"seed{run[2]}")) for run in configuration.runs()}
    expected = {f"base/seed{seed}/evaluation.json" for seed in configuration.seeds}
    expected |= {f"{run}/{name}" for run in runs for name in ("metrics.jsonl", "evaluation.json", "provenance.json")}
    expected |= {f"{run}/structure.safetensors" for run in runs if "/grpo/" in run}
    expected |= {"README.md", "config.yaml", "provenance.json", "summary.json", "summary.md", "measures.json"}
    expected |= {f"{name}.{kind}" for name in ("claims", "tables") for kind in ("json", "md")}
    expected |= {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "json")}
    assert set(published) == expected
    assert str(configuration.results).encode() not in b"".join(published.values())

    row = json.loads(published["kpo/grpo/seed1/metrics.jsonl"].splitlines()[0])
    assert list(row) == ["update", "rollout_batch", "minibatch", *METRICS]
    original = read_jsonl(configuration.folder / "kpo/grpo/seed1/metrics.jsonl")[0]
    assert row == {key: original[key] for key in row}
    assert json.loads(published["kpo/grpo/seed2/provenance.json"]) == {
        "stopped": None, "seed": 2, "source_hash": "a digest of the code", "wall_seconds": 1.0
    }  # fmt: skip
    assert set(load_file(repository / "results_published/laptop/krpo/grpo/seed1/structure.safetensors")) == {
        "rollout2.rewards",
        "rollout4.rewards",
    }
    executed = contents(repository / "notebooks")
    assert set(executed) == {f"{name}.ipynb" for name in NOTEBOOKS}
    assert executed == contents(configuration.folder / "notebooks")


def test_off_policy_minibatches_are_kept_whole():
    tensors = {f"rollout{batch}.rewards": torch.rand(2, 3) for batch in (1, 2)}
    for update, minibatch in (("00001", 1), ("00002", 2), ("00003", 3)):
        for field in ("log_ratio", "mask", "advantage"):
            tensors[f"{update}.{field}"] = torch.rand(2, 4)
        tensors[f"{update}.minibatch"] = torch.tensor(minibatch)
    rewards = {"rollout1.rewards", "rollout2.rewards"}
    later = {key for key in tensors if key.startswith(("00002", "00003"))}
    assert set(compact_structure(tensors, log_ratios=True)) == rewards | later and len(later) == 8
    assert set(compact_structure(tensors, log_ratios=False)) == rewards


def test_publishing_again_replaces_the_folder(finished):
    configuration, repository = finished
    stale = repository / "results_published/laptop/kpo/gone/seed1/metrics.jsonl"
    atomic_write(stale, "{}")
    publish(configuration, repository)
    first = contents(repository)
    publish(configuration, repository)
    assert not stale.exists() and contents(repository) == first
    assert [path.name for path in (repository / "results_published").iterdir()] == ["laptop"]


def test_a_kill_between_the_two_renames_loses_nothing(finished, monkeypatch):
    """The earlier results are then next to their place, a line says so, and the next call publishes as usual."""
    configuration, repository = finished
    publish(configuration, repository)
    folder, replace = repository / "results_published", os.replace
    before = contents(folder / "laptop")

    def killed(source, target):
        if Path(source).name == ".laptop.new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("reproduction.publish.publish.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(configuration, repository)
    monkeypatch.undo()
    assert contents(folder / ".laptop.old") == before
    with pytest.raises(
        ConfigurationError, match=r"results_published/laptop was left in \.laptop\.old by an interrupted"
    ):
        published_configuration({"results": "published"}, repository)
    publish(configuration, repository)
    assert contents(folder) == {f"laptop/{name}": content for name, content in before.items()}


def test_a_folder_that_cannot_be_put_in_place_leaves_the_earlier_one(finished, monkeypatch):
    configuration, repository = finished
    publish(configuration, repository)
    before, replace = contents(repository), os.replace

    def full(source, target):
        if Path(source).name == ".laptop.new":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("reproduction.publish.publish.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        publish(configuration, repository)
    assert contents(repository) == before


def test_a_scale_with_models_of_the_hub(tmp_path):
    """Its folder is whole enough to judge and draw from; README and notebooks stay those of the small models."""
    mirror = str(tmp_path / "a mirror")
    configuration = write_hub_results(tmp_path / "results", "gpu", seeds=[1, 2], data={"mirror": mirror})
    write_tables(configuration)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/README.md").write_text(README)
    publish(configuration, tmp_path / "repository")
    source = tmp_path / "repository/results_published/gpu"
    published = contents(source)
    for run in (*configuration.untrained(), *configuration.runs()):
        assert "/".join((*run[:2], f"seed{run[2]}", "evaluation.json")) in published
    assert not [name for name in published if name.startswith("base/")]
    assert mirror.encode() not in b"".join(published.values())
    assert (tmp_path / "repository/README.md").read_text() == README
    assert not (tmp_path / "repository/notebooks").exists()

    original = contents(configuration.folder)
    shutil.rmtree(configuration.folder)
    assert published_configuration({"results": "published", "scale": "gpu"}, tmp_path / "repository")
    unpack(read_resolved(source / "config.yaml"), source, tmp_path / "back")
    back = read_resolved(tmp_path / "back/gpu/config.yaml")
    write_claims(back)
    assert (back.folder / "claims.json").read_bytes() == original["claims.json"]
    draw(back.folder, ["final_accuracy", "training_curves"])
    # Of a run that was not published the page has the name, and no link that leads nowhere.
    shutil.rmtree(back.folder / "kpo/grpo")
    write_claims(back)
    page = (back.folder / "claims.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", page)
    assert links and "`kpo/grpo`" in page and [link for link in links if not (back.folder / link).exists()] == []


class TestUnfinishedStudy:
    @pytest.fixture
    def study(self, finished):
        configuration, repository = finished
        return configuration.model_copy(update={"study": "full"}), repository

    def test_what_is_kept_is_what_publishing_keeps_and_outlives_the_runs(self, study):
        configuration, repository = study
        publish_unfinished(configuration, repository)
        kept = repository / "results_published/laptop-study"
        before = contents(kept)
        publish(configuration, repository)
        whole = contents(repository / "results_published/laptop")
        runs = {name for name in whole if name.count("/") >= 2}
        assert runs and {name: before[name] for name in runs} == {name: whole[name] for name in runs}
        assert {"measures.json", "claims.json", "claims.md", "config.yaml"} <= set(before)
        # The same on a machine that joined some of the runs and holds others.
        for name in ("kpo/grpo/seed1", "base/seed1"):
            shutil.rmtree(configuration.folder / name)
        publish_unfinished(configuration, repository)
        assert contents(kept) == before

    def test_it_is_drawn_again_and_published_without_the_runs(self, study, tmp_path, monkeypatch):
        configuration, repository = study
        write_claims(configuration)
        publish(configuration, repository)
        whole = contents(repository)
        shutil.rmtree(repository / "results_published/laptop")
        publish_unfinished(configuration, repository)
        published = repository / "results_published/laptop"
        (repository / "results_published/laptop-study").rename(published)
        notebooks = configuration.folder / "notebooks"
        # What `make redraw` makes of it, in the folder that it uses.
        monkeypatch.chdir(tmp_path)
        unpack(read_resolved(published / "config.yaml"), published, Path("results/published"))
        drawn = read_resolved(Path("results/published/laptop/config.yaml"))
        with pytest.raises(ValueError, match="claims.json is missing; finish the workflow"):
            publish(drawn, repository)
        write_claims(drawn)
        draw(drawn.folder)
        shutil.copytree(notebooks, drawn.folder / "notebooks")
        for name in ("tables.json", "tables.md"):
            shutil.copy(configuration.folder / name, drawn.folder / name)
        shutil.rmtree(configuration.folder)
        publish(drawn, repository)
        assert contents(repository) == whole
        # Published again, of the same measures only.
        publish(drawn, repository)
        assert contents(repository) == whole
        write_json(drawn.folder / "summary.json", {"scale": "laptop", "rows": []})
        with pytest.raises(ValueError, match=r"summary.json is not what .*laptop has; draw .* again \(make redraw\)"):
            publish(drawn, repository)
        assert contents(repository) == whole

    def test_refused(self, study, finished):
        configuration, repository = study
        with pytest.raises(ValueError, match="--unfinished is for the study of every claim"):
            publish_unfinished(configuration.model_copy(update={"study": None}), repository)
        shutil.rmtree(configuration.folder / "kpo/grpo/seed1")
        with pytest.raises(
            ValueError, match="kpo/grpo/seed1 is missing, and so is .*laptop-study/kpo/grpo/seed1; finish the run"
        ):
            publish_unfinished(configuration, repository)
        (configuration.folder / "claims.json").unlink()
        with pytest.raises(ValueError, match="judge the study first"):
            publish_unfinished(configuration, repository)
        assert not (repository / "results_published/laptop-study").exists()


class TestRefused:
    def refused(self, finished, match, **keywords):
        configuration, repository = finished
        before = contents(repository)
        with pytest.raises((ValueError, OSError), match=match):
            publish(configuration, repository, **keywords)
        assert contents(repository) == before

    @pytest.mark.parametrize(
        "name",
        ["summary.json", "measures.json", "claims.md", "tables.json", "figures/final_accuracy.png",
         f"notebooks/{NOTEBOOKS[0]}.ipynb", "kpo/kpo-ema/seed3/provenance.json", "krpo/krpo/seed1/metrics.jsonl"],
    )  # fmt: skip
    def test_unfinished(self, finished, name):
        (finished[0].folder / name).unlink()
        self.refused(finished, name.split("/")[-1].split(".")[0])

    @pytest.mark.parametrize(("key", "value"), [("source_hash", "another"), ("versions", {"torch": "3.0"})])
    def test_runs_of_differing_code_or_versions(self, finished, key, value):
        path = finished[0].folder / "krpo/krpo/seed2/provenance.json"
        write_json(path, read_json(path) | {key: value})
        self.refused(finished, f"krpo/krpo/seed2: {key} is")

    def test_readme_without_its_marks(self, finished):
        (finished[1] / "README.md").write_text("# A title\n")
        self.refused(finished, "has no block between")

    def test_metrics_that_lack_what_figures_draw(self, finished):
        path = finished[0].folder / "krpo/grpo/seed1/metrics.jsonl"
        path.write_text(path.read_text().replace('"entropy"', '"entropi"'))
        self.refused(finished, r"metrics.jsonl, row 1: no 'entropy'")

    def test_missing_runs_unless_that_is_asked_for(self, finished):
        configuration, repository = finished
        shutil.rmtree(configuration.run_folder("krpo", "krpo", 3))
        self.refused(finished, "krpo/krpo/seed3")
        write_measures(configuration, allow_missing=True)
        self.refused(finished, "claims.json was made from other measures", allow_missing=True)
        write_claims(configuration)
        self.refused(finished, "runs are missing: krpo/krpo/seed3; .*--allow-missing")
        publish(configuration, repository, allow_missing=True)
        published = repository / "results_published/laptop"
        digest = read_json(published / "provenance.json")
        assert digest["missing"] == ["krpo/krpo/seed3"]
        assert "krpo/krpo/seed3" not in digest["wall_seconds"] and "krpo/krpo/seed2" in digest["wall_seconds"]
        assert not (published / "krpo/krpo/seed3").exists()
        assert "over fewer seeds: krpo/krpo/seed3." in (repository / "results_published/laptop/README.md").read_text()

    @pytest.mark.parametrize("name", ["measures.json", "claims.json"])
    def test_verdicts_that_are_not_of_these_measures(self, finished, name):
        """The lists of missing runs agree, but a number was measured again, or a verdict changed by hand."""
        path = finished[0].folder / name
        path.write_text(re.sub(r"0\.\d{4,}", "0.1234567", path.read_text(), count=1))
        self.refused(finished, rf"{name}: .*judge the claims again \(python -m reproduction claims\)")

    def test_a_summary_of_what_is_there(self, finished):
        configuration, _ = finished
        whole = {(row["experiment"], row["method"], row["split"]): row for row in summary_rows(configuration)}
        write_summary(configuration, allow_missing=True)
        assert summary_rows(configuration) == list(whole.values())
        shutil.rmtree(configuration.run_folder("krpo", "krpo", 3))
        shutil.rmtree(configuration.folder / "kpo/kpo-ema")
        write_summary(configuration, allow_missing=True)
        rows = {(row["experiment"], row["method"], row["split"]): row for row in summary_rows(configuration)}
        assert whole.keys() - rows.keys() == {("kpo", "kpo-ema", split) for split in ("easy", "normal", "hard")}
        for key, row in rows.items():
            if key[:2] != ("krpo", "krpo"):
                assert row == whole[key]
            else:
                assert row["seeds"] == [1, 2]
                assert row["avg_at_k"] == pytest.approx(sum(whole[key]["per_seed"][seed] for seed in "12") / 2)
        text = (configuration.folder / "summary.md").read_text()
        assert "There are of kpo/kpo-ema: no seed; of krpo/krpo: only the seeds 1, 2." in text

    def test_a_missing_run_that_measures_do_not_name(self, finished):
        shutil.rmtree(finished[0].run_folder("krpo", "krpo", 3))
        self.refused(finished, "krpo/krpo/seed3/provenance.json", allow_missing=True)


class TestConfiguration:
    def test_it_is_the_published_one_with_a_folder_of_its_own(self, finished):
        configuration, repository = finished
        publish(configuration, repository)
        found = published_configuration({"results": "published"}, repository)
        assert is_published(found) and found.folder == Path("results/published/laptop")
        assert found.experiments == configuration.experiments and found.seeds == configuration.seeds
        same = {"results": "published", "scale": "laptop", "seeds": [1, 2, 3], "study": found.study}
        assert published_configuration(same, repository) == found

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            ({"seeds": [1, 2]}, "made with another 'seeds'"),
            ({"study": "full"}, "made with another 'study'"),
            ({"sedes": [1]}, "made with another 'sedes'"),
            ({"scale": "smoke"}, "results_published/smoke does not exist; published are the scales laptop"),
            ({"scale": "huge"}, "unknown scale 'huge'"),
        ],
    )
    def test_what_cannot_be_had_is_refused(self, finished, overrides, words):
        publish(*finished)
        with pytest.raises(ConfigurationError, match=words):
            published_configuration({"results": "published", **overrides}, finished[1])

    def test_a_published_folder_that_lacks_a_file(self, finished):
        publish(*finished)
        (finished[1] / "results_published/laptop/measures.json").unlink()
        with pytest.raises(ConfigurationError, match="has no measures.json; publish that scale again"):
            published_configuration({"results": "published"}, finished[1])

    @pytest.mark.parametrize("folder", ["results/published", "results_published"])
    def test_runs_never_go_among_published_results(self, folder):
        with pytest.raises(ConfigurationError, match="is the folder of published results"):
            prepare({"results": folder, "scale": "smoke"})


def test_files_of_runs_that_a_figure_reads(finished):
    """Held against what is there: every named file exists, and without them the figure cannot be drawn."""
    configuration, _ = finished
    files = run_files(configuration, [ENTRIES["final_accuracy"]])
    assert len(files) == len(set(files)) == len(configuration.runs()) + len(configuration.seeds)
    assert all(Path(path).is_file() and path.endswith("evaluation.json") for path in files)
    structure = run_files(configuration, [ENTRIES["structure"]])
    folders = [configuration.run_folder("kpo", "grpo", seed) for seed in (1, 2, 3)]
    assert structure == [str(folder / "structure.safetensors") for folder in folders]
    for path in structure:
        Path(path).unlink()
    with pytest.raises(ValueError, match="missing"):
        draw(configuration.folder, ["structure"])


def test_lists_of_numbers_take_one_line(tmp_path):
    value = {"a [\n 1\n]": "[\n1, 2]", "b": [1, -2.5e-07, 3], "c": {"d": [[0.1, 1], []], "e": ["x", 1]}}
    write_lines_of_numbers(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert '"b": [1,-2.5e-07,3],' in (tmp_path / "file.json").read_text()
