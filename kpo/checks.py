"""Checks of arguments that ratios, advantages and losses share; each refusal names the argument and what to do."""

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["NonFiniteError"]

FLOATING_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class NonFiniteError(ValueError):
    """NaN or an infinity at a counted place. A trainer may catch it and leave the update out."""


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """Message for a name that does not exist: the first that it begins or the closest one, and all known ones."""
    known = list(map(str, known))
    begun = [each for each in known if name and each.startswith(str(name))]
    close = begun or difflib.get_close_matches(str(name), known, n=1)
    suggestion = f", did you mean {close[0]!r}?" if close else ";"
    return f"unknown {what} {name!r}{suggestion} Known are: {', '.join(known) or 'none'}"


def known(what: str, name: Any, names: Collection[str]) -> str:
    """`name`; ValueError unless it is one of `names`."""
    if not isinstance(name, str) or name not in names:
        raise ValueError(unknown_name(what, name, names))
    return name


def check_real(
    name: str, value: Any, *, minimum: float = -math.inf, maximum: float = math.inf, exclusive: bool = False
) -> float:
    """`value` as a float; TypeError unless it is a real number, ValueError unless finite and within the bounds.

    Numbers of NumPy and tensors without dimensions count as numbers. `exclusive` refuses the minimum itself.
    """
    if getattr(value, "requires_grad", False):
        raise ValueError(f"{name} requires a gradient, and nothing here gives it one; pass {name}.item()")
    value = plain_number(value)
    if isinstance(value, str):
        raise TypeError(f"{name} must be a number, found the text {value!r}; in YAML write 1.0e-6, not 1e-6")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, found {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, found {value}")
    if number < minimum or number > maximum or (exclusive and number == minimum):
        upper = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be {'above' if exclusive else 'at least'} {minimum:g}{upper}, found {value}")
    return number


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """`value` as an int of at least `minimum`; TypeError or ValueError otherwise."""
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, found {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, found {value}")
    return int(value)


def plain_number(value: Any) -> Any:
    """The Python number in a NumPy scalar or an array or tensor without dimensions; anything else unchanged."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


@dataclass(frozen=True)
class Kind:
    """A function registered under a name, to be named by methods."""

    name: str
    function: Callable[..., Tensor]
    defaults: Mapping[str, Any]  # of the parameters that a method may set; `inspect.Parameter.empty` if there is none
    runtime: frozenset[str]  # keywords that the function asks for and gets when it runs

    @classmethod
    def of(cls, name: str, function: Callable[..., Tensor], runtime: Collection[str], **fields: Any):
        """The kind of a function whose keyword-only arguments are parameters, except those named in `runtime`."""
        keywords = {
            key: parameter.default
            for key, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        defaults = {key: default for key, default in keywords.items() if key not in runtime}
        return cls(name, function, defaults, frozenset(keywords) & frozenset(runtime), **fields)


class Registry(dict[str, Any]):
    """Names to what they stand for; ValueError in one line for a taken or unknown name."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def add(self, name: str, value: Any) -> Any:
        if name in self:
            raise ValueError(f"{self.what} {name!r} exists already; choose another name")
        self[name] = value
        return value

    def find(self, name: str) -> Any:
        return self[known(self.what, name, self)]


def check_parameters(
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


def check_rows(name: str, values: Tensor, *, shape: str = "(B, T)", floating: bool = True) -> None:
    """TypeError or ValueError unless `values` is a dense real tensor of two dimensions with at least one element."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch tensor, found {type(values).__name__}")
    if values.is_nested or values.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, padded to {shape}; found a nested or sparse one")
    if values.is_complex() or (floating and values.dtype not in FLOATING_DTYPES):
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, found {values.dtype}; convert it")
    if values.dim() != 2:
        raise ValueError(f"{name} must have shape {shape}, found {tuple(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(values.shape)}; pass {shape} with at least one element")


def check_rewards(rewards: Tensor) -> Tensor:
    """Where the rewards are graded, (P, G) bool."""
    check_rows("rewards", rewards, shape="(P, G)")
    if bool(torch.isinf(rewards).any()):
        raise ValueError("rewards hold an infinity; a response that could not be graded is NaN")
    return ~torch.isnan(rewards)


def _check_alike(name: str, values: Tensor, like: str, other: Tensor) -> None:
    if values.shape != other.shape:
        raise ValueError(f"{name} has shape {tuple(values.shape)}, {like} {tuple(other.shape)}; they must be equal")
    if values.device != other.device:
        raise ValueError(f"{name} is on {values.device}, {like} on {other.device}; move them to one device")


def check_mask(mask: Tensor | None, values: Tensor, like: str = "observations") -> Tensor:
    """The mask as bool, of 0 and 1 only and with the shape and device of `values`; True everywhere for None."""
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch tensor, found {type(mask).__name__}")
    _check_alike("mask", mask, like, values)
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex():
        raise TypeError(f"mask must be bool or hold 0 and 1, found {mask.dtype}")
    binary = mask != 0
    # NaN differs from everything and is refused here as well.
    if not bool((mask == binary).all()):
        raise ValueError("mask must hold only 0 and 1 (or be bool); weights per token are not supported")
    return binary


def observed_tokens(mask: Tensor | None, observations: Tensor) -> Tensor | None:
    """The mask as uint8 0 / 1, or None if it is known to be 1 everywhere."""
    if mask is None:
        return None
    observed = check_mask(mask, observations).view(torch.uint8)
    # On a CUDA device the question would wait for the device, and the kernel does not need the answer.
    return None if observed.device.type == "cpu" and bool(observed.amin()) else observed


def check_token_tensors(mask: Tensor, **tensors: Tensor) -> Tensor:
    """The mask as bool (B, T); every tensor must be floating, of the mask's shape and on its device."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch tensor, found {type(mask).__name__}")
    for name, tensor in tensors.items():
        check_rows(name, tensor)
        _check_alike(name, tensor, "mask", mask)
    return check_mask(mask, mask)


def check_finite(mask: Tensor, **tensors: Tensor) -> None:
    """NonFiniteError naming the first tensor that is not finite at a counted token; waits for the device once."""
    verdicts = torch.stack([(torch.isfinite(values) | ~mask).all() for values in tensors.values()]).tolist()
    for name, finite in zip(tensors, verdicts, strict=True):
        if not finite:
            remedy = "look for a token that its policy could not sample, or an update that diverged"
            raise NonFiniteError(f"{name} holds NaN or an infinity at a counted token; {remedy}")


def check_advantages(advantages: Tensor, mask_BT: Tensor) -> Tensor:
    """The advantages (B,) or (B, T), detached, as a view of shape (B, 1) or (B, T); checked against the mask."""
    _check_against_mask("advantages", advantages, mask_BT, {"(B,)": mask_BT.shape[:1], "(B, T)": mask_BT.shape})
    advantages = advantages.detach()
    return advantages[:, None] if advantages.dim() == 1 else advantages


def check_sampler_weights(weights: Tensor, mask_BT: Tensor) -> Tensor:
    """The weights (B, T) or (B, 1), detached; NonFiniteError or ValueError unless finite and not negative."""
    shapes = {"(B, T)": mask_BT.shape, "(B, 1)": (len(mask_BT), 1)}
    _check_against_mask("sampler_weights", weights, mask_BT, shapes)
    check_finite(mask_BT, sampler_weights=weights)
    if bool(((weights < 0) & mask_BT).any()):
        raise ValueError("sampler_weights must not be negative; pass ratios of probabilities, not their logarithms")
    return weights.detach()


def _check_against_mask(name: str, values: Tensor, mask_BT: Tensor, shapes: Mapping[str, Any]) -> None:
    if not isinstance(values, Tensor) or values.dtype not in FLOATING_DTYPES:
        found = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a tensor of float32, float64, bfloat16 or float16, found {found}")
    if tuple(values.shape) not in map(tuple, shapes.values()):
        expected = " or ".join(f"{what} = {tuple(shape)}" for what, shape in shapes.items())
        raise ValueError(f"{name} have shape {tuple(values.shape)}; expected {expected}")
    if values.device != mask_BT.device:
        raise ValueError(f"{name} are on {values.device}, mask on {mask_BT.device}; move them to one device")


def refuse_not_finite(values: Tensor, mask: Tensor | None, name: str = "observations", column: str = "token") -> None:
    """NonFiniteError naming the first observed value that is not finite, if there is one."""
    wrong = ~torch.isfinite(values)
    if mask is not None:
        wrong &= mask.bool()
    places = wrong.nonzero()
    if len(places):
        i, j = places[0].tolist()
        found = f"{values[i, j].item()} at row {i}, {column} {j}, and {len(places)} such values in all"
        raise NonFiniteError(f"{name} holds {found}, where the mask is 1; mask them out or look for a diverged update")
