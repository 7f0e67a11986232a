"""The part of a model and of its optimiser that one process holds: all of it, or its shard under FSDP2.

A checkpoint keeps what each process holds as plain tensors, so nothing is gathered to write it and no index of shards
is needed to read it: as many processes continue, each with its own. Weights that are not trained (under LoRA all those
of the base model) are left out; a continuing process has loaded them already.
"""

import dataclasses
from typing import Any

import torch
from torch.distributed.tensor import DTensor

SHARD = "shard"  # marks a sharded tensor of the optimiser, and holds what this process has of it


def keep_results_in_32_bits(accelerator) -> None:
    """Under FSDP2 with 16-bit arithmetic: average gradients in 32 bits, and return log-probabilities as computed.

    accelerate's own policy rounds both to 16 bits, log-probabilities to 1 part in 256: far more than what KPO clips.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def local_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor; it shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """By name, what this process holds of the weights that are trained; tied ones once."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: local_tensor(parameter.detach()) for name, parameter in trained}


@torch.no_grad()
def load_trained_parameters(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put `trained_parameters` back; ValueError if names or shapes are those of another model or sharding."""
    own = trained_parameters(model)
    differing = own.keys() ^ tensors.keys() or {name for name in own if own[name].shape != tensors[name].shape}
    if differing:
        raise ValueError(f"the checkpoint's weights are not this model's (first: {min(differing)})")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state_dict as nested dicts of numbers and plain tensors, keys as text."""
    state = optimizer.state_dict()
    parts = {
        str(index): {
            name: {SHARD: value.to_local()} if isinstance(value, DTensor) else value for name, value in part.items()
        }
        for index, part in state["state"].items()
    }
    return {**state, "state": parts}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put `optimizer_state` back, each shard where its parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def whole(value: Any, parameter: torch.Tensor) -> Any:
        if not (isinstance(value, dict) and value.keys() == {SHARD}):
            return value
        return DTensor.from_local(
            value[SHARD].to(parameter.device),
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )

    parts = {
        int(index): {name: whole(value, parameters[int(index)]) for name, value in part.items()}
        for index, part in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})
