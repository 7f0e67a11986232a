"""Checks of arguments that ratios, advantages and losses share; each refusal names the argument and what to do.

Shape suffixes: B sequences, T tokens.
"""

import difflib
import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """Message for a name that does not exist: the closest one and all known ones."""
    known = [str(word) for word in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    suggestion = f", did you mean {close[0]!r}?" if close else ";"
    return f"unknown {what} {name!r}{suggestion} Known are: {', '.join(known) or 'none'}"


def check_real(
    name: str, value: Any, *, minimum: float = -math.inf, maximum: float = math.inf, exclusive: bool = False
) -> float:
    """`value` as a float; TypeError unless it is a real number, ValueError unless finite and within the bounds.

    `exclusive` refuses the minimum itself.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number, found the text {value!r}; in YAML write 1.0e-6, not 1e-6")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, found {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, found {value}")
    if value < minimum or value > maximum or (exclusive and value == minimum):
        upper = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be {'above' if exclusive else 'at least'} {minimum:g}{upper}, found {value}")
    return float(value)


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """`value` if it is an int of at least `minimum`; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, found {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, found {value}")
    return value


def checked_parameters(
    what: str, defaults: Mapping[str, Any], given: Mapping[str, Any], allowed: Collection[str] | None = None
) -> dict[str, Any]:
    """`defaults` updated by `given`; ValueError for a name that is not allowed or a parameter left without a value."""
    allowed = set(defaults) if allowed is None else allowed
    for name in given:
        if name not in allowed:
            raise ValueError(f"{what}: {unknown_name('parameter', name, sorted(allowed))}")
    values = {**defaults, **given}
    missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"{what} needs {' and '.join(missing)}; pass a value")
    return values


def check_token_tensors(mask: torch.Tensor, **tensors: torch.Tensor) -> torch.Tensor:
    """The mask as bool (B, T); every tensor must be floating, of the mask's shape and on its device."""
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask must be a tensor, found {type(mask).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, found {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating tensor of log-probabilities, found {tensor.dtype}")
        if tensor.dim() != 2:
            raise ValueError(f"{name} must have shape (B, T), found {tuple(tensor.shape)}; logits are not taken")
        if tensor.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, mask {tuple(mask.shape)}; they must be equal")
        if tensor.device != mask.device:
            raise ValueError(f"{name} is on {tensor.device}, mask on {mask.device}; move them to one device")
    if mask.numel() == 0:
        raise ValueError(f"mask is empty, shape {tuple(mask.shape)}; pass at least one sequence of one token")
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex() or bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("mask must hold only 0 and 1 (or be bool); weights per token are not supported")
    return mask != 0


def check_finite(mask: torch.Tensor, **tensors: torch.Tensor) -> None:
    """ValueError naming the first tensor that is not finite at a counted token; waits for the device once."""
    verdicts = torch.stack([_finite_where(tensor, mask) for tensor in tensors.values()]).tolist()
    for name, finite in zip(tensors, verdicts, strict=True):
        if not finite:
            raise ValueError(
                f"{name} holds NaN or an infinity at a counted token; "
                "look for a token that its policy could not sample, or an update that diverged"
            )


def _finite_where(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (torch.isfinite(tensor) | ~mask).all()


def check_advantages(advantages: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The advantages (B,) or (B, T), detached, as a view of shape (B, 1) or (B, T); checked against the mask."""
    if not isinstance(advantages, torch.Tensor):
        raise TypeError(f"advantages must be a tensor, found {type(advantages).__name__}")
    if not advantages.is_floating_point():
        raise TypeError(f"advantages must be a floating tensor, found {advantages.dtype}")
    if advantages.shape not in (mask_BT.shape[:1], mask_BT.shape):
        raise ValueError(
            f"advantages have shape {tuple(advantages.shape)}; expected (B,) = {tuple(mask_BT.shape[:1])} "
            f"or (B, T) = {tuple(mask_BT.shape)}"
        )
    if advantages.device != mask_BT.device:
        raise ValueError(f"advantages are on {advantages.device}, mask on {mask_BT.device}; move them to one device")
    advantages = advantages.detach()
    return advantages[:, None] if advantages.dim() == 1 else advantages
