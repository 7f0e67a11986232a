"""The scales for GPUs: what they say, what is refused, which devices hold them, and what the plan prints."""

import dataclasses
import re
import shlex

import pytest
import yaml

from reproduction.claims.declarations import CLAIMS
from reproduction.claims.resolve import resolve
from reproduction.claims.runs import Study
from reproduction.data.experiment_data import check_pins, needed_sets
from reproduction.jobs.devices import Device
from reproduction.jobs.launch import launch, printed_command
from reproduction.jobs.plan import plan_text
from reproduction.jobs.sizing import (
    TILE_TOKENS,
    TILE_WORDS,
    Speed,
    devices_needed,
    evaluation_hours,
    fits,
    memory_needed,
    planned_count,
    sequences_at_once,
    speed_of,
    training_hours,
)
from reproduction.settings.configuration import CONFIG_FOLDER, ConfigurationError, load
from reproduction.settings.files import read_yaml
from reproduction.settings.hub import PretrainedSettings
from reproduction.settings.run import get_run
from reproduction.workflow import job_threads, prepare, run_settings

H100 = Device("0", "NVIDIA H100 80GB HBM3", 81559 * 2**20)
RTX4090 = Device("0", "NVIDIA GeForce RTX 4090", 24564 * 2**20)
H200 = Device("0", "NVIDIA H200", 143771 * 2**20)


def test_paper_scale_has_every_experiment_with_the_papers_values():
    configuration = load({"scale": "paper"})
    kpo = configuration.experiments["kpo"]
    controls = ["kpo-unit", "kpo-ema"]
    assert list(kpo.methods) == ["grpo", "gmpo", "gspo", "kpo-clipped", "kpo-unclipped", *controls]
    clipped, unclipped = kpo.method("kpo-clipped"), kpo.method("kpo-unclipped")
    assert (clipped.clip_low, clipped.clip_high, clipped.ratio_parameters["process_variance"]) == (3e-4, 4e-4, 1e-6)
    assert (unclipped.clip_low, unclipped.ratio_parameters["process_variance"]) == (None, 1e-4)
    training = kpo.training
    assert (training.prompts_per_rollout, training.group_size, training.minibatches, training.epochs) == (32, 8, 4, 1)
    assert (training.max_completion_length, training.learning_rate, training.weight_decay) == (4096, 1e-6, 0.1)
    assert kpo.pretrained.model.name == "Qwen/Qwen3-4B" and kpo.pretrained.train_prompt.thinking is False
    assert len(kpo.pretrained.evaluation_sets) == 6 and kpo.pretrained.sampling.samples_per_problem == 16
    for level in ("easy", "normal", "hard"):
        krpo = configuration.experiments[f"krpo-{level}"]
        assert krpo.pretrained.model.name == "meta-llama/Llama-3.2-1B-Instruct" and krpo.reward == "krpo"
        assert krpo.training.level_weights == {level: 1.0}
        assert krpo.training.sequences_per_rollout == 384 and krpo.training.group_size == 12
        assert krpo.training.updates == 24 * krpo.training.rollout_batches
        assert {krpo.method(label).kl_weight for label in krpo.methods} == {0.01}
    models = {experiment.pretrained.model.name for experiment in configuration.experiments.values()}
    assert {"Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"} < models
    assert len(configuration.runs()) == 114 and len(set(configuration.runs())) == 114


@pytest.mark.parametrize("scale", ["desktop", "gpu", "paper"])
def test_whatever_claim_a_scale_compares_has_its_controls_there_too(scale):
    configuration = load({"scale": scale})
    configured = {(experiment, label): [] for experiment, label, _ in configuration.runs()}
    study = Study(scale, {}, configured)

    def is_there(claim, comparison):
        return all(cells for *_, cells in resolve(study, comparison, claim.stand_ins).terms)

    tested = [claim for claim in CLAIMS if is_there(claim, claim.effect)]
    assert {claim.id for claim in tested} >= {"kpo-3-reward", "kpo-4-over-grpo", "krpo-1-normal"}
    lacking = [f"{claim.id}: {control.name}" for claim in tested for control in claim.controls
               if not is_there(claim, control.effect)]  # fmt: skip
    assert not lacking


def test_where_paper_and_release_disagree_the_other_choice_is_one_value_away():
    """The release's side of each disagreement, every one by itself."""
    for value in (
        {"model": {"name": "Qwen/Qwen3-4B-Base", "revision": "906bfd4b4dc7f14ee4320094d8b41684abff8539"}},
        {"sampling": {"top_p": 0.7}},
        {"train_prompt": {"instruction": "hashes"}},
        {"answer_markers": ["boxed", "####"]},
        {"train_sets": ["dapo-release"]},
        {"evaluation_prompt": {"instruction": "boxed"}},
    ):
        changed = load({"scale": "paper", "experiments": {"kpo": {"pretrained": value}}}).experiments["kpo"]
        assert changed.pretrained != load({"scale": "paper"}).experiments["kpo"].pretrained
    assert load({"scale": "paper", "experiments": {"kpo": {"reward": "math-strings"}}})


def test_default_configurations_need_no_pin_and_others_say_which(tmp_path):
    for scale in ("desktop", "gpu", "paper"):
        check_pins(load({"scale": scale}))
    value = {"kpo": {"pretrained": {"train_sets": ["dapo-release"]}}}
    configuration = load({"scale": "paper", "experiments": value})
    assert "dapo-release" in needed_sets(configuration)
    with pytest.raises(ConfigurationError, match="data.pins.dapo-release.revision"):
        check_pins(configuration)
    pins = {"dapo-release": {"revision": "a" * 40, "rows": 17000}}
    check_pins(load({"scale": "paper", "experiments": value, "data": {"pins": pins}}))


def test_what_runs_where_does_not_repeat_a_run():
    plain = load({"scale": "paper"})
    elsewhere = load(
        {"scale": "paper", "experiments": {"kpo": {"pretrained": {"devices": {"count": 4}, "micro_batch": 2}}}}
    )
    assert run_settings(plain, "kpo", "grpo") == run_settings(elsewhere, "kpo", "grpo")
    other = load(
        {"scale": "paper", "experiments": {"kpo": {"pretrained": {"train_prompt": {"instruction": "hashes"}}}}}
    )
    assert run_settings(plain, "kpo", "grpo") != run_settings(other, "kpo", "grpo")
    for scale in ("smoke", "laptop"):
        assert "pretrained" not in run_settings(load({"scale": scale}), "kpo", "grpo")


def pretrained(**values):
    return {"scale": "gpu", "experiments": {"kpo": {"pretrained": values}}}


WRONG = {
    "adapters on two devices": (pretrained(lora={"rank": 8, "alpha": 16}, devices={"count": 2}), ["lora", "count 2"]),
    "adapters of no rank": (pretrained(lora={"rank": 0, "alpha": 16}), ["lora.rank", "greater than 0"]),
    "a branch as revision": (pretrained(model={"revision": "main"}), ["model.revision", "40 hexadecimal", "'main'"]),
    "a name that is no model": (pretrained(model={"name": "Qwen3"}), ["model.name", "Qwen3"]),
    "unknown set": (pretrained(train_sets=["dapp"]), ["train_sets", "'dapp'", "did you mean 'dapo'"]),
    "a set twice": (pretrained(evaluation_sets=["aime24", "aime24"]), ["evaluation_sets", "twice"]),
    "trained on what is evaluated": (pretrained(train_sets=["math500"]), ["math500", "held_out"]),
    "held out of nothing": (pretrained(held_out=5), ["held_out is 5"]),
    "unknown instruction": (pretrained(train_prompt={"instruction": "box"}), ["train_prompt", "instruction"]),
    "unknown engine": (pretrained(engine="sglang"), ["engine", "sglang"]),
    "unknown marker": (pretrained(answer_markers=["answer"]), ["answer_markers", "answer"]),
    "minibatch not divisible": (pretrained(micro_batch=3), ["64 responses", "micro-batches of 3", "never changed"]),
    "minibatch not divisible by devices": (pretrained(devices={"count": 3}), ["64 responses", "3 devices"]),
    "levels without arithmetic": (
        {"scale": "gpu", "experiments": {"kpo": {"training": {"level_weights": 3}}}}, ["level_weights"],
    ),
    "arithmetic with a set": (
        {"scale": "gpu", "experiments": {"krpo": {"pretrained": {"train_sets": ["arithmetic", "dapo"]}}}},
        ["'arithmetic'", "an experiment"],
    ),
    "own decoding in 16 bits": (pretrained(engine="decode"), ["'decode'", "precision: float32"]),
    "own decoding through verl": (
        {"scale": "desktop", "experiments": {"krpo": {"pretrained": {"trainer": "verl"}}}}, ["'verl'", "trainer: trl"],
    ),
    "a least length with vLLM": (
        {"scale": "desktop", "experiments": {"kpo": {"pretrained": {"engine": "vllm"}}}},
        ["min_completion_length", "engine 'vllm'", "engine decode or transformers"],
    ),
    "a least length through verl": (
        {"scale": "desktop", "experiments": {"kpo": {"pretrained": {
            "engine": "transformers", "trainer": "verl", "train_prompt": {"template": "chat"},
        }}}},
        ["min_completion_length", "trainer 'verl'", "trainer trl"],
    ),
    "a least length in two processes": (
        {"scale": "desktop", "experiments": {"kpo": {"pretrained": {
            "engine": "transformers", "micro_batch": 2, "devices": {"count": 2},
        }}}},
        ["min_completion_length", "devices.count 2"],
    ),
    "a least length above the limit": (
        {"scale": "desktop", "experiments": {"krpo": {"training": {"min_completion_length": 9}}}},
        ["min_completion_length 9", "max_completion_length 8"],
    ),
    "own decoding of a cut vocabulary": (
        {"scale": "desktop", "experiments": {"krpo": {"pretrained": {"sampling": {"top_p": 0.9}}}}},
        ["'decode'", "sampling.top_p to 1.0"],
    ),
    "mathematics as lines to go on with": (
        pretrained(train_prompt={"template": "line", "instruction": "none"}), ["'line'", "[arithmetic]"],
    ),
    "lines with an instruction": (pretrained(train_prompt={"template": "line"}), ["'line'", "instruction: none"]),
    "numbers the wrong way round": (
        {"scale": "desktop", "problems": {"levels": {"easy": {"numbers": [9, 0]}}}},
        ["problems.levels.easy", "(lowest, highest)"],
    ),
    "numbers of too many digits": (
        {"scale": "desktop", "problems": {"levels": {"easy": {"numbers": [0, 10]}}}}, ["levels.easy", "more digits"],
    ),
    "a package that is not pinned": (
        {"scale": "desktop", "experiments": {"krpo": {"pretrained": {"model": {"package": {"version": "latest"}}}}}},
        ["model.package.version", "latest"],
    ),
    "a method called base": (
        {"scale": "gpu", "experiments": {"kpo": {"methods": {"base": {"method": "grpo"}}}}}, ["'base'"],
    ),
    "unknown pin": ({"scale": "gpu", "data": {"pins": {"dap": {"rows": 3}}}}, ["data.pins", "'dap'"]),
    "a pin of a branch": (
        {"scale": "gpu", "data": {"pins": {"dapo": {"revision": "main"}}}}, ["data.pins", "dapo", "main"],
    ),
    "the laptop's study": ({"scale": "gpu", "study": "full"}, ["'full'", "'gpu'"]),
    "mathematics for the small model": ({"experiments": {"kpo": {"reward": "math"}}}, ["'math'", "pretrained"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_refused_with_one_line(case):
    overrides, words = WRONG[case]
    with pytest.raises(ConfigurationError) as error:
        load(overrides)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_memory_by_hand():
    """0.5e9 weights on one device: 8 GB of states, 1.4 GB of head, 0.4 GB of activations, the engine, 4% and 1 GB."""
    experiment = load({"scale": "gpu"}).experiments["kpo"]
    states, tokens = 16 * 4.94e8, 2 * (512 + 768)
    head = 2 * tokens * 32768 + 8 * 151936 * 896 + 4 * tokens * 896
    activations = tokens * 896 * (24 * 4 + 78)
    expected = states + head + activations + 0.3 * 24e9 + 0.04 * 24e9 + 1e9
    assert memory_needed(experiment, 1, 24e9) == pytest.approx(expected)
    # Two devices share the states, and gather 16-bit weights.
    assert memory_needed(experiment, 2, 24e9) == pytest.approx(expected - states / 2 - tokens * 896 * 24 * 2)
    # KRPO's KL term keeps a reference model; an engine's share must hold the weights.
    with_kl = load({"scale": "gpu", "experiments": {"kpo": {"methods": {"grpo": {"kl_weight": 0.1}}}}})
    assert memory_needed(with_kl.experiments["kpo"], 1, 24e9) == pytest.approx(expected + 4 * 4.94e8)
    # On two devices its states are halved, but each gathers the reference whole, in 16 bits.
    two = memory_needed(experiment, 2, 24e9) + 4 * 4.94e8 / 2 + 2 * 4.94e8
    assert memory_needed(with_kl.experiments["kpo"], 2, 24e9) == pytest.approx(two)
    kept = load(pretrained(activation_checkpointing=False)).experiments["kpo"]
    assert memory_needed(kept, 1, 24e9) == pytest.approx(expected - activations + tokens * 896 * 24 * 78)
    adapted = load(pretrained(lora={"rank": 8, "alpha": 16})).experiments["kpo"]
    adapters = 16 * 23 * 8 * 896 * 24
    assert memory_needed(adapted, 1, 24e9) == pytest.approx(expected - states + 4 * 4.94e8 + adapters)
    small = load(pretrained(engine_memory_share=0.01)).experiments["kpo"]
    assert memory_needed(small, 1, 24e9) == float("inf")


def test_qwen3_4b_with_8_responses_of_4096_tokens_fits_into_two_devices_of_80_gb():
    """Whole logits of such a micro-batch would take 8 x 4,096 x 151,936 x 4 bytes = 20 GB, and 60 GB in training."""
    paper = {"scale": "paper", "experiments": {"kpo": {"pretrained": {"micro_batch": 8}}}}
    kpo = load(paper).experiments["kpo"]
    assert kpo.training.max_completion_length == 4096 and kpo.pretrained.model.name == "Qwen/Qwen3-4B"
    assert devices_needed(kpo, 80e9) == 2
    whole_logits = 12.0 * 8 * 4096 * 151936
    assert memory_needed(kpo, 2, 80e9) < 80e9 < memory_needed(kpo, 2, 80e9) + whole_logits


def test_the_tiles_that_the_plan_reckons_with_are_those_of_trl():
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    assert (TILE_TOKENS, TILE_WORDS) == (TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE)


def test_laptop_is_the_default_and_a_larger_scale_a_hint_with_its_hours(monkeypatch, tmp_path):
    """A server with eight large GPUs starts no path of 1,157 device-hours by itself."""
    eight = [dataclasses.replace(H100, id=str(number)) for number in range(8)]
    monkeypatch.setattr("reproduction.workflow.visible_devices", lambda: eight)
    assert prepare({"results": str(tmp_path)}).scale == "laptop"
    assert prepare({"results": str(tmp_path), "study": "full"}).scale == "laptop"

    def hinted(*devices):
        text = plan_text(load(), 2, devices)
        found = re.findall(r"^  hint .*scale=(\w+) .* ([\d,]+) device-hours", text, re.MULTILINE)
        return found[0] if found else None

    assert hinted() is hinted(Device("0", "old", 8 * 10**9)) is None
    assert hinted(RTX4090)[0] == hinted(H100)[0] == "gpu"
    assert hinted(H200)[0] == "paper"
    # The smallest device decides, and one of unknown size promises nothing.
    assert hinted(H100, RTX4090)[0] == "gpu"
    assert hinted(H100, Device("1", "MIG", None)) is None
    scale, hours = hinted(*eight)
    lines = plan_text(load({"scale": scale}), 8, eight).splitlines()
    total = next(line.split()[1] for line in lines if " all " in line)
    assert scale == "paper" and float(hours.replace(",", "")) == pytest.approx(float(total), abs=1)


def test_a_plan_counts_the_runs_that_each_method_has():
    """Methods may have seeds of their own, and an experiment none at all."""
    given = {"scale": "gpu", "experiments": {"kpo": {"seeds": {"gmpo": [2, 3], "kpo-ema": [3]}}, "krpo": {"seeds": {}}}}
    configuration = load(given)
    text = plan_text(configuration, 2, [H100])
    assert re.search(r"kpo +[\d.]+ = 3 x [\d.]+ training .* \+ 4 x", text), text
    assert "--method gmpo --seed 2" in text and "--experiment krpo" not in text
    assert configuration.untrained() == [("kpo", "base", 2)]


def test_a_base_model_that_no_configuration_has_is_refused():
    with pytest.raises(ConfigurationError, match="no base model .*base_model: null.*; name an experiment"):
        get_run(load({"scale": "gpu"}), "base", "base", 1)


def test_devices_of_a_run_divide_its_minibatch():
    kpo = load({"scale": "paper"}).experiments["kpo"]
    assert devices_needed(kpo, 85.5e9) == 2 and devices_needed(kpo, 149e9) == 1
    assert planned_count(kpo, []) == 2
    with pytest.raises(
        ValueError, match="Qwen/Qwen3-4B does not fit into up to 64 devices of 8 GB .*pretrained.devices"
    ):
        planned_count(kpo, [Device("0", "old", 8 * 10**9)])
    fixed = load({"scale": "paper", "experiments": {"kpo": {"pretrained": {"devices": {"count": 1}}}}})
    with pytest.raises(ValueError, match=r"does not fit into 1 devices of 86 GB \(each of 1 would need"):
        planned_count(fixed.experiments["kpo"], [H100, H100])
    assert not fits(fixed, [H100, H100])


def with_count(experiment, count):
    devices = experiment.pretrained.devices.model_copy(update={"count": count})
    return experiment.model_copy(update={"pretrained": experiment.pretrained.model_copy(update={"devices": devices})})


def test_a_number_of_devices_that_does_not_divide_a_minibatch_is_not_called_too_small():
    kpo = load({"scale": "paper"}).experiments["kpo"]
    with pytest.raises(ValueError, match="64 responses does not divide among 3 devices in equal micro-batches of 1"):
        planned_count(with_count(kpo, 3), [H100] * 3)


def test_a_job_takes_the_devices_that_its_scheduler_gave_it(monkeypatch):
    """Planned for 80 GB, the job asked for two devices; on larger ones one would do and leave one idle."""
    leased = []
    monkeypatch.setattr(
        "reproduction.jobs.launch.run_with_lease", lambda count, command, wait: leased.append((count, command))
    )
    configuration = load({"scale": "paper"})

    def devices_of(machine, step="train", **given):
        monkeypatch.setattr("reproduction.jobs.launch.visible_devices", lambda: machine)
        launch(configuration, step, "kpo", [], None, **given)
        count, command = leased.pop()
        # An evaluation starts a process on each of its devices itself.
        assert ("--num_processes" in command) == (count > 1 and step == "train")
        return count

    assert devices_of([H200] * 2) == 1 and devices_of([H200] * 2, devices=2) == 2
    assert devices_of([H100] * 2, devices=2) == 2 and devices_of([H100] * 2, step="evaluate", devices=2) == 2
    assert devices_of([H100] * 3, step="evaluate", devices=3) == 3
    with pytest.raises(ConfigurationError, match="does not fit into 1 devices of 86 GB"):
        devices_of([H100] * 2, devices=1)
    with pytest.raises(ConfigurationError, match="does not divide among 3 devices"):
        devices_of([H200] * 3, devices=3)
    with pytest.raises(ConfigurationError, match="at least 0, found -1"):
        devices_of([H200], devices=-1)


def test_hours_grow_as_they_must():
    paper = load({"scale": "paper"})
    kpo, krpo, fast = paper.experiments["kpo"], paper.experiments["krpo-normal"], speed_of("NVIDIA H100", 85e9)
    slow = speed_of("NVIDIA A100-SXM4-80GB", 85e9)
    assert speed_of("unheard of", 85e9).name == "H100" and speed_of("unheard of", 24e9).name == "4090"
    hours = training_hours(kpo, 2, fast, 80e9)
    assert training_hours(kpo, 2, slow, 80e9) > hours > training_hours(krpo, 1, fast, 80e9) > 0
    longer = load({"scale": "paper", "experiments": {"kpo": {"training": {"rollout_batches": 2174}}}}).experiments[
        "kpo"
    ]
    assert training_hours(longer, 2, fast, 80e9) == pytest.approx(2 * hours)
    # Only one update's learning, by hand: 10 P operations for each token of responses and prompts.
    tokens = 256 * (0.5 * 4096 + 256)
    learning = 1087 * 10 * 4.02e9 * tokens / (0.35 * 989e12) / 3600
    assert learning < hours < 4 * learning
    assert evaluation_hours(paper, kpo, fast) > 0


def test_sampling_reads_the_weights_as_often_as_the_engine_must_start_again():
    """By hand: 21.6 GB less 8.04 GB of weights hold keys and values of 40 half responses with a quarter prompt."""
    kpo = load({"scale": "paper"}).experiments["kpo"]
    at_once = (0.27 * 80e9 - 2 * 4.02e9) / ((0.5 * 4096 + 0.25 * 1024) * 147456)
    assert sequences_at_once(kpo, 80e9) == pytest.approx(at_once) and 39 < at_once < 41
    # With operations at no cost a larger memory saves only readings of the weights.
    reading = Speed("reading", 1e30, 3.35e12)
    saved = training_hours(kpo, 2, reading, 80e9) - training_hours(kpo, 2, reading, 1e15)
    rounds = 128 / at_once
    assert saved == pytest.approx(1087 * 2 * (rounds - 1) * 4096 * 2 * 4.02e9 / (0.5 * 3.35e12) / 3600)
    transformers = load({"scale": "paper", "experiments": {"kpo": {"pretrained": {"engine": "transformers"}}}})
    assert sequences_at_once(transformers.experiments["kpo"], 80e9) == float("inf")


def test_the_plan_says_scale_runs_devices_hours_and_commands():
    text = plan_text(load({"scale": "paper"}), 8, [H100, H100])
    lines = text.splitlines()
    for words in (
        "scale paper",
        "NVIDIA H100 80GB HBM3 (86 GB)",
        "estimated and not measured",
        "launch",
    ):
        assert words in text
    assert "kpo          7 runs: grpo, gmpo, gspo, kpo-clipped, kpo-unclipped, kpo-unit, kpo-ema" in text
    commands = [line.strip() for line in lines if line.strip().startswith("python -m reproduction lease")]
    assert len(commands) == len(load({"scale": "paper"}).experiments)
    hours = [float(line.split()[1]) for line in lines if " training (" in line]
    total = next(float(line.split()[1]) for line in lines if line.split()[:1] == ["all"])
    assert total == pytest.approx(sum(hours), abs=0.1 * len(hours))
    short = plan_text(load({"scale": "paper"}), 8, [H100])
    assert "needs 2 devices at once, and this machine has 1" in short
    assert "cannot run here: Qwen/Qwen3-4B does not fit" in plan_text(
        load({"scale": "paper"}), 8, [Device("0", "old", 8 * 10**9)]
    )
    assert "no CUDA device" in plan_text(load({"scale": "gpu"}), 8, [])
    assert "on devices" not in plan_text(load(), 8, [])


def test_launch_commands_parse_and_name_files_that_exist():
    """Each printed command, part by part: the lease, accelerate's own parser for several devices, the step's own."""
    from accelerate.commands.launch import launch_command_parser

    from reproduction.cli import _parser

    configuration = load({"scale": "paper"})
    for name in configuration.experiments:
        count = planned_count(configuration.experiments[name], [])
        words = shlex.split(printed_command(configuration, name, count))
        lease = _parser().parse_args(words[3 : words.index("--") + 2])
        assert lease.devices == count
        job = words[words.index("--") + 1 :]
        if count > 1:
            assert job[:3] == ["python", "-m", "accelerate.commands.launch"]
            launched = launch_command_parser().parse_args(job[3:])
            assert launched.num_processes == count and launched.module and launched.training_script == "reproduction"
            shared = read_yaml(CONFIG_FOLDER.parent / launched.config_file)
            assert shared["mixed_precision"] == "no", "pretrained.precision decides"
            assert shared["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] is False, "see there"
            assert shared["distributed_type"] == "FSDP" and shared["fsdp_config"]["fsdp_version"] == 2
            inner = launched.training_script_args
        else:
            assert job[:3] == ["python", "-m", "reproduction"]
            inner = job[3:]
        arguments = _parser().parse_args(inner)
        assert (arguments.name, arguments.experiment, arguments.seed) == ("train", name, 42)
        assert arguments.method in configuration.experiments[name].methods


def test_threads_let_no_more_jobs_start_than_find_devices(monkeypatch):
    monkeypatch.setattr("reproduction.workflow.machine_devices", lambda: [H100] * 4)
    assert [job_threads(16, count) for count in (1, 2, 4, 8)] == [4, 8, 16, 16]
    monkeypatch.setattr("reproduction.workflow.machine_devices", lambda: [])
    assert job_threads(None, 2) == 16 and job_threads(4, 2) == 4 and job_threads(4, 0) == 1


def test_every_key_is_explained():
    explained = (CONFIG_FOLDER / "README.md").read_text()
    raw = read_yaml(CONFIG_FOLDER / "gpu.yaml")

    def names(value):
        for key, inner in value.items():
            yield key
            if isinstance(inner, dict):
                yield from names(inner)

    section = raw["experiments"]["kpo"]["pretrained"]
    assert set(section) == set(PretrainedSettings.model_fields)
    for key in {*names(section), *names(raw["data"])}:
        assert f"`{key}`" in explained or f".{key}`" in explained, f"config/README.md does not explain {key}"


def test_values_carry_their_sources():
    """Every value of the paper scale's two protocols has a comment that says where it comes from."""
    text = (CONFIG_FOLDER / "paper.yaml").read_text()
    assert yaml.safe_load(text)["base_model"] is None
    for key in ("learning_rate", "prompts_per_rollout", "group_size", "minibatches", "rollout_batches", "top_p"):
        found = [line for line in text.splitlines() if line.strip().startswith(f"{key}:")]
        assert found and any("[" in line.split("#")[-1] for line in found if "#" in line), key
