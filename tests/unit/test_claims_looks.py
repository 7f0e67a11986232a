"""Looks at 6, 12, 24, 48, ... seeds: sizes and shares, errors by simulation, and what is named but never judged."""

import csv
import dataclasses
import itertools
import math

import numpy as np
import pytest

from reproduction.claims.declarations import CLAIMS
from reproduction.claims.declare import ABOVE, NOT_FOUND, Claim, Rule, cell, difference, value
from reproduction.claims.design import (
    FIRST_SEED,
    PILOT,
    SEQUENTIAL,
    SINGLE,
    Design,
    design_of,
    next_look,
    schedule,
)
from reproduction.claims.estimate import combined, effect_of_means
from reproduction.claims.judge import evaluate_claims
from reproduction.claims.noise import floor, pilot_deviation, sampling_variance
from reproduction.claims.one_run import Run
from reproduction.claims.resolve import resolve
from reproduction.claims.runs import Study
from reproduction.claims.verdict import INCONCLUSIVE, NOT_AT_SIZE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED
from reproduction.publish.published import FOLDER, REPOSITORY
from reproduction.settings.configuration import ConfigurationError, load
from reproduction.workflow import prepare

RULE = Rule(ABOVE, 0.02, paper=0.05, paper_from="the paper")
LOOKS = Design(SEQUENTIAL).looks(96)


class TestDesign:
    def test_sizes_and_shares(self):
        first = list(itertools.islice(schedule(), 8))
        assert [size for size, _ in first] == [6, 12, 24, 48, 96, 192, 384, 768]
        assert [weight for _, weight in first] == [0.40, 0.25, 0.15, 0.10, 0.05, 0.025, 0.0125, 0.00625]
        assert sum(weight for _, weight in itertools.islice(schedule(), 40)) == pytest.approx(1.0)
        assert [next_look(count) for count in (0, 5, 6, 11, 12)] == [6, 6, 12, 12, 24]
        assert [len(Design(SEQUENTIAL).looks(count)) for count in (5, 6, 23, 24)] == [0, 1, 2, 3]
        assert Design(SINGLE).looks(3) == [(3, 1.0)] and Design(SINGLE).looks(0) == []

    def test_which_seeds_are_judged_how(self):
        assert design_of(load({"scale": "laptop"})).kind == SINGLE
        assert design_of(load({"study": "full"})).kind == SEQUENTIAL
        assert design_of(load({"study": "full", "seeds": [1, 2, 3]})).kind == PILOT
        with pytest.raises(ConfigurationError, match="seeds 4, 5 are the pilot's"):
            design_of(load({"study": "full", "seeds": [4, 5, 6, 7]}))
        with pytest.raises(ConfigurationError, match="seeds 5 are the pilot's"):
            prepare({"study": "full", "seeds": [5, 6]})


def sequential(values: np.ndarray, rule: Rule = RULE):
    """The effect after all interim analyses that this many values allow."""
    looks = Design(SEQUENTIAL).looks(len(values))
    return combined([effect_of_means(dict(enumerate(values[:size])), rule, weight=weight) for size, weight in looks])


class TestErrors:
    def pilot_residuals(self) -> list[float]:
        """Differences of KPO's stable methods in accuracy and reward in the first study, each pair without its mean."""
        with open(REPOSITORY / FOLDER / "pilot.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["experiment"] in ("kpo", "krpo")]
        found = []
        for measure, experiment in itertools.product(("accuracy.normal", "reward_late"), ("kpo", "krpo")):
            table: dict[str, dict[str, float]] = {}
            for row in rows:
                if row["experiment"] == experiment:
                    table.setdefault(row["label"], {})[row["seed"]] = float(row[measure])
            for first, second in itertools.combinations(sorted(table), 2):
                pair = np.array([table[first][seed] - table[second][seed] for seed in sorted(table[first])])
                found += list((pair - pair.mean()) / pair.std(ddof=1))
        return found

    @pytest.mark.parametrize("kind", ["normal", "t3", "residuals"])
    def test_reading_at_every_look_errs_in_at_most_5_percent(self, kind):
        """The true effect at the threshold; allowed are three standard errors of the simulation above 5%."""
        random, studies = np.random.default_rng(5), 500
        residuals = self.pilot_residuals()
        draw = {
            "normal": lambda size: random.normal(size=size),
            "t3": lambda size: random.standard_t(3, size=size),
            "residuals": lambda size: random.choice(residuals, size=size) * random.choice((-1, 1), size=size),
        }[kind]
        wrong = {"p_for": 0, "p_size": 0}
        for _ in range(studies):
            noise = 0.047 * draw(48)
            wrong["p_for"] += sequential(noise).p_for <= 0.05
            wrong["p_size"] += sequential(0.05 + noise).p_size <= 0.05
        allowed = 0.05 * studies + 3 * math.sqrt(0.05 * 0.95 * studies)
        assert all(0.005 * studies < count <= allowed for count in wrong.values()), wrong

    def test_the_intersected_interval_covers(self):
        random, missed = np.random.default_rng(6), 0
        for _ in range(300):
            found = sequential(0.03 + 0.05 * random.normal(size=24))
            missed += found.low is None or not found.low <= 0.03 <= found.high
        assert missed <= 30 + 3 * math.sqrt(27)

    def test_a_decision_by_24_and_48_seeds_is_as_likely_as_computed(self):
        """At .43 deviations (2 points at 4.7): .40 and .68."""
        random = np.random.default_rng(7)
        draws = 0.43 + random.normal(size=(250, 48))
        rule = Rule(ABOVE, 0.0)
        for count, power in ((24, 0.40), (48, 0.68)):
            shown = np.mean([sequential(row[:count], rule).p_for <= 0.05 for row in draws])
            assert shown == pytest.approx(power, abs=0.1)

    def test_a_look_is_tested_at_its_share(self):
        """The first of several looks may spend .4 of 5%: its interval is the one of level .02 at each end."""
        values = np.array([0.1, 0.2, 0.15, 0.05, 0.12, 0.18])
        found, plain = sequential(values), effect_of_means(dict(enumerate(values)), RULE)
        assert found.p_for == pytest.approx(plain.p_for / 0.4)
        strict = effect_of_means(dict(enumerate(values)), dataclasses.replace(RULE, significance=0.02))
        assert (found.low, found.high) == pytest.approx((strict.low, strict.high))


CLAIM = Claim(
    "test-1", "a paper", "a section", "A is better than B.", "better", NOT_FOUND, "A minus B",
    difference("late_accuracy.normal", cell("x", "a"), cell("x", "b")), RULE, "test", no_control_because="none",
)  # fmt: skip


def run(label: str, seed: int, value: float | None, right: int = 700, answers: int = 800) -> Run:
    return Run(
        "x", label, seed, {"late_accuracy.normal": value}, {}, {}, "code", {}, {}, {}, {}, f"{label}/{seed}",
        late={"normal": [right, answers]},
    )  # fmt: skip


def study_of(a: dict[int, float | None], b: dict[int, float | None], seeds=range(6, 30)) -> Study:
    cells = {
        ("x", "a"): {s: run("a", s, v) for s, v in a.items()},
        ("x", "b"): {s: run("b", s, v) for s, v in b.items()},
    }
    missing = [f"x/{label}/seed{s}" for label, own in (("a", a), ("b", b)) for s in seeds if s not in own]
    return Study("laptop", cells, {("x", "a"): list(seeds), ("x", "b"): list(seeds)}, missing)


def judged(study: Study, kind: str = SEQUENTIAL):
    (result,) = evaluate_claims(study, Design(kind), (CLAIM,))
    return result


def spread(mean: float, seeds, size: float = 0.02) -> dict[int, float]:
    return {seed: 0.5 + mean + size * (-1) ** index for index, seed in enumerate(seeds)}


FLAT = dict.fromkeys(range(6, 60), 0.5)


class TestJudging:
    def test_a_clear_effect_is_decided_at_the_first_look_and_keeps_its_verdict(self):
        found = judged(study_of(spread(0.2, range(6, 18)), FLAT))
        assert found.verdict.verdict == REPRODUCED and found.decided_at == 6
        assert sorted(found.compared.per_seed) == list(range(6, 12))
        assert "x/a/seed12: after the look that decided" in found.compared.left_out
        # What later seeds say changes nothing: the claim has stopped.
        later = {seed: 0.0 for seed in range(12, 30)}
        assert judged(study_of(spread(0.2, range(6, 12)) | later, FLAT)).verdict.verdict == REPRODUCED

    def test_an_open_claim_goes_on_and_shows_every_look(self):
        found = judged(study_of(spread(0.0, range(6, 30), 0.2), FLAT))
        assert [look.seeds for look in found.looks] == [6, 12, 24]
        highs = [look.high_so_far for look in found.looks]
        assert highs == sorted(highs, reverse=True)
        assert found.verdict.verdict == INCONCLUSIVE and found.decided_at is None
        assert found.waiting.startswith("the look at 48 complete seeds, of which there are 24")
        small = judged(study_of(spread(0.0, range(6, 30), 0.06), FLAT))
        assert small.verdict.verdict == NOT_AT_SIZE and small.decided_at in (12, 24)

    def test_a_missing_run_keeps_a_look_from_being_taken_and_is_named(self):
        a = spread(0.2, [seed for seed in range(6, 18) if seed != 9])
        found = judged(study_of(a, FLAT))
        assert found.compared.effect is None and found.verdict.verdict == INCONCLUSIVE
        assert "the look at 6 complete seeds, of which there are 3; missing: x/a seed 9" in found.verdict.reason
        # With six, the next interim analysis waits; only the six are judged.
        a = spread(0.0, [seed for seed in range(6, 18) if seed != 13], 0.2)
        found = judged(study_of(a, FLAT))
        assert found.compared.effect.num_seeds == 6 and "missing: x/a seed 13" in found.waiting
        assert "x/a/seed14: of no complete look" in found.compared.left_out

    def test_a_run_without_a_value_is_passed_over_by_name(self):
        found = judged(study_of(spread(0.2, range(6, 14)) | {8: None}, FLAT))
        assert sorted(found.compared.per_seed) == [6, 7, 9, 10, 11, 12]
        assert "without x/a/seed8, not defined there" in found.verdict.reason

    def test_seeds_of_the_pilot_are_not_read(self):
        a, b = spread(0.2, range(1, 12)), dict.fromkeys(range(1, 12), 0.5)
        found = judged(study_of(a, b, range(1, 12)))
        assert sorted(found.compared.per_seed) == list(range(FIRST_SEED, 12))

    def test_no_configured_cell_is_not_tested(self):
        study = Study("laptop", {}, {})
        assert judged(study).verdict.verdict == NOT_TESTED
        assert {one.verdict.verdict for one in evaluate_claims(study, Design(SEQUENTIAL), CLAIMS)} == {NOT_TESTED}

    def test_holm_counts_claims_that_have_no_look_yet(self):
        """The family's size does not shrink because one claim's runs are late: the correction counts its p = 1."""
        other = dataclasses.replace(
            CLAIM, id="test-2", effect=difference("late_accuracy.normal", cell("y", "a"), cell("y", "b"))
        )
        study = study_of(spread(0.2, range(6, 12)), FLAT)
        study.configured.update({("y", "a"): [6], ("y", "b"): [6]})
        first, second = evaluate_claims(study, Design(SEQUENTIAL), (CLAIM, other))
        assert first.family_size == 2 and first.corrected.effect == pytest.approx(2 * first.compared.effect.p_for)
        assert second.verdict.verdict == NOT_TESTED or second.verdict.verdict == INCONCLUSIVE


class TestNoise:
    def test_sampling_variance_by_hand(self):
        # 700 of 800 answers, one a problem: p (1 - p) / 800.
        assert sampling_variance(run("a", 6, 0.5), "late_accuracy.normal") == pytest.approx(0.875 * 0.125 / 800)
        four = dataclasses.replace(run("a", 6, 0.5), correct={"normal": [4, 2, 0]}, samples={"normal": 4})
        # Only the second problem varies: (2/4)(2/4) 4/3 / 4 / 9.
        assert sampling_variance(four, "accuracy.normal") == pytest.approx(0.25 * (4 / 3) / 4 / 9)
        assert sampling_variance(four, "reward_half") == 0.0

    def test_gains_that_are_all_zero_decide_with_their_known_deviation(self):
        """Six gains of 0 with a deviation of .0057: by hand 0.05 is excluded (t = 21), 0.004 is not (1.7 < 2.02)."""
        gain = value("drift_gain_raw", cell("x", "a"))
        for margin, verdict in ((0.05, NOT_REPRODUCED), (0.004, INCONCLUSIVE)):
            claim = dataclasses.replace(CLAIM, effect=gain, rule=Rule(ABOVE, margin, paper=None), controls=())
            runs = [dataclasses.replace(run("a", seed, 0.5), values={"drift_gain_raw": 0.0}) for seed in range(6, 12)]
            study = Study("laptop", {("x", "a"): {one.seed: one for one in runs}}, {("x", "a"): list(range(6, 12))}, [])
            assert floor(study, resolve(study, gain, {}), range(6, 12)) == pytest.approx(0.0057)
            assert evaluate_claims(study, Design(SINGLE), (claim,))[0].verdict.verdict == verdict

    def test_three_seeds_are_not_taken_quieter_than_the_first_study(self):
        study = study_of(spread(0.0, range(6, 12), 0.001), FLAT)
        part = resolve(study, CLAIM.effect, {})
        few, many = floor(study, part, range(6, 9)), floor(study, part, range(6, 12))
        assert few == pytest.approx(pilot_deviation("late_accuracy.normal", "x"))
        assert many == pytest.approx(math.sqrt(2 * 0.875 * 0.125 / 800))
        single = judged(study_of(spread(0.0, range(6, 9), 0.001), FLAT, range(6, 9)), SINGLE)
        assert single.compared.effect.raised and single.verdict.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("truth", "verdicts"),
    [(0.0, {NOT_REPRODUCED, NOT_AT_SIZE}), (0.025, {NOT_AT_SIZE, REPRODUCED}), (0.05, {REPRODUCED})],
)
def test_a_study_from_end_to_end(truth, verdicts):
    """True effect 0, half the paper's, and the paper's 5 points: 80 studies of 48 seeds, judged look by look.

    At most 5% say what is false (an effect if there is none; the paper's size excluded if it is true), most end
    in a true verdict, and the more so early.
    """
    random, false, true, seeds_used = np.random.default_rng(8), 0, 0, []
    studies = 80
    for _ in range(studies):
        noise = {seed: 0.5 + truth + 0.047 * random.normal() for seed in range(6, 54)}
        found = judged(study_of(noise, FLAT, range(6, 54)))
        wrong = {0.0: {REPRODUCED}, 0.025: {NOT_REPRODUCED}, 0.05: {NOT_AT_SIZE, NOT_REPRODUCED}}[truth]
        false += found.verdict.verdict in wrong
        true += found.verdict.verdict in verdicts
        seeds_used.append(found.decided_at or 48)
    assert false <= 0.05 * studies + 2 * math.sqrt(0.05 * 0.95 * studies)
    assert true / studies > (0.85 if truth != 0.025 else 0.6)
    assert np.mean(seeds_used) < 30
