"""Configuration files: YAML without surprises, overrides merged into it, and refusals of one line."""

import os
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kpo.checks import unknown_name
from reproduction.jobs.files import read_text


class ConfigurationError(ValueError):
    """A configuration that cannot be run; the message says which key and what to do."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely (no objects are built from it)."""
    try:
        text = read_text(path)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigurationError(f"{path}{where}: not YAML ({problem}); correct it") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply; write it with fewer levels") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: a value cannot be read ({error}); correct it") from None
    if value is None:
        raise ConfigurationError(f"{path}: the file is empty; write a mapping of keys to values")
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: write a mapping of keys to values; found {type(value).__name__}")
    return value


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which builds no objects, and refuses a key that occurs twice in one mapping."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} occurs twice in one mapping", key.start_mark
                    )
                seen.add(key.value)
        return node


def expanded(path: str | None) -> str | None:
    """A path of a configuration with a leading ``~`` replaced by the home folder, which only a shell does by itself.

    Raises ValueError for a user without a home folder, and for a variable, which would become a folder's name.
    """
    if path is None:
        return None
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise ValueError(f"{path!r} names the home folder of a user that is not known here; write the path out")
    if os.path.expandvars(path) != path:
        raise ValueError(f"{path!r} holds a variable, which is not replaced here; write the path out")
    return found


REPLACED = ("methods", "seeds", "reward_noise", "late_evaluation")
"""Keys of an experiment that are replaced whole."""


def merge(base: dict[str, Any], overrides: dict[str, Any], kind: Any = None, prefix: str = "") -> dict[str, Any]:
    """`base` with `overrides` in it; mappings of `REPLACED` are replaced.

    kind: the section or mapping of sections that this becomes. A key that neither it nor `base` has is refused.
    """
    merged = dict(base)
    fields = getattr(kind, "model_fields", {})
    for key, value in overrides.items():
        name = f"{prefix}{key}"
        if key not in base and key not in fields:
            known = [f"{prefix}{known}" for known in dict.fromkeys([*base, *fields])]
            raise ConfigurationError(unknown_name("configuration key", name, known))
        if (prefix.startswith("experiments.") and key in REPLACED) or name == "data.pins":
            merged[key] = value
        elif isinstance(base.get(key), dict):
            if not isinstance(value, dict):
                raise ConfigurationError(f"{name} must be a mapping with keys {listing(base[key])}, found {value!r}")
            merged[key] = merge(base[key], value, _kind_of(kind, key), f"{name}.")
        else:
            merged[key] = value
    return merged


def _kind_of(kind: Any, key: str) -> Any:
    """The annotation of the value under `key` of a section or a mapping, without None as an alternative."""
    fields = getattr(kind, "model_fields", {})
    found = fields[key].annotation if key in fields else (typing.get_args(kind) or [None])[-1]
    return found if typing.get_origin(found) is dict else next(iter(typing.get_args(found)), found)


def first_error(error: ValidationError) -> str:
    """The first of pydantic's refusals as one line: the key, what is wrong, and how many more there are."""
    details = error.errors()
    first = details[0]
    location = ".".join(str(part) for part in first["loc"] if part != "[key]")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    elif first["type"] == "missing":
        message = "is missing; add it"
    elif not isinstance(first["input"], dict) and first["type"] != "value_error":
        message += f", found {first['input']!r}{_as_number(first)}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{location}: {message}{more}" if location else f"{message}{more}"


def _as_number(error) -> str:
    """What to write for a number that YAML has read as text; empty for anything else."""
    text = error["input"]
    if not isinstance(text, str) or not error["type"].startswith(("int", "float")):
        return ""
    try:
        number = float(text)
    except ValueError:
        return ""
    return f", which is text; write {int(number)}" if number.is_integer() else f", which is text; write {number!r}"


def listing(names) -> str:
    """The names in one line."""
    return ", ".join(str(name) for name in names)
