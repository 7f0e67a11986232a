"""The figures of runs: incomplete results are refused or named; the look of a method; a study's runs stay out.

What holds for all figures, those of claims among them, is in test_claim_figures.py.
"""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from paper_figures import (
    __main__ as all_figures,
)
from paper_figures import (
    entropy_gradient_norm,
    final_accuracy,
    group_advantages,
    pass_at_k,
    response_log_ratio,
    style,
    training_curves,
)
from paper_figures.results import Results, ResultsError
from reproduction.jobs.files import read_json, read_jsonl, write_json, write_jsonl
from tests.synthetic_results import write_results

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"rollout_batches": 4, "minibatches": 2, "problems": 5, "samples": 4, "response_length": 12}
# The file of kpo/grpo that each figure cannot do without.
NEEDS = {
    "training_curves": "metrics.jsonl",
    "entropy_gradient_norm": "metrics.jsonl",
    "final_accuracy": "evaluation.json",
    "pass_at_k": "evaluation.json",
    "response_log_ratio": "structure.safetensors",
    "structure": "structure.safetensors",
    "premise": "structure.safetensors",
}
FIGURES = {name: __import__(f"paper_figures.{name}", fromlist=["draw"]) for name in NEEDS}


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


def test_a_script_refuses_with_status_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "paper_figures.training_curves", "--results", "nowhere", "--output", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.splitlines() == [
        "training_curves: nowhere: no such folder; give --results a scale's folder, such as results/laptop"
    ]


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_missing_file_is_one_line_that_names_it(name, tree, tmp_path, capsys):
    missing = tree / "kpo" / "grpo" / "seed1" / NEEDS[name]
    missing.unlink()
    assert FIGURES[name].main(["--results", str(tree), "--output", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1
    assert str(missing) in output.err
    assert not (tmp_path / "out").exists()


def test_group_advantages_names_the_missing_file(tree, tmp_path, capsys):
    missing = tree / "krpo" / "grpo" / "seed3" / "structure.safetensors"
    missing.unlink()
    assert group_advantages.main(["--results", str(tree), "--output", str(tmp_path / "out")]) == 2
    assert str(missing) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yaml", "summary.json"])
def test_missing_tables_are_named(name, tree, tmp_path, capsys):
    (tree / name).unlink()
    assert final_accuracy.main(["--results", str(tree), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"final_accuracy: {tree / name}: missing")


def test_all_figures_go_on_after_one_that_cannot_be_drawn(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(all_figures, "FIGURES", ("group_advantages", "response_log_ratio"))
    (tree / "krpo/grpo/seed1/structure.safetensors").unlink()
    assert all_figures.main(["--results", str(tree), "--output", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "response_log_ratio.json",
        "response_log_ratio.pdf",
        "response_log_ratio.png",
    ]


def test_missing_seeds_are_written_into_the_figure_when_allowed(tree):
    (tree / "kpo/gspo/seed3/metrics.jsonl").unlink()
    with pytest.raises(ResultsError, match="seed3/metrics.jsonl: missing"):
        training_curves.draw(Results(tree))
    figure = training_curves.draw(Results(tree, allow_missing=True))
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert "Not in this figure: kpo/gspo seed 3." in texts
    assert any("mean over 3 seeds (fewer where some are missing)" in text for text in texts)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row(1, 1, 1), row(2, 1, 2), row(3, 2, 1)], "rollout batch 2 has minibatches"),
        ([row(1, 1, 1), row(2, 1, 2)], "1 rollout batches of the 4"),
        ([row(1, 1, 1), row(3, 1, 2)], "expected update 2, found 3"),
        ([row(1, 2, 1)], "not 1 to 1"),
        ([row(1, 1, 1, reward="high")], "'reward' must be a number"),
        ([{"update": 1}], "'rollout_batch' must be a whole number"),
        ([], "no updates"),
    ],
)
def test_partial_metrics_are_refused(rows, reason, tree):
    path = tree / "kpo" / "krpo" / "seed2" / "metrics.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(ResultsError, match=reason) as refusal:
        entropy_gradient_norm.draw(Results(tree))
    assert str(path) in str(refusal.value)


def test_a_run_that_was_stopped_is_drawn_as_far_as_it_came(tree):
    """Its gradient was no longer finite: the comparison keeps it, and its curve ends."""
    folder = tree / "kpo" / "krpo" / "seed2"
    rows = read_jsonl(folder / "metrics.jsonl")
    write_jsonl(folder / "metrics.jsonl", rows[:3])
    with pytest.raises(ResultsError, match="partial"):
        Results(tree).metrics("kpo", "krpo")
    provenance = read_json(folder / "provenance.json")
    write_json(folder / "provenance.json", {**provenance, "stopped": "update 4: the gradient is not finite"})
    found = Results(tree).metrics("kpo", "krpo")
    assert found[2][:3] == rows[:3] and len(found[2]) == len(rows) == len(found[1])
    assert [(row["update"], row["rollout_batch"], row["minibatch"]) for row in found[2]] == [
        (row["update"], row["rollout_batch"], row["minibatch"]) for row in rows
    ]
    assert all(row["reward"] is None for row in found[2][3:])
    training_curves.draw(Results(tree))
    entropy_gradient_norm.draw(Results(tree))


def test_a_torn_file_is_refused(tree, capsys, tmp_path):
    path = tree / "kpo" / "grpo" / "seed1" / "structure.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    assert response_log_ratio.main(["--results", str(tree), "--output", str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_only_on_policy_log_ratios_are_refused(tree):
    path = tree / "kpo" / "grpo" / "seed1" / "structure.safetensors"
    tensors = load_file(path)
    for key in list(tensors):
        if key.endswith(".minibatch"):
            tensors[key] = torch.tensor(1)
    save_file(tensors, path)
    with pytest.raises(ResultsError, match="no update after the first of its rollout batch"):
        response_log_ratio.draw(Results(tree))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.update(seeds=[1, 2], per_seed={"1": 0.1, "2": 0.2}), "is a mean over seeds"),
        (lambda entry: entry["per_seed"].update({"1": 2.0}), "but evaluation.json says"),
        (lambda entry: entry.update(avg_at_k=entry["avg_at_k"] + 0.01), "is not the mean"),
        (lambda entry: entry.update(split="other"), "has no row"),
    ],
)
def test_a_summary_that_is_out_of_date_is_refused(change, reason, tree):
    summary = read_json(tree / "summary.json")
    change(next(entry for entry in summary["rows"] if entry["method"] == "gspo"))
    write_json(tree / "summary.json", summary)
    with pytest.raises(ResultsError, match=reason):
        final_accuracy.draw(Results(tree))


def test_models_evaluated_unlike_are_refused(tree):
    path = tree / "krpo/krpo/seed2/evaluation.json"
    evaluation = read_json(path)
    evaluation["sampling"]["top_p"] = 0.7
    write_json(path, evaluation)
    with pytest.raises(ResultsError, match="different sampling"):
        final_accuracy.draw(Results(tree))


def test_an_output_that_cannot_be_written_is_one_line(pristine, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert pass_at_k.main(["--results", str(pristine), "--output", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_experiment_left_out_is_skipped_with_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(all_figures, "FIGURES", tuple(NEEDS))
    root = write_results(tmp_path / "laptop", experiments={"krpo": ("grpo", "krpo")}, **SMALL)
    assert all_figures.main(["--results", str(root), "--output", str(tmp_path / "out")]) == 0
    skipped = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert [line.split(":")[0] for line in skipped] == [
        "entropy_gradient_norm", "response_log_ratio", "structure", "premise",
    ]  # fmt: skip
    assert all("no experiment 'kpo'" in line for line in skipped)


@pytest.mark.parametrize("value", [None, 0, -3, "17", math.inf])
def test_a_bad_time_constant_is_refused(value, tree):
    config = yaml.safe_load((tree / "config.yaml").read_text())
    config["experiments"]["kpo"]["kalman_time_constant"] = value
    (tree / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ResultsError, match=r"config\.yaml: experiments\.kpo\.kalman_time_constant"):
        Results(tree).time_constant("kpo")


def test_equal_seeds_have_an_interval_of_no_length(tree):
    summary = read_json(tree / "summary.json")
    for seed in (1, 2, 3):
        path = tree / f"kpo/gspo/seed{seed}/evaluation.json"
        evaluation = read_json(path)
        evaluation["splits"]["easy"]["avg_at_k"] = 0.1
        write_json(path, evaluation)
    entry = next(
        entry
        for entry in summary["rows"]
        if (entry["experiment"], entry["method"], entry["split"]) == ("kpo", "gspo", "easy")
    )
    # The mean of three times 0.1 is 0.10000000000000002 in floating point, above the interval's end.
    entry.update(avg_at_k=sum([0.1] * 3) / 3, avg_at_k_interval=[0.1, 0.1], per_seed={"1": 0.1, "2": 0.1, "3": 0.1})
    write_json(tree / "summary.json", summary)
    assert entry["avg_at_k"] > 0.1
    assert final_accuracy.draw(Results(tree)).axes


def test_methods_differ_in_more_than_colour():
    named = {**style.LOOKS, **style.CONTROLS}
    table = style.looks([*named, *(f"mine-{index}" for index in range(10))])
    shapes = [(str(look.line), look.marker) for look in table.values()]
    assert len(set(shapes)) == len(table)
    assert len({look.marker for look in named.values()}) == len(named)
    assert len({look.colour for look in named.values()}) == len(named)


def test_a_legend_takes_as_many_columns_as_fit():
    with style.applied():
        for methods in (["grpo"], ["grpo", "krpo"], [*style.LOOKS, *style.CONTROLS], ["a" * 60, "b" * 60, "c" * 60]):
            figure = style.new_figure(1.0, "title", "caption", style.looks(methods))
            figure.canvas.draw()
            (legend,) = figure.legends
            assert len(legend.texts) == len(methods)
            assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_experiments_of_a_study_stay_out_of_the_figures_of_the_scale(tmp_path):
    """A study adds dozens of methods; these figures show the scale's own comparisons."""
    experiments = {
        "kpo": ("grpo", "kpo-ema"),
        "kpo-clips": tuple(f"variant-{index}" for index in range(30)),
        "krpo": ("grpo", "krpo"),
    }
    results = Results(write_results(tmp_path, experiments=experiments, seeds=(1,), **SMALL))
    for module in (training_curves, final_accuracy, pass_at_k):
        figure = module.draw(results)
        titles = [panel.get_title(loc="left") for panel in figure.axes]
        assert not any("clips" in title for title in titles)
        named = {text.get_text() for legend in figure.legends for text in legend.texts}
        assert named <= {"base", "GRPO", "KPO-EMA", "KRPO"}


def test_a_method_looks_the_same_in_every_figure(tmp_path):
    experiments = {"krpo": ("grpo", "mine"), "kpo": ("grpo", "other", "mine")}
    results = Results(write_results(tmp_path, experiments=experiments, **SMALL))
    colours = []
    for module in (pass_at_k, entropy_gradient_norm, final_accuracy):
        (legend,) = module.draw(results).legends
        colours.append(
            {text.get_text(): line.get_color() for text, line in zip(legend.texts, legend.get_lines(), strict=True)}
        )
    assert colours[0]["mine"] == colours[1]["mine"] == colours[2]["mine"] != colours[0]["other"]
