"""Figures of claims under the full study: they show what the files say, and nothing overlaps."""

import importlib
import itertools
import json
import math
import shutil

import numpy as np
import pytest

from paper_figures import (
    ENTRIES,
    FIGURES,
    accuracy_gains,
    gain_schedule,
    krpo_group_size,
    krpo_order,
    krpo_parts,
    krpo_sensitivity,
    noisy_rewards,
    overhead,
    smoothing,
    stress_curves,
    stress_ladder,
    style,
)
from paper_figures.cells import which_seeds
from paper_figures.measured import Claims, Measures
from paper_figures.results import NotConfigured, Results, ResultsError
from reproduction.claims.kpo_training import COLLAPSES, LADDER
from reproduction.claims.paper_tables import KRPO_ARITHMETIC
from reproduction.jobs.files import read_json, write_json
from reproduction.related.comparison import write_comparison
from reproduction.settings.configuration import load
from tests.drawn_figures import draw, marks, raw, words
from tests.related_results import write_related
from tests.synthetic_study import SMALL, write_study

FULL = load({"study": "full"}).experiments


@pytest.fixture(scope="module")
def related(tmp_path_factory):
    """Results of the related methods, some runs of which are missing."""
    configuration = write_related(tmp_path_factory.mktemp("related"), ["related/pods/seed6", "related/gmpo/seed6"])
    write_comparison(configuration)
    return configuration.folder


@pytest.fixture(scope="module")
def drawn(full_study, related):
    """The figures of the full study by name, and that of the related methods, each drawn once, to the last label."""

    class Drawn(dict):
        def __missing__(self, name):
            self[name] = draw(name, related if name == "related_methods" else full_study)
            return self[name]

    return Drawn()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_and_every_claim_is_named(name, drawn):
    figure = drawn[name]
    found = words(figure)
    for claim in ENTRIES[name].claims:
        # A gain's name is below its marks; there the claim is told by place, tested below.
        assert claim in found or name == "accuracy_gains", claim
    with style.applied():
        renderer = figure.canvas.get_renderer()
        boxes = [artist.get_window_extent(renderer) for artist in [*figure.texts, *figure.legends]]
        panels = [panel.get_tightbbox(renderer) for panel in figure.axes]
        inside = [
            [text.get_window_extent(renderer) for text in panel.texts if text.get_text()] for panel in figure.axes
        ]
        ticks = [
            [label.get_window_extent(renderer) for label in panel.get_xticklabels() if label.get_text()]
            for panel in figure.axes
            if panel.get_xaxis().get_tick_params().get("labelbottom", True)
        ]
    page = figure.bbox
    for box in [*boxes, *panels, *(box for group in inside for box in group)]:
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1
    for first, second in itertools.combinations([*boxes, *panels], 2):
        assert not _overlap(first, second), f"{first} overlaps {second}"
    for group in [*inside, *ticks]:
        for first, second in itertools.combinations(group, 2):
            assert not _overlap(first, second), f"{name}: {first} overlaps {second}"
    sizes = [text.get_fontsize() for panel in figure.axes for text in [*panel.get_xticklabels(), *panel.texts]]
    assert min([*sizes, *(text.get_fontsize() for text in figure.texts)]) >= 7


def _overlap(first, second) -> bool:
    """Whether two boxes share more than the pixel in which both may end."""
    wide = min(first.x1, second.x1) - max(first.x0, second.x0)
    high = min(first.y1, second.y1) - max(first.y0, second.y0)
    return wide > 1.5 and high > 1.5


def test_equal_results_give_equal_bytes(full_study, drawn, tmp_path, capsys, monkeypatch):
    """Written twice, apart in time, and with other drawing in between."""
    names = ("krpo_order", "training_curves")
    for folder, date in (("first", "0"), ("second", "1700000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
        for name in names:
            arguments = ["--results", str(full_study), "--output", str(tmp_path / folder)]
            assert importlib.import_module(f"paper_figures.{name}").main(arguments) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    second = {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert set(first) == {f"{name}.{suffix}" for name in names for suffix in ("pdf", "png", "json")}
    assert [name for name in first if first[name] != second[name]] == []
    starts = {"pdf": b"%PDF-", "png": b"\x89PNG", "json": b"{"}
    assert all(data.startswith(starts[name.split(".")[1]]) for name, data in first.items())
    for name in names:
        record = json.loads(first[f"{name}.json"])
        drawn_words = words(drawn[name])
        assert record["title"] in drawn_words and record["caption"] in drawn_words and len(record["about"]) > 20
        assert tuple(record["claims"]) == ENTRIES[name].claims and tuple(record["files"]) == ENTRIES[name].files
        assert record["missing"] == []
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(first)


class TestRelatedMethods:
    def test_it_shows_the_record(self, drawn, related):
        figure, record = drawn["related_methods"], read_json(related / "related_methods.json")
        forest_panel, *budgets = figure.axes
        labels = [label.get_text() for label in forest_panel.get_yticklabels()]
        assert len(labels) == len(record["rows"]) and labels[-1] == f"raft [{len(labels)}]"
        marks = [line.get_xydata()[0] for line in forest_panel.lines if len(line.get_xydata()) == 1]
        for place, row in enumerate(record["rows"]):
            value = 100 * (row["difference"] or {"value": 0.0})["value"]
            assert any(np.allclose(mark, (value, place)) for mark in marks), row["label"]
        for panel, budget in zip(budgets, ("generated_tokens", "update_tokens"), strict=True):
            marks = [line.get_xydata()[0] for line in panel.lines if len(line.get_xydata()) == 1]
            for row in record["rows"]:
                at = (row[budget] / 1000, 100 * row["accuracy"]["value"])
                assert any(np.allclose(mark, at) for mark in marks), row["label"]
        assert "related/pods seed 6" in words(figure) and "seeds 7, 8, 9, 10, 11" in words(figure)

    def test_budgets_that_were_not_recorded_are_said_to_be(self, tmp_path):
        configuration = write_related(tmp_path, budgets=False)
        with pytest.raises(ResultsError, match="related_methods.json: missing; compare the methods"):
            draw("related_methods", configuration.folder)
        write_comparison(configuration)
        assert words(draw("related_methods", configuration.folder)).count("not recorded") == 2


class TestMeasures:
    def test_missing_and_undefined_are_named_not_averaged_over(self, tmp_path):
        def values(experiment, label, seed, measures):
            if (experiment, label, seed) == ("kpo", "gspo", 3):
                measures["entropy_fall"] = None
            if (experiment, label) == ("kpo", "grpo"):
                measures["reward_late"] = 0.1 * seed

        configuration = write_study(tmp_path, study=None, missing=("kpo/grpo/seed2",), values=values, **SMALL)
        measures = Measures(Results(configuration.folder))
        assert measures.of("reward_late", ("kpo", "grpo")) == pytest.approx({1: 0.1, 3: 0.3})
        assert measures.missing == ["kpo/grpo seed 2"]
        figure = draw("stress_ladder", configuration.folder)
        assert "kpo/grpo seed 2" in words(figure)
        assert "kpo/gspo seed 3 (entropy_fall is undefined)" in words(figure)
        assert "2 to 3 seeds (some are missing)" in words(figure)

    def test_a_run_that_is_neither_there_nor_named_is_refused(self, plain):
        path = plain.folder / "measures.json"
        found = read_json(path)
        write_json(path, found | {"runs": found["runs"][1:]})
        with pytest.raises(ResultsError, match="kpo/grpo/seed1 of the configuration is not there"):
            stress_ladder.draw(Results(plain.folder))

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("measures.json", None, "measures.json: missing"),
            ("claims.json", None, "claims.json: missing"),
            ("measures.json", {"scale": "smoke"}, "not of scale 'laptop'"),
            ("claims.json", [], "not of scale 'laptop'"),
            (
                "measures.json",
                {"scale": "laptop", "runs": [{}], "missing": []},
                "not what python -m reproduction measure writes",
            ),
            ("claims.json", {"scale": "laptop", "seeds": [9], "claims": [], "missing": []}, "of the seeds"),
            ("claims.json", {"scale": "laptop", "seeds": [1, 2, 3], "claims": [], "missing": []}, "no claim"),
        ],
    )
    def test_files_that_do_not_fit_are_refused_in_one_line(self, plain, tmp_path, capsys, name, content, message):
        path = plain.folder / name
        path.unlink() if content is None else path.write_text(json.dumps(content))
        assert stress_ladder.main(["--results", str(plain.folder), "--output", str(tmp_path / "out")]) == 2
        output = capsys.readouterr()
        assert message in output.err and len(output.err.splitlines()) == 1 and not (tmp_path / "out").exists()

    def test_points_of_a_sweep_are_means_over_the_same_seeds(self, full_study):
        measures = Measures(Results(full_study))
        found = measures.shared("reward_late", [("kpo-stress-2", "grpo"), ("kpo-clips", "grpo-wide")])
        assert [list(by_seed) for by_seed in found.values()] == [[1, 2, 3], [1, 2, 3]]
        assert which_seeds(found.values()) == "seeds 1, 2, 3"
        assert which_seeds([{1: 0.0, 2: 0.0}, {1: 0.0}]) == "1 to 2 seeds" and which_seeds([]) == "no seed"

    def test_a_sweep_that_is_not_configured_is_said(self, plain):
        for module in (smoothing, noisy_rewards, stress_curves):
            with pytest.raises(NotConfigured, match="which this figure shows"):
                module.draw(Results(plain.folder))


class TestNumbers:
    def test_stress_ladder(self, full_study, drawn):
        figure = drawn["stress_ladder"]
        expected = [
            np.mean(list(raw(full_study, "reward_half", rung, method).values()))
            for rung in (*LADDER, COLLAPSES)
            for method in stress_ladder.METHODS
            if method in FULL[rung].methods
        ]
        assert marks(figure.axes[0]) == pytest.approx(expected)
        # 8 minibatches twice over.
        labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
        rates = [FULL[name].training.learning_rate for name in (*LADDER, COLLAPSES)]
        assert labels == [
            f"{updates} updates\nrate {rate:g}" for updates, rate in zip((4, 8, 16, 16), rates, strict=True)
        ]

    def test_stress_curves_end_where_a_run_stopped(self, full_study, drawn):
        results = Results(full_study)
        stopped = stress_curves.curves(results, "kpo-stress-3", "kpo-unclipped")[1]
        assert np.isfinite(stopped[:2]).all() and np.isnan(stopped[2:]).all() and len(stopped) == 4
        figure = drawn["stress_curves"]
        crosses = [
            (index, line) for index, panel in enumerate(figure.axes) for line in panel.lines if line.get_marker() == "x"
        ]
        ((index, cross),) = crosses
        assert index == 2 * len(stress_ladder.METHODS) + stress_ladder.METHODS.index("kpo-unclipped")
        assert list(cross.get_xdata()) == [2]

    def test_accuracy_gains(self, full_study, drawn):
        figure = drawn["accuracy_gains"]
        records = {record["id"]: record for record in read_json(full_study / "claims.json")["claims"]}
        expected = []
        for level in KRPO_ARITHMETIC:
            record = records[f"krpo-1-{level}"]
            for part in (record["effect"], record["controls"][0]["effect"]):
                expected.append(100 * part["estimate"]["value"])
        right = figure.axes[1]
        assert marks(right) == pytest.approx(expected)
        paper = [line.get_ydata()[0] for line in right.lines if line.get_marker() == accuracy_gains.PAPER_MARK]
        assert paper == [gain.points for gain in KRPO_ARITHMETIC.values()]
        verdicts = [text.get_text().replace("\n", " ") for text in right.texts]
        assert len(verdicts) == 3 and all(verdicts)
        # KPO over GRPO in the paper: 37.91 - 27.29 on AIME'24.
        left = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "^"]
        assert left[0] == pytest.approx(10.62)

    def test_smoothing_ratios(self, full_study, drawn):
        results = Results(full_study)
        assert smoothing.variance_ratio(results, smoothing.STATED) == pytest.approx(17**-2)
        assert smoothing.variance_ratio(results, ("kpo-q", "kpo-weakest")) == 34.6
        panel = drawn["smoothing"].axes[0]
        assert [text.get_text() for text in panel.texts] == ["1e-6", "1e-2"]

    def test_gains_by_the_recursion(self):
        ratio, variance = 1 / 17**2, 0.0
        for found in gain_schedule.gains(ratio, 200):
            gain = (variance + ratio) / (variance + ratio + 1)
            variance = gain
            assert found == pytest.approx(gain, rel=1e-9)
        assert gain_schedule.steady_gain(ratio) == pytest.approx(gain, rel=1e-6)

    def test_overhead_is_percent_over_the_same_seed_relative_to_sampling(self, tmp_path):
        def values(experiment, label, seed, measures):
            if experiment == "kpo":
                # Other work slows sampling and updates of a run alike.
                slower = seed if label == "grpo" else 2.0
                measures["log_update_seconds"] = math.log(slower * (1.05 if label == "kpo-clipped" else 1.0))
                measures["log_sampling_seconds"] = math.log(slower)

        configuration = write_study(tmp_path, study=None, values=values, **SMALL)
        table = overhead.extra_time(Measures(Results(configuration.folder)), "kpo", "log_update_seconds")
        assert table["kpo-clipped"] == pytest.approx({1: 5.0, 2: 5.0, 3: 5.0})
        assert table["gspo"] == pytest.approx(dict.fromkeys((1, 2, 3), 0.0), abs=1e-9)

    def test_group_size_gaps_by_hand(self, full_study):
        table = Measures(Results(full_study)).shared(
            "late_accuracy.normal", [("krpo-group4", "krpo"), ("krpo-group4", "grpo")]
        )
        found = krpo_group_size.gap(table, "krpo-group4", "krpo")
        own, other = (raw(full_study, "late_accuracy.normal", "krpo-group4", label) for label in ("krpo", "grpo"))
        assert found == pytest.approx({seed: 100 * (own[seed] - other[seed]) for seed in (1, 2, 3)})

    def test_sensitivity_finds_runs_by_their_settings(self, full_study):
        results = Results(full_study)
        assert krpo_sensitivity.variants(results, "observation_variance") == {
            0.001: ("krpo-qr", "krpo-r1e-3"), 0.01: ("krpo", "krpo"), 0.1: ("krpo-qr", "krpo-r1e-1"),
        }  # fmt: skip
        assert list(krpo_sensitivity.variants(results, "process_variance")) == [1e-5, 1e-3]
        assert list(krpo_sensitivity.variants(results, "kl_weight")) == [0.0, 0.01, 0.05, 0.1]

    def test_collapsed_runs_are_counted_in_the_figure(self, full_study, tmp_path):
        for name in ("config.yaml", "measures.json", "claims.json"):
            shutil.copy(full_study / name, tmp_path / name)
        found = read_json(tmp_path / "measures.json")
        for row in found["runs"]:
            row["values"]["collapse"] = float(row["label"] == "krpo-r1e-3" and row["seed"] != 2)
        write_json(tmp_path / "measures.json", found)
        assert "2 of 3" in words(draw("krpo_sensitivity", tmp_path))

    def test_order_and_parts_are_differences_of_the_same_seed(self, full_study):
        measures = Measures(Results(full_study))
        own, other = (
            raw(full_study, "late_accuracy.normal", *cell) for cell in (("krpo-order", "krpo-sorted"), ("krpo", "krpo"))
        )
        found = krpo_order.changes(measures, "late_accuracy.normal")["ascending"]
        assert found == pytest.approx({seed: 100 * (own[seed] - other[seed]) for seed in (1, 2, 3)})
        own, other = (raw(full_study, "reward_area", "krpo", label) for label in ("krpo-mean", "grpo"))
        found = krpo_parts.over_grpo(measures, "reward_area")["krpo-mean"]
        assert found == pytest.approx({seed: 100 * (own[seed] - other[seed]) for seed in (1, 2, 3, 4, 5)})

    def test_noise_is_named_with_its_size(self):
        assert noisy_rewards.noise_label({"gaussian": 0.5}).endswith("standard deviation 0.5")
        assert noisy_rewards.noise_label({"flips": 0.2}).endswith("chance 0.2")
        drift = noisy_rewards.noise_label({"drift": 0.4, "drift_period": 8.0, "drift_in_group": 0.3})
        assert "by 0.4 in 8 batches" in drift and "by 0.3 within a group" in drift
        assert noisy_rewards.noise_label({}) == "no noise"

    def test_captions_carry_effect_and_verdict_of_the_file(self, plain):
        path = plain.folder / "claims.json"
        record = read_json(path)
        claim = next(claim for claim in record["claims"] if claim["id"] == "kpo-6-schedule")
        claim["effect"]["estimate"] |= {"value": 0.123, "low": 0.1, "high": 0.15}
        claim["verdict"] = "not reproduced"
        write_json(path, record)
        assert "kpo-6-schedule: 0.12 [0.1, 0.15], not reproduced" in words(draw("gain_schedule", plain.folder))
        assert Claims(Results(plain.folder)).line("kpo-5-smoothing") == "kpo-5-smoothing: not tested at this scale"
