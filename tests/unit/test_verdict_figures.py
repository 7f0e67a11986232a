"""The pages of verdicts and of looks: each claim's effect, interval, rule and controls, in units of its margin."""

import numpy as np
import pytest

from paper_figures import ENTRIES, accuracy_gains, forest, looks
from reproduction.claims import CLAIMS
from reproduction.jobs.files import read_json, write_json
from tests.drawn_figures import draw, words
from tests.synthetic_study import SMALL, write_study


@pytest.fixture(scope="module")
def page(full_study):
    return draw("verdicts_kpo", full_study)


class TestForest:
    def test_units_of_the_margin_by_hand(self):
        above = {"kind": "above", "margin": 0.02, "target": 0.0}
        mark = forest.in_margins({"value": 0.03, "low": -0.01, "high": 0.05}, above)
        assert (mark.value, mark.low, mark.high) == pytest.approx((1.5, -0.5, 2.5))
        equal = {"kind": "equal", "margin": 0.05, "target": 0.43}
        assert forest.in_margins({"value": 0.405, "low": None, "high": None}, equal).value == pytest.approx(-0.5)
        assert forest.shown_where(equal) == (-1.0, 1.0) and forest.rule_text(equal) == "0.43 \u00b1 0.05"
        assert forest.shown_where(above)[0] == 1.0 and forest.shown_where({**above, "kind": "at most"})[1] == 1.0

    def test_rows_hold_effect_verdict_and_controls_of_the_file(self, full_study, page):
        records = {record["id"]: record for record in read_json(full_study / "claims.json")["claims"]}
        panel = page.axes[2]
        drawn = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "None"]
        expected = []
        for claim_id in ENTRIES["verdicts_kpo"].claims:
            record = records[claim_id]
            for part in (record["effect"], *(control["effect"] for control in record["controls"])):
                value = forest.in_margins(part["estimate"], record["rule"]).value
                expected.append(min(forest.LIMIT, max(-forest.LIMIT, value)))
            assert record["verdict"] in words(page)
        assert drawn == pytest.approx(expected)

    def test_every_verdict_has_a_look(self):
        from reproduction.claims import VERDICTS

        assert set(forest.VERDICTS) == set(VERDICTS) == set(accuracy_gains.VERDICT_MARKS)

    def test_without_the_study_claims_are_shown_as_not_run(self, plain):
        figure = draw("verdicts_kpo", plain.folder)
        assert words(figure).count("not tested at this scale") >= 4
        assert all(claim.id in words(figure) for claim in CLAIMS if claim.id.startswith("kpo-"))

    def test_text_of_a_file_is_text(self, plain):
        path = plain.folder / "claims.json"
        record = read_json(path)
        claim = next(claim for claim in record["claims"] if claim["id"] == "kpo-7-overhead")
        claim["statement"] = "A $\\frac{1}{2 formula, <b>bold</b> and " + "x" * 200
        write_json(path, record)
        assert "$\\frac{1}{2" in words(draw("verdicts_kpo", plain.folder))

    def test_a_missing_run_is_named(self, tmp_path):
        configuration = write_study(tmp_path, study=None, missing=("kpo/grpo/seed2",), **SMALL)
        assert "Not in this figure: kpo/grpo/seed2." in words(draw("verdicts_kpo", configuration.folder))
        assert "Not in this figure" not in words(draw("verdicts_krpo", configuration.folder))


class TestLooks:
    def test_lines_hold_each_look_of_the_file(self, tmp_path):
        """Bars and marks in the order of claims and looks, by hand from claims.json; a bar never widens."""
        folder = write_study(tmp_path, seeds=list(range(6, 30)), **SMALL).folder
        figure = draw("looks", folder)
        records = {record["id"]: record for record in read_json(folder / "claims.json")["claims"]}
        expected, sizes = [], []
        for claim_id in ENTRIES["looks"].claims:
            record = records[claim_id]
            unit, target = record["rule"]["margin"] or 1.0, record["rule"]["target"]
            for look in record["looks"]:
                numbers = [(look[key] - target) / unit for key in ("low_so_far", "high_so_far", "value")]
                expected.append([min(forest.LIMIT, max(-forest.LIMIT, number)) for number in numbers])
                sizes.append(str(look["seeds"]))
            lows, highs = ([look[end] for look in record["looks"]] for end in ("low_so_far", "high_so_far"))
            assert lows == sorted(lows) and highs == sorted(highs, reverse=True)
        assert {"6", "12", "24"} == set(sizes)
        drawn, written = [], []
        for names, panel in (figure.axes[:2], figure.axes[2:]):
            level = [line for line in panel.lines if len(set(line.get_ydata())) == 1]
            bars = [line.get_xdata() for line in level if len(line.get_xdata()) == 2]
            marks = [line.get_xdata() for line in level if len(line.get_xdata()) == 1]
            drawn += [[*bar, *mark] for bar, mark in zip(bars, marks, strict=True)]
            written += [text.get_text() for text in names.texts if text.get_text().isdigit()]
        assert written == sizes and np.allclose(drawn, expected)

    def test_a_study_before_its_first_look(self, tmp_path):
        figure = draw("looks", write_study(tmp_path, seeds=[6, 7], **SMALL).folder)
        assert all(claim.id in figure.caption.partition("No look yet: ")[2] for claim in CLAIMS)
        assert not any(panel.texts for panel in figure.axes)

    def test_columns_are_about_as_high(self):
        records = [{"looks": [{"low_so_far": 0.0}] * number} for number in (1, 4, 2, 1, 1, 3)]
        assert [len(half) for half in looks._halves(records)] == [3, 3]


def test_the_title_says_the_paper(page):
    assert "arXiv 2602.10609" in page.texts[0].get_text() and "laptop scale" in page.texts[0].get_text()
