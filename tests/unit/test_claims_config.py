"""config/study/full.yaml: it tests every claim, compares like with like, and keeps the runs of the default."""

import pytest

from kpo.methods import get_method
from reproduction.claims import CLAIMS
from reproduction.rewards.perturb import RewardNoise
from reproduction.settings.configuration import CONFIG_FOLDER, TrainingSettings
from reproduction.settings.files import read_yaml
from reproduction.settings.study import add_study

LAPTOP = read_yaml(CONFIG_FOLDER / "laptop.yaml")
STUDY = add_study(LAPTOP, read_yaml(CONFIG_FOLDER / "study" / "full.yaml"))
EXPERIMENTS = STUDY["experiments"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_is_tested(claim):
    for experiment, label in claim.cells:
        assert label in EXPERIMENTS[experiment]["methods"], f"{experiment} lacks {label}"


def test_every_entry_can_run():
    for name, settings in EXPERIMENTS.items():
        TrainingSettings.model_validate(settings["training"])
        RewardNoise(**settings.get("reward_noise", {}))
        assert set(settings.get("seeds") or STUDY["seeds"]) <= set(STUDY["seeds"]), name
        for label, overrides in settings["methods"].items():
            values = dict(overrides)
            method = values.pop("method", label)
            get_method(method, **values)


def test_the_runs_of_the_default_are_kept():
    assert set(LAPTOP["seeds"]) < set(STUDY["seeds"]) and len(STUDY["seeds"]) >= 5
    for name, settings in LAPTOP["experiments"].items():
        assert EXPERIMENTS[name] | {"methods": settings["methods"]} == settings
        assert EXPERIMENTS[name]["methods"] | settings["methods"] == EXPERIMENTS[name]["methods"]


def test_what_is_compared_across_experiments_is_trained_alike():
    def protocol(name):
        # How often log-ratios are kept does not touch the training.
        training = {k: v for k, v in EXPERIMENTS[name]["training"].items() if k != "keep_log_ratios_every"}
        return training, EXPERIMENTS[name]["reward"], EXPERIMENTS[name]["kalman_time_constant"]

    for first, others in (("kpo-stress-2", ("kpo-clips", "kpo-q")), ("krpo", ("krpo-order", "krpo-qr", "krpo-kl"))):
        for other in others:
            assert protocol(other) == protocol(first), (first, other)
    large, small = (EXPERIMENTS[name]["training"] for name in ("krpo", "krpo-group4"))
    assert small["group_size"] == 4
    assert small["group_size"] * small["prompts_per_rollout"] == large["group_size"] * large["prompts_per_rollout"]
    for name in ("krpo-noise-gaussian", "krpo-noise-flips", "krpo-noise-drift"):
        assert protocol(name) == protocol("krpo-noise-gaussian")


def test_clips_are_tried_at_a_quarter_and_four_times_for_each_method():
    stated = EXPERIMENTS["kpo-stress-2"]["methods"]
    for method in ("grpo", "gspo", "gmpo", "kpo-clipped", "kpo-ema"):
        stem = method.removesuffix("-clipped")
        for suffix, factor in (("narrow", 0.25), ("wide", 4.0)):
            entry = dict(EXPERIMENTS["kpo-clips"]["methods"][f"{stem}-{suffix}"])
            assert entry.pop("method") == method
            default = get_method(method, **stated[method])
            assert get_method(method, **entry).clip == pytest.approx(tuple(factor * bound for bound in default.clip))


def test_weaker_smoothing_is_a_hundred_and_ten_thousand_times_weaker():
    settings = EXPERIMENTS["kpo-q"]
    fitted = settings["kalman_time_constant"] ** -2
    for label, factor in (("kpo-weaker", 1e2), ("kpo-weakest", 1e4)):
        assert settings["methods"][label]["process_variance"] == pytest.approx(factor * fitted, rel=1e-3)


class TestAddStudy:
    SCALE = {
        "seeds": [1],
        "experiments": {"a": {"methods": {"x": {"clip": 1}}, "reward": "exact", "training": {"lr": 1, "batches": 2}}},
    }

    def test_by_hand(self):
        study = {
            "seeds": [1, 2],
            "experiments": {
                "a": {"methods": {"y": {}}},
                "b": {"like": "a", "training": {"lr": 9}, "seeds": [1]},
                "c": {"like": "b", "methods": {"z": {}}},
            },
        }
        assert add_study(self.SCALE, study) == {
            "seeds": [1, 2],
            "experiments": {
                "a": {"methods": {"x": {"clip": 1}, "y": {}}, "reward": "exact", "training": {"lr": 1, "batches": 2}},
                "b": {
                    "methods": {"x": {"clip": 1}, "y": {}},
                    "reward": "exact",
                    "training": {"lr": 9, "batches": 2},
                    "seeds": [1],
                },
                "c": {"methods": {"z": {}}, "reward": "exact", "training": {"lr": 9, "batches": 2}, "seeds": [1]},
            },
        }
        assert self.SCALE["experiments"]["a"]["methods"] == {"x": {"clip": 1}}

    @pytest.mark.parametrize(
        ("experiments", "message"),
        [
            ({"b": {"methods": {}}}, "experiments.b: this experiment is new"),
            ({"a": {"like": "a"}}, "experiments.a: this experiment is of the scale already"),
            ({"b": {"like": "aa"}}, "experiments.b.like: unknown experiment 'aa', did you mean 'a'"),
            ({"b": {"like": "c"}, "c": {"like": "a"}}, "unknown experiment 'c'"),
            ({"a": {"training": 3}}, "experiments.a.training must be a mapping"),
            ({"a": 3}, "experiments.a must be a mapping"),
            ([], "experiments must be a mapping"),
        ],
    )
    def test_refusals(self, experiments, message):
        with pytest.raises(ValueError, match=message):
            add_study(self.SCALE, {"experiments": experiments})
