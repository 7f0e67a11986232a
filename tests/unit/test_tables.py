"""The papers' tables: cells agree with other sources, our numbers are the verdicts' and the summary's, else empty."""

import re
import shutil

import pytest

from reproduction.claims import CLAIMS
from reproduction.claims.one_run import ClaimsError
from reproduction.claims.paper_tables import (
    KPO_BENCHMARKS,
    KPO_METHODS,
    KPO_SWITCH_FREQUENCY,
    KPO_TABLE_1,
    KRPO_ARITHMETIC,
    STATED_ELSEWHERE,
    kpo_gains,
)
from reproduction.claims.tables import write_tables
from reproduction.jobs.files import read_json, write_json
from tests.synthetic_study import write_study

CLAIM = {claim.id: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    configuration = write_study(tmp_path_factory.mktemp("study"), problems=6, response_length=12)
    write_tables(configuration)
    return configuration


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("plain"), study=None, problems=6, response_length=12)


@pytest.fixture
def plain(template, tmp_path):
    """The default's own experiments, to be changed by a test."""
    (tmp_path / "laptop").mkdir()
    for name in ("summary.json", "claims.json"):
        shutil.copy(template.folder / name, tmp_path / "laptop" / name)
    return template.model_copy(update={"results": str(tmp_path)})


def tables(configuration) -> dict[str, dict]:
    return {table["id"]: table for table in read_json(configuration.folder / "tables.json")["tables"]}


class TestPaper:
    @pytest.mark.parametrize("baseline", ["grpo", "gspo", "gmpo"])
    def test_cells_agree_with_what_the_claims_quote(self, baseline):
        """The claims state KPO's figures in their own words; both must say the same."""
        quoted = re.findall(
            r"(AIME'24|MATH-500|Minerva)\D*?(?:avg@16 )?\(?(\d+\.\d+) against (\d+\.\d+)",
            CLAIM[f"kpo-4-over-{baseline}"].paper_says.replace("on Minerva below", "Minerva"),
        )
        assert len(quoted) >= 2
        for benchmark, kpo, other in quoted:
            assert KPO_TABLE_1["kpo-clipped", benchmark].average == float(kpo)
            assert KPO_TABLE_1[baseline, benchmark].average == float(other)

    def test_other_figures_agree_with_what_the_claims_quote(self):
        for level, gain in KRPO_ARITHMETIC.items():
            assert CLAIM[f"krpo-1-{level}"].paper_says == f"{gain.points:+g} points"
            assert gain.certainty == CLAIM[f"krpo-1-{level}"].certainty
        before, after = KPO_SWITCH_FREQUENCY.values()
        assert f"{before:g} -> {after:g}" in CLAIM["kpo-2-switching"].paper_says

    @pytest.mark.parametrize("place", sorted(KPO_TABLE_1), ids=str)
    def test_cells_are_possible(self, place):
        """16 samples of each problem: avg@16 is a multiple of 1 / (16 n), pass@16 of 1 / n, up to the last digit."""
        score = KPO_TABLE_1[place]
        (problems,) = [benchmark.problems for benchmark in KPO_BENCHMARKS if benchmark.name == place[1]]
        for value, count in ((score.average, 16 * problems), (score.passed, problems)):
            if value is not None and count < 5000:  # finer steps than the printed digits exclude nothing
                assert abs(100 * round(value / 100 * count) / count - value) < 0.0101
        assert place[0] in KPO_METHODS and score.certainty == "second-hand"

    def test_gains_by_hand(self):
        assert kpo_gains("kpo-clipped", "grpo") == pytest.approx(
            {"AIME'24": 10.62, "AIME'25": 13.75, "MATH-500": 3.76, "Minerva": -0.44}
        )
        assert kpo_gains("kpo-unclipped", "grpo") == pytest.approx({"Minerva": 0.48})

    def test_stated_elsewhere_are_claims(self):
        assert set(STATED_ELSEWHERE) <= set(CLAIM)


class TestMeasured:
    def test_paper_and_ours_stand_in_rows_of_their_own(self, study):
        table = tables(study)["kpo-table-1"]
        row = {(label, whose): cells for label, whose, *cells in table["rows"] if label}
        assert table["columns"][2:5] == ["AIME'24", "AIME'25", "MATH-500"]
        assert row["KPO clipped", "paper"][:4] == [
            "37.91 / 63.33 (s)", "36.87 / 60.00 (s)", "89.42 / 94.80 (s)", "38.23 / – (s)",
        ]  # fmt: skip
        assert row["base model", "paper"] == [""] * 6
        # No benchmark of the paper was measured at this scale.
        assert all(cells == [""] * 6 for label, whose, *cells in table["rows"] if whose == "here")
        assert all(value["measured"] is None for value in table["values"])

    def test_a_measured_benchmark_fills_its_cell(self, plain):
        path = plain.folder / "summary.json"
        summary = read_json(path)
        measured = {
            "experiment": "kpo", "method": "gspo", "split": "aime24", "seeds": [1, 2, 3], "num_problems": 30,
            "samples_per_problem": 16, "avg_at_k": 0.123, "avg_at_k_interval": [0.1, 0.15], "pass_at_k": 0.4,
            "greedy": 0.1, "per_seed": {"1": 0.123},
        }  # fmt: skip
        write_json(path, summary | {"rows": [*summary["rows"], measured]})
        write_tables(plain)
        rows = tables(plain)["kpo-table-1"]["rows"]
        place = next(index for index, row in enumerate(rows) if row[0] == "GSPO")
        assert rows[place + 1] == ["", "here", "12.3 [10.0, 15.0] / 40.0", *[""] * 5]

    def test_the_untrained_model_of_the_hub_has_its_row(self, plain):
        """If each experiment has its own model, the untrained evaluation is a row of that experiment."""
        path = plain.folder / "summary.json"
        summary = read_json(path)
        measured = {
            "experiment": "kpo", "method": "base", "split": "aime24", "seeds": [1, 2, 3], "num_problems": 30,
            "samples_per_problem": 16, "avg_at_k": 0.05, "avg_at_k_interval": [0.02, 0.1], "pass_at_k": 0.2,
            "greedy": 0.1, "per_seed": {"1": 0.05},
        }  # fmt: skip
        write_json(path, summary | {"rows": [*summary["rows"], measured]})
        write_tables(plain)
        (here,) = [
            rows[index + 1]
            for rows in [tables(plain)["kpo-table-1"]["rows"]]
            for index, row in enumerate(rows)
            if row[0] == "base model"
        ]
        assert here == ["", "here", "5.0 [2.0, 10.0] / 20.0", *[""] * 5]

    def test_a_row_of_fewer_seeds_says_so(self, plain):
        path = plain.folder / "summary.json"
        summary = read_json(path)
        for row in summary["rows"]:
            if (row["experiment"], row["method"]) == ("krpo", "grpo"):
                row["seeds"] = [2]
        write_json(path, summary)
        write_tables(plain)
        rows = tables(plain)["krpo-arithmetic"]["rows"]
        assert all(row[3].endswith(" (only seed 2)") and "only" not in row[4] for row in rows)

    def test_arithmetic_is_that_of_summary_and_claims(self, study):
        table = tables(study)["kpo-arithmetic"]
        assert "not the paper's task" in table["note"]
        rows = {row[0]: row[1:] for row in table["rows"]}
        (expected,) = [
            row
            for row in read_json(study.folder / "summary.json")["rows"]
            if (row["experiment"], row["method"], row["split"]) == ("kpo", "gmpo", "hard")
        ]
        low, high = (100 * end for end in expected["avg_at_k_interval"])
        assert rows["GMPO"][2] == (
            f"{100 * expected['avg_at_k']:.1f} [{low:.1f}, {high:.1f}] / {100 * expected['pass_at_k']:.1f}"
        )
        claims = {claim["id"]: claim for claim in read_json(study.folder / "claims.json")["claims"]}
        effect = claims["kpo-4-over-gmpo"]["effect"]["estimate"]
        assert rows["GMPO"][3].startswith(f"{100 * effect['value']:+.1f} [")
        assert rows["GMPO"][4] == claims["kpo-4-over-gmpo"]["verdict"]
        assert rows["base model"][3:] == ["", ""] and rows["KPO clipped"][3:] == ["", ""]
        assert {"kpo-ema", "kpo-unit"} < set(rows)

    def test_one_number_of_a_verdict_moves_the_table(self, plain):
        write_tables(plain)
        before = {row[0]: row for row in tables(plain)["krpo-arithmetic"]["rows"]}
        path = plain.folder / "claims.json"
        record = read_json(path)
        claim = next(claim for claim in record["claims"] if claim["id"] == "krpo-1-normal")
        claim["effect"]["estimate"] |= {"value": 0.054, "low": -0.001, "high": 0.109}
        claim["verdict"] = "reproduced"
        write_json(path, record)
        write_tables(plain)
        after = {row[0]: row for row in tables(plain)["krpo-arithmetic"]["rows"]}
        assert after["easy"] == before["easy"] and after["normal"] != before["normal"]
        assert after["normal"][1:3] == ["+5.4 (s)", "+5.4 [-0.1, +10.9]"] and after["normal"][-1] == "reproduced"
        # Without the study's control there is nothing in its column.
        assert after["normal"][5] == ""

    def test_what_was_not_tested_is_empty(self, plain):
        write_tables(plain)
        rows = {row[0]: row[1:] for row in tables(plain)["directions"]["rows"]}
        assert rows["krpo-2-groups"][1:] == ["", "not tested at this scale"]
        assert rows["kpo-2-level"][1].startswith("switch frequency of the filtered log-ratios")
        assert all(row[2] == "" for row in tables(plain)["krpo-openmath"]["rows"])

    def test_equal_results_give_equal_bytes(self, study):
        first = [(study.folder / f"tables.{suffix}").read_bytes() for suffix in ("json", "md")]
        write_tables(study)
        assert first == [(study.folder / f"tables.{suffix}").read_bytes() for suffix in ("json", "md")]

    def test_page_has_every_row_and_breaks_no_table(self, plain):
        path = plain.folder / "claims.json"
        record = read_json(path)
        claim = next(claim for claim in record["claims"] if claim["id"] == "kpo-2-level")
        claim["paper_says"] = "a | b <script>alert(1)</script>\nc"
        write_json(path, record)
        write_tables(plain)
        page = (plain.folder / "tables.md").read_text()
        assert "<script>" not in page and "a \\| b &lt;script&gt;alert(1)&lt;/script&gt; c (s)" in page
        for table in tables(plain).values():
            assert f"## {table['title']}" in page
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")]
        assert len(widths) == sum(len(table["rows"]) + 2 for table in tables(plain).values())
        assert sorted(set(widths)) == sorted({len(table["columns"]) + 1 for table in tables(plain).values()})


class TestRefusals:
    @pytest.mark.parametrize("name", ["summary.json", "claims.json"])
    def test_missing_torn_and_strange_files_are_named(self, plain, name):
        path = plain.folder / name
        found = read_json(path)
        for content, message in (
            (found | {"scale": "smoke"}, "of scale 'smoke'"),
            ({"scale": "laptop"}, "no list"),
            ([], "no list"),
        ):
            write_json(path, content)
            with pytest.raises(ClaimsError, match=f"{name}.*{message}"):
                write_tables(plain)
        path.write_text('{"half')
        with pytest.raises(ClaimsError, match=name):
            write_tables(plain)
        path.unlink()
        with pytest.raises(ClaimsError, match=f"{name} is missing"):
            write_tables(plain)

    def test_a_claim_that_is_not_there(self, plain):
        path = plain.folder / "claims.json"
        record = read_json(path)
        record["claims"] = [claim for claim in record["claims"] if claim["id"] != "krpo-1-hard"]
        write_json(path, record)
        with pytest.raises(ClaimsError, match="krpo-1-hard"):
            write_tables(plain)
