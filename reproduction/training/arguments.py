"""The arguments of TRL and peft from a run's configuration."""

from typing import Any

import torch
from trl import GRPOConfig

from reproduction.settings.experiment import TrainingSettings
from reproduction.settings.hub import LoraSettings, PretrainedSettings


def trainer_arguments(
    training: TrainingSettings,
    kl_weight: float,
    seed: int,
    scratch: str,
    checkpoint_every: int | None = None,
    hub: PretrainedSettings | None = None,
    processes: int = 1,
) -> GRPOConfig:
    """One optimiser step for each minibatch. A small model (hub None) trains on the CPU, each minibatch in one piece.

    Raises ValueError if the processes cannot share a minibatch equally, or several are to train what one must.
    """
    minibatch = training.sequences_per_rollout // training.minibatches
    micro_batch = minibatch if hub is None else hub.micro_batch
    if minibatch % (processes * micro_batch):
        raise ValueError(
            f"{processes} processes with micro-batches of {micro_batch} cannot share a minibatch of {minibatch} "
            "responses equally; change the number of devices or pretrained.micro_batch"
        )
    if training.min_completion_length and processes > 1:
        raise ValueError(
            f"training.min_completion_length needs the whole output layer in one process, found {processes} processes; "
            "set it to 0, or pretrained.devices.count to 1"
        )
    accumulation = minibatch // (processes * micro_batch)
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=hub is None or not torch.cuda.is_available(),
        seed=seed,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        max_steps=training.updates,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=training.minibatches * accumulation,
        num_iterations=training.epochs,
        num_generations=training.group_size,
        max_completion_length=training.max_completion_length,
        temperature=training.temperature,
        top_p=training.top_p,
        top_k=0,
        beta=kl_weight,
        use_bias_correction_kl=False,
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no" if checkpoint_every is None else "steps",
        save_steps=checkpoint_every or training.updates,
        report_to="none",
        disable_tqdm=True,
        **(_small_arguments() if hub is None else _hub_arguments(training, hub, processes)),
    )


def _small_arguments() -> dict:
    return {"bf16": False, "lr_scheduler_type": "constant", "gradient_checkpointing": False}


def _hub_arguments(training: TrainingSettings, hub: PretrainedSettings, processes: int) -> dict:
    if hub.lora is not None and processes > 1:
        raise ValueError(f"pretrained.lora trains in one process, found {processes}; use one device, or set it to null")
    warmup = round(hub.warmup_ratio * training.updates)
    arguments: dict[str, Any] = {
        "bf16": hub.precision == "bfloat16",
        "lr_scheduler_type": "constant_with_warmup" if warmup else "constant",
        "warmup_steps": warmup,
        "chat_template_kwargs": hub.train_prompt.style.template_arguments,
        "gradient_checkpointing": hub.activation_checkpointing,
    }
    if hub.engine == "vllm":
        arguments |= {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": hub.engine_memory_share,
            "vllm_max_model_length": hub.max_prompt_length + training.max_completion_length,
            # Old log-probabilities are the trainer's own, as in KPO's release; nothing is reweighted by the engine's.
            "vllm_importance_sampling_correction": False,
        }
    return arguments


def adapter_arguments(lora: LoraSettings | None):
    """The adapters for peft; None if the weights themselves are trained."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
