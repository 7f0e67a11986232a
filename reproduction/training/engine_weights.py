"""What a vLLM engine that samples for the trainer needs besides TRL's work: its precision, and weights on a CPU."""


def prepare_engine(trainer, precision: str) -> None:
    """Check the trainer's engine, if it has one, and make its weights arrive if it runs on a CPU.

    Raises ValueError if the engine does not compute in `precision` ("bfloat16", "float32").
    """
    if not trainer.use_vllm:
        return
    generation = trainer.vllm_generation
    # TRL names no precision: vLLM takes the one in which the model was saved, or 16 bits for one saved in 32.
    found = str(generation.llm.llm_engine.model_config.dtype).removeprefix("torch.")
    if found != precision:
        raise ValueError(
            f"vLLM would sample from this model in {found}, but pretrained.precision is {precision}; set it to {found} "
            "if that is one of its values, or set pretrained.engine: transformers"
        )
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _reload_weights(generation)


def _reload_weights(generation) -> None:
    """Make TRL's `VLLMGeneration` hand over weights by vLLM's `reload_weights`; GPUs keep TRL's own way.

    On a CPU vLLM packs the weights of linear layers for its matrix kernels once they are loaded, and TRL's
    `sync_weights` writes into the packed ones, which fails. `reload_weights` unpacks, loads and packs again. Names,
    gathering and merging stay TRL's (`_iter_named_params`).
    """

    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    def sync_weights():
        # vLLM reads some only when all are there; by then TRL has taken a merged adapter out of its own again.
        weights = ((name, value.detach().clone()) for name, value in generation._iter_named_params())
        generation.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        # A head that shares the embedding's weights is loaded with it, but its packed copy is left as it was.
        for module in generation.llm.llm_engine.model_executor.driver_worker.model_runner.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
        generation.llm.reset_prefix_cache()

    generation.sync_weights = sync_weights
