"""Faults while training: noticed, named, counted, with the last good weights kept, and answered as configured."""

import dataclasses
import errno
import json
import resource

import pytest
import torch
from safetensors import SafetensorError
from trl import GRPOTrainer

import kpo.trl as trainer_module
import reproduction.training.resume as resume_module
import reproduction.training.train as train_module
from reproduction.data import make_splits
from reproduction.data.splits import levels
from reproduction.data.tokenizer import build_tokenizer
from reproduction.settings.configuration import load
from reproduction.settings.run import get_run
from reproduction.training.base_model import build_model
from reproduction.training.checkpoint import CheckpointFolder
from reproduction.training.faults import COLLAPSE, NON_FINITE, UNGRADED, FaultMonitor, describe
from reproduction.training.rollouts import DecodingTrainer
from reproduction.training.saving import save_model
from reproduction.training.train import train as train_run
from reproduction.training.trainer import MethodTrainer

NAN, INF = float("nan"), float("inf")


def configured(kl_weight=0.0, **safety):
    training = {"learning_rate": 0.003, "rollout_batches": 3, "minibatches": 2, "max_completion_length": 8}
    noise = {"gaussian": 0.3}
    return load(
        {
            "scale": "smoke",
            "safety": {"checkpoint_every": 1, **safety},
            "experiments": {
                "kpo": {"methods": {"grpo": {"kl_weight": kl_weight}}, "training": training, "reward_noise": noise}
            },
        }
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    configuration = configured()
    settings = configuration.problems
    problems, _ = make_splits(levels(configuration.problems), settings.train_per_level, 5, 0, settings.one_digit_share)
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    save_model(build_model(configuration.base_model, build_tokenizer()), build_tokenizer(), folder)
    return folder, problems


def train(start, folder, **safety):
    train_run(get_run(configured(**safety), "kpo", "grpo", 1, folder), *start)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((folder / "provenance.json").read_text())


def spoil_loss(monkeypatch, at, factor):
    """Multiplies the loss of the update `at` (from 1) by `factor`."""
    calls = []

    def faulty(*args, **keywords):
        calls.append(1)
        result = policy_loss(*args, **keywords)
        return dataclasses.replace(result, loss=result.loss * factor) if len(calls) == at else result

    policy_loss = trainer_module.policy_loss
    monkeypatch.setattr(trainer_module, "policy_loss", faulty)


def spoil_rewards(monkeypatch, values):
    """Replaces the rewards of the rollout batches (from 1) named in `values`."""
    calls = []

    def faulty(self, rewards, **keywords):
        calls.append(1)
        return [values.get(len(calls), reward) for reward in rewards]

    monkeypatch.setattr("reproduction.rewards.perturb.RewardNoise.apply", faulty)


@pytest.mark.parametrize("factor", [NAN, INF])
def test_non_finite_loss_stops_with_the_last_good_weights(monkeypatch, start, tmp_path, factor):
    spoil_loss(monkeypatch, 3, factor)
    rows, provenance = train(start, tmp_path)
    assert len(rows) == 3 and [row["fault"] for row in rows] == [None, None, NON_FINITE]
    assert provenance["stopped"] == "update 3: the loss is not finite"
    fault = provenance["faults"][0]
    assert (fault["kind"], fault["first_update"], fault["count"], fault["action"]) == (NON_FINITE, 3, 1, "stop")
    assert not (tmp_path / "checkpoint").exists()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_non_finite_loss_leaves_out_its_update_where_training_goes_on(monkeypatch, start, tmp_path):
    seen = {}

    def remember(self, args, state, control, **keywords):
        seen[state.global_step] = [parameter.detach().clone() for parameter in keywords["model"].parameters()]

    monkeypatch.setattr("transformers.TrainerCallback.on_step_end", remember)
    spoil_loss(monkeypatch, 3, NAN)
    rows, provenance = train(start, tmp_path, non_finite="continue")
    assert len(rows) == 6 and provenance["stopped"] is None
    assert [row["fault"] for row in rows] == [None, None, NON_FINITE, None, None, None]
    assert all(torch.equal(left, right) for left, right in zip(seen[2], seen[3], strict=True))
    assert not all(torch.equal(left, right) for left, right in zip(seen[3], seen[4], strict=True))
    assert provenance["faults"][0]["action"] == "continue"


def spoil_log_probs(monkeypatch, which, value, first, last=None):
    """Make one log-probability of updates `first` to `last` that is counted `value`: "log_probs", "old" or "ref"."""
    real, compute = GRPOTrainer._get_per_token_logps_and_entropies, MethodTrainer._compute_loss
    updates = range(first, (last or first) + 1)
    under_way = []

    def scoring(self, *arguments, **keywords):
        found, *rest = real(self, *arguments, **keywords)
        if which == "log_probs" and under_way and self.state.global_step + 1 in updates:
            found = found + torch.where(torch.arange(found.numel()).view(found.shape) == 0, value, 0.0)
        return found, *rest

    def computing(self, model, inputs):
        under_way.append(True)
        name = {"old": "old_per_token_logps", "ref": "ref_per_token_logps"}.get(which)
        if name is not None and self.state.global_step + 1 in updates:
            inputs = {**inputs, name: inputs[name].clone()}
            inputs[name][0, 0] = value
        loss = compute(self, model, inputs)
        under_way.clear()
        return loss

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", scoring)
    monkeypatch.setattr(MethodTrainer, "_compute_loss", computing)


@pytest.mark.parametrize("value", [NAN, -INF])
@pytest.mark.parametrize(
    ("which", "name"), [("log_probs", "log_probs"), ("old", "old_log_probs"), ("ref", "ref_log_probs")]
)
def test_one_log_probability_that_is_not_finite_is_a_fault_like_a_loss(
    monkeypatch, start, tmp_path, which, name, value
):
    weight = 0.05 if which == "ref" else 0.0
    before, _ = train(start, tmp_path / "before", kl_weight=weight)
    spoil_log_probs(monkeypatch, which, value, 3)
    stopped, provenance = train(start, tmp_path / "stop", kl_weight=weight)
    assert [row["fault"] for row in stopped] == [None, None, NON_FINITE] and stopped[-1]["loss"] is None
    assert provenance["stopped"] == f"update 3: {name} are not finite"
    assert all(row["reward"] == other["reward"] for row, other in zip(stopped, before, strict=False))
    rows, provenance = train(start, tmp_path / "continue", kl_weight=weight, non_finite="continue")
    assert [row["fault"] for row in rows] == [None, None, NON_FINITE, None, None, None]
    assert provenance["stopped"] is None and provenance["faults"][0]["count"] == 1
    assert rows[2]["log_ratio_std"] is not None and rows[3]["gradient_norm"] > 0
    # The weights at the end of the run that stopped are those before the update that was left out.
    assert all(
        torch.isfinite(value).all() for folder in ("stop", "continue") for value in weights(tmp_path / folder).values()
    )


@pytest.mark.parametrize(("action", "faults"), [("stop", [0, 0, 1]), ("continue", [0, 0, 1, 1, 0, 0])])
def test_logits_that_are_not_finite_while_sampling_are_a_fault(monkeypatch, start, tmp_path, action, faults):
    """A weight is NaN while the second rollout batch is sampled: its updates are left out, or the run ends there."""
    calls, real = [], DecodingTrainer.sample

    def sampling(self, *arguments, **keywords):
        calls.append(1)
        weight = next(self.model.parameters()).data
        kept = weight.clone()
        if len(calls) == 2:
            weight[:] = NAN
        try:
            return real(self, *arguments, **keywords)
        finally:
            weight.copy_(kept)

    monkeypatch.setattr(DecodingTrainer, "sample", sampling)
    rows, provenance = train(start, tmp_path, non_finite=action)
    assert [row["fault"] for row in rows] == [NON_FINITE if fault else None for fault in faults]
    (fault,) = [fault for fault in provenance["faults"] if fault["kind"] == NON_FINITE]
    assert fault["message"] == "the logits while sampling are not finite" and fault["count"] == sum(faults)
    assert bool(provenance["stopped"]) == (action == "stop")
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model/model.safetensors")


def test_infinite_rewards_count_as_ungraded(monkeypatch, start, tmp_path):
    spoil_rewards(monkeypatch, {2: INF})
    rows, provenance = train(start, tmp_path, non_finite="continue", ungraded="continue")
    assert [row["ungraded"] for row in rows] == [0, 0, 1, 1, 0, 0]
    assert rows[2]["reward"] is None and rows[2]["gradient_norm"] == 0
    found = {fault["kind"]: fault for fault in provenance["faults"]}
    assert set(found) == {NON_FINITE, UNGRADED} and "16 rewards of 16 are infinite" in found[NON_FINITE]["message"]


def test_a_dead_grader_stops_the_run(monkeypatch, start, tmp_path):
    """A grader that fails grades nothing: NaN for every response."""
    spoil_rewards(monkeypatch, {2: NAN, 3: NAN})
    rows, provenance = train(start, tmp_path)
    assert len(rows) == 3 and rows[2]["fault"] == UNGRADED
    assert provenance["stopped"] == "update 3: no response of the rollout batch could be graded"


@pytest.mark.parametrize(("action", "updates"), [("continue", 6), ("stop", 3)])
def test_collapse_is_a_result(monkeypatch, start, tmp_path, action, updates):
    spoil_rewards(monkeypatch, {1: 0.0, 2: 0.0, 3: 0.0})
    rows, provenance = train(start, tmp_path, collapse=action, collapse_after=2)
    assert len(rows) == updates
    assert bool(provenance["stopped"]) == (action == "stop")
    fault = provenance["faults"][0]
    assert fault["kind"] == COLLAPSE and fault["first_update"] == 3
    assert "in 2 rollout batches in a row no response earned a reward" in fault["message"]
    assert (tmp_path / "model/model.safetensors").exists()


def test_collapse_at_the_length_limit():
    monitor = FaultMonitor({}, collapse_after=3)
    some = torch.tensor([0.0, 1.0])
    for update, truncation in enumerate((1.0, 1.0, 0.9, 1.0, 1.0), start=1):
        monitor.rollout(update, some, truncation)
    assert monitor.records == {}
    monitor.rollout(6, some, 1.0)
    assert monitor.records[COLLAPSE]["first_update"] == 6 and monitor.stopped is None


@pytest.mark.parametrize(
    ("batches", "collapses"),
    [
        ([[0, 0], [0, 0]], True),
        ([[-1, 0], [0, 0], [0, 0], [-1, 0], [0, 0]], False),
        ([[-1, 0], [-1, -1], [-1, -1]], True),
        ([[-0.3, -0.2], [-0.1, -0.2], [-0.1, -0.05]], False),
        ([[0, 1], [0, 0], [0, NAN]], True),
        ([[1, 1], [1, 1], [1, 1]], False),
        ([[NAN, NAN], [NAN, NAN]], False),
    ],
)
def test_a_collapse_is_the_lowest_reward_for_every_response(batches, collapses):
    monitor = FaultMonitor({}, collapse_after=2)
    for update, rewards in enumerate(batches, start=1):
        again = FaultMonitor({}, collapse_after=2)
        again.load_state_dict(json.loads(json.dumps(monitor.state_dict()).replace("Infinity", "1e999")))
        monitor = again
        monitor.rollout(update, torch.tensor(rewards, dtype=torch.float32), 0.0)
    assert (COLLAPSE in monitor.records) == collapses


def test_a_file_that_cannot_grow_is_a_full_disk(monkeypatch, start, tmp_path):
    """The operating system's own limit on a file's size, met by safetensors, whose errors are not OSErrors."""
    write, limits = CheckpointFolder.write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self, update, fill):
        if update == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            return write(self, update, fill)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(CheckpointFolder, "write", limited)
    rows, provenance = train(start, tmp_path / "on")
    assert len(rows) == 6 and provenance["faults"][0]["kind"] == "checkpoint"
    assert provenance["faults"][0]["first_update"] == 3 and "File too large" in provenance["faults"][0]["message"]
    with pytest.raises(RuntimeError, match="ended after update 3: .*File too large.*the same command continues"):
        train(start, tmp_path / "off", checkpoint="stop")


def test_full_disk_while_a_checkpoint_is_written(monkeypatch, start, tmp_path):
    """Goes on without it, or ends with one line; then the same command continues from the last whole checkpoint."""
    calls = []

    def full(folder, state):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_state(folder, state)

    save_state = resume_module.save_state
    monkeypatch.setattr(resume_module, "save_state", full)
    rows, provenance = train(start, tmp_path / "on")
    assert len(rows) == 6 and provenance["faults"][0]["kind"] == "checkpoint"
    assert "the disk is full" in provenance["faults"][0]["message"]
    calls.clear()
    with pytest.raises(RuntimeError, match="ended after update 3: the disk is full.*the same command continues"):
        train(start, tmp_path / "off", checkpoint="stop")
    assert [path.name for path in (tmp_path / "off/checkpoint").glob("update-*")] == ["update-00002"]
    again, provenance = train(start, tmp_path / "off", checkpoint="stop")
    assert [row["reward"] for row in again] == [row["reward"] for row in rows]
    failed, continued = provenance["interruptions"]
    assert failed["failed_after_update"] == 3 and "disk is full" in failed["message"]
    assert continued == {"continued_after_update": 2}
    assert weights(tmp_path / "on").keys() == weights(tmp_path / "off").keys()
    for name, value in weights(tmp_path / "on").items():
        assert torch.equal(value, weights(tmp_path / "off")[name])


def test_full_disk_while_results_are_written(monkeypatch, start, tmp_path):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_file", full)
        with pytest.raises(RuntimeError, match="ended after update 6: the disk is full"):
            train(start, tmp_path)
    assert not (tmp_path / "provenance.json").exists() and not (tmp_path / "structure.safetensors").exists()
    rows, provenance = train(start, tmp_path)
    assert len(rows) == 6 and provenance["interruptions"][0]["error"] == "OSError"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_memory_that_runs_out_keeps_the_last_checkpoint(monkeypatch, start, tmp_path, error):
    calls = []

    def faulty(*args, **keywords):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return policy_loss(*args, **keywords)

    policy_loss = trainer_module.policy_loss
    monkeypatch.setattr(trainer_module, "policy_loss", faulty)
    with pytest.raises(RuntimeError, match="ended after update 3: memory ran out") as raised:
        train(start, tmp_path)
    assert "\n" not in str(raised.value)
    assert [path.name for path in (tmp_path / "checkpoint").glob("update-*")] == ["update-00003"]


def test_descriptions_are_one_line():
    assert describe(RuntimeError("[enforce fail] DefaultCPUAllocator:\n can't allocate memory")).startswith("memory")
    assert describe(ValueError("a\nb  c")) == "a b c"
    assert describe(ValueError()) == "ValueError"
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert describe(full).startswith("the disk is full")
    assert len(describe(ValueError("x" * 10_000))) < 400
