"""The notebooks' text and committed outputs, the tables that they show, and how one is executed."""

import base64
import html
import json
import os
import re
import struct
import sys
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

from reproduction import execute_notebook
from reproduction import notebook as support
from reproduction.claims import CLAIMS, VERDICTS
from reproduction.claims.declare import NOT_FOUND
from reproduction.claims.record import write_claims
from reproduction.cli import main
from reproduction.execute_notebook import execute
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.notebook import (
    NOTEBOOKS,
    RELATED_NOTEBOOK,
    REPOSITORY,
    about,
    claims_table,
    opening,
    read_claims,
    related_folder,
    results_folder,
    runs_table,
    table,
    values,
)
from reproduction.report.origin import stopped_because
from reproduction.rewards.perturb import RewardNoise
from reproduction.settings.configuration import CONFIG_FOLDER, dump
from reproduction.settings.configuration import load as load_configuration
from reproduction.settings.files import read_yaml
from tests.hub_results import png, write_figure
from tests.unit.test_claims_study import configuration_of

ALL = (*NOTEBOOKS, RELATED_NOTEBOOK)
LARGEST = 450_000
METHODS = {"kpo": ("grpo", "kpo-clipped"), "krpo": ("grpo", "krpo")}
# Any of the verdicts would be a number typed by hand, and so would their roots.
VERDICT_WORDS = re.compile(r"reproduced|inconclusive|not tested", re.IGNORECASE)
MACHINE = re.compile(r"/(home|root|tmp|work|Users|private|mnt|opt)/|[A-Z]:\\\\|site-packages|0x[0-9a-f]{6,}")


def load(name):
    return json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code(name):
    return [cell for cell in load(name)["cells"] if cell["cell_type"] == "code"]


def run_of(experiment, label, seed, accuracy, reward):
    """A row of measures.json with 10 problems of 10 samples."""
    return {
        "experiment": experiment, "label": label, "seed": seed, "code": "abc", "versions": {}, "hardware": {},
        "values": {"accuracy.normal": accuracy, "reward_late": reward}, "samples": {"normal": 10}, "sampling": {},
        "correct": {"normal": " ".join([str(round(10 * accuracy))] * 10)}, "training": {}, "stopped": None,
        "fingerprint": f"{experiment}/{label}/{seed}",
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder with only measured runs, as published results have them."""
    configuration = configuration_of(tmp_path, METHODS)
    accuracy = {run: round(0.5 + 0.1 * (run[1] != "grpo") + 0.1 * (run[2] == 3), 3) for run in configuration.runs()}
    runs = [run_of(*run, right, 0.25) for run, right in accuracy.items()]
    atomic_write(configuration.folder / "config.yaml", dump(configuration))
    write_json(configuration.folder / "measures.json", {"scale": "laptop", "runs": runs, "missing": []})
    return configuration.folder


class TestFiles:
    def test_the_folder_holds_the_named_notebooks_and_no_other(self):
        assert sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")) == sorted(ALL)

    @pytest.mark.parametrize("name", ALL)
    def test_form(self, name):
        path = REPOSITORY / "notebooks" / f"{name}.ipynb"
        assert path.stat().st_size < LARGEST
        nbformat.validate(nbformat.read(path, as_version=4))
        cells = load(name)["cells"]
        assert cells[0]["cell_type"] == "markdown" and source(cells[0]).startswith("# ")
        ids = [cell["id"] for cell in cells]
        assert len(set(ids)) == len(ids) and all(identity.startswith(f"{name[:2]}-") for identity in ids)
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        assert len(tagged) == 1 and source(tagged[0]).startswith("results = None")

    @pytest.mark.parametrize("name", NOTEBOOKS)
    def test_opens_with_claims_and_ends_with_their_verdicts(self, name):
        known = {claim.id for claim in CLAIMS}
        first, last = code(name)[1], code(name)[-1]
        opened = set(re.findall(r'"(k[r]?po-\d-[a-z-]+)"', source(first)))
        assert "opening(" in source(first) and opened and opened <= known
        assert "claims_table(folder" in source(last)
        closing = tuple(
            prefix
            for cell in code(name)
            if "claims_table(folder" in source(cell)
            for prefix in re.findall(r'"([^"]+)"', source(cell))
        )
        assert {claim for claim in known if claim.startswith(closing)} == opened

    def test_every_claim_has_its_notebook(self):
        opened = [claim for name in NOTEBOOKS for claim in re.findall(r'"(k[r]?po-\d-[a-z-]+)"', source(code(name)[1]))]
        assert sorted(opened) == sorted(claim.id for claim in CLAIMS)

    @pytest.mark.parametrize("name", ALL)
    def test_no_verdict_is_typed(self, name):
        for cell in load(name)["cells"]:
            assert not VERDICT_WORDS.search(source(cell)), cell["id"]

    @pytest.mark.parametrize("name", ALL)
    def test_committed_outputs(self, name):
        notebook = load(name)
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
        assert notebook["metadata"]["language_info"] == {"name": "python"}
        for number, cell in enumerate(code(name), start=1):
            assert cell["execution_count"] == number
            for output in cell["outputs"]:
                assert output["output_type"] in ("stream", "execute_result", "display_data"), cell["id"]
                assert output.get("name") != "stderr", cell["id"]
                kept = {key: value for key, value in output.get("data", {}).items() if key != "image/png"}
                assert not MACHINE.search(json.dumps([kept, output.get("text", "")])), cell["id"]
        shown = [output for cell in code(name) for output in cell["outputs"] if "image/png" in output.get("data", {})]
        assert shown or name == NOTEBOOKS[-1]
        for output in shown:
            assert output["metadata"]["image/png"]["alt"]
        assert "text/html" in code(name)[-1]["outputs"][0]["data"]


class TestCells:
    """Cells whose words or numbers have to be those of other files, run by themselves."""

    def run(self, name, identity, **names):
        (cell,) = [cell for cell in load(name)["cells"] if cell["id"] == identity]
        exec(source(cell), names)
        return names

    @pytest.mark.parametrize("measured", [(), ("krpo-noise-drift",)])
    def test_amounts_of_noise_are_those_of_the_runs_or_of_the_study(self, measured):
        stated = read_yaml(CONFIG_FOLDER / "study" / "full.yaml")["experiments"]
        own = {"reward_noise": {"drift": 0.25, "drift_period": 3.0}}
        data = SimpleNamespace(experiments=measured, experiment=lambda name: own)
        shown = []
        given = {
            "data": data,
            "load": load_configuration,
            "RewardNoise": RewardNoise,
            "table": lambda *a: shown.append(a),
        }
        amounts = self.run(NOTEBOOKS[5], "06-06", **given)["amounts"]
        noisy = [name for name in stated if name.startswith("krpo-noise-")]
        assert list(amounts) == noisy and len(shown[0][1]) == 1 + len(noisy)
        assert amounts == {name: (own if name in measured else stated[name])["reward_noise"] for name in noisy}

    def test_each_run_that_ended_early_has_its_own_reason(self):
        reasons = {1: '"the gradient is not finite"', 2: '{"kind": "ungraded", "update": 3}', 3: None}
        runs = [{"experiment": "kpo", "label": "grpo", "seed": seed, "stopped": why} for seed, why in reasons.items()]
        shown = []
        names = {"folder": None, "stopped_because": stopped_because, "table": lambda *a: shown.append(a)}
        self.run(NOTEBOOKS[2], "03-17", read_runs=lambda folder: runs, **names)
        self.run(NOTEBOOKS[2], "03-17", read_runs=lambda folder: runs[2:], **names)
        assert shown[0][1] == [
            ["kpo/grpo/seed1", "the gradient is not finite"], ["kpo/grpo/seed2", "kind ungraded, update 3"],
        ]  # fmt: skip
        assert shown[1][1] == [["no measured run", ""]]
        assert "not finite" not in " ".join(shown[0][0])


class TestTables:
    def test_verdicts_come_from_the_data(self, folder):
        write_claims(configuration_of(folder.parent, METHODS))
        claims = read_json(folder / "claims.json")
        found = next(claim for claim in claims["claims"] if claim["id"] == "krpo-1-normal")
        # 0.6 against 0.5 in every seed; the control was not run.
        assert found["effect"]["estimate"]["value"] == pytest.approx(0.1)
        shown = claims_table(folder, "krpo-1-normal").markup
        assert "<b>0.1 [" in shown and ", 3 seeds</b>" in shown and f"<b>{found['verdict']}</b>" in shown
        for verdict in VERDICTS:
            found["verdict"] = verdict
            write_json(folder / "claims.json", claims)
            assert f"<b>{html.escape(verdict)}</b>" in claims_table(folder, "krpo-1-normal").markup

    def test_published_measures_are_judged(self, folder):
        assert not (folder / "claims.json").exists()
        computed = read_claims(folder)
        write_claims(configuration_of(folder.parent, METHODS))
        assert computed == read_json(folder / "claims.json")["claims"]

    def test_what_was_not_run_is_said(self, folder):
        shown = runs_table(
            folder, ["accuracy.normal"], {"kpo": None, "kpo-q": None, "krpo": ["krpo", "krpo-mean"]}
        ).plain
        rows = [line.split(" | ") for line in shown.splitlines()[1:-1]]
        assert rows == [
            ["kpo", "grpo", "**0.533** (0.5, 0.5, 0.6)"],
            ["kpo", "kpo-clipped", "**0.633** (0.6, 0.6, 0.7)"],
            ["kpo-q", "all methods", "not run here"],
            ["krpo", "krpo", "**0.633** (0.6, 0.6, 0.7)"],
            ["krpo", "krpo-mean", "not run here"],
        ]
        assert values(folder, "accuracy.normal", "kpo", "gspo") == {}
        assert "(2 x 3)" in about(folder).plain and "Missing runs: none" in about(folder).plain

    def test_nothing_measured_is_said(self, folder):
        (folder / "measures.json").unlink()
        assert read_claims(folder) == []
        assert "not judged" in claims_table(folder, "kpo-1-runs").markup
        for shown in (about(folder), claims_table(folder, "kpo-1-runs")):
            assert "Nothing is measured" in shown.markup

    def test_text_from_files_is_escaped(self, folder):
        claims = read_claims(folder)
        claims[0]["reason"] = "<script>alert(1)</script> & **<i>bold</i>**"
        write_json(folder / "claims.json", {"claims": claims})
        shown = claims_table(folder, claims[0]["id"]).markup
        assert "<script" not in shown and "&lt;script&gt;" in shown and "<i>" not in shown
        assert table(["a"], [["`x` **<b**"]]).markup.count("<code>x</code> <b>&lt;b</b>") == 1

    def test_a_notebook_keeps_the_plain_form_next_to_the_html(self):
        kept, _ = DisplayFormatter().format(table(["a", "b"], [["1", 2.0]]))
        assert kept["text/plain"] == "a | b\n1 | 2" and kept["text/html"].startswith("<table>")

    def test_opening_says_how_sure_the_papers_figure_is(self):
        claim = next(claim for claim in CLAIMS if claim.certainty == NOT_FOUND)
        shown = opening(claim.id).plain
        assert claim.statement in shown and "(figure not found)" in shown and claim.rule.describe() in shown
        with pytest.raises(ValueError, match="unknown claim 'kpo-0'"):
            opening("kpo-0")


class TestResultsFolder:
    def test_falls_back_to_the_published(self, tmp_path, monkeypatch):
        monkeypatch.setattr(support, "REPOSITORY", tmp_path)
        with pytest.raises(ValueError, match="results/laptop or results_published/laptop"):
            results_folder()
        published = tmp_path / "results_published" / "laptop"
        for name in ("config.yaml", "measures.json"):
            atomic_write(published / name, "{}")
        assert results_folder() == results_folder(tmp_path / "elsewhere" / "laptop") == published
        own = tmp_path / "results" / "laptop"
        atomic_write(own / "config.yaml", "{}")
        assert results_folder() == published and results_folder(own) == own
        atomic_write(own / "measures.json", "{}")
        assert results_folder() == own

    def test_the_related_methods_are_found_where_they_are_published(self, tmp_path, monkeypatch):
        monkeypatch.setattr(support, "REPOSITORY", tmp_path)
        atomic_write(tmp_path / "results_published" / "laptop" / "measures.json", "{}")
        assert related_folder() == tmp_path / "results_published" / "laptop"
        published = tmp_path / "results_published" / "laptop-related"
        atomic_write(published / "related_methods.json", "{}")
        assert related_folder() == published
        own = tmp_path / "results" / "laptop"
        for name in ("config.yaml", "measures.json"):
            atomic_write(own / name, "{}")
        assert related_folder() == published and related_folder(own) == own
        atomic_write(own / "related_methods.json", "{}")
        assert related_folder() == own


class TestExecution:
    def small(self, tmp_path, monkeypatch, *cells):
        """A repository whose first notebook consists of some code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text, id=f"c{i}") for i, text in cells])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["language_info"] = {"name": "python"}
        atomic_write(tmp_path / "notebooks" / f"{NOTEBOOKS[0]}.ipynb", nbformat.writes(notebook))
        atomic_write(tmp_path / "results" / "laptop" / "config.yaml", "{}")
        for module in (support, execute_notebook):
            monkeypatch.setattr(module, "REPOSITORY", tmp_path)

    def test_two_executions_give_the_same_bytes(self, tmp_path, monkeypatch):
        cells = [
            "results = None",
            "import os, sys, time\nfrom pathlib import Path\nprint(results, sys.prefix, flush=True)\n"
            "time.sleep(0.2)\nprint(os.environ['OMP_NUM_THREADS'])",
            "Path(results).name",
            "from IPython.display import Image\nImage(data=bytes.fromhex('89504e470d0a1a0a'), alt='nothing')",
        ]
        self.small(tmp_path, monkeypatch, *enumerate(cells))
        before = dict(os.environ)
        written = []
        for place in ("one", "two"):
            output = tmp_path / place / "out.ipynb"
            execute(NOTEBOOKS[0], tmp_path / "results" / "laptop", output)
            written.append(output.read_bytes())
        assert written[0] == written[1] and dict(os.environ) == before
        done = nbformat.reads(written[0].decode(), as_version=4)
        nbformat.validate(done)
        assert [cell.source for cell in done.cells] == cells and [cell.id for cell in done.cells] == list(
            "c0 c1 c2 c3".split()
        )
        assert [cell.execution_count for cell in done.cells] == [1, 2, 3, 4]
        assert done.cells[1].outputs == [{"output_type": "stream", "name": "stdout", "text": "laptop python\n1\n"}]
        assert done.cells[2].outputs[0].data["text/plain"] == "'laptop'"
        assert str(tmp_path) not in written[0].decode() and sys.prefix not in written[0].decode()
        assert "duration" not in written[0].decode() and "papermill" not in written[0].decode()

    def test_what_libraries_say_of_the_machine_goes_to_the_log(self, tmp_path, monkeypatch, capsys):
        cells = ["results = None", "import os, sys\nprint(os.environ['HOME'], file=sys.stderr)\nimport matplotlib\n1"]
        self.small(tmp_path, monkeypatch, *enumerate(cells))
        for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name, raising=False)
        written = []
        # Nobody, the superuser included, can write below a file.
        for home in (tmp_path / "home", tmp_path / "notebooks" / f"{NOTEBOOKS[0]}.ipynb" / "home"):
            monkeypatch.setenv("HOME", str(home))
            execute(NOTEBOOKS[0], tmp_path / "results" / "laptop", tmp_path / "out.ipynb")
            written.append((tmp_path / "out.ipynb").read_bytes())
            assert str(home) in capsys.readouterr().err
        assert written[0] == written[1] and b'"name": "stderr"' not in written[0]
        assert json.loads(written[0])["cells"][1]["outputs"][0]["data"]["text/plain"] == "1"

    def test_a_failing_cell_is_one_line_and_writes_nothing(self, tmp_path, monkeypatch, capsys):
        self.small(tmp_path, monkeypatch, (0, "results = None"), (1, "x = 1\nraise KeyError('no such\\nrun')"))
        output = tmp_path / "out" / "done.ipynb"
        arguments = [
            "notebook",
            NOTEBOOKS[0],
            "--results",
            str(tmp_path / "results" / "laptop"),
            "--output",
            str(output),
        ]
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "cell 'x = 1' failed: KeyError: 'no such\\nrun'" in message
        assert [path.name for path in output.parent.iterdir()] == ["done.failed.ipynb"]

    def test_wrong_arguments(self, tmp_path, capsys):
        assert main(["notebook", "08_nothing", "--output", str(tmp_path / "x")]) == 2
        assert "unknown notebook '08_nothing'; known are 01_kalman" in capsys.readouterr().err
        assert main(["notebook", NOTEBOOKS[0], "--results", str(tmp_path / "no"), "--output", str(tmp_path / "x")]) == 2
        assert "no measured results in" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_paper_figure_is_its_file_with_its_words(tmp_path, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    write_figure(tmp_path / "figures", "structure", png(200, 100, 40))
    assert support.paper_figure("structure", tmp_path) is None
    data, metadata = shown[0]._repr_mimebundle_()
    picture = base64.b64decode(data["image/png"]) if isinstance(data["image/png"], str) else data["image/png"]
    assert struct.unpack(">II", picture[16:24]) == (110, 55)
    assert metadata["image/png"]["alt"] == "What structure is about."
    (tmp_path / "figures" / "structure.json").unlink()
    assert "Not drawn from these results" in support.paper_figure("structure", tmp_path).plain and len(shown) == 1


def test_pictures_are_png_with_their_words(monkeypatch):
    import IPython.display

    from paper_figures import style

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    with style.applied():
        figure = style.new_figure(1.0, "Title", "Caption.")
        figure.subplots().plot([0, 1], [0, 1])
    support.show(figure, "a line")
    data, metadata = shown[0]._repr_mimebundle_()
    picture = base64.b64decode(data["image/png"]) if isinstance(data["image/png"], str) else data["image/png"]
    width, _ = struct.unpack(">II", picture[16:24])
    assert picture.startswith(b"\x89PNG") and width == round(style.WIDTH * support.DPI * support.SHARE)
    assert metadata["image/png"]["alt"] == "a line" and b"tEXt" not in picture
