"""What an experiment with a model of the hub tells TRL: the configuration's settings by the names of TRL's own."""

import torch
from trl import GRPOConfig

from reproduction.settings.configuration import ExperimentSettings
from reproduction.settings.hub import LoraSettings


def pretrained_arguments(
    settings: ExperimentSettings,
    kl_weight: float,
    seed: int,
    scratch: str,
    processes: int,
    checkpoint_every: int | None = None,
) -> GRPOConfig:
    """One optimiser step a minibatch, made of as many micro-batches as it takes.

    The log-probabilities come from TRL's fused head, which never holds the logits of a whole micro-batch
    (`reproduction.jobs.sizing` reckons with that). Raises ValueError where the processes cannot share a minibatch equally, and where
    several are to train adapters.
    """
    training, pretrained = settings.training, settings.pretrained
    if pretrained.lora is not None and processes > 1:
        raise ValueError(f"pretrained.lora trains in one process, found {processes}; use one device, or set it to null")
    minibatch, together = training.sequences_per_rollout // training.minibatches, processes * pretrained.micro_batch
    if minibatch % together:
        raise ValueError(
            f"{processes} processes with micro-batches of {pretrained.micro_batch} cannot share a minibatch of "
            f"{minibatch} responses equally; change the number of devices or pretrained.micro_batch"
        )
    accumulation = minibatch // together
    warmup = round(pretrained.warmup_ratio * training.updates)
    engine = {}
    if pretrained.engine == "vllm":
        engine = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": pretrained.engine_memory_share,
            "vllm_max_model_length": pretrained.max_prompt_length + training.max_completion_length,
            # Old log-probabilities are the trainer's own, as in KPO's release; nothing is reweighted by the engine's.
            "vllm_importance_sampling_correction": False,
        }
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=not torch.cuda.is_available(),
        bf16=pretrained.precision == "bfloat16",
        seed=seed,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant_with_warmup" if warmup else "constant",
        warmup_steps=warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.gradient_clip,
        max_steps=training.updates,
        per_device_train_batch_size=pretrained.micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=training.minibatches * accumulation,
        num_iterations=training.epochs,
        num_generations=training.group_size,
        max_completion_length=training.max_completion_length,
        temperature=training.temperature,
        top_p=training.top_p,
        top_k=0,
        beta=kl_weight,
        chat_template_kwargs=pretrained.train_prompt.style.template_arguments,
        shuffle_dataset=False,
        gradient_checkpointing=pretrained.activation_checkpointing,
        logging_steps=1,
        save_strategy="no" if checkpoint_every is None else "steps",
        save_steps=checkpoint_every or training.updates,
        report_to="none",
        disable_tqdm=True,
        **engine,
    )


def adapter_arguments(lora: LoraSettings | None):
    """The same of adapters, for peft; None where the weights themselves are trained."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
