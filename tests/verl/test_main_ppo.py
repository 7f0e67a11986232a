"""Three steps of verl's `main_ppo` on the CPU, KPO's loss with KRPO's advantages: `make test-verl ARGS="-m slow"`."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pandas
import pytest
from batches import ON_THE_CPU
from safetensors.torch import load_file

from kpo.methods import get_method
from kpo.verl_settings import ACTOR, overrides

pytestmark = [pytest.mark.verl, pytest.mark.slow]


def test_three_steps(tiny_model, tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"say {letter}"}],
            "data_source": "letters",
            "reward_model": {"style": "rule", "ground_truth": letter},
            "extra_info": {"index": i},
        }
        for i, letter in enumerate("abcdefghijkl")
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    here = os.path.dirname(__file__)
    lines = [
        *overrides(get_method("kpo-clipped"), get_method("krpo")),
        *ON_THE_CPU,
        f"actor_rollout_ref.model.path={tiny_model}",
        f"{ACTOR}.strategy=fsdp2",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=4",
        f"{ACTOR}.ppo_mini_batch_size=4",
        f"{ACTOR}.optim.lr=1e-3",
        f"{ACTOR}.checkpoint.save_contents=[hf_model]",
        f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp32",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        f"data.train_files={tmp_path}/train.parquet",
        f"data.val_files={tmp_path}/train.parquet",
        "data.train_batch_size=4",
        "data.max_prompt_length=32",
        "data.max_response_length=16",
        f"reward.custom_reward_function.path={here}/letters_reward.py",
        "trainer.total_training_steps=3",
        "trainer.n_gpus_per_node=2",
        "trainer.logger=[console,file]",
        "trainer.val_before_train=false",
        "trainer.save_freq=3",
        f"trainer.default_local_dir={tmp_path}/checkpoints",
        "trainer.resume_mode=disable",
        f"hydra.run.dir={tmp_path}/hydra",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"KPO_TEST_ROLLOUT": "1", "VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")}
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        command = [sys.executable, "-m", "verl.trainer.main_ppo", *lines]
        done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path)
    text = log.read_text()
    assert done.returncode == 0, text[-4000:]
    assert "kpo-clipped: ratio_parameters" in text and "each group in a random order (seed 0)" in text
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for step in steps:
        metrics = step["data"]
        names = ["actor/pg_loss", "actor/grad_norm", "actor/pg_clipfrac", "actor/ppo_kl", "actor/mean_ratio"]
        assert all(math.isfinite(metrics[name]) for name in names)
        assert metrics["actor/grad_norm"] > 0 and metrics["critic/advantages/max"] > 0
    from reproduction.training.through_verl import metrics_rows  # which adds advantage kinds to the library's

    rows = metrics_rows(tmp_path / "metrics.jsonl", SimpleNamespace(minibatches=1, epochs=1))
    assert [(row["update"], row["rollout_batch"]) for row in rows] == [(1, 1), (2, 2), (3, 3)]
    # Without a KL term there is no kl; everything else that the columns name is in verl's log.
    assert {name for row in rows for name, value in row.items() if value is None} == {"kl"}
    before = load_file(tiny_model / "model.safetensors")
    (saved,) = (tmp_path / "checkpoints").rglob("model.safetensors")
    after = load_file(saved)
    assert before.keys() == after.keys()
    assert max((after[name] - before[name]).abs().max() for name in before) > 1e-4
