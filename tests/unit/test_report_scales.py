"""The report of the scales with Hugging Face models, from a made-up folder each; and a template that does not fit."""

import pytest

from reproduction.claims.tables import write_tables
from reproduction.cli import main
from reproduction.jobs.files import read_json
from reproduction.report import ReportError
from reproduction.report.accuracy import accuracies, sizes
from reproduction.report.models import models_text
from reproduction.report.write import rendered
from reproduction.settings.configuration import load
from tests.hub_results import splits_of, write_hub_results
from tests.unit.test_report import Page


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    configuration = write_hub_results(tmp_path_factory.mktemp("gpu"), "gpu", seeds=[1, 2])
    write_tables(configuration)
    return configuration


def report_of(configuration) -> Page:
    assert main(["report", "--config", str(configuration.folder / "config.yaml")]) == 0
    return Page((configuration.folder / "report.html").read_text(encoding="utf-8"))


def check(page: Page, configuration) -> None:
    introduction = page.text.split("Verdicts. Choose one")[0]
    # Nothing was pretrained from scratch; the models are named.
    assert "from scratch" not in introduction
    for experiment in configuration.experiments.values():
        assert experiment.pretrained.model.name in introduction
    regions = {attributes["aria-label"] for attributes in page.of("div") if "aria-label" in attributes}
    for name in configuration.experiments:
        assert f"Accuracy in experiment {name}" in regions
        for split in splits_of(configuration, name):
            assert split in page.text


def test_the_report_of_the_scale_gpu(gpu):
    page = report_of(gpu)
    check(page, gpu)
    # A table has only the splits of its own experiment.
    found = {table.experiment: table.splits for table in accuracies(read_json(gpu.folder / "summary.json")["rows"])}
    assert found == {"kpo": ["amc23", "math500"], "krpo": ["easy", "normal", "hard"]}


def test_the_report_of_the_papers_scale(tmp_path):
    configuration = write_hub_results(tmp_path, "paper", seeds=[42])
    write_tables(configuration)
    check(report_of(configuration), configuration)


def test_models_in_words():
    assert models_text(load({"scale": "laptop"})).startswith("a transformer of ")
    own = "from scratch on arithmetic problems once for each of the 5 seeds 101, 102, 103, 104, 105"
    assert own in models_text(load({}))
    paper = models_text(load({"scale": "paper"}))
    assert "Qwen/Qwen3-4B (4.02 billion weights), seed 42 (kpo, kpo-q)" in paper
    assert "meta-llama/Llama-3.2-1B-Instruct (1.24 billion weights), seeds 42, 43, 44 (krpo-easy, " in paper


def test_sizes_of_a_split_that_experiments_sample_differently():
    rows = [{"split": "aime24", "num_problems": 30, "samples_per_problem": samples} for samples in (16, 12, 16)]
    assert sizes(rows) == "aime24: 30 problems, 16 samples each or 30 problems, 12 samples each"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("<p>\n{{ model.layers }}</p>", 2, "'None' has no attribute 'layers'"),
        ("<p>\n\n{{ unheard }}</p>", 3, "'unheard' is undefined"),
        ("<p>{% if %}</p>", 1, "Expected an expression"),
    ],
)
def test_a_template_that_does_not_fit_is_named_with_its_line(text, line, words, tmp_path):
    (tmp_path / "page.html").write_text(text)
    with pytest.raises(ReportError, match=rf"page\.html, line {line}: {words}"):
        rendered(tmp_path, "page.html", model=None)
    with pytest.raises(ReportError, match=r"absent\.html"):
        rendered(tmp_path, "absent.html")


def test_the_command_says_a_template_error_in_one_line(gpu, tmp_path, monkeypatch, capfd):
    (gpu.folder / "report.html").unlink(missing_ok=True)
    (tmp_path / "report.html").write_text("{{ configuration.base_model.layers }}")
    monkeypatch.setattr("reproduction.report.write.TEMPLATES", tmp_path)
    assert main(["report", "--config", str(gpu.folder / "config.yaml")]) == 2
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if line]
    assert len(lines) == 1 and "report.html, line 1: 'None' has no attribute 'layers'" in lines[0], lines
    assert not (gpu.folder / "report.html").exists()
