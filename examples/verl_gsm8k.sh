#!/usr/bin/env bash
# KPO's policy loss with KRPO's advantages on GSM8K, in stock verl. Needs GPUs with vLLM, and on every machine, in a clone,
#   pip install . "verl[verl-core,vllm]>=0.9,<0.10"
# Data: verl's examples/data_preprocess/gsm8k.py --local_save_dir ~/data/gsm8k
# Further arguments are appended, so they win: bash examples/verl_gsm8k.sh trainer.nnodes=2
set -euo pipefail

MODEL=${MODEL:-Qwen/Qwen2.5-1.5B-Instruct}
DATA=${DATA:-$HOME/data/gsm8k}
GPUS=${GPUS:-8}
LOSS=${LOSS:-kpo-clipped}         # `python -m kpo.verl --help`
ADVANTAGE=${ADVANTAGE:-krpo}

# One override a line. For kpo-clipped and krpo these are:
#   actor_rollout_ref.model.external_lib=kpo.verl                      every process imports kpo.verl
#   actor_rollout_ref.actor.policy_loss._target_=kpo.verl.PolicyLoss   a section with room for kpo's values
#   actor_rollout_ref.actor.policy_loss.loss_mode=kpo-clipped
#   actor_rollout_ref.actor.clip_ratio_low=0.0003
#   actor_rollout_ref.actor.clip_ratio_high=0.0004
#   actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
#   actor_rollout_ref.actor.use_kl_loss=false
#   actor_rollout_ref.actor.kl_loss_coef=0.0
#   actor_rollout_ref.actor.kl_loss_type=low_var_kl
#   +actor_rollout_ref.actor.policy_loss.kpo.process_variance=1e-06
#   +actor_rollout_ref.actor.policy_loss.kpo.observation_variance=1.0
#   +actor_rollout_ref.actor.policy_loss.kpo.initial_variance=0.0
#   +actor_rollout_ref.actor.policy_loss.kpo.clip=true
#   algorithm.adv_estimator=krpo
#   +algorithm.kpo.seed=0
#   +algorithm.kpo.process_variance=1e-05
#   +algorithm.kpo.observation_variance=0.01
#   +algorithm.kpo.initial_mean=0.0
#   +algorithm.kpo.initial_variance=1.0
printed=$(python3 -m kpo.verl "$LOSS" "$ADVANTAGE")
mapfile -t overrides <<<"${printed// \\/}"

python3 -m verl.trainer.main_ppo \
  data.train_files="$DATA/train.parquet" \
  data.val_files="$DATA/test.parquet" \
  data.train_batch_size=256 \
  data.max_prompt_length=512 \
  data.max_response_length=1024 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16 \
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16 \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes=1 \
  trainer.total_epochs=10 \
  trainer.test_freq=10 \
  trainer.save_freq=50 \
  trainer.logger='[console]' \
  trainer.experiment_name="$LOSS-$ADVANTAGE" \
  "${overrides[@]}" \
  "$@"
