"""The table over runs: hand-worked means, and no average over what is missing or does not belong together."""

import numpy as np
import pytest

from reproduction.evaluation.summary import outcomes, summarise_split, write_summary
from reproduction.jobs.files import read_json, write_json
from reproduction.jobs.plan import plan_text
from reproduction.settings.configuration import load


@pytest.fixture
def configuration(tmp_path):
    experiments = {name: {"methods": {"grpo": {}, "krpo": {"kl_weight": 0.0}}} for name in ("kpo", "krpo")}
    return load({"scale": "smoke", "results": str(tmp_path / "results"), "experiments": experiments})


def write_evaluations(configuration, right):
    """`right(experiment, method, seed)` problems of 4 are right in all 2 samples, the others in none."""
    folders = {("base", "base", seed) for seed in configuration.seeds} | set(configuration.runs())
    for experiment, method, seed in folders:
        correct = np.zeros((4, 2), dtype=int)
        correct[: right(experiment, method, seed)] = 1
        splits = {
            name: summarise_split(correct, correct[:, :1], configuration.evaluation)
            for name in configuration.problems.levels
        }
        write_json(configuration.run_folder(experiment, method, seed) / "evaluation.json", {"splits": splits})


def by_hand(experiment, method, seed):
    return {"base": 0, "grpo": 2, "krpo": 3}[method] + (seed == 2 and method == "grpo")


def test_means_over_seeds(configuration):
    write_evaluations(configuration, by_hand)
    write_summary(configuration)
    rows = read_json(configuration.folder / "summary.json")["rows"]
    assert len(rows) == (1 + 2 * 2) * 3
    found = {(row["experiment"], row["method"], row["split"]): row for row in rows}
    grpo = found["kpo", "grpo", "normal"]
    assert grpo["avg_at_k"] == grpo["greedy"] == grpo["pass_at_k"] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert grpo["per_seed"] == {"1": 0.5, "2": 0.75}
    low, high = grpo["avg_at_k_interval"]
    assert low < 0.5 and high > 0.75
    table = (configuration.folder / "summary.md").read_text()
    assert "| grpo | 62.5 [" in table and "| base (before training) | 0.0 [" in table
    assert table.index("easy") < table.index("normal") < table.index("hard")


def test_a_missing_run_is_named(configuration):
    write_evaluations(configuration, by_hand)
    missing = configuration.run_folder("krpo", "grpo", 2) / "evaluation.json"
    missing.unlink()
    with pytest.raises(ValueError, match="krpo/grpo/seed2/evaluation.json is missing"):
        write_summary(configuration)
    assert not (configuration.folder / "summary.json").exists()


def test_seeds_that_answered_other_problems_are_not_averaged(configuration):
    write_evaluations(configuration, by_hand)
    path = configuration.run_folder("kpo", "grpo", 1) / "evaluation.json"
    content = read_json(path)
    content["splits"]["hard"]["num_problems"] = 3
    write_json(path, content)
    with pytest.raises(ValueError, match="kpo/grpo: the seeds' evaluations of 'hard'"):
        write_summary(configuration)


def test_counts_and_outcomes_agree():
    assert outcomes({"correct": [0, 2, 3], "samples_per_problem": 3}).sum(axis=1).tolist() == [0, 2, 3]


def test_plan_counts_the_work(configuration):
    text = plan_text(configuration, cores=2)
    assert "kpo          4 runs: grpo, krpo" in text
    assert "2 base models" in text or "base models  2" in text
    jobs = 2 * configuration.base_model.expected_seconds + 10 * configuration.evaluation.expected_seconds
    jobs += sum(4 * experiment.expected_seconds for experiment in configuration.experiments.values())
    minutes, seconds = divmod(round(jobs / 2), 60)
    assert f"about {minutes}:{seconds:02d}" in text
