"""The report page: what it says is what the files say, it asks for nothing, and nothing from a file acts on it."""

import base64
import re
import shutil
import struct
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

import paper_figures
from reproduction.claims import CLAIMS
from reproduction.claims.tables import write_tables
from reproduction.claims.verdict import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, VERDICTS
from reproduction.jobs.files import read_json, write_json
from reproduction.report import ReportError, write_report
from reproduction.report.figures import by_claim, pictures
from reproduction.report.numbers import estimate, number, p_value
from reproduction.report.verdicts import relative_link
from reproduction.settings.configuration import Configuration
from tests.hub_results import png, write_figure
from tests.synthetic_study import write_study

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """A page's elements as (tag, attributes), its text, and its tags checked to close in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def drawable(configuration: Configuration) -> list[str]:
    return paper_figures.figures_for({name: value.methods for name, value in configuration.experiments.items()})


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Configuration:
    configuration = write_study(tmp_path_factory.mktemp("report") / "results", study=None)
    write_tables(configuration)
    for index, name in enumerate(drawable(configuration)):
        write_figure(configuration.folder / "figures", name, png(20 + index, 10, index))
    return configuration


@pytest.fixture
def results(template, tmp_path) -> Configuration:
    shutil.copytree(template.results, tmp_path / "results")
    return template.model_copy(update={"results": str(tmp_path / "results")})


def page_of(configuration: Configuration) -> Page:
    write_report(configuration)
    return Page((configuration.folder / "report.html").read_text(encoding="utf-8"))


def change(configuration: Configuration, name: str, act) -> None:
    value = read_json(configuration.folder / name)
    act(value)
    write_json(configuration.folder / name, value)


class TestContent:
    def test_every_claim_stands_on_the_page_as_in_the_file(self, results):
        page, claims = page_of(results), read_json(results.folder / "claims.json")["claims"]
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = {attributes.get("href", "") for attributes in page.of("a")}
        for claim in claims:
            assert f"claim-{claim['id']}" in ids and f"#claim-{claim['id']}" in links
            for text in (claim["statement"], claim["paper_says"], claim["reason"], claim["rule"]["text"]):
                assert " ".join(text.split()) in page.text
            for part in (claim["effect"], *(control["effect"] for control in claim["controls"])):
                assert estimate(part["estimate"]) in page.text
                for value in part["per_seed"].values():
                    assert number(value) in page.text or abs(value) < 1e-9
            if claim["verdict"] == INCONCLUSIVE:
                assert claim["resolution"] in page.text
            for beside in claim["beside"]:
                assert beside["what"] in page.text and estimate(beside["estimate"]) in page.text
            if claim["effect"]["estimate"] is not None:
                corrected = {name: p_value(value) for name, value in claim["corrected_p"].items()}
                assert f"{corrected['effect']} for the effect" in page.text
                assert f"{corrected['against']} against it" in page.text
        verdicts = Counter(claim["verdict"] for claim in claims)
        assert verdicts[NOT_TESTED] > 0 and len(verdicts) > 2
        for verdict in VERDICTS:
            # Once for the count above the tables, twice for each claim: its row and its own section.
            badges = [a["class"] for a in page.of("span") if a.get("class", "").startswith("badge ")]
            assert len(badges) == 2 * len(claims)
            assert f"{verdicts[verdict]} {verdict}" in page.text

    def test_the_page_says_how_claims_were_judged(self, results):
        """The default's runs get their own look; seeds of the pilot confirm nothing."""
        assert "These verdicts are a single look" in page_of(results).text
        assert "These verdicts are the pilot's" in page_of(results.model_copy(update={"study": "full"})).text

    def test_other_scales_are_next_to_this_one(self, results):
        assert "Scales side by side" not in page_of(results).text
        record = read_json(results.folder / "claims.json")
        decided = next(claim for claim in record["claims"] if claim["verdict"] == REPRODUCED)
        estimate = {"value": 9.0, "low": 8.0, "high": 10.0, "num_seeds": 7}
        record["scales"] = {"desktop": {decided["id"]: {"verdict": NOT_REPRODUCED, "estimate": estimate}}}
        write_json(results.folder / "claims.json", record)
        page = page_of(results)
        assert f"{NOT_REPRODUCED}, 9 [8, 10], 7 seeds" in page.text and page.text.count("the scales differ") == 1
        assert "#scales" in {attributes.get("href") for attributes in page.of("a")}

    def test_every_link_leads_somewhere(self, results):
        page = page_of(results)
        ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        files = 0
        for link in (attributes["href"] for attributes in page.of("a")):
            if link.startswith("#"):
                assert link[1:] in ids, link
            elif not link.startswith("https://arxiv.org/abs/"):
                assert (results.folder / link).is_file(), link
                files += 1
        assert files > 50
        assert {a["href"] for a in page.of("a") if "arxiv" in a["href"]} == {
            "https://arxiv.org/abs/2602.10609", "https://arxiv.org/abs/2505.07527",
        }  # fmt: skip

    def test_a_file_that_is_not_there_is_named_without_a_link(self, results):
        path = "kpo/grpo/seed1/structure.safetensors"
        assert path in {a["href"] for a in page_of(results).of("a")}
        (results.folder / path).unlink()
        page = page_of(results)
        assert path not in {a["href"] for a in page.of("a")} and path in page.text
        assert "are not part of this folder" in page.text

    def test_one_changed_number_changes_the_page(self, results):
        def act(found):
            claim = next(claim for claim in found["claims"] if claim["effect"]["estimate"] is not None)
            claim["effect"]["estimate"] |= {"value": 0.7654, "low": -0.1234, "high": 1.4321}

        assert "0.765 [\N{MINUS SIGN}0.123, 1.43]" not in page_of(results).text
        change(results, "claims.json", act)
        assert "0.765 [\N{MINUS SIGN}0.123, 1.43], 3 seeds" in page_of(results).text

    def test_tables_of_the_papers(self, results):
        page, found = page_of(results), read_json(results.folder / "tables.json")
        assert len(found["tables"]) > 3 and " ".join(found["legend"].split()) in page.text
        cells = Counter(cell for table in found["tables"] for row in table["rows"] for cell in row if cell)
        for text, count in cells.items():
            assert page.text.count(" ".join(text.split())) >= count, text
        for table in found["tables"]:
            assert {"id": f"table-{table['id']}"} in page.of("h3") and table["note"] in page.text

    def test_missing_stopped_and_other_code_are_named(self, results):
        clean = page_of(results).text
        assert "Missing runs" not in clean and "made by other code" not in clean and "Ended early" not in clean

        def act(found):
            for run in found["runs"]:
                if (run["experiment"], run["label"]) == ("krpo", "krpo"):
                    run["code"] = "hash-of-others"
            found["runs"][0]["stopped"] = '"update 13: the gradient is not finite"'
            found["missing"] = ["kpo/gspo/seed9"]

        change(results, "measures.json", act)
        text = page_of(results).text
        assert "Missing runs: kpo/gspo/seed9" in text
        assert "3 runs of 24 were made by other code" in text
        assert "hash-of-others (3 runs): krpo/krpo/seed1, krpo/krpo/seed2, krpo/krpo/seed3" in text
        assert re.search(r"krpo-1-easy : [^:]*\(made by other code\)", text)
        assert not re.search(r"kpo-4-over-grpo : [^:]*\(made by other code\)", text)
        assert "/seed1: update 13: the gradient is not finite" in text

    def test_accuracies_and_provenance(self, results):
        summary = read_json(results.folder / "summary.json")["rows"]
        row = next(
            row for row in summary if (row["experiment"], row["method"], row["split"]) == ("krpo", "krpo", "hard")
        )
        low, high = row["avg_at_k_interval"]
        text = page_of(results).text
        assert f"{100 * row['avg_at_k']:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({100 * row['greedy']:.1f})" in text
        assert "Commits 0000000000 " in text and "0:01 to 0:01 each" in text
        # Published results hold one digest instead of each run's record.
        digest = {"commits": ["1234567890 with changes"], "wall_seconds": {"a": 60.0, "b": 150.0}}
        write_json(results.folder / "provenance.json", {**digest, "peak_memory_bytes": {"a": 2**31}})
        text = page_of(results).text
        assert "Commits 1234567890 with changes" in text and "1:00 to 2:30 each, 3:30 together" in text
        assert "at most 2.0 GiB" in text


class TestFigures:
    def test_each_is_embedded_once_and_is_the_file(self, results):
        page = page_of(results)
        images, names = page.of("img"), drawable(results)
        assert len(images) == len(names) > 3
        for image, name in zip(images, names, strict=True):
            content = (results.folder / "figures" / f"{name}.png").read_bytes()
            kind, data = image["src"].split(",", 1)
            assert kind == "data:image/png;base64" and base64.b64decode(data) == content
            assert image["alt"] == f"Title of {name}. What {name} is about. Caption of {name}."
            assert (int(image["width"]), int(image["height"])) == struct.unpack(">II", content[16:24])

    def test_claims_link_to_the_figures_that_show_them(self, results):
        links = {attributes["href"] for attributes in page_of(results).of("a")}
        shown = by_claim(pictures(results.folder / "figures"))
        assert set(shown) == {claim.id for claim in CLAIMS}
        for claim, found in shown.items():
            names = [picture.name for picture in found]
            assert set(names) == {name for name in drawable(results) if claim in paper_figures.ENTRIES[name].claims}
            assert (
                names[-1] == f"verdicts_{claim.split('-')[0]}" and {f"#{picture.anchor}" for picture in found} <= links
            )

    @pytest.mark.parametrize("kind", ["png", "json"])
    def test_a_picture_without_words_or_words_without_a_picture_are_refused(self, results, kind):
        name = drawable(results)[0]
        (results.folder / "figures" / f"{name}.{kind}").unlink()
        with pytest.raises(ReportError, match=rf"{name}\.{kind} is missing; draw the figure again"):
            write_report(results)

    def test_no_figure_at_all_is_said(self, results):
        shutil.rmtree(results.folder / "figures")
        page = page_of(results)
        assert "No figure was drawn from these results." in page.text and not page.of("img")

    def test_a_damaged_figure_is_refused(self, results):
        (results.folder / "figures" / f"{drawable(results)[1]}.png").write_bytes(b"<svg onload=alert(1)>")
        with pytest.raises(ReportError, match=rf"{drawable(results)[1]}\.png: not a PNG"):
            write_report(results)


class TestOneFile:
    def test_it_asks_for_nothing_and_runs_nothing(self, results):
        page = page_of(results)
        text = (results.folder / "report.html").read_text(encoding="utf-8")
        assert not page.of("script") and not page.of("iframe") and not page.of("object")
        assert {a["href"] for a in page.of("link")} == {"data:,"}
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")]
            assert attributes.get("src", "data:").startswith("data:")
            assert tag == "a" or "href" not in attributes or attributes["href"] == "data:,"
        style = text.split("<style>")[1].split("</style>")[0]
        assert "url(" not in style and "@import" not in style
        policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy and "script" not in policy

    def test_equal_inputs_give_equal_bytes_wherever_they_lie(self, results, tmp_path):
        other = results.model_copy(update={"results": str(tmp_path / "elsewhere" / "results")})
        shutil.copytree(results.results, other.results)
        write_report(results)
        write_report(other)
        content = (results.folder / "report.html").read_bytes()
        assert content == (other.folder / "report.html").read_bytes()
        assert str(tmp_path).encode() not in content


class TestHostile:
    def test_no_text_of_a_file_becomes_markup(self, results):
        def poison_claims(found):
            found["missing"] = [HOSTILE]
            for claim in found["claims"]:
                for key in ("section", "statement", "paper_says", "certainty", "effect_is", "family", "reason"):
                    claim[key] = HOSTILE + key
                claim["paper"] = HOSTILE + claim["paper"]
                claim["no_control_because"] = HOSTILE
                claim["rule"]["text"] = HOSTILE
                claim["measures"] = {HOSTILE: HOSTILE}
                claim["data"] = [HOSTILE, "javascript:alert(1)", '" onclick="alert(1)']
                claim["effect"]["left_out"] = [HOSTILE]
                claim["effect"]["per_seed"] = {HOSTILE: 0.5}
                claim["effect"]["sides"] = [{"measure": HOSTILE, "weight": 1.0, "cells": [HOSTILE]}]
                for control in claim["controls"]:
                    control |= {"name": HOSTILE, "question": HOSTILE}
            found["claims"][0]["id"] = HOSTILE

        def poison_measures(found):
            found["missing"] = [HOSTILE]
            for run in found["runs"]:
                run |= {"experiment": HOSTILE, "label": HOSTILE, "versions": {HOSTILE: HOSTILE}}
                run |= {"hardware": {"processor": HOSTILE}, "sampling": {HOSTILE: HOSTILE}, "stopped": HOSTILE}
            found["runs"][0]["code"] = HOSTILE

        def poison_summary(found):
            for row in found["rows"]:
                row |= {"split": HOSTILE + row["split"], "method": HOSTILE + row["method"]}
                row["experiment"] = row["experiment"] if row["experiment"] == "base" else HOSTILE

        def poison_tables(found):
            found["legend"] = HOSTILE
            for table in found["tables"]:
                table |= {"id": HOSTILE + table["id"], "title": HOSTILE, "paper": HOSTILE, "note": HOSTILE}
                table |= {"columns": [HOSTILE], "rows": [[HOSTILE, HOSTILE]]}

        clean = Counter(tag for tag, _ in page_of(results).elements)
        change(results, "claims.json", poison_claims)
        change(results, "measures.json", poison_measures)
        change(results, "summary.json", poison_summary)
        change(results, "tables.json", poison_tables)
        write_json(results.folder / "provenance.json", {"commits": [HOSTILE]})
        page = page_of(results.model_copy(update={"arithmetic_file": f"/a/{HOSTILE.split('/')[-1]}"}))
        assert not page.of("script") and Counter(tag for tag, _ in page.elements)["img"] == clean["img"]
        for _, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")]
            assert not attributes.get("href", "").lower().startswith("javascript")
        assert page.text.count("<script>alert(1)</script>") > 100

    def test_links_stay_relative(self):
        assert relative_link("javascript:alert(1)") == "javascript%3Aalert%281%29"
        assert relative_link("//host/a b") == "host/a%20b"
        assert relative_link("kpo/grpo/seed1/metrics.jsonl") == "kpo/grpo/seed1/metrics.jsonl"


class TestBadInput:
    @pytest.mark.parametrize("name", ["claims.json", "measures.json", "summary.json", "tables.json"])
    def test_a_missing_file_is_named_with_its_step(self, results, name):
        (results.folder / name).unlink()
        with pytest.raises(ReportError, match=rf"{name} is missing; make it first \(python -m reproduction \w+\)"):
            write_report(results)
        assert not (results.folder / "report.html").exists()

    @pytest.mark.parametrize(
        ("name", "act", "message"),
        [
            ("claims.json", lambda v: v.update(scale="smoke"), "claims.json: is of scale 'smoke'"),
            ("claims.json", lambda v: v["claims"][2].pop("reason"), "claim 3: has no reason"),
            ("claims.json", lambda v: v["claims"][0].update(verdict="proven"), "unknown verdict 'proven'"),
            ("claims.json", lambda v: v["claims"][0]["effect"].pop("sides"), "claim 1, effect: has no sides"),
            ("measures.json", lambda v: v["runs"][1].pop("code"), "run 2: has no code"),
            ("tables.json", lambda v: v["tables"][1].pop("note"), "table 2: has no note"),
            ("summary.json", lambda v: v["rows"].__setitem__(0, []), "row 1: expected a JSON object, found list"),
        ],
    )
    def test_files_that_do_not_fit(self, results, name, act, message):
        change(results, name, act)
        with pytest.raises(ReportError, match=message):
            write_report(results)

    def test_half_a_file(self, results):
        (results.folder / "claims.json").write_text('{"claims": [')
        with pytest.raises(ReportError, match="claims.json, line 1"):
            write_report(results)
