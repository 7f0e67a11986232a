"""Measures of one run against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

from reproduction.claims import CLAIMS, get_claim
from reproduction.claims.declarations import needed_cells
from reproduction.claims.declare import (
    Claim,
    Rule,
    Side,
    cell,
    difference,
    minus,
)
from reproduction.claims.measures import (
    BENCHMARKS,
    MEASURES,
    curve_measures,
    late_counts,
    mean_of_benchmarks,
    order_bias,
    order_sensitivity,
    schedule_deviations,
    structure_measures,
)


def rows(rewards, accuracy=None, **changes):
    """Two updates for each rollout batch; entropy 1 and gradient norm 1 throughout unless changed."""
    made = []
    for batch, reward in enumerate(rewards, start=1):
        for minibatch in (1, 2):
            row = {
                "update": len(made) + 1, "rollout_batch": batch, "minibatch": minibatch, "reward": reward,
                "accuracy": reward if accuracy is None else accuracy[batch - 1], "truncation": 0.0, "entropy": 1.0,
                "gradient_norm": 1.0, "update_seconds": 0.5, "rollout_seconds": 2.0, "response_length": 60.0,
            }  # fmt: skip
            made.append(row | {name: values[len(made)] for name, values in changes.items()})
    return made


def test_late_checkpoints_by_hand():
    made = rows([0.5] * 4)
    made[5]["late_evaluation"] = {"normal": [3, 5]}
    made[7]["late_evaluation"] = {"normal": [4, 5]}
    assert late_counts(made, {"normal": 10}) == {"normal": [7, 10]}
    # A checkpoint that was not evaluated is no evidence; if its run was stopped, its answers count as wrong.
    assert late_counts(made, {"normal": 15}) is None and late_counts(made[:6], {"normal": 10}) is None
    assert late_counts(made[:6], {"normal": 10}, stopped=True) == {"normal": [3, 10]}
    assert late_counts(rows([0.5]), {}) == {}


def test_entropy_s_fall_is_a_logarithm():
    """Entropies of 1 and then 0.25 fall by log 4; the ratio's other measure is 1 - 1/4."""
    found = curve_measures(rows([0.5] * 5, entropy=[1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]), 5)
    assert found["entropy_fall"] == pytest.approx(math.log(4)) and found["entropy_drop"] == pytest.approx(0.75)


def test_sampling_is_timed_without_rewards_and_advantages():
    made = [row | {"sampling_seconds": 1.5} for row in rows([0.5] * 3)]
    assert curve_measures(made, 3)["log_sampling_seconds"] == pytest.approx(math.log(1.5 / 60))
    assert curve_measures(made, 3)["log_token_seconds"] == pytest.approx(math.log(3.0 / 60))


def test_rewards_by_hand():
    found = curve_measures(rows([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]), 10)
    assert found["reward_late"] == pytest.approx(0.95)
    assert found["reward_half"] == pytest.approx(0.8)  # .6 to 1
    # Stopped after six of ten batches: one reward and four zeros.
    assert curve_measures(rows([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 10)["reward_half"] == pytest.approx(0.6 / 5)
    assert found["reward_area"] == pytest.approx(0.55)
    assert found["collapse"] == 0.0


@pytest.mark.parametrize(
    ("accuracy", "collapse"),
    [
        # Ten batches, so the last fifth and the moving mean are two wide: best .8, half of it .4.
        ([0.2, 0.8, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.41, 0.41], 0.0),
        ([0.2, 0.8, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.39, 0.39], 1.0),
        ([0.0] * 10, 0.0),  # never learned is not collapsed
    ],
)
def test_collapse_by_accuracy(accuracy, collapse):
    assert curve_measures(rows([0.5] * 10, accuracy), 10)["collapse"] == collapse


def test_collapse_by_length_and_by_stopping():
    cut = [0.0] * 16 + [0.6] * 4
    assert curve_measures(rows([0.5] * 10, truncation=cut), 10)["collapse"] == 1.0
    # Stopped in its very last rollout batch, it has them all.
    assert curve_measures(rows([0.8] * 10), 10, stopped=True)["collapse"] == 1.0
    stopped = curve_measures(rows([0.8] * 5), 10)
    assert stopped["collapse"] == 1.0
    # The five batches that are not there count as 0.
    assert stopped["reward_late"] == 0.0 and stopped["reward_area"] == pytest.approx(0.4)


def test_entropy_and_spikes_by_hand():
    # Twenty updates: first fifth 4 of 1.0, last fifth 4 of 0.25.
    entropy = [1.0] * 16 + [0.25] * 4
    norms = [1.0] * 17 + [2.9, 3.1, 50.0]
    found = curve_measures(rows([0.5] * 10, entropy=entropy, gradient_norm=norms), 10)
    assert found["entropy_drop"] == pytest.approx(0.75)
    assert found["gradient_spikes"] == pytest.approx(2 / 20)


def test_a_run_that_breaks_keeps_its_entropy_and_its_spikes():
    # Twenty updates, the last two without a finite loss: of the 18 others the first and the last fifth are 4 each.
    entropy = [1.0] * 14 + [0.25] * 4 + [None, math.nan]
    norms = [1.0] * 16 + [2.9, 3.1, None, math.inf]
    found = curve_measures(rows([0.5] * 10, entropy=entropy, gradient_norm=norms), 10)
    assert found["entropy_drop"] == pytest.approx(0.75)
    assert found["gradient_spikes"] == pytest.approx(3 / 20)
    nothing = curve_measures(rows([0.5] * 10, entropy=[None] * 20, gradient_norm=[None] * 20), 10)
    assert math.isnan(nothing["entropy_drop"]) and nothing["gradient_spikes"] == 1.0


def test_times_by_hand():
    found = curve_measures(rows([0.5] * 10, update_seconds=[0.1, 0.3] * 10), 10)
    assert found["log_update_seconds"] == pytest.approx(math.log(0.2))
    # A batch takes 2.0 s of sampling and 0.4 s of updates for 60 tokens a response.
    assert found["log_token_seconds"] == pytest.approx(math.log(2.4 / 60))
    assert found["log_sampling_seconds"] == pytest.approx(math.log(2.0 / 60))


def test_what_is_null_stays_undefined():
    found = curve_measures(rows([None] * 10, accuracy=[0.5] * 10), 10)
    assert math.isnan(found["reward_late"]) and found["collapse"] == 0.0


def test_alternating_signs():
    log_ratio_BT = torch.tensor([[0.1, -0.1] * 10] * 3)
    found = structure_measures(log_ratio_BT, torch.ones(3, 20, dtype=torch.bool), 4.0, seed=1)
    assert found["switch_raw"] == 1.0 and found["run_raw"] == 1.0
    assert found["energy_raw"] == pytest.approx(0.0, abs=1e-12)
    assert found["switch_noise"] == pytest.approx(0.5, abs=0.1)
    assert set(found) <= set(MEASURES)


def test_the_filter_is_its_scheduled_average():
    torch.manual_seed(0)
    log_ratio_BT = torch.randn(5, 40)
    mask_BT = torch.rand(5, 40) < 0.8
    found = schedule_deviations(log_ratio_BT, mask_BT, process_variance=1 / 64, observation_variance=1.0)
    assert found["schedule_deviation"] < 1e-12
    assert found["constant_gain_deviation"] > 0.1
    # One token of 1 by hand: K_1 = Q / (Q + V) = 1/65, the steady gain 0.1172; deviation (.1172 - 1/65) * 65.
    steady = (math.sqrt(1 / 64**2 + 4 / 64) - 1 / 64) / 2
    one = schedule_deviations(torch.ones(1, 1), torch.ones(1, 1), process_variance=1 / 64, observation_variance=1.0)
    assert one["constant_gain_deviation"] == pytest.approx(steady * 65 - 1)


def test_no_log_ratio_at_all_has_no_deviation():
    found = schedule_deviations(torch.zeros(2, 5), torch.ones(2, 5), process_variance=0.1, observation_variance=1.0)
    assert all(math.isnan(value) for value in found.values())


def test_order_sensitivity_by_hand():
    """Groups of two, rewards 1 and 0: the other order is drawn half of the time."""

    def krpo(rewards):
        mean, variance, advantages = 0.0, 1.0, []
        for reward in rewards:
            predicted = variance + 1e-5
            gain = predicted / (predicted + 1e-2)
            mean, variance = mean + gain * (reward - mean), (1 - gain) * predicted
            advantages.append((reward - mean) / (math.sqrt(variance) + 1e-8))
        return np.array(advantages)

    sampled, swapped = krpo([1.0, 0.0]), krpo([0.0, 1.0])[::-1]
    expected = math.sqrt(0.5 * ((swapped - sampled) ** 2).sum() / (sampled**2).sum())
    found = order_sensitivity([torch.tensor([[1.0, 0.0]] * 400)], seed=3)
    assert found == pytest.approx(expected, rel=0.03)
    assert math.isnan(order_sensitivity([torch.zeros(4, 3)], seed=0))


class TestOrderBias:
    def rewards(self, chance, groups=40, seed=0):
        random = np.random.default_rng(seed)
        return torch.tensor((random.random((groups, 12)) < chance).astype(float))

    def test_independent_rewards_have_none_beyond_chance(self):
        """The standard deviation that the docstring gives, for the most spread of its rates, four times."""
        for chance in (0.3, 0.5, 0.8):
            assert abs(order_bias([self.rewards(chance)], seed=1)) < 4 * 0.034 * math.sqrt(48 / 40)

    def test_sorted_rewards_have_one(self):
        """The rule's margin is 0.1."""
        for chance, sign in ((0.3, 1), (0.8, -1)):
            ascending = self.rewards(chance).sort(dim=1).values
            assert sign * order_bias([ascending], seed=1) > 0.1

    def test_one_group_by_hand(self):
        """Rewards 1 and 0, each order drawn half of the time: (A - M) M / M M with M the mean of both orders."""

        def krpo(rewards):
            mean, variance, advantages = 0.0, 1.0, []
            for reward in rewards:
                predicted = variance + 1e-5
                gain = predicted / (predicted + 1e-2)
                mean, variance = mean + gain * (reward - mean), (1 - gain) * predicted
                advantages.append((reward - mean) / (math.sqrt(variance) + 1e-8))
            return np.array(advantages)

        sampled, swapped = krpo([1.0, 0.0]), krpo([0.0, 1.0])[::-1]
        mean = (sampled + swapped) / 2
        expected = ((sampled - mean) * mean).sum() / (mean * mean).sum()
        assert order_bias([torch.tensor([[1.0, 0.0]] * 400)], seed=3) == pytest.approx(expected, abs=0.03)
        assert math.isnan(order_bias([torch.zeros(4, 3)], seed=0))


def test_benchmarks_count_the_same():
    assert mean_of_benchmarks({"aime24": 0.2, "math500": 0.8, "normal": 0.0}) == pytest.approx(0.5)
    assert mean_of_benchmarks({"normal": 0.3}) is None


class TestDeclarations:
    def test_ids_are_unique_and_every_measure_exists(self):
        assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
        for claim in CLAIMS:
            assert set(claim.measures) <= set(MEASURES), claim.id
            assert get_claim(claim.id) is claim

    def test_every_claim_of_both_papers_is_there(self):
        numbers = {tuple(claim.id.split("-")[:2]) for claim in CLAIMS}
        assert numbers == {("kpo", str(n)) for n in range(1, 9)} | {("krpo", str(n)) for n in range(1, 10)}

    def test_controls_are_judged_in_the_claim_s_own_terms(self):
        """A contrast is the effect minus the control's effect, so with numbers in place of terms it must add up."""
        numbers = {}
        for claim in CLAIMS:
            for control in claim.controls:
                total = {}
                for comparison, sign in ((claim.effect, 1), (control.effect, -1), (control.contrast, -1)):
                    for term in comparison:
                        key = (term.measure, term.side)
                        total[key] = total.get(key, 0) + sign * term.weight
                if control.contrast:
                    assert not any(total.values()), (claim.id, control.name)
                    numbers[claim.id] = total
        assert len(numbers) > 20

    def test_minus_cancels(self):
        a, b, c = cell("x", "a"), cell("x", "b"), cell("x", "c")
        effect, control = difference("reward_late", a, b), difference("reward_late", c, b)
        assert minus(effect, control) == difference("reward_late", a, c)
        other = cell("y", "b")
        widening = minus(effect, difference("reward_late", c, other))
        assert set(widening) == {*effect, *difference("reward_late", other, c)} and len(widening) == 4

    def test_needed_cells_name_what_may_take_a_measure_s_place(self):
        assert needed_cells()["kpo-clips", "grpo-wide"] == {"late_accuracy.normal", "accuracy.normal"}

    def test_needed_cells_name_what_stands_in_at_another_scale(self):
        needed = needed_cells()
        assert "order_bias" in needed["krpo-normal", "krpo"] and "accuracy.hard" in needed["krpo-hard", "krpo"]
        assert BENCHMARKS in needed["kpo", "gmpo"] and "reward_late" in needed["kpo-q", "kpo-q1e-2"]

    def test_what_agreement_supports_is_no_control(self):
        for claim_id in ("kpo-1-switching", "kpo-1-runs"):
            claim = get_claim(claim_id)
            assert not claim.controls and len(claim.beside) >= 2 and "support" in claim.no_control_because

    def test_incomplete_declarations_are_refused(self):
        with pytest.raises(ValueError, match="control"):
            Claim("x", "p", "s", "s", "s", "verified", "e", difference("collapse", cell("x", "a"), cell("x", "b")),
                  Rule("above", 0.1), "f")  # fmt: skip
        with pytest.raises(ValueError, match="certainty"):
            Claim("x", "p", "s", "s", "s", "sure", "e", (), Rule("above", 0.1), "f", no_control_because="none")
        with pytest.raises(ValueError, match="side"):
            Side(())
        with pytest.raises(ValueError, match="kpo-1-switching"):
            get_claim("kpo-1")
