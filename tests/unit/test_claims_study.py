"""Claims from whole made-up results: verdicts from files, numbers that follow the runs, and every refusal."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import scipy.stats
import yaml

from reproduction.claims import get_claim, one_run
from reproduction.claims.comparable import check_comparable
from reproduction.claims.declare import NOT_FOUND, Claim, Rule, along, cell, difference
from reproduction.claims.estimate import SHARES
from reproduction.claims.judge import evaluate_claims
from reproduction.claims.one_run import METHOD_FIELDS, ClaimsError
from reproduction.claims.record import write_claims
from reproduction.claims.runs import measure_runs, read_measures, write_measures
from reproduction.claims.verdict import (
    CONTROL_AS_WELL,
    INCONCLUSIVE,
    NOT_AT_SIZE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
)
from reproduction.jobs.files import read_json, read_jsonl, write_json, write_jsonl
from reproduction.settings.configuration import CONFIG_FOLDER, Configuration, validate
from reproduction.settings.files import read_yaml
from tests.synthetic_results import write_results

METHODS = {
    "kpo": ("grpo", "gspo", "gmpo", "kpo-clipped", "kpo-unclipped", "kpo-ema", "kpo-unit"),
    "krpo": ("grpo", "krpo", "grpo-rescaled"),
}
PROBLEMS, SAMPLES = 20, 50
# Accuracy of a run in percent above or below the method's, by seed: every method has the same spread.
SPREAD = {1: -0.4, 2: 0.1, 3: 0.3, 4: -0.2, 5: 0.2, 6: 0.0}


def configuration_of(results: Path, methods=METHODS, seeds=(1, 2, 3)) -> Configuration:
    raw = read_yaml(CONFIG_FOLDER / "laptop.yaml")
    raw |= {"results": str(results), "seeds": list(seeds)}
    raw["experiments"] = {name: {**raw["experiments"][name]} for name in methods}
    for name, labels in methods.items():
        raw["experiments"][name]["methods"] = {label: {} for label in labels}
        raw["experiments"][name]["training"] = {**raw["experiments"][name]["training"], "rollout_batches": 5}
        raw["experiments"][name]["late_evaluation"] = {}
    return validate(raw, "test")


def run_config(configuration: Configuration, experiment: str, label: str, seed: int) -> dict:
    settings = configuration.experiments[experiment]
    method = dataclasses.asdict(settings.method(label))
    return {
        "experiment": experiment,
        "label": label,
        "seed": seed,
        "method": {name: method[name] for name in METHOD_FIELDS},
        "reward": settings.reward,
        "reward_noise": settings.reward_noise,
        "training": settings.training.model_dump(),
        "problems": configuration.problems.model_dump(),
        "base_model": configuration.base_model.model_dump(),
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A whole results folder of six seeds; tests copy it and change what they are about."""
    results = tmp_path_factory.mktemp("results")
    configuration = configuration_of(results, seeds=SPREAD)
    write_results(results / "laptop", experiments=METHODS, seeds=configuration.seeds, rollout_batches=5, kept_every=5,
                  problems=PROBLEMS, samples=SAMPLES, response_length=24, prompts=4)  # fmt: skip
    for run in configuration.runs():
        path = configuration.run_folder(*run) / "config.yaml"
        path.write_text(yaml.safe_dump(run_config(configuration, *run)))
    return results


MEASURED: dict = {}
measure_structure = one_run._structure_values


@pytest.fixture(autouse=True)
def equal_files_are_measured_once(monkeypatch):
    """What a run's kept log-ratios give follows from the file; measuring them takes most of a test's time."""

    def measured(path, time_constant, seed, wanted):
        key = hashlib.sha256(path.read_bytes()).digest(), time_constant, seed, frozenset(wanted)
        if key not in MEASURED:
            MEASURED[key] = measure_structure(path, time_constant, seed, wanted)
        return dict(MEASURED[key])

    monkeypatch.setattr(one_run, "_structure_values", measured)


@pytest.fixture
def results(template, tmp_path) -> Configuration:
    shutil.copytree(template, tmp_path / "results")
    return configuration_of(tmp_path / "results")


@pytest.fixture
def six_seeds(results) -> Configuration:
    """The same with all six seeds, from which accuracies can be judged."""
    return configuration_of(Path(results.results), seeds=SPREAD)


FEWER_COLLAPSES = difference("collapse", cell("kpo", "grpo"), cell("kpo", "kpo-clipped"))


def compare(study, comparison, rule):
    """A comparison judged by itself."""
    claim = Claim(
        "test-1", "a paper", "", "", "", NOT_FOUND, "", comparison, rule, "test", no_control_because="none declared"
    )
    (found,) = evaluate_claims(study, claims=(claim,))
    return found.compared


def set_accuracy(configuration, experiment, label, percent, spread=SPREAD, split="normal"):
    """Give each seed of a method an accuracy on a split, spread evenly over the problems."""
    for seed in configuration.seeds:
        right = round((percent + spread[seed]) / 100 * PROBLEMS * SAMPLES)
        path = configuration.run_folder(experiment, label, seed) / "evaluation.json"
        evaluation = read_json(path)
        counts = [right // PROBLEMS + (index < right % PROBLEMS) for index in range(PROBLEMS)]
        evaluation["splits"][split]["correct"] = counts
        write_json(path, evaluation)


def record(configuration, claim_id) -> dict:
    write_measures(configuration)
    write_claims(configuration)
    claims = read_json(configuration.folder / "claims.json")["claims"]
    return next(claim for claim in claims if claim["id"] == claim_id)


QUIET, LOUD = (
    {1: -0.2, 2: 0.3, 3: -0.1, 4: 0.2, 5: -0.3, 6: 0.1},
    {1: -28.0, 2: 21.0, 3: 7.0, 4: 24.0, 5: -24.0, 6: 0.0},
)


@pytest.mark.parametrize(
    ("grpo", "kpo", "ema", "unit", "kpo_spread", "verdict"),
    [
        (50, 60, 50, 50, QUIET, REPRODUCED),
        (50, 60, 60, 50, QUIET, CONTROL_AS_WELL),
        (50, 46, 50, 50, QUIET, NOT_REPRODUCED),
        (50, 51, 50, 50, {seed: 5 * own for seed, own in QUIET.items()}, NOT_AT_SIZE),
        (50, 60, 50, 50, LOUD, INCONCLUSIVE),
    ],
)
def test_five_verdicts_from_results(six_seeds, grpo, kpo, ema, unit, kpo_spread, verdict):
    results = six_seeds
    for label, percent in {"grpo": grpo, "kpo-unit": unit}.items():
        set_accuracy(results, "kpo", label, percent)
    set_accuracy(results, "kpo", "kpo-ema", ema, {1: -0.3, 2: 0.1, 3: 0.2, 4: 0.1, 5: 0.0, 6: -0.1})
    set_accuracy(results, "kpo", "kpo-clipped", kpo, kpo_spread)
    found = record(results, "kpo-4-over-grpo")
    assert found["verdict"] == verdict, found["reason"]
    assert found["effect"]["estimate"]["value"] == pytest.approx((kpo - grpo) / 100)
    assert found["effect"]["estimate"]["num_seeds"] == 6
    page = (results.folder / "claims.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| [kpo-4-over-grpo]"))
    assert f"**{verdict}**" in row.split("|")[-2]
    if verdict == INCONCLUSIVE:
        assert found["minimum_detectable_effect"] > 0.05
        assert f"an effect of {found['minimum_detectable_effect']:.3g} or more" in page
    if verdict == NOT_AT_SIZE:
        # The verdict gives the bound and where the size comes from.
        bound = found["effect"]["estimate"]["high"]
        assert f"at most {bound:.3g}; the paper's size is 0.0692 (mean of Table 1's gains" in row


def test_the_sixth_verdict_and_the_page(results):
    found = record(results, "kpo-4-tuned-over-grpo")
    assert found["verdict"] == NOT_TESTED and found["effect"]["estimate"] is None and found["data"] == []
    page = (results.folder / "claims.md").read_text()
    assert "## arXiv 2602.10609 (KPO)" in page and "## arXiv 2505.07527 (KRPO)" in page
    for claim in read_json(results.folder / "claims.json")["claims"]:
        assert f"### {claim['id']}" in page
        for path in claim["data"]:
            assert (results.folder / path).is_file()


def test_one_input_number_changes_the_figures(results):
    before = record(results, "kpo-4-over-gspo")
    path = results.run_folder("kpo", "gspo", 2) / "evaluation.json"
    evaluation = read_json(path)
    index = next(i for i, count in enumerate(evaluation["splits"]["normal"]["correct"]) if count > 0)
    evaluation["splits"]["normal"]["correct"][index] -= 1
    write_json(path, evaluation)
    after = record(results, "kpo-4-over-gspo")
    one = 1 / (PROBLEMS * SAMPLES)
    assert after["effect"]["per_seed"]["2"] - before["effect"]["per_seed"]["2"] == pytest.approx(one)
    assert after["effect"]["estimate"]["value"] - before["effect"]["estimate"]["value"] == pytest.approx(one / 3)
    assert after["effect"]["estimate"]["low"] != before["effect"]["estimate"]["low"]
    # One reward of the training curve moves the claim about speed.
    before = record(results, "krpo-1-speed")
    path = results.run_folder("krpo", "krpo", 1) / "metrics.jsonl"
    rows = read_jsonl(path)
    rows[0]["reward"] += 0.5
    write_jsonl(path, rows)
    after = record(results, "krpo-1-speed")
    assert after["effect"]["per_seed"]["1"] - before["effect"]["per_seed"]["1"] == pytest.approx(0.5 / 5)


def test_white_noise_gives_structure_verdicts_that_name_the_control(six_seeds):
    """The made-up log-ratios are independent, so that filtering smooths them exactly as it smooths noise: the effect is
    there, and the few tokens of six seeds do not bound by how much it exceeds that of noise."""
    results = six_seeds
    found = record(results, "kpo-2-switching")
    assert found["verdict"] in (CONTROL_AS_WELL, INCONCLUSIVE) and "white noise" in found["reason"]
    assert found["effect"]["estimate"]["value"] > 0.3
    assert record(results, "kpo-6-schedule")["verdict"] == REPRODUCED


def test_holm_makes_a_family_of_many_harder(results):
    found = record(results, "kpo-4-over-grpo")
    assert found["family_size"] == 4
    study = read_measures(results)
    alone = compare(
        study, difference("accuracy.normal", cell("kpo", "kpo-clipped"), cell("kpo", "grpo")), Rule("above", 0.02)
    )
    assert found["effect"]["estimate"]["p_for"] == alone.effect.p_for
    assert found["corrected_p"]["claim"] >= found["corrected_p"]["effect"] >= alone.effect.p_for


def test_beside_a_run_of_its_own_is_what_the_published_study_says(results, monkeypatch, tmp_path):
    own = record(results, "kpo-1-runs")
    assert own["published"] is None or own["published"]["verdict"]
    value = own["effect"]["estimate"]["value"]
    published = {**own, "verdict": "reproduced"}
    for shift, design, says in (
        (0.0, "sequential", "reproduced, {:.3g} [{:.3g}, {:.3g}], 3 seeds; this run agrees with it"),
        (9.0, "sequential", "reproduced, {:.3g} [{:.3g}, {:.3g}], 3 seeds; **this run differs from it**"),
        (0.0, "pilot", None),
    ):
        bounds = {"value": value + shift, "low": value + shift - 0.1, "high": value + shift + 0.1}
        published["effect"] = {**own["effect"], "estimate": {**own["effect"]["estimate"], **bounds}}
        write_json(tmp_path / "results_published/laptop/claims.json", {"design": design, "claims": [published]})
        monkeypatch.setattr("reproduction.claims.record.REPOSITORY", tmp_path)
        found = record(results, "kpo-1-runs")["published"]
        page = (results.folder / "claims.md").read_text()
        if says is None:
            assert found is None and "published study:" not in page
        else:
            assert found["agrees"] == (shift == 0.0) and says.format(*bounds.values()) in page


class TestMissing:
    def test_a_missing_run_is_refused_or_listed(self, results):
        shutil.rmtree(results.run_folder("kpo", "grpo", 3))
        with pytest.raises(ClaimsError, match="grpo/seed3.*is missing"):
            write_measures(results)
        write_measures(results, allow_missing=True)
        write_claims(results)
        claims = read_json(results.folder / "claims.json")
        assert claims["missing"] == ["kpo/grpo/seed3"]
        found = next(claim for claim in claims["claims"] if claim["id"] == "kpo-4-over-grpo")
        assert sorted(found["effect"]["per_seed"]) == ["1", "2"]
        assert "kpo/grpo/seed3: missing" in found["effect"]["left_out"]
        assert "kpo/kpo-clipped/seed3: no such seed of what it is compared with" in found["effect"]["left_out"]
        assert found["verdict"] == INCONCLUSIVE and found["reason"] == "2 of at least 3 seeds"
        assert "**Missing runs:** kpo/grpo seed 3" in (results.folder / "claims.md").read_text()

    def test_a_partial_run_is_refused_unless_it_says_why_it_stopped(self, results):
        folder = results.run_folder("kpo", "kpo-clipped", 1)
        write_jsonl(folder / "metrics.jsonl", read_jsonl(folder / "metrics.jsonl")[:12])
        with pytest.raises(ClaimsError, match="12 updates of the 20"):
            write_measures(results, allow_missing=True)
        provenance = read_json(folder / "provenance.json")
        write_json(folder / "provenance.json", provenance | {"stopped": {"update": 13, "reason": "loss is not finite"}})
        found = compare(measure_runs(results), FEWER_COLLAPSES, Rule("above", 0.1))
        # One of three KPO runs collapsed, no GRPO run: 0 - 1/3.
        assert found.effect.value == pytest.approx(-1 / 3) and found.effect.kind == SHARES
        # Stopped in the very last update it is one all the same.
        rows = read_jsonl(folder / "metrics.jsonl")
        rows += [{**rows[0], "update": number} for number in range(13, 21)]
        for number, row in enumerate(rows):
            row |= {"rollout_batch": number // 4 + 1, "minibatch": number % 4 + 1}
        write_jsonl(folder / "metrics.jsonl", rows)
        assert compare(measure_runs(results), FEWER_COLLAPSES, Rule("above", 0.1)).per_seed[1] == -1

    def test_a_run_that_the_grader_stopped_is_no_collapse(self, results):
        """It has no measures, and leaves each comparison by name."""
        folder = results.run_folder("kpo", "grpo", 1)
        write_jsonl(folder / "metrics.jsonl", read_jsonl(folder / "metrics.jsonl")[:12])
        provenance = read_json(folder / "provenance.json")
        fault = {"kind": "ungraded", "action": "stop", "message": "no response could be graded"}
        others = {"kind": "collapse", "action": "continue", "message": "no response earned a reward"}
        stopped = {"stopped": "update 12: no response could be graded", "faults": [others, fault]}
        write_json(folder / "provenance.json", provenance | stopped)
        assert sorted(compare(measure_runs(results), FEWER_COLLAPSES, Rule("above", 0.1)).per_seed) == [2, 3]
        found = record(results, "kpo-4-over-grpo")
        assert sorted(found["effect"]["per_seed"]) == ["2", "3"]
        assert "without kpo/grpo/seed1, not defined there" in found["reason"]
        (line,) = [text for text in found["effect"]["left_out"] if text.startswith("kpo/grpo/seed1")]
        assert "is not defined for it (it was stopped: " in line and "could be graded" in line

    def test_a_run_without_finite_entropy_near_its_end_stays(self, results):
        folder = results.run_folder("kpo", "grpo", 1)
        rows = read_jsonl(folder / "metrics.jsonl")
        for row in rows[-3:]:
            row["entropy"] = None
        write_jsonl(folder / "metrics.jsonl", rows)
        assert sorted(record(results, "kpo-3-entropy")["effect"]["per_seed"]) == ["1", "2", "3"]

    def test_measures_must_hold_every_run(self, results):
        with pytest.raises(ClaimsError, match="measure the runs first"):
            write_claims(results)
        write_measures(results)
        path = results.folder / "measures.json"
        measured = read_json(path)
        for runs, message in (
            (measured["runs"][1:], "is not there"),
            (measured["runs"] + measured["runs"][:1], "occurs twice"),
            ([{"experiment": "kpo"}], "not what python -m reproduction measure writes"),
        ):
            write_json(path, measured | {"runs": runs})
            with pytest.raises(ClaimsError, match=message):
                write_claims(results)
        write_json(path, measured | {"scale": "smoke"})
        with pytest.raises(ClaimsError, match="scale 'smoke'"):
            write_claims(results)

    def test_published_measures_are_enough(self, results):
        """Verdicts need only measures.json, so results can be published without their runs."""
        expected = record(results, "kpo-2-switching")
        for experiment in METHODS:
            shutil.rmtree(results.folder / experiment)
        write_claims(results)
        claims = read_json(results.folder / "claims.json")["claims"]
        assert expected in claims


class TestRefusals:
    def change(self, results, run, name, change):
        path = results.run_folder(*run) / name
        value = yaml.safe_load(path.read_text())
        change(value)
        path.write_text(yaml.safe_dump(value) if name.endswith("yaml") else json.dumps(value))

    def test_copied_seed(self, results):
        source, copy = (results.run_folder("kpo", "gmpo", seed) / "metrics.jsonl" for seed in (1, 2))
        shutil.copy(source, copy)
        with pytest.raises(ClaimsError, match="gmpo/seed2 and kpo/gmpo/seed1 have the same metrics"):
            write_measures(results)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("provenance.json", lambda v: v.update(seed=9), "made with seed 9, not 2"),
            ("config.yaml", lambda v: v.update(seed=9), "made with seed 9"),
            ("config.yaml", lambda v: v["method"].update(clip_low=0.3), "method.clip_low 0.3"),
            ("config.yaml", lambda v: v["training"].update(learning_rate=0.1), "training.learning_rate 0.1"),
            ("config.yaml", lambda v: v["problems"].update(seed=5), "problems.seed 5"),
            ("config.yaml", lambda v: v["reward_noise"].update(flips=0.2), "reward_noise.flips 0.2.*says None"),
            ("config.yaml", lambda v: v.pop("reward_noise"), "made with reward_noise None"),
            ("evaluation.json", lambda v: v["splits"]["hard"]["correct"].pop(), "split 'hard'"),
            ("evaluation.json", lambda v: v.pop("sampling"), "'sampling'"),
        ],
    )
    def test_files_that_do_not_fit(self, results, name, change, message):
        self.change(results, ("kpo", "grpo", 2), name, change)
        with pytest.raises(ClaimsError, match=message):
            write_measures(results, allow_missing=True)

    @pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "provenance.json", "structure.safetensors"])
    def test_damaged_files(self, results, name):
        (results.run_folder("kpo", "grpo", 2) / name).write_text('{"half')
        with pytest.raises(ClaimsError, match=name):
            write_measures(results, allow_missing=True)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.update(commit="1" * 40), "differ in code; remove the folders of kpo/kpo-clipped/seed2 from"),
            (lambda v: v.update(dirty=True), "differ in code"),
            (lambda v: v.update(versions={"torch": "1.0"}), "differ in versions: torch '1.0' and None"),
        ],
    )
    def test_differing_versions_in_a_comparison(self, results, change, message):
        self.change(results, ("kpo", "kpo-clipped", 2), "provenance.json", change)
        write_measures(results)
        with pytest.raises(ClaimsError, match=message):
            write_claims(results)

    def test_equal_source_is_one_code_whatever_the_commit(self, results):
        for run in results.runs():
            self.change(results, run, "provenance.json", lambda v: v.update(source_hash="abc"))
        self.change(results, ("kpo", "kpo-clipped", 2), "provenance.json", lambda v: v.update(commit="1" * 40))
        write_measures(results)
        write_claims(results)

    def test_evaluations_by_differing_code(self, results):
        """Refused in a comparison of accuracy, but not of what only training measures."""
        for run in results.runs():
            code = "old" if run == ("kpo", "gspo", 1) else "new"
            write_json(results.run_folder(*run) / "checksums" / "evaluate.json", {"source_hash": code})
        study = measure_runs(results)
        gspo, grpo = cell("kpo", "gspo"), cell("kpo", "grpo")
        with pytest.raises(
            ClaimsError, match="were evaluated by different code; remove the evaluation.json of kpo/gspo/seed1 "
        ):
            compare(study, difference("accuracy.normal", gspo, grpo), Rule("above", 0.02))
        assert compare(study, difference("reward_late", gspo, grpo), Rule("above", 0.02)).effect is not None
        # Runs that were measured before it was recorded have no such code.
        unknown = {seed: dataclasses.replace(run, graded_by="") for seed, run in study.runs["kpo", "gspo"].items()}
        study = dataclasses.replace(study, runs={**study.runs, ("kpo", "gspo"): unknown})
        assert compare(study, difference("accuracy.normal", gspo, grpo), Rule("above", 0.02)).effect is not None

    def test_hardware_matters_to_times_alone(self, results):
        study = measure_runs(results)
        first, second = study.runs["kpo", "grpo"][1], study.runs["kpo", "grpo"][2]
        after_a_restart = dataclasses.replace(second, hardware={**second.hardware, "memory_bytes": 1})
        check_comparable([first, after_a_restart], timed=True)
        other = dataclasses.replace(second, hardware={"processor": "another"})
        check_comparable([first, other], timed=False)
        with pytest.raises(ClaimsError, match="hardware"):
            check_comparable([first, other], timed=True)

    def test_differing_samplings(self, results):
        self.change(results, ("kpo", "grpo", 1), "evaluation.json", lambda v: v["sampling"].update(top_p=0.7))
        write_measures(results)
        with pytest.raises(ClaimsError, match="sampling of the evaluation: top_p"):
            write_claims(results)


class TestSides:
    @pytest.fixture
    def study(self, results):
        return measure_runs(results)

    def change(self, study, cells):
        """The study with measures of some cells replaced: (experiment, label) -> measure -> values by seed."""
        runs = {cell: dict(by_seed) for cell, by_seed in study.runs.items()}
        for place, measures in cells.items():
            for seed, run in runs[place].items():
                new = {name: values[seed] for name, values in measures.items()}
                runs[place][seed] = dataclasses.replace(run, values={**run.values, **new})
        return dataclasses.replace(study, runs=runs)

    def test_along_averages_what_both_sides_have(self, study):
        study = self.change(
            study,
            {
                ("kpo", "grpo"): {"reward_late": {1: 0.2, 2: 0.2, 3: 0.2}},
                ("krpo", "grpo"): {"reward_late": {1: 0.4, 2: 0.4, 3: 0.4}},
                ("kpo", "gspo"): {"reward_late": {1: 0.9, 2: 0.8, 3: 0.7}},
            },
        )
        both = ("kpo", "krpo", "not-configured")
        found = compare(study, difference("reward_late", along(both, "gspo"), along(both, "grpo")), Rule("above", 0.1))
        # gspo is only in kpo, so grpo is taken only from kpo.
        assert found.per_seed == pytest.approx({1: 0.7, 2: 0.6, 3: 0.5})
        assert found.sides[1]["cells"] == ["kpo/grpo"]

    def test_why_nothing_was_compared(self, study):
        def reason(measure, *cells):
            return compare(
                study, difference(measure, *(cell("kpo", label) for label in cells)), Rule("above", 0)
            ).why_none

        assert reason("reward_late", "grpo", "krpo") == "the configuration of these runs has no kpo/krpo"
        assert reason("accuracy.aime24", "grpo", "gspo") == "accuracy.aime24 was not measured of the runs kpo/grpo"
        study = dataclasses.replace(study, runs={**study.runs, ("kpo", "gspo"): {}})
        assert reason("reward_late", "grpo", "gspo") == "the runs kpo/gspo are missing"

    def test_a_contrast_is_judged_by_its_control_s_margin(self, study):
        """Shuffled tokens lower the switch frequency by 0.1 less; the control's margin is 0.02, the claim's 0.2."""
        columns = {"switch_raw": 0.5, "switch_filtered": 0.1, "switch_shuffled": 0.5, "switch_shuffled_filtered": 0.2}
        values = {name: {1: value, 2: value + 0.01, 3: value - 0.005} for name, value in columns.items()}
        values["switch_filtered"] = {1: 0.1, 2: 0.1, 3: 0.1}
        (result,) = evaluate_claims(
            self.change(study, {("kpo", "grpo"): values}), claims=(get_claim("kpo-2-switching"),)
        )
        contrast = result.controls[0].contrast.effect
        error = contrast.deviation / 3**0.5
        assert contrast.value == pytest.approx(0.1, abs=0.01)
        assert contrast.p_against == pytest.approx(scipy.stats.t.cdf((contrast.value - 0.02) / error, 2))

    def test_undefined_values_are_left_out_by_name(self, study):
        study = self.change(study, {("kpo", "grpo"): {"reward_late": {1: None, 2: 0.2, 3: 0.3}}})
        found = compare(study, difference("reward_late", cell("kpo", "gspo"), cell("kpo", "grpo")), Rule("above", 0.1))
        assert sorted(found.per_seed) == [2, 3]
        assert "kpo/grpo/seed1: reward_late is not defined for it" in found.left_out


def test_a_study_without_runs_tests_nothing(results):
    study = dataclasses.replace(measure_runs(results), runs={}, configured={})
    assert {result.verdict.verdict for result in evaluate_claims(study)} == {NOT_TESTED}
