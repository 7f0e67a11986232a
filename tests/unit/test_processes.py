"""Hugging Face models in two processes: the updates of one process, and checkpoints that each process resumes."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from reproduction.settings.configuration import dump, load
from reproduction.settings.files import merge
from tests.processes import Server
from tests.tiny_hub import tiny_overrides

METHODS = {
    "grpo": {},
    "grpo-token-mean": {"method": "grpo", "aggregation": "token-mean", "kl_weight": 0.0},
    "gspo": {},
    # A bound that some of the filtered ratios pass, not all.
    "kpo-clipped": {"clip_low": 0.05, "clip_high": 0.05},
    "krpo": {},
}
UPDATES, KILL_AT = 4, 3
LORA = {"rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Configuration file and model: 12 responses in 3 groups, of which the second is split over both processes."""
    folder = tmp_path_factory.mktemp("processes")
    overrides = tiny_overrides(folder / "mirror", folder / "results")
    overrides["experiments"] = {
        "kpo": merge(
            overrides["experiments"]["kpo"],
            {"training": {"prompts_per_rollout": 3}, "pretrained": {"micro_batch": 1}},
        )
    }
    overrides["experiments"]["kpo"]["methods"] = METHODS
    overrides["safety"] = {"checkpoint_every": 1}
    path = folder / "config.yaml"
    path.write_text(dump(load(overrides)))
    return {"config": path, "model": next((folder / "mirror/tiny/model").iterdir())}


def changed(given, folder, **values):
    """The same with other values of the section on the model."""
    settings = yaml.safe_load(given["config"].read_text())
    settings["experiments"]["kpo"]["pretrained"].update(values)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return {**given, "config": folder / "config.yaml"}


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]


def same_updates(server, given, folder, label, **changes):
    """Train the same completions in one process and in two; the gradients, weights and metrics must agree."""
    for processes in (1, 2):
        output = folder / f"{label}-{processes}"
        job = {"processes": processes, "fixed_rollouts": 2, "gradients": folder / f"{label}-{processes}.safetensors"}
        more = changes if processes == 2 else {}
        assert server.run(**given, label=label, output=output, **job, **more) == [0] * processes
    one, two = (load_file(folder / f"{label}-{processes}.safetensors") for processes in (1, 2))
    assert one.keys() == two.keys() and len(one) == UPDATES * len({name.split(".")[1] for name in one})
    for name, gradient in one.items():
        # Later gradients are those of weights that AdamW also moved by rounding errors, if a gradient is almost 0.
        tolerance = 1e-5 if name.startswith("1.") else 2e-3
        scale = gradient.abs().max()
        assert (gradient - two[name]).abs().max() <= tolerance * scale + 1e-9, name
    rows, other_rows = rows_of(folder / f"{label}-1"), rows_of(folder / f"{label}-2")
    assert len(rows) == UPDATES and any(row["log_ratio_std"] > 1e-3 for row in rows), "some update must be off-policy"
    for row, other in zip(rows, other_rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            expected = value if value is None else pytest.approx(value, rel=2e-3, abs=2e-5)
            assert other[name] == expected, (row["update"], name)
    before = load_file(given["model"] / "model.safetensors")
    after, other_after = (load_file(folder / f"{label}-{count}/model/model.safetensors") for count in (1, 2))
    assert before.keys() == after.keys() == other_after.keys()
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before]).mean()
    apart = torch.cat([(after[name] - other_after[name]).abs().flatten() for name in before]).mean()
    assert apart < 2e-3 * moved
    kept, other_kept = (load_file(folder / f"{label}-{count}/structure.safetensors") for count in (1, 2))
    assert kept.keys() == other_kept.keys()
    assert kept["00002.log_ratio"].shape[0] == other_kept["00002.log_ratio"].shape[0] == 6, "the whole minibatch"
    for name in ("rollout1.rewards", "rollout2.rewards"):
        torch.testing.assert_close(kept[name], other_kept[name])


@pytest.mark.parametrize("label", METHODS)
def test_two_processes_make_the_updates_of_one(server, given, tmp_path, label):
    same_updates(server, given, tmp_path, label)


def test_a_model_shared_by_fsdp2_makes_the_updates_of_one_process(server, given, tmp_path):
    """As the launcher shares it, the reference model of the KL term included."""
    same_updates(server, given, tmp_path, "krpo", fsdp=True)
    assert abs(rows_of(tmp_path / "krpo-2")[0]["kl"]) < 1e-6, "before the first update the policy is the reference"


def test_log_probabilities_of_a_shared_16_bit_model_are_not_rounded_to_16_bits(server, given, tmp_path):
    """accelerate's own policy returns bfloat16: log-ratios are then multiples of 1/32 where log-probabilities are below
    -4, as nearly all of this model's are.
    """
    job = {"processes": 2, "fixed_rollouts": 2, "fsdp": True, "output": tmp_path / "run"}
    assert server.run(**changed(given, tmp_path, precision="bfloat16"), label="gspo", **job) == [0, 0]
    kept = load_file(tmp_path / "run/structure.safetensors")
    log_ratio = kept["00002.log_ratio"][kept["00002.mask"].bool()]
    assert log_ratio.abs().max() > 1e-3 and not torch.equal(log_ratio, (log_ratio * 128).round() / 128)


KILLED = {
    "one process": ("grpo", {"processes": 1}),
    "two processes": ("kpo-clipped", {"processes": 2}),
    "one process with adapters": ("krpo", {"processes": 1, "lora": LORA}),
    "two processes with shards": ("krpo", {"processes": 2, "fsdp": True, "fixed_rollouts": 2}),
}


@pytest.mark.parametrize("case", KILLED, ids=str)
def test_a_killed_run_continues_to_the_bit(server, given, tmp_path, case):
    """Killed before its third update was kept, the first of the second rollout batch."""
    label, job = KILLED[case][0], dict(KILLED[case][1])
    if "lora" in job:
        pytest.importorskip("peft", reason="peft is in the locks since adapters are; run `make setup`")
        given = changed(given, tmp_path, lora=job.pop("lora"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert server.run(**given, label=label, output=whole, **job) == [0] * job["processes"]
    assert server.run(**given, label=label, output=killed, kill_at=KILL_AT, **job) == [-9] * job["processes"]
    (checkpoint,) = (killed / "checkpoint").glob("update-*")
    assert checkpoint.name == f"update-{KILL_AT - 1:05d}" and not (killed / "model").exists()
    parts = [path for path in checkpoint.rglob("*") if path.is_dir()] or [checkpoint]
    assert len(parts) == job["processes"]
    # What is not equal here is not continued (test_resume.py).
    assert json.loads((checkpoint / "checkpoint.json").read_text())["identity"]["number of processes"] == len(parts)
    assert all(path.suffix in (".json", ".safetensors") for path in checkpoint.rglob("*") if path.is_file())
    assert server.run(**given, label=label, output=killed, **job) == [0] * job["processes"]
    assert rows_of(killed) == rows_of(whole) and [row["update"] for row in rows_of(whole)] == [1, 2, 3, 4]
    for name in ("model/model.safetensors", "structure.safetensors", "config.yaml"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    provenance = json.loads((killed / "provenance.json").read_text())
    assert provenance["interruptions"] == [{"continued_after_update": KILL_AT - 1}]
    assert not (killed / "checkpoint").exists()


def test_a_disk_that_is_full_in_one_process_leaves_no_process_waiting(server, given, tmp_path):
    """Its checkpoint is left out in both, which go on, or both end, each with the reason."""
    job = {**given, "label": "grpo", "processes": 2, "fixed_rollouts": 2, "full_at": 2}
    assert server.run(**job, output=tmp_path / "on") == [0, 0]
    (fault,) = json.loads((tmp_path / "on/provenance.json").read_text())["faults"]
    assert fault["kind"] == "checkpoint" and fault["first_update"] == 2 and "File too large" in fault["message"]
    settings = yaml.safe_load(given["config"].read_text())
    settings["safety"]["checkpoint"] = "stop"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    ended = server.run(**{**job, "config": tmp_path / "config.yaml"}, output=tmp_path / "off")
    assert all(code in (1, -9) for code in ended), "the one that waits on is killed as a launcher would"
    assert [path.name for path in (tmp_path / "off/checkpoint").glob("update-*")] == ["update-00001"]
    (event,) = json.loads((tmp_path / "off/checkpoint/history.json").read_text())["events"]
    assert event["failed_after_update"] == 2 and "File too large" in event["message"]


def test_adapters_are_trained_and_merged(server, given, tmp_path):
    """Each linear layer but the head moves by a matrix of the adapters' rank; the first KL is that of no change."""
    pytest.importorskip("peft", reason="peft is in the locks since adapters are; run `make setup`")
    job = {**changed(given, tmp_path, lora=LORA), "label": "krpo", "output": tmp_path}
    assert server.run(**job) == [0]
    before, after = (load_file(folder / "model.safetensors") for folder in (given["model"], tmp_path / "model"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight")} and len(moved) == 7
    for name in moved:
        sizes = torch.linalg.svdvals((after[name] - before[name]).double())
        assert sizes[LORA["rank"] - 1] > 1e-5 and sizes[LORA["rank"] :].max() < 1e-3 * sizes[0], name
    rows = rows_of(tmp_path)
    assert abs(rows[0]["kl"]) < 1e-6 < rows[1]["kl"]
