"""measures.json with what runs have in common stored once: everything comes back, and a damaged file is one line."""

import json

import pytest

from reproduction.claims.measures_file import IN_COMMON, read_measures_file, write_measures_file


def row(seed: int, **changed) -> dict:
    common = {name: {"of": name} for name in IN_COMMON if name != "code"}
    return {"experiment": "kpo", "label": "grpo", "seed": seed, "code": "aa", **common, **changed}


def test_every_row_comes_back_and_what_is_common_is_written_once(tmp_path):
    rows = [row(6), row(7), row(8, code="bb"), row(9), row(10, versions={"torch": "other"})]
    record = {"scale": "laptop", "runs": rows, "missing": ["kpo/grpo/seed11"]}
    write_measures_file(tmp_path / "measures.json", record)
    assert read_measures_file(tmp_path / "measures.json") == record
    written = json.loads((tmp_path / "measures.json").read_text())
    assert [run["made_with"] for run in written["runs"]] == [0, 0, 1, 0, 2]
    assert len(written["made_with"]) == 3
    assert not set(IN_COMMON) & set(written["runs"][0])


def test_a_file_with_whole_rows_is_read_as_it_is(tmp_path):
    """As the package wrote them before, with or without every field."""
    record = {"scale": "laptop", "runs": [row(6), {"seed": 7}], "missing": []}
    (tmp_path / "measures.json").write_text(json.dumps(record))
    assert read_measures_file(tmp_path / "measures.json") == record


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"runs": 3}', '{"runs": [3]}', '{"runs": [{"made_with": 0}]}',
                '{"runs": [{"made_with": "0"}], "made_with": [{}]}', '{"runs": [{"made_with": 0}], "made_with": [1]}'],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "measures.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="measures.json: not what .* writes .*; measure the runs again"):
        read_measures_file(path)
