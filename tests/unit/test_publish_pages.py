"""What readers see of published results: the README says what the files say, and what changed since the first study."""

from reproduction.claims.page import without_dead_links
from reproduction.jobs.files import atomic_write, read_json, write_json
from reproduction.publish.changes import changes_page
from reproduction.publish.pages import decided_rows, readme_block, results_page, verdict_line
from reproduction.publish.publish import END, START, publish
from reproduction.settings.configuration import dump


class TestReadme:
    def test_block_is_made_from_the_published_files(self, finished):
        configuration, repository = finished
        publish(configuration, repository)
        text = (repository / "README.md").read_text()
        published = repository / "results_published/laptop"
        assert text == f"# A title\n\n{START}\n{readme_block(published)}{END}\n\nThe rest.\n"
        page = (published / "README.md").read_text()
        tables = [line for line in (published / "summary.md").read_text().splitlines() if line.startswith("|")]
        claims = read_json(published / "claims.json")["claims"]
        assert [line for line in page.splitlines() if line.startswith("|")] == tables + decided_rows(
            claims, "claims.md"
        )
        assert "2 cores of made-up processor (commit 0123456789)" in text
        inconclusive = sum(claim["verdict"] == "inconclusive" for claim in claims)
        assert inconclusive and f"{inconclusive} inconclusive" in text
        assert f"{len(claims)} claims" in text and "(results_published/laptop/claims.md)" in text

    def test_every_verdict_is_counted(self):
        given = ["reproduced", "not reproduced", "reproduced", "reproduced, but the control does as well"]
        line = verdict_line([{"verdict": verdict} for verdict in given], "page.md")
        assert "the 4 claims" in line and "(page.md)" in line
        assert "2 reproduced; 1 reproduced, but the control does as well; 1 not reproduced." in line

    def test_decided_claims_stand_in_the_order_of_the_verdicts_and_no_others(self, finished):
        configuration, _ = finished
        claims = read_json(configuration.folder / "claims.json")["claims"]
        first, second, third = [claim for claim in claims if claim["effect"]["estimate"] is not None][:3]
        first["verdict"], second["verdict"], third["verdict"] = "not reproduced", "inconclusive", "reproduced"
        third["effect"]["estimate"] |= {"value": -0.5, "low": -0.75, "high": -0.25, "num_seeds": 5}
        control = {"value": 7.0, "low": 6.0, "high": 8.0}
        first["controls"], third["controls"] = [], [{"name": "white", "effect": {"estimate": control}}]
        rows = decided_rows([first, second, third], "page.md")
        assert len(rows) == 4 and [row.count(" | ") for row in rows] == [3, 0, 3, 3]
        assert rows[2].startswith(f"| [{third['id']}](page.md#{third['id']}): ") and rows[2].endswith(
            "**reproduced** |"
        )
        assert ": \N{MINUS SIGN}0.5 [\N{MINUS SIGN}0.75, \N{MINUS SIGN}0.25], 5 seeds | white: 7 [6, 8] |" in rows[2]
        assert rows[3].startswith(f"| [{first['id']}]") and rows[3].endswith(" | none | **not reproduced** |")
        assert decided_rows([second], "page.md") == []

    def test_the_page_of_verdicts_links_to_no_run_that_is_not_published(self, tmp_path):
        (tmp_path / "kpo/grpo").mkdir(parents=True)
        page = "[kpo/grpo](kpo/grpo), [kpo-q/kpo-weak](kpo-q/kpo-weak); see [kpo-1](#kpo-1)."
        assert without_dead_links(page, tmp_path) == "[kpo/grpo](kpo/grpo), `kpo-q/kpo-weak`; see [kpo-1](#kpo-1)."

    def test_of_a_study_the_table_shows_the_experiments_of_the_scale_alone(self, finished):
        configuration, repository = finished
        publish(configuration, repository)
        published = repository / "results_published/laptop"
        summary = read_json(published / "summary.json")
        swept = [row | {"experiment": "kpo-q"} for row in summary["rows"] if row["experiment"] == "krpo"]
        write_json(published / "summary.json", summary | {"rows": summary["rows"] + swept})
        assert "Experiment kpo-q" in results_page(published)
        atomic_write(published / "config.yaml", dump(configuration.model_copy(update={"study": "full"})))
        block = results_page(published)
        assert "kpo-q" not in block and "Experiment kpo" in block and "Experiment krpo" in block

    def test_the_page_says_what_changed_since_the_first_study(self, finished):
        configuration, repository = finished
        publish(configuration, repository)
        published = repository / "results_published/laptop"
        assert changes_page(published) == []
        now = read_json(published / "claims.json")
        shown = (first := next(one for one in now["claims"] if (one["effect"]["estimate"] or {}).get("low")))["effect"][
            "estimate"
        ]
        before = {
            "value": 0.5,
            "low": 0.5 - (wide := 2 * (shown["high"] - shown["low"])),
            "high": 0.5 + wide,
            "num_seeds": 5,
        }
        record = {
            "verdict": "inconclusive",
            "effect_is": "something else",
            "margin": 2 * first["rule"]["margin"],
            "target": first["rule"]["target"],
            "estimate": before,
        }
        study = {"scale": "laptop", "seeds": [91], "commits": ["abc"], "claims": {first["id"]: record}}
        write_json(published.parent / "first_study.json", study)
        rows = {line.split("]")[0][3:]: line for line in changes_page(published) if line.startswith("| [")}
        assert set(rows) == {one["id"] for one in now["claims"]}
        row = rows[first["id"]]
        assert (
            f"{first['verdict']}:" in row and "inconclusive: 0.5 [" in row and "then measured as: something else" in row
        )
        assert "margin" in row and "target" not in row and "interval 0.25 times as wide" in row
        assert all("no such claim" in line for name, line in rows.items() if name != first["id"])
        # Neither of another scale nor of itself.
        for other in ({"scale": "desktop"}, {"seeds": now["seeds"]}):
            write_json(published.parent / "first_study.json", study | other)
            assert changes_page(published) == []
        write_json(published.parent / "first_study.json", study)
        assert "What changed" in results_page(published)
