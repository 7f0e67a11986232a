"""`kpo.trl.MethodTrainer`: options are used or refused, the log is complete, checkpoints resume to the bit."""

import dataclasses
import math
import warnings

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import GRPOConfig, GRPOTrainer

from kpo.losses import policy_loss
from kpo.methods import get_method
from kpo.trl import MethodTrainer
from kpo.trl_options import REFUSED, check_arguments
from tests.byte_tokenizer import byte_tokenizer

TINY = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
PROMPTS = Dataset.from_list([{"prompt": f"{number}+1="} for number in range(16)])

# Options that the loss, the advantages or the sampling depend on and that are used.
USED = set(
    """beta num_generations num_generations_eval num_iterations steps_per_generation generation_batch_size
    generation_kwargs max_completion_length mask_truncated_completions reward_weights use_bias_correction_kl
    vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min vllm_importance_sampling_cap router_aux_loss_coef sync_ref_model
    ref_model_mixup_alpha ref_model_sync_steps per_device_train_batch_size gradient_accumulation_steps logging_strategy
    logging_steps save_strategy save_steps save_only_model resume_from_checkpoint seed""".split()
)
# What TRL and transformers do with these does not meet the method.
AS_TRL_DOES = set(
    """output_dir num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim
    optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules average_tokens_across_devices
    max_grad_norm bf16 fp16 bf16_full_eval fp16_full_eval tf32 gradient_checkpointing gradient_checkpointing_kwargs
    torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache
    torch_empty_cache_steps auto_find_batch_size logging_first_step log_on_each_node logging_nan_inf_filter
    include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id
    trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size
    prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps
    include_for_metrics batch_eval_metrics save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub
    hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end
    metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism
    data_seed use_cpu accelerator_config parallelism_config dataloader_drop_last dataloader_num_workers
    dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context
    dataloader_in_order remove_unused_columns label_names train_sampling_strategy length_column_name
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp
    fsdp_config deepspeed debug skip_memory_metrics do_train do_eval do_predict local_rank model_init_kwargs
    trust_remote_code disable_dropout cast_lm_head_to_fp32 ds3_gather_for_generation shuffle_dataset pad_to_multiple_of
    chat_template_kwargs cache_implementation use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode
    vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port
    vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size max_tool_calling_iterations
    log_completions log_multimodal num_completions_to_print log_unique_prompts log_completions_hub_repo
    use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged""".split()
)
OTHER_VALUES = {
    "loss_type": "grpo", "epsilon": 0.9, "epsilon_high": 0.28, "delta": 1.1, "sapo_temperature_neg": 2.0,
    "sapo_temperature_pos": 2.0, "label_smoothing_factor": 0.1, "vespo_k_pos": 1.0, "vespo_lambda_pos": 1.0,
    "vespo_k_neg": 1.0, "vespo_lambda_neg": 1.0, "scale_rewards": "none", "importance_sampling_level": "sequence",
    "multi_objective_aggregation": "normalize_then_sum", "off_policy_mask_threshold": 0.0,
    "top_entropy_quantile": 0.2, "entropy_coef": 0.5, "use_adaptive_entropy": True, "entropy_coef_min": 0.1,
    "entropy_coef_max": 0.5, "entropy_coef_delta": 0.1, "entropy_target": 0.5, "temperature": 0.5, "top_p": 0.9,
    "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "vllm_structured_outputs_regex": "[0-9]+",
    "neftune_noise_alpha": 5.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder, since TRL loads the reference model by the name of the policy."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**TINY)).save_pretrained(folder)
    return folder


def reward(completion_ids, **_):
    """Different within each group nearly always."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def make(model, folder, method="grpo", trainer=MethodTrainer, rewards=reward, **options):
    """Minibatches of 8 responses, two a rollout batch."""
    chosen = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": 8, "steps_per_generation": 2, "num_generations": 4, "max_steps": 4,
        "max_completion_length": 8, "learning_rate": 0.01, "logging_steps": 1, "save_strategy": "no",
        "gradient_checkpointing": False, "lr_scheduler_type": "constant", **options,
    }  # fmt: skip
    if isinstance(model, str) or not isinstance(model, torch.nn.Module):
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with_method = {"method": method} if trainer is not GRPOTrainer else {}
    return trainer(
        model=model, args=GRPOConfig(**chosen), reward_funcs=rewards, processing_class=byte_tokenizer(),
        train_dataset=PROMPTS, eval_dataset=PROMPTS.select(range(4)), **with_method,
    )  # fmt: skip


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def rows_of(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]


def test_every_option_of_trl_is_classified():
    fields = {field.name for field in dataclasses.fields(GRPOConfig)}
    known = [set(REFUSED), USED, AS_TRL_DOES]
    assert not fields - set().union(*known), "new in TRL: use it, refuse it in kpo.trl_options, or say it passes"
    assert set().union(*known) <= fields
    assert sum(map(len, known)) == len(fields), "each belongs to one kind"
    assert set(OTHER_VALUES) == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_would_be_ignored_is_refused_by_name(model, tmp_path, name):
    with pytest.raises(ValueError, match=f"^{name} is .*, which MethodTrainer does not use: .") as refused:
        make(model, tmp_path, **{name: OTHER_VALUES[name]})
    assert "\n" not in str(refused.value)


def test_options_that_contradict_the_method_are_refused(model, tmp_path):
    for options, method, match in (
        ({"beta": 0.04}, "grpo", "KL weight 0.0, but beta is 0.04"),
        ({}, "krpo", r"set GRPOConfig\(beta=0.01\)"),
        ({"generation_kwargs": {"top_k": 5}}, "grpo", "generation_kwargs holds top_k"),
        ({"generation_kwargs": {"do_sample": False}}, "grpo", "generation_kwargs holds do_sample"),
        ({"steps_per_generation": 3, "gradient_accumulation_steps": 2}, get_method("grpo", aggregation="token-mean"),
         "2 does not divide steps_per_generation 3"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match) as refused:
            make(model, tmp_path, method, **options)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="unknown method 'kpo'"):
        make(model, tmp_path, "kpo")
    with pytest.raises(TypeError, match="a name or a Method, found dict"):
        make(model, tmp_path, {})


def test_a_ratio_method_with_one_update_a_rollout_batch_is_refused():
    one = {"output_dir": "unused", "use_cpu": True, "bf16": False}
    for name in ("kpo-clipped", "gspo", "gmpo", "kpo-ema"):
        for steps in (1, 4):
            with pytest.raises(
                ValueError, match=rf"every ratio is 1 .* set GRPOConfig\(steps_per_generation={4 * steps}"
            ):
                check_arguments(get_method(name), GRPOConfig(**one, gradient_accumulation_steps=steps))
        check_arguments(get_method(name), GRPOConfig(**one, num_iterations=2))
        check_arguments(get_method(name), GRPOConfig(**one, steps_per_generation=4))
    for name in ("grpo", "kpo-unit"):
        check_arguments(get_method(name), GRPOConfig(**one))


def test_trls_own_factor_on_the_kl_term_is_warned_of(model, tmp_path):
    with pytest.warns(UserWarning, match="use_bias_correction_kl is not used.*set it to False"):
        make(model, tmp_path, "krpo", beta=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make(model, tmp_path, "krpo", beta=0.01, use_bias_correction_kl=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 0.3, "use_bias_correction_kl": False, "num_iterations": 2},
        {"per_device_train_batch_size": 4, "steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"mask_truncated_completions": True, "max_completion_length": 40},
    ],
    ids=str,
)  # fmt: skip
def test_the_trainer_does_what_trl_does_for_a_method_that_trl_has(model, tmp_path, options):
    """Weights and every common entry of the log, from TRL's own loss and advantages."""
    options = {"max_steps": 6, **options}
    clip = {"clip_low": 0.02, "clip_high": 0.03}
    method = get_method("dr-grpo", aggregation="seq-mean-token-mean", kl_weight=options.get("beta", 0.0), **clip)
    ours = make(model, tmp_path / "ours", method, **options)
    ours.train()
    theirs = make(
        model, tmp_path / "theirs", trainer=GRPOTrainer, loss_type="grpo", scale_rewards="none", epsilon=0.02,
        epsilon_high=0.03, **options,
    )  # fmt: skip
    theirs.train()
    start = torch.cat([value.flatten() for value in AutoModelForCausalLM.from_pretrained(model).parameters()])
    moved = (weights(theirs) - start).abs().mean()
    assert (weights(ours) - weights(theirs)).abs().mean() < 1e-3 * moved
    for row, other in zip(rows_of(ours), rows_of(theirs), strict=True):
        assert set(other) <= set(row)
        # TRL averages over micro-batches, the method over all tokens and sequences of the minibatch.
        extremes = {"clip_ratio/low_min", "clip_ratio/high_max"} if "gradient_accumulation_steps" in options else set()
        for name in set(other) - {"step_time"} - extremes:
            close = {"abs": 0.05} if options.get("gradient_accumulation_steps") else {"rel": 1e-3, "abs": 1e-5}
            assert row[name] == pytest.approx(other[name], **close), name
    assert (
        max(row["clip_ratio/high_mean"] for row in rows_of(ours))
        > 0
        < max(row["clip_ratio/low_mean"] for row in rows_of(ours))
    )


def by_update(model, folder, **options):
    """The log of each update, from a run with logging_steps=1; and the trainer's own record of what it computed."""
    seen = []

    class Looking(MethodTrainer):
        def observe_minibatch(self, metrics):
            seen.append(metrics)

    trainer = make(model, folder, "gspo", trainer=Looking, max_steps=8, **options)
    trainer.train()
    return trainer, seen


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_log_holds_the_methods_metrics_whatever_logging_steps_is(model, tmp_path, accumulation):
    size = {"per_device_train_batch_size": 8 // accumulation, "gradient_accumulation_steps": accumulation}
    size["steps_per_generation"] = 2 * accumulation
    names = ("clip_share", "log_ratio_std", "log_ratio_abs_max", "effective_sample_size", "mean_ratio")
    reference, updates = by_update(model, tmp_path, **size)
    assert len(updates) == 8 and updates[1]["log_ratio_std"] > 1e-4 and max(row["clip_share"] for row in updates) > 0
    for every in (1, 2, 10):
        trainer, seen = (reference, updates) if every == 1 else by_update(model, tmp_path, logging_steps=every, **size)
        assert len(seen) == 8 and [row["loss"] for row in seen] == [row["loss"] for row in updates]
        logged = rows_of(trainer)
        assert len(logged) == 8 // every
        for index, row in enumerate(logged):
            part = updates[every * index : every * (index + 1)]
            for name in ("loss", *names):
                key = name if name == "loss" else f"kpo/{name}"
                assert row[key] == pytest.approx(math.fsum(each[name] for each in part) / every, rel=1e-5, abs=1e-8)
            assert {"entropy", "clip_ratio/low_mean", "clip_ratio/high_max"} <= set(row)
            if every > 1 or index % 2 == 0:  # TRL has no more of its own for the second update of a rollout batch
                assert {"reward", "completions/mean_length"} <= set(row)
            assert row["clip_ratio/region_mean"] == row["kpo/clip_share"]
    whole = [row for row in trainer.state.log_history if "train_runtime" in row]
    assert whole[0]["kpo/mean_ratio"] == pytest.approx(sum(row["mean_ratio"] for row in updates) / 8)


def test_nothing_gathers_without_end_if_nothing_is_logged(model, tmp_path):
    trainer, seen = by_update(model, tmp_path, logging_strategy="no")
    assert len(seen) == 8 and not trainer._parts
    assert not [name for name in trainer._metrics["train"] if name.startswith("kpo/")]


def test_micro_batches_make_the_same_update(model, tmp_path):
    for overrides in ({}, {"aggregation": "token-mean"}):
        results = []
        for accumulation in (1, 2, 4):
            trainer = make(
                model, tmp_path, get_method("kpo-clipped", **overrides), max_steps=2,
                per_device_train_batch_size=8 // accumulation, gradient_accumulation_steps=accumulation,
                steps_per_generation=2 * accumulation, learning_rate=0.1, optim="sgd",
            )  # fmt: skip
            before = weights(trainer)
            trainer.train()
            results.append(weights(trainer) - before)
        assert results[0].abs().max() > 1e-3
        for other in results[1:]:
            assert (other - results[0]).abs().max() < 1e-4 * results[0].abs().max()


def test_the_seed_of_random_orders_is_used(model, tmp_path):
    seeds = [(0, 0), (0, 0), (0, 1), (1, 0)]
    found = [
        make(model, tmp_path, get_method("krpo-random-order", kl_weight=0.0, seed=own), seed=runs).advantage_generator
        for runs, own in seeds
    ]
    draws = [torch.rand(8, generator=generator) for generator in found]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


@pytest.mark.parametrize(("name", "value"), [("no_repeat_ngram_size", 3), ("suppress_tokens", [5]), ("typical_p", 0.9)])
def test_a_models_own_generation_settings_that_change_the_policy_are_refused(model, tmp_path, name, value):
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    policy.generation_config.temperature, policy.generation_config.top_k = 0.7, 20  # TRL sets these itself
    setattr(policy.generation_config, name, value)
    with pytest.raises(ValueError, match=f"generation_config has {name} .*; set model.generation_config.{name} = None"):
        make(policy, tmp_path)
    setattr(policy.generation_config, name, None)
    make(policy, tmp_path)


def given(trainer):
    """A rollout batch of 8 responses as `_compute_loss` gets it, with old log-probabilities some way off."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs = trainer._generate_and_score_completions(list(PROMPTS.select([0, 0, 0, 0, 1, 1, 1, 1])))
    noise = torch.randn(inputs["completion_ids"].shape, generator=torch.Generator().manual_seed(1))
    inputs["old_per_token_logps"] = inputs["old_per_token_logps"] + 0.3 * noise
    return inputs


def log_probs_of(trainer, inputs):
    ids, mask = (torch.cat([inputs[f"prompt_{of}"], inputs[f"completion_{of}"]], dim=1) for of in ("ids", "mask"))
    length = inputs["completion_ids"].shape[1]
    return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length)[0]


@pytest.mark.parametrize("width", ["tokens", "sequences"])
def test_trls_correction_for_vllm_weighs_the_loss_of_each_token(model, tmp_path, width):
    trainer = make(model, tmp_path, get_method("grpo", kl_weight=0.2), beta=0.2, use_bias_correction_kl=False)
    inputs = given(trainer)
    log_probs, old = log_probs_of(trainer, inputs), inputs["old_per_token_logps"]
    correction = torch.rand(
        8, log_probs.shape[1] if width == "tokens" else 1, generator=torch.Generator().manual_seed(2)
    )
    correction[0] = 0.0  # TRL's *_mask modes leave tokens or sequences out so
    loss = trainer._compute_loss(trainer.model, {**inputs, "importance_sampling_ratio": correction})
    ratio, advantages = torch.exp(log_probs - old), inputs["advantages"][:, None]
    terms = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.2) * advantages) * correction
    difference = inputs["ref_per_token_logps"] - log_probs
    terms = terms + 0.2 * (difference.exp() - difference - 1)  # TRL does not weigh the KL term
    mask = inputs["completion_mask"]
    expected = ((terms * mask).sum(dim=1) / mask.sum(dim=1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(loss.item() - trainer._compute_loss(trainer.model, inputs).item()) > 1e-3


def test_a_tool_mask_leaves_out_what_tools_wrote(model, tmp_path):
    trainer = make(model, tmp_path, "kpo-clipped")
    inputs = given(trainer)
    tools = torch.ones_like(inputs["completion_mask"])
    tools[:, 1::2] = 0
    found = trainer._compute_loss(trainer.model, {**inputs, "tool_mask": tools})
    log_probs = log_probs_of(trainer, inputs)
    expected = policy_loss(
        "kpo-clipped", log_probs, inputs["old_per_token_logps"], inputs["advantages"],
        inputs["completion_mask"] * tools,
    )  # fmt: skip
    assert found.item() == pytest.approx(expected.loss.item(), rel=1e-6)


def test_inputs_of_images_reach_the_model(model, tmp_path, monkeypatch):
    trainer = make(model, tmp_path, "kpo-clipped")
    inputs, passed = given(trainer), {}
    real = MethodTrainer._get_per_token_logps_and_entropies

    def looking(self, *arguments, pixel_values=None, image_grid_thw=None, num_images=None, **keywords):
        passed.update(pixel_values=pixel_values, image_grid_thw=image_grid_thw, num_images=num_images)
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(MethodTrainer, "_get_per_token_logps_and_entropies", looking)
    images = {"pixel_values": torch.ones(8, 3), "image_grid_thw": torch.ones(8, 3), "num_images": [1] * 8}
    trainer._compute_loss(trainer.model, {**inputs, **images})
    assert passed == images


def test_the_auxiliary_loss_of_a_mixture_of_experts_is_trls(tmp_path):
    torch.manual_seed(0)
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**TINY, **sizes, router_aux_loss_coef=0.5)).save_pretrained(tmp_path / "moe")
    method = get_method("dr-grpo", aggregation="seq-mean-token-mean")
    options = {"max_steps": 2, "optim": "sgd"}
    ours = make(tmp_path / "moe", tmp_path, method, **options)
    ours.train()
    other = {"loss_type": "grpo", "scale_rewards": "none"}
    theirs = make(tmp_path / "moe", tmp_path, trainer=GRPOTrainer, **other, **options)
    theirs.train()
    for row, other in zip(rows_of(ours), rows_of(theirs), strict=True):
        assert row["aux_loss"] == pytest.approx(other["aux_loss"], rel=1e-3) and row["aux_loss"] > 0.1
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_weights_of_reward_functions_make_the_rewards_of_the_method(model, tmp_path):
    def other(completion_ids, **_):
        return [None if len(ids) == 8 else float(len(ids)) for ids in completion_ids]

    trainer = make(model, tmp_path, "krpo", rewards=[reward, other], reward_weights=[0.5, 2.0], beta=0.01)
    inputs = given(trainer)
    rewards = [
        0.5 * reward([ids])[0] + (0.0 if len(ids) == 8 else 2.0 * len(ids))
        for ids in (
            row[mask.bool()].tolist()
            for row, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
        )
    ]
    expected = get_method("krpo").advantages(torch.tensor(rewards).view(2, 4)).flatten()
    torch.testing.assert_close(inputs["advantages"], expected, rtol=1e-5, atol=1e-6)
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.tolist())


def test_evaluation_teaches_the_method_nothing(model, tmp_path):
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    plain, other = (
        make(model, tmp_path, get_method("krpo-adaptive", kl_weight=0.0), **options) for options in ({}, evaluation)
    )
    plain.train(), other.train()
    evaluated = [row for row in other.state.log_history if "eval_loss" in row]
    assert len(evaluated) == 4 and all("eval_kpo/mean_ratio" in row and "eval_entropy" in row for row in evaluated)
    counts = [
        sum(part["weight"] > 0 for part in trainer.advantage_estimator.state_dict()["moments"].values())
        and trainer.advantage_estimator.state_dict()["moments"]["4"]["weight"]
        for trainer in (plain, other)
    ]
    assert counts[0] == counts[1] > 0


RESUMED = {
    "krpo-adaptive": {"kl_weight": 0.0},
    "krpo-random-order": {"kl_weight": 0.0},
    "kpo-clipped": {},
}


@pytest.mark.parametrize("name", RESUMED)
def test_training_resumes_from_trls_checkpoints_to_the_bit(model, tmp_path, name):
    """At the edge of a rollout batch (update 4, 2 updates a batch) and within one (update 3)."""
    method = get_method(name, **RESUMED[name])
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    whole = make(model, tmp_path, method, **options)
    whole.train()
    numbers = [{key: value for key, value in row.items() if key != "step_time"} for row in rows_of(whole)]
    for done in (3, 4):
        other = make(model, tmp_path, method, **options)
        other.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{done}"))
        assert torch.equal(weights(other), weights(whole))
        again = [{key: value for key, value in row.items() if key != "step_time"} for row in rows_of(other)]
        assert again == numbers
        if other.advantage_estimator is not None:
            assert other.advantage_estimator.state_dict() == whole.advantage_estimator.state_dict()


def test_a_checkpoint_without_the_methods_state_is_refused(model, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    make(model, tmp_path, trainer=GRPOTrainer, **options).train()
    with pytest.raises(ValueError, match="kpo_state_0.pt is missing: another trainer") as refused:
        make(model, tmp_path, "grpo", **options).train(resume_from_checkpoint=True)
    assert "\n" not in str(refused.value)
    make(model, tmp_path, "grpo", **options).train()
    with pytest.raises(ValueError, match="was made with method Method.*; resume with the same"):
        make(model, tmp_path, "kpo-clipped", **options).train(resume_from_checkpoint=True)
    # Its rollout batch is split otherwise, so another minibatch would be taken for the next one.
    for name, value in (("steps_per_generation", 4), ("per_device_train_batch_size", 16), ("num_generations", 8)):
        with pytest.raises(ValueError, match=f"was made with {name} .*; resume with the same"):
            make(model, tmp_path, "grpo", **{**options, name: value}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("where", ["weights", "old", "reference", "gradient", "reward"])
def test_a_nan_ends_training_with_one_error(model, tmp_path, monkeypatch, where):
    options = {"beta": 0.1, "use_bias_correction_kl": False} if where == "reference" else {}
    method = get_method("grpo", kl_weight=options.get("beta", 0.0))
    infinite = {"rewards": lambda completion_ids, **_: [math.inf] * len(completion_ids)} if where == "reward" else {}
    trainer = make(model, tmp_path, method, **options, **infinite)
    real = MethodTrainer._compute_loss

    def spoilt(self, model, inputs):
        name = {"old": "old_per_token_logps", "reference": "ref_per_token_logps"}.get(where)
        if self.state.global_step == 1 and name is not None:
            inputs = {**inputs, name: inputs[name] * math.nan}
        if self.state.global_step == 1 and where == "weights":
            next(model.parameters()).data[:] = math.nan
        loss = real(self, model, inputs)
        if self.state.global_step == 1 and where == "gradient":
            next(model.parameters()).register_hook(lambda gradient: gradient * math.nan)
        return loss

    monkeypatch.setattr(MethodTrainer, "_compute_loss", spoilt)
    expected = {
        "weights": (ValueError, "^log_probs holds NaN"), "old": (ValueError, "^old_log_probs holds NaN"),
        "reference": (ValueError, "^ref_log_probs holds NaN"), "reward": (ValueError, "rewards hold an infinity"),
        "gradient": (FloatingPointError, "gradient of update 2 has norm nan"),
    }[where]  # fmt: skip
    with pytest.raises(expected[0], match=expected[1]):
        trainer.train()
    if where != "weights":
        assert torch.isfinite(weights(trainer)).all()
