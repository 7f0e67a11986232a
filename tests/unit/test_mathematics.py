"""Mathematics datasets from a mirror in Hugging Face's schema: declarations are checked, errors say why.

The real files of some sets are checked too where KPO_MATH_FOLDER names their folder.
"""

import json
import os
from pathlib import Path

import pytest

from reproduction.data.catalogue import CATALOGUE, MATH_SUBJECTS, MathematicsSet, get_set
from reproduction.data.mathematics import DataError, load_set, pinned_set, write_mirror

REVISION = "0123456789abcdef0123456789abcdef01234567"
# Two rows of each benchmark in the fields of its copy on Hugging Face, and what must be made of the first.
SMALL = {
    "math500": [{"problem": "1+1?", "answer": "2", "subject": "Algebra", "level": 1, "unique_id": "a"}],
    "aime24": [{"id": 60, "problem": " 1+1? ", "solution": "..", "answer": "204", "url": "", "year": "2024"}],
    "aime25": [{"problem_idx": 1, "problem": "1+1?", "answer": 70, "problem_type": ["Algebra"]}],
    "amc23": [{"id": 0, "question": "1+1?", "answer": 27.0, "url": ""}],
    "amc23-release": [{"problem": "1+1?", "answer": "27"}],
    "minerva": [{"question": "1+1?", "answer": "1.6e-19"}],
    "minerva-release": [{"problem": "1+1?", "answer": "4.5"}],
    "olympiadbench": [{"id": 1, "question": "1+1?", "final_answer": ["$\\frac{1}{2}$"], "subject": "Math"}],
    "olympiadbench-release": [{"problem": "1+1?", "answer": "2"}],
    "dapo": [{"prompt": "1+1?", "solution": "34", "data_source": "math_dapo", "ability": "MATH"}],
    "dapo-release": [
        {
            "prompt": [{"role": "user", "content": f"1+1?\n{get_set('dapo-release').drop}"}],
            "reward_model": {"ground_truth": "34", "style": "rule"},
            "ability": "math",
        }
    ],
    "math-algebra": [{"problem": "1+1?", "level": "1", "type": "Algebra", "solution": "so $\\boxed{\\frac{1}{2}}$."}],
}  # fmt: skip
ANSWERS = {
    "math500": "2", "aime24": "204", "aime25": "70", "amc23": "27", "amc23-release": "27", "minerva": "1.6e-19",
    "minerva-release": "4.5", "olympiadbench": "$\\frac{1}{2}$", "olympiadbench-release": "2", "dapo": "34",
    "dapo-release": "34", "math-algebra": "\\frac{1}{2}",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The libraries read the variable when they are imported, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def keep(mirror: Path, name: str, rows: list[dict], revision: str | None = None) -> Path:
    """Write rows as the mirror of a set, and return the file."""
    declared = get_set(name)
    folder = mirror / declared.repository / (revision or declared.revision or REVISION)
    if declared.configuration:
        folder = folder / declared.configuration
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{declared.split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pins(name: str, rows: int, **more) -> dict:
    return {name: {"rows": rows, "distinct": 0, **({} if get_set(name).revision else {"revision": REVISION}), **more}}


@pytest.mark.parametrize("name", SMALL)
def test_every_schema_gives_its_question_and_answer(name, tmp_path):
    keep(tmp_path, name, SMALL[name])
    found = load_set(name, pins(name, 1), tmp_path)
    assert [(p.id, p.question, p.answer) for p in found.problems] == [(f"{name}-0", "1+1?", ANSWERS[name])]
    assert found.record["licence"] and found.record["rows"] == found.record["problems"] == 1


def test_every_set_is_declared_whole():
    assert sum(MATH_SUBJECTS.values()) == 7500
    for name, declared in CATALOGUE.items():
        assert declared.name == name and declared.licence and declared.source
        # What the papers' release reads and nobody names a commit of must be pinned by the user, and nothing else.
        assert (declared.revision is None) == name.endswith("-release"), name
        if declared.subject_of:
            assert CATALOGUE[declared.subject_of].split == "train"
    counts = {"math500": 500, "aime24": 30, "aime25": 30, "amc23": 40, "minerva": 272}
    assert {name: CATALOGUE[name].rows for name in counts} == counts


def test_duplicates_are_dropped_and_counted(tmp_path):
    rows = [{"prompt": text, "solution": answer} for text, answer in [("a", "1"), ("b", "2"), ("a", "1"), ("b ", "3")]]
    keep(tmp_path, "dapo", rows)
    found = load_set("dapo", pins("dapo", 4, distinct=2), tmp_path)
    assert [(p.id, p.question, p.answer) for p in found.problems] == [("dapo-0", "a", "1"), ("dapo-1", "b", "2")]
    assert (found.record["duplicates"], found.record["duplicates_with_another_answer"]) == (2, 1)
    with pytest.raises(DataError, match=r"dapo: 2 different questions, but 3 .*data\.pins\.dapo\.distinct"):
        load_set("dapo", pins("dapo", 4, distinct=3), tmp_path)


def test_openmath_category_is_maths_subject(tmp_path):
    keep(tmp_path, "math-algebra", [{"problem": "Find $x$ if\n$x=2$.", "solution": "\\boxed{2}"}])
    source = {"generated_solution": "..", "problem_source": "math"}
    rows = [
        {"problem": "Find $x$ if $x=2$.", "expected_answer": "2", **source},
        {"problem": "Find $x$ if $x=2$.", "expected_answer": "2", **source},
        {"problem": "A probability?", "expected_answer": "0.5", **source},
        {"problem": "Find $x$ if $x=2$.", "expected_answer": "2", **source, "problem_source": "augmented_math"},
    ]
    keep(tmp_path, "openmath-algebra", rows)
    found = load_set("openmath-algebra", pins("openmath-algebra", 4) | pins("math-algebra", 1, distinct=None), tmp_path)
    assert [(p.id, p.answer) for p in found.problems] == [("openmath-algebra-0", "2")]
    assert (found.record["rows"], found.record["chosen"], found.record["duplicates"]) == (4, 2, 1)


def test_parquet_shards_and_what_the_mirror_step_writes_are_read(tmp_path):
    import datasets

    declared = get_set("math500")
    folder = tmp_path / declared.repository / declared.revision
    folder.mkdir(parents=True)
    for number in range(2):
        rows = datasets.Dataset.from_list([{"problem": f"{number}?", "answer": str(number)}])
        rows.to_parquet(str(folder / f"test-{number:05d}-of-00002.parquet"))
    assert [p.answer for p in load_set("math500", pins("math500", 2), tmp_path).problems] == ["0", "1"]


def test_mirror_step_keeps_what_the_hub_gives(tmp_path, monkeypatch):
    import datasets

    asked = []

    def hub(repository, configuration=None, *, split, revision, **_):
        asked.append((repository, configuration, split, revision))
        return datasets.Dataset.from_list([{"problem": "1+1?", "answer": "2"}])

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", hub)
    path = write_mirror("math500", tmp_path)
    assert write_mirror("math500", tmp_path) == path
    assert asked == [("HuggingFaceH4/MATH-500", None, "test", get_set("math500").revision)]
    monkeypatch.setattr(datasets, "load_dataset", real)
    assert load_set("math500", pins("math500", 1), tmp_path).problems[0].answer == "2"


def test_unpinned_sets_say_what_to_pin(tmp_path):
    with pytest.raises(
        DataError, match=r"no revision is known of knoveleng/AMC-23.*data\.pins\.amc23-release\.revision"
    ):
        load_set("amc23-release", {}, tmp_path)
    with pytest.raises(DataError, match=r"no rows is known of aaabiao/dapo_filter.*data\.pins\.dapo-release\.rows"):
        pinned_set("dapo-release", {"dapo-release": {"revision": REVISION}})


@pytest.mark.parametrize("revision", ["main", "6e4ed1a", "6E4ED1A2A79AF7D8630A6B768EC859CB5AF4D3BE", 7, ""])
def test_a_revision_that_may_move_is_refused(revision):
    with pytest.raises(DataError, match="whole commit"):
        pinned_set("math500", {"math500": {"revision": revision}})
    with pytest.raises(ValueError, match="whole commit"):
        MathematicsSet("x", "a/b", "test", "q", "a", "l", "s", revision=revision)


def test_refusals_name_the_set_and_the_fix(tmp_path):
    def refused(words, name="math500", given=None, mirror=tmp_path):
        with pytest.raises(DataError) as error:
            load_set(name, given, mirror)
        assert "\n" not in str(error.value)
        for word in words:
            assert word in str(error.value), str(error.value)

    refused(["'mth500'", "did you mean 'math500'"], "mth500")
    refused(["math500", "HuggingFaceH4/MATH-500", "python -m reproduction mirror"])
    keep(tmp_path, "math500", SMALL["math500"], REVISION)
    refused(["no HuggingFaceH4/MATH-500/6e4ed1a", f"it holds {REVISION}"])
    path = keep(tmp_path, "math500", SMALL["math500"])
    refused(["1 rows", "500 are expected", "data.pins.math500.rows"])
    keep(tmp_path, "math500", [{"question": "1+1?", "answer": "2"}])
    refused(["no field 'problem'", "question, answer"], given=pins("math500", 1))
    keep(tmp_path, "math500", [{"problem": "1+1?", "answer": "2"}, {"problem": "  ", "answer": "2"}])
    refused(["row 1", "'problem'"], given=pins("math500", 2))
    keep(tmp_path, "math500", [{"problem": "1+1?", "answer": None}])
    refused(["row 0", "'answer'"], given=pins("math500", 1))
    keep(tmp_path, "math500", [{"problem": "1+1?", "answer": "$ $"}])
    refused(["row 0", "gold is empty"], given=pins("math500", 1))
    keep(tmp_path, "math500", [{"problem": "1+1?", "answer": "2" * 3000}])
    refused(["row 0", "3000 characters"], given=pins("math500", 1))
    keep(tmp_path, "olympiadbench", [{"question": "1+1?", "final_answer": ["1", "2"]}])
    refused(["row 0", "one answer, found 2"], "olympiadbench", pins("olympiadbench", 1))
    keep(tmp_path, "math-algebra", [{"problem": "1+1?", "solution": "it is 2"}])
    refused(["row 0", "holds no answer"], "math-algebra", pins("math-algebra", 1))
    path.write_text("{not json\n")
    refused([str(path), "copy it again"], given=pins("math500", 1))
    path.rename(path.with_name("train.jsonl"))
    refused(["neither test.parquet nor test.jsonl"])
    refused(["could not be loaded (HF_HUB_OFFLINE is set)", "data.mirror"], mirror=None)


REAL = {"math500": (500, {}), "aime24": (30, {}), "amc23": (40, {})}


@pytest.mark.skipif("KPO_MATH_FOLDER" not in os.environ, reason="KPO_MATH_FOLDER names no folder of benchmark files")
@pytest.mark.parametrize("name", REAL)
def test_real_benchmarks_have_the_declared_rows(name, tmp_path):
    rows = [json.loads(line) for line in (Path(os.environ["KPO_MATH_FOLDER"]) / f"{name}.jsonl").open()]
    keep(tmp_path, name, rows)
    found = load_set(name, None, tmp_path)
    assert len(found.problems) == get_set(name).rows == REAL[name][0]
    assert len({problem.question for problem in found.problems}) == len(found.problems)
