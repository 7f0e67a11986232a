"""A pinned Hugging Face model: fetched once, checked, and found again without a network.

From a mirror with the same layout as for datasets, <mirror>/<name>/<revision>/; else from Hugging Face or its cache;
and if neither has it and the configuration names a Python package with the model, from there, maybe with other weights.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from reproduction.data.mathematics import DataError
from reproduction.data.packaged_model import SOURCE, packaged_model
from reproduction.jobs.files import read_json
from reproduction.settings.hub import ModelSettings

# Weights in safetensors only: other formats can run code when they are read.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_POINTER = b"version https://git-lfs"


def model_folder(model: ModelSettings, mirror: str | os.PathLike | None = None, window: int = 0) -> Path:
    """The folder with the model at its pinned revision, fetched if it is not there yet.

    window: tokens of the longest prompt and response together, which the model must be able to hold.

    Raises DataError with one line for a gated or missing model or revision, no source within reach, an incomplete
    folder, weights in another format than safetensors, a tokenizer without an end token, a window that is too long, and
    what `packaged_model` refuses.
    """
    folder = None if mirror is None else Path(mirror) / model.name / model.revision
    if folder is None or (not folder.is_dir() and model.package is not None):
        folder = _fetched(model)
    elif not folder.is_dir():
        raise DataError(f"{model.name}: the mirror has no {folder}; fill it with `python -m reproduction mirror`")
    check_model(folder, model.name, window)
    return folder


def model_source(folder: Path) -> dict[str, Any]:
    """Where the files of a model's folder are from, for people and provenance; JSON-ready."""
    if (folder / SOURCE).is_file():
        return {"from": "a Python package", **read_json(folder / SOURCE)}
    return {"from": "Hugging Face"}


def write_model_mirror(model: ModelSettings, mirror: str | os.PathLike) -> Path:
    """Fetch the model into a mirror; returns its folder, which is there only if the model is whole."""
    folder = Path(mirror) / model.name / model.revision
    if not folder.is_dir():
        # Of one name, so that a fetch that was interrupted goes on.
        partial = folder.with_name(f".{folder.name}.partial")
        found = _fetched(model, partial)
        if found != partial:
            shutil.copytree(found, partial, dirs_exist_ok=True)
        check_model(partial, model.name, 0)
        os.replace(partial, folder)
    check_model(folder, model.name, 0)
    return folder


def check_model(folder: Path, name: str, window: int) -> None:
    """Refuse a folder that holds no whole model in safetensors, or one whose window is shorter than `window` tokens."""
    for file in ("config.json", "tokenizer_config.json"):
        if not (folder / file).is_file():
            raise DataError(f"{name}: {folder} has no {file}; fetch the model again")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        _check_whole(path, name)
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise DataError(f"{name}: {folder} has no tokenizer ({' or '.join(_TOKENIZERS)}); fetch the model again")
    index = folder / "model.safetensors.index.json"
    weights = _mapping(index, name).get("weight_map") if index.is_file() else {"": "model.safetensors"}
    if not isinstance(weights, dict):
        raise DataError(f"{name}: {index} names no weights; fetch this file again")
    needed = sorted(set(map(str, weights.values())))
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise DataError(f"{name}: {folder} has no {missing[0]}; fetch the model again, with its weights in safetensors")
    if _end_token(folder) is None:
        raise DataError(f"{name}: the tokenizer in {folder} names no end token (eos_token), so no response would end")
    longest = _mapping(folder / "config.json", name).get("max_position_embeddings")
    if longest is not None and window > longest:
        raise DataError(
            f"{name} holds {longest:,} tokens, but prompt and response may have {window:,} together; lower "
            "pretrained.max_prompt_length, training.max_completion_length or sampling.max_completion_length"
        )


def _mapping(path: Path, name: str) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{name}: {path} holds no mapping; fetch this file again")
    return found


def _end_token(folder: Path) -> str | None:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False).eos_token


def _check_whole(path: Path, name: str) -> None:
    """Refuse a file that is empty, cut off, or a pointer in place of what a large-file store (Git LFS) would hold."""
    from safetensors import SafetensorError, safe_open
    from tokenizers import Tokenizer

    with open(path, "rb") as file:
        start = file.read(len(_POINTER))
    if not start:
        reason = "is empty"
    elif start == _POINTER:
        reason = "is a Git LFS pointer and not the file itself"
    else:
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    return
            if path.name == "tokenizer.json":
                Tokenizer.from_file(str(path))
            elif path.suffix == ".json":
                read_json(path)
            return
        except SafetensorError as error:
            reason = f"holds no whole weights ({error})"
        # The tokenizers package raises Exception itself.
        except Exception as error:
            reason = f"cannot be read ({' '.join(str(error).split())})"
    raise DataError(f"{name}: {path} {reason}; fetch this file again")


def _fetched(model: ModelSettings, target: Path | None = None) -> Path:
    """The model's folder: `target` or in Hugging Face's cache; of a package's model, next to that cache."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HOME
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(model.name, revision=model.revision, allow_patterns=_FILES, local_dir=target))
    except GatedRepoError:
        fix = "it is gated: accept its licence on its Hugging Face page, and set HF_TOKEN to a token that may read it"
    except RevisionNotFoundError:
        fix = f"it has no revision {model.revision}; correct pretrained.model.revision"
    except RepositoryNotFoundError:
        fix = "Hugging Face has no such model, or HF_TOKEN may not see it; correct pretrained.model.name"
    # A revision that is a whole commit lets huggingface_hub's own errors of the connection through.
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.TransportError, ConnectionError):
        if model.package is not None:
            return packaged_model(model.package, Path(HF_HOME) / "packaged")
        fix = (
            "it is not here and Hugging Face is out of reach; connect, or name a folder that `python -m reproduction "
            "mirror` filled as data.mirror"
        )
    except OSError as error:
        fix = f"it could not be fetched ({error.strerror or error}); free disk space or set HF_HOME to a larger disk"
    raise DataError(f"{model.name}: {fix}")
