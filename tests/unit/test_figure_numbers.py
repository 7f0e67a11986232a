"""What the figures draw equals what the files say: hand-worked numbers, brute force and the recursions themselves."""

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import gaussian_kde

from paper_figures import (
    entropy_gradient_norm,
    final_accuracy,
    group_advantages,
    pass_at_k,
    response_log_ratio,
    structure,
    training_curves,
)
from paper_figures.aggregate import over_seeds, per_rollout_batch
from paper_figures.results import KeptUpdate, Results, ResultsError, Structure
from reproduction.jobs.files import read_json, read_jsonl, write_jsonl
from tests.synthetic_results import write_results

SMALL = {"rollout_batches": 4, "minibatches": 2, "problems": 5, "samples": 4, "response_length": 12}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results") / "laptop", **SMALL)


@pytest.fixture
def tree(pristine, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "laptop"))


def row(update, rollout_batch, minibatch, **values):
    metrics = dict.fromkeys(("reward", "accuracy", "entropy", "gradient_norm", "clip_share", "log_ratio_std"), 0.0)
    return {"update": update, "rollout_batch": rollout_batch, "minibatch": minibatch, **metrics, **values}


def test_per_rollout_batch_is_the_mean_over_minibatches():
    rows = [row(1, 1, 1, entropy=1.0), row(2, 1, 2, entropy=2.0), row(3, 2, 1, entropy=5.0), row(4, 2, 2, entropy=None)]
    values = per_rollout_batch(rows, "entropy")
    assert values[0] == 1.5
    assert math.isnan(values[1])  # not 5.0, the mean over the minibatches that have a value
    assert per_rollout_batch(rows[:3], "entropy").tolist() == [1.5, 5.0]


def test_per_rollout_batch_off_policy_leaves_out_the_first_minibatch():
    rows = [row(1, 1, 1, clip_share=0.0), row(2, 1, 2, clip_share=0.2), row(3, 1, 3, clip_share=0.4), row(4, 2, 1)]
    values = per_rollout_batch(rows, "clip_share", off_policy_only=True)
    assert values[0] == pytest.approx(0.3)
    assert math.isnan(values[1])


def test_over_seeds_by_hand():
    mean, low, high = over_seeds({1: [0.0, 1.0, 2.0], 2: [3.0, 5.0, math.nan], 3: [0.0, 6.0, 4.0]})
    assert mean[:2].tolist() == [1.0, 4.0] and low[:2].tolist() == [0.0, 1.0] and high[:2].tolist() == [3.0, 6.0]
    assert all(math.isnan(values[2]) for values in (mean, low, high))


def test_over_seeds_refuses_unequal_lengths_and_no_seeds():
    with pytest.raises(ValueError, match="different lengths"):
        over_seeds({1: [0.0, 1.0], 2: [0.0]})
    with pytest.raises(ValueError, match="no seeds"):
        over_seeds({})


def test_training_curves_draw_the_mean_and_range_over_seeds(tmp_path):
    root = write_results(tmp_path, experiments={"kpo": ("grpo",)}, seeds=(1, 2), **SMALL | {"rollout_batches": 2})
    for seed, rewards in ((1, (0.25, 0.5)), (2, (0.75, 0.75))):
        rows = [
            row(index + 1, index // 2 + 1, index % 2 + 1, reward=rewards[index // 2], accuracy=rewards[index // 2])
            for index in range(4)
        ]
        write_jsonl(root / "kpo" / "grpo" / f"seed{seed}" / "metrics.jsonl", rows)
    (panel,) = training_curves.draw(Results(root)).axes
    drawn = [line.get_ydata().tolist() for line in panel.lines]
    assert [0.5, 0.625] in drawn  # the mean
    assert [0.25, 0.5] in drawn and [0.75, 0.75] in drawn  # each seed
    (band,) = panel.collections
    heights = band.get_paths()[0].vertices
    assert {tuple(vertex) for vertex in heights} == {(1.0, 0.25), (1.0, 0.75), (2.0, 0.5), (2.0, 0.75)}


def test_each_method_has_a_panel(pristine):
    """The kpo experiment has six: each panel has its own mean in front, and the five others in grey."""
    figure = training_curves.draw(Results(pristine))
    table = training_curves.curves(Results(pristine), "kpo")
    assert len(figure.axes) == 8 and figure.axes[0].get_ylabel() == "experiment kpo\nreward"
    panels = {panel.get_title(loc="left"): panel for panel in figure.axes[: len(table)]}
    for method, name in (("grpo", "GRPO"), ("kpo-clipped", "KPO clipped"), ("krpo", "KRPO")):
        mean = np.mean(list(table[method].values()), axis=0)
        assert panels[name].lines[-1].get_ydata() == pytest.approx(mean)
        grey = [line.get_ydata() for line in panels[name].lines if line.get_color() == training_curves.OTHERS]
        others = [np.mean(list(table[other].values()), axis=0) for other in table if other != method]
        assert np.array(grey) == pytest.approx(np.array(others))


def test_entropy_panel_equals_the_file(pristine):
    rows = read_jsonl(pristine / "kpo" / "gspo" / "seed3" / "metrics.jsonl")
    drawn = entropy_gradient_norm.curves(Results(pristine), "log_ratio_std", True)["gspo"][3]
    # Two minibatches a rollout batch: off-policy is every second row.
    assert drawn.tolist() == pytest.approx([entry["log_ratio_std"] for entry in rows[1::2]])


def test_final_accuracy_takes_mean_and_interval_of_the_summary(pristine):
    table = final_accuracy.estimates(Results(pristine), "kpo")
    assert list(table) == ["easy", "normal", "hard"]
    assert list(table["normal"])[:2] == ["base", "grpo"]
    counts = [
        read_json(pristine / f"kpo/gmpo/seed{seed}/evaluation.json")["splits"]["hard"]["correct"] for seed in (1, 2, 3)
    ]
    estimate = table["hard"]["gmpo"]
    assert estimate.mean == pytest.approx(sum(map(sum, counts)) / (3 * 5 * 4))
    assert estimate.by_seed == pytest.approx(
        {seed: sum(right) / 20 for seed, right in zip((1, 2, 3), counts, strict=True)}
    )
    (summary,) = [
        entry
        for entry in read_json(pristine / "summary.json")["rows"]
        if (entry["experiment"], entry["method"], entry["split"]) == ("kpo", "gmpo", "hard")
    ]
    assert [estimate.low, estimate.high] == summary["avg_at_k_interval"]


def test_pass_curve_equals_all_subsets():
    counts, samples = [0, 1, 3, 5], 5
    for k, value in enumerate(pass_at_k.pass_curve(counts, samples), start=1):
        rates = []
        for count in counts:
            right = [1] * count + [0] * (samples - count)
            rates.append(np.mean([max(subset) for subset in itertools.combinations(right, k)]))
        assert value == pytest.approx(np.mean(rates), abs=1e-12)


def test_pass_curve_refuses_impossible_counts():
    with pytest.raises(ResultsError, match="outside 0 to 4"):
        pass_at_k.pass_curve([5], 4)


def test_median_response_by_hand():
    log_ratio = torch.tensor([[9.0, -9.0, 0.0], [1.0, -1.0, 50.0], [3.0, -3.0, 50.0], [2.0, 70.0, 70.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=torch.uint8)
    # Spreads 7.3, 1, 3; the last has one token and does not count.
    assert response_log_ratio.median_response(KeptUpdate(1, 2, log_ratio, mask, torch.zeros(4))) == 2


def test_response_is_filtered_in_order_and_shuffled(pristine):
    results = Results(pristine)
    response = response_log_ratio.choose(results)
    assert response.minibatch == 2 and response.seed == 1
    tensors = load_file(pristine / "kpo/grpo/seed1/structure.safetensors")
    rows = tensors[f"{response.update:05d}.log_ratio"]
    assert any(np.array_equal(response.raw, line[: len(response.raw)].double().numpy()) for line in rows)
    assert sorted(response.shuffled) == sorted(response.raw) and response.shuffled.tolist() != response.raw.tolist()
    for raw, smooth in ((response.raw, response.filtered), (response.shuffled, response.shuffled_filtered)):
        mean = variance = 0.0
        for observation, drawn in zip(raw, smooth, strict=True):
            predicted = variance + 1 / results.time_constant("kpo") ** 2
            gain = predicted / (predicted + 1.0)
            mean, variance = mean + gain * (observation - mean), (1 - gain) * predicted
            assert drawn == pytest.approx(mean, rel=1e-9, abs=1e-12)


def test_densities_of_a_response_are_those_of_its_values(pristine):
    """Each curve covers the range of its values and is scipy's estimate there."""
    results = Results(pristine)
    response = response_log_ratio.choose(results)
    _, _, raw, _, _, filtered = response_log_ratio.draw(results).axes
    curves = [line.get_data() for panel in (raw, filtered) for line in panel.lines]
    for (density, values), given in zip(
        curves, (response.raw, response.filtered, response.shuffled_filtered), strict=True
    ):
        assert (values.min(), values.max()) == pytest.approx((given.min(), given.max()))
        assert density == pytest.approx(gaussian_kde(given)(values), rel=1e-6)


def test_mean_size_by_place_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    # Group mean 1/2, sample standard deviation sqrt(1/2).
    assert group_advantages.mean_size_by_place(rewards, "grpo") == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-5)
    sizes = []
    for group in rewards.tolist():
        mean, variance = 0.0, 1.0
        for reward in group:
            predicted = variance + 1e-5
            gain = predicted / (predicted + 1e-2)
            mean, variance = mean + gain * (reward - mean), (1 - gain) * predicted
            sizes.append(abs(reward - mean) / (math.sqrt(variance) + 1e-8))
    expected = [(sizes[0] + sizes[2]) / 2, (sizes[1] + sizes[3]) / 2]
    assert group_advantages.mean_size_by_place(rewards, "krpo") == pytest.approx(expected, rel=1e-9)


def test_example_group_is_the_first_of_the_widest():
    rewards = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    assert group_advantages.example_group(rewards) == 2


def test_groups_with_an_ungraded_response_are_left_out(tree):
    path = tree / "krpo/grpo/seed1/structure.safetensors"
    tensors = load_file(path)
    tensors["rollout2.rewards"][1, 0] = math.nan
    save_file(tensors, path)
    kept = group_advantages.rewards_by_seed(Results(tree), "krpo")
    # Rollout batches 2 and 4 were kept, of 4 prompts each.
    assert len(kept[1]) == 7 and len(kept[2]) == 8 and bool(kept[1].isfinite().all())


def test_structure_measures_only_off_policy_tokens():
    signs = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    updates = [
        KeptUpdate(1, 1, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.uint8), torch.zeros(1)),
        KeptUpdate(2, 2, signs, torch.ones(1, 4, dtype=torch.uint8), torch.zeros(1)),
        KeptUpdate(3, 3, torch.tensor([[2.0, 2.0]]), torch.tensor([[1, 0]], dtype=torch.uint8), torch.zeros(1)),
    ]
    log_ratio, mask = structure.stacked(Structure(updates, {}))
    assert log_ratio.tolist() == [[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, 0.0, 0.0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_structure_draws_the_mean_over_seeds(pristine):
    results = Results(pristine)
    table = structure.measured(results)
    assert list(table) == [1, 2, 3]
    # The raw switch frequency of seed 2 counted pair by pair (the made-up values hold no exact zeros).
    tensors = load_file(pristine / "kpo/grpo/seed2/structure.safetensors")
    switches = pairs = 0
    for key in [
        key.removesuffix(".minibatch") for key, value in tensors.items() if key.endswith("minibatch") and value > 1
    ]:
        for row, mask in zip(tensors[f"{key}.log_ratio"].tolist(), tensors[f"{key}.mask"].tolist(), strict=True):
            values = [value for value, counted in zip(row, mask, strict=True) if counted]
            pairs += len(values) - 1
            switches += sum(first * second < 0 for first, second in itertools.pairwise(values))
    assert table[2]["raw"]["switch_frequency"] == pytest.approx(switches / pairs)
    panel = structure.draw(results).axes[0]
    marks = [container.lines[0].get_ydata()[0] for container in panel.containers]
    expected = [
        np.mean([table[seed][series]["switch_frequency"] for seed in table])
        for before, after, _ in structure.SERIES
        for series in (before, after)
    ]
    assert marks == pytest.approx(expected)
