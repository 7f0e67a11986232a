"""Wrong inputs to every command: each ends with a non-zero status and one line naming file, key or line and the remedy.

A case changes one thing in a folder that is in order, and calls a command. No case may show a traceback.
"""

import json
import shutil

import pytest
import torch
import yaml

from reproduction.cli import main
from reproduction.data.tokenizer import build_tokenizer
from reproduction.settings.configuration import dump, load
from reproduction.training.base_model import build_model
from reproduction.training.saving import save_model

CONFIG = "smoke/config.yaml"
TRAIN, HELD_OUT = "smoke/problems/train.jsonl", "smoke/problems/held_out.jsonl"
BASE, RUN = "smoke/base/seed1", "smoke/krpo/krpo/seed1"
PROBLEMS = ["problems"]
PRETRAIN = ["pretrain", "--seed", "1"]
TRAINING = ["train", "--experiment", "krpo", "--method", "krpo", "--seed", "1"]
EVALUATE = ["evaluate", "--seed", "1"]
ROW = {"id": "x", "question": "1+2=", "answer": "3", "num_terms": 2, "num_digits": 1, "level": "easy"}


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    """A results folder before any training: configuration, problems and an untrained base model of seed 1."""
    folder = tmp_path_factory.mktemp("inputs")
    configuration = load({"scale": "smoke", "base_model": {"steps": 1}})
    (folder / "smoke").mkdir()
    (folder / CONFIG).write_text(dump(configuration.model_copy(update={"results": str(folder)})))
    assert main(["problems", "--config", str(folder / CONFIG)]) == 0
    torch.manual_seed(0)
    save_model(build_model(configuration.base_model, build_tokenizer()), build_tokenizer(), folder / BASE / "model")
    return folder


@pytest.fixture
def place(in_order, tmp_path):
    shutil.copytree(in_order, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / CONFIG).read_text().replace(str(in_order), str(tmp_path))
    (tmp_path / CONFIG).write_text(text)
    return tmp_path


def text(old, new):
    """Replace text of the configuration."""

    def arrange(place):
        found = (place / CONFIG).read_text()
        assert old in found
        (place / CONFIG).write_text(found.replace(old, new, 1))

    return arrange


def key(path, value):
    """Set a key of the configuration; `path` has slashes because a level's or method's name may have dots."""

    def arrange(place):
        root = found = yaml.safe_load((place / CONFIG).read_text())
        *parents, last = path.split("/")
        for name in parents:
            found = found[name]
        found[last] = value
        (place / CONFIG).write_text(yaml.safe_dump(root, sort_keys=False))

    return arrange


def without(name):
    def arrange(place):
        found = yaml.safe_load((place / CONFIG).read_text())
        del found[name]
        (place / CONFIG).write_text(yaml.safe_dump(found))

    return arrange


def content(name, data):
    def arrange(place):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return arrange


def gone(name):
    return lambda place: shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()


def rows(name, *values):
    return content(name, "".join(json.dumps(value) + "\n" for value in values))


def added(name, line):
    def arrange(place):
        with open(place / name, "a") as file:
            file.write(line + "\n")

    return arrange


def nothing(place):
    pass


def both(*steps):
    return lambda place: [step(place) for step in steps] and None


def cut(name):
    return lambda place: (place / name).write_bytes((place / name).read_bytes()[:-100])


TRAINING_KEY = "experiments/kpo/training"
LEARNING_RATE = f"{TRAINING_KEY}/learning_rate"
EVALUATED, MODEL = f"{BASE}/evaluation.json", f"{BASE}/model"
METHODS = "experiments/kpo/methods"
EVALUATION = '{"sampling": {}, "splits": {"easy": {}}}'

# what is arranged, the command, words of its one line: where it is wrong, and what to do
CASES = {
    # The command line itself.
    "no command": (nothing, [], ["step", "--help"]),
    "unknown command": (nothing, ["trian"], ["invalid choice: 'trian'", "train", "--help"]),
    "no configuration": (nothing, ["problems", "--no-config"], ["--config", "required", "--help"]),
    "unknown option": (nothing, ["problems", "--sede", "1"], ["--sede", "--help"]),
    "seed is a word": (nothing, ["pretrain", "--seed", "one"], ["--seed", "'one'", "--help"]),
    "seed missing": (nothing, ["pretrain"], ["--seed", "required"]),
    "seed of no run": (nothing, ["pretrain", "--seed", "9"], ["--seed 9", "1, 2"]),
    "seed below zero": (nothing, [*TRAINING[:-1], "-1"], ["--seed -1", "1, 2"]),
    "evaluating a seed of no run": (nothing, ["evaluate", "--seed", "9"], ["--seed 9", "1, 2"]),
    "evaluating the base by a method": (nothing, ["evaluate", "--method", "grpo", "--seed", "1"],
                                        ["'base'", "no method 'grpo'"]),
    "waiting for no number": (nothing, ["lease", "--no-config", "--devices", "1", "--wait", "nan", "--", "true"],
                              ["--wait", "0 or more", "nan"]),
    "no threads": (nothing, ["problems", "--threads", "0"], ["--threads", "at least 1"]),
    "unknown experiment": (nothing, ["train", "--experiment", "kpoo", "--method", "grpo", "--seed", "1"],
                           ["experiment 'kpoo'", "kpo, krpo"]),
    "unknown method": (nothing, ["train", "--experiment", "krpo", "--method", "gspo", "--seed", "1"],
                       ["method 'gspo'", "grpo, krpo"]),
    "log in a file": (nothing, ["problems", "--log", "CONFIG/x.log"], ["config.yaml", "--log"]),
    "plan of an unknown scale": (nothing, ["plan", "--no-config", "--scale", "laptpo"], ["laptpo", "laptop"]),
    "plan without cores": (nothing, ["plan", "--no-config", "--scale", "smoke", "--cores", "0"],
                           ["--cores", "at least 1"]),
    "plan of a missing file": (nothing, ["plan", "--no-config", "--configfile", "none.yaml"],
                               ["none.yaml", "check the path"]),
    # The configuration as a file.
    "missing": (gone(CONFIG), PROBLEMS, [CONFIG, "no such file", "check the path"]),
    "empty": (content(CONFIG, ""), PROBLEMS, [CONFIG, "empty"]),
    "a folder": (both(gone(CONFIG), lambda place: (place / CONFIG).mkdir()), PROBLEMS, [CONFIG, "folder"]),
    "binary": (content(CONFIG, bytes(range(256))), PROBLEMS, [CONFIG, "save it as UTF-8"]),
    "UTF-16": (content(CONFIG, "scale: smoke".encode("utf-16")), PROBLEMS, [CONFIG, "save it as UTF-8"]),
    "Latin-1": (content(CONFIG, "results: é".encode("latin-1")), PROBLEMS, [CONFIG, "save it as UTF-8"]),
    "control characters": (content(CONFIG, "scale: smo\x07ke"), PROBLEMS, [CONFIG, "correct"]),
    "truncated": (content(CONFIG, "scale: smoke\nseeds: [1, 2"), PROBLEMS, [CONFIG, "line 2", "correct"]),
    "bad indentation": (content(CONFIG, "scale: smoke\n seeds: [1]"), PROBLEMS, [CONFIG, "line 2", "correct"]),
    "a list": (content(CONFIG, "- scale\n- smoke\n"), PROBLEMS, [CONFIG, "mapping", "list"]),
    "a word": (content(CONFIG, "smoke\n"), PROBLEMS, [CONFIG, "mapping", "str"]),
    "the same key twice": (text("study: null", "study: null\nscale: laptop"), PROBLEMS,
                           [CONFIG, "line 3", "'scale'", "twice"]),
    "a Python object": (content(CONFIG, "scale: !!python/object/apply:os.system ['true']"), PROBLEMS,
                        [CONFIG, "line 1", "correct"]),
    "nested too deeply": (content(CONFIG, "a: " + "[" * 5000), PROBLEMS, [CONFIG, "nested too deeply"]),
    "aliases without end": (content(CONFIG, "a: &a [*a]"), PROBLEMS, [CONFIG]),
    "a number without end": (text("seeds:", "seeds: " + "9" * 5000 + "\nx:"), PROBLEMS, [CONFIG]),
    # Its keys: unknown, missing, of another type.
    "unknown key": (key("sedes", [1]), PROBLEMS, [CONFIG, "sedes", "unknown key; remove it"]),
    "unknown nested key": (key(f"{TRAINING_KEY}/learnin_rate", 1), PROBLEMS, ["training.learnin_rate", "remove it"]),
    "key missing": (without("seeds"), PROBLEMS, [CONFIG, "seeds", "is missing; add it"]),
    "no safety": (without("safety"), PROBLEMS, [CONFIG, "safety", "is missing; add it"]),
    "seeds are text": (key("seeds", "1, 2"), PROBLEMS, ["seeds", "valid list"]),
    "no seeds": (key("seeds", []), PROBLEMS, ["seeds", "at least 1"]),
    "seeds twice": (key("seeds", [1, 1]), PROBLEMS, ["seeds [1, 1] repeat"]),
    "negative seed": (key("seeds", [-1]), PROBLEMS, ["seeds.0", "greater than or equal to 0, found -1"]),
    "seed too large": (key("seeds", [2**31]), PROBLEMS, ["seeds.0", "less than 2147483648"]),
    "seed is true": (key("seeds", [True]), PROBLEMS, ["seeds.0", "valid integer"]),
    "a date": (text("seed: 0", "seed: 2026-01-01"), PROBLEMS, ["seed", "valid integer"]),
    "unknown scale": (key("scale", "huge"), PROBLEMS, ["scale", "'smoke', 'laptop'"]),
    "results empty": (key("results", ""), PROBLEMS, ["results", "at least 1 character"]),
    "no experiments": (key("experiments", {}), PROBLEMS, ["experiments", "at least 1"]),
    "an experiment's name leaves the folder": (key("experiments/..", {}), PROBLEMS, ["experiments", "pattern"]),
    "a method's name leaves the folder": (key(f"{METHODS}/..~1x", {}), PROBLEMS, ["methods", "pattern"]),
    "an experiment called base": (lambda place: key("experiments/base", yaml.safe_load(
        (place / CONFIG).read_text())["experiments"]["krpo"])(place), PROBLEMS,
        ["experiments", "'base'", "choose another"]),
    # Values out of their range.
    "learning rate zero": (key(LEARNING_RATE, 0.0), PROBLEMS, ["learning_rate", "greater than 0"]),
    "learning rate NaN": (key(LEARNING_RATE, float("nan")), PROBLEMS, ["learning_rate", "finite"]),
    "learning rate infinite": (key(LEARNING_RATE, float("inf")), PROBLEMS, ["learning_rate", "finite"]),
    "learning rate as text": (key(LEARNING_RATE, "1e-4"), PROBLEMS, ["learning_rate", "'1e-4'"]),
    "group of one": (key(f"{TRAINING_KEY}/group_size", 1), PROBLEMS, ["group_size", "2, found 1"]),
    "half a prompt": (key(f"{TRAINING_KEY}/prompts_per_rollout", 2.5), PROBLEMS, ["prompts_per_rollout", "integer"]),
    "temperature": (key(f"{TRAINING_KEY}/temperature", 0.7), PROBLEMS, ["temperature", "equal to 1, found 0.7"]),
    "top-p": (key(f"{TRAINING_KEY}/top_p", 0.9), PROBLEMS, ["top_p", "equal to 1, found 0.9"]),
    "no gradient clip": (key(f"{TRAINING_KEY}/gradient_clip", None), PROBLEMS, ["gradient_clip", "number, found None"]),
    "unknown reward": (key("experiments/kpo/reward", "exat"), PROBLEMS,
                       ["reward", "'exact', 'krpo', 'krpo-parts', 'math' or 'math-strings'"]),
    "unknown noise": (key("experiments/kpo/reward_noise", {"flip": 0.1}), PROBLEMS,
                      ["reward_noise", "'flip'", "flips"]),
    "too many flips": (key("experiments/kpo/reward_noise", {"flips": 1.5}), PROBLEMS, ["reward_noise", "flips"]),
    "unknown method name": (key(METHODS, {"grpoo": {}}), PROBLEMS, ["grpoo", "grpo"]),
    "unknown method value": (key(METHODS, {"grpo": {"clip_lo": 0.1}}), PROBLEMS, ["clip_lo", "clip_low"]),
    "negative clip": (key(METHODS, {"grpo": {"clip_low": -0.1}}), PROBLEMS, ["clip_low", "-0.1"]),
    "method values as a list": (key(METHODS, {"grpo": [0.1]}), PROBLEMS, ["methods.grpo", "valid dictionary"]),
    "time constant": (key("experiments/kpo/kalman_time_constant", 0), PROBLEMS,
                      ["kalman_time_constant", "greater than 0"]),
    "brackets": (key("problems/levels/easy/brackets", "no"), PROBLEMS, ["levels.easy.brackets", "boolean"]),
    "operators": (key("problems/levels/easy/operators", "+/"), PROBLEMS, ["levels.easy.operators", "'+/'"]),
    "terms": (key("problems/levels/easy/num_terms", [1]), PROBLEMS, ["levels.easy.num_terms.0", "2, found 1"]),
    "no digits": (key("problems/levels/easy/num_digits", []), PROBLEMS, ["levels.easy.num_digits", "at least 1 item"]),
    "share": (key("problems/one_digit_share", 1.2), PROBLEMS, ["one_digit_share", "1, found 1.2"]),
    "more problems than exist": (both(key("problems/levels/easy/num_digits",
                                 [1]), key("problems/held_out_per_level", 2000)),
                                 PROBLEMS, ["easy", "2000"]),
    "confidence": (key("evaluation/confidence", 1.0), PROBLEMS, ["confidence", "less than 1"]),
    "few resamples": (key("evaluation/bootstrap_resamples", 10), PROBLEMS, ["bootstrap_resamples", "100, found 10"]),
    "one sample": (key("evaluation/samples_per_problem", 1), PROBLEMS, ["samples_per_problem", "2, found 1"]),
    "checkpoint every 0": (key("safety/checkpoint_every", 0), PROBLEMS, ["safety.checkpoint_every", "greater than 0"]),
    "fault action": (key("safety/non_finite", "ignore"), PROBLEMS, ["safety.non_finite", "'stop' or 'continue'"]),
    # Values that contradict each other.
    "heads": (key("base_model/heads", 5), PROBLEMS, ["base_model", "not an even multiple of heads 5; change one"]),
    "responses do not divide": (key(f"{TRAINING_KEY}/minibatches", 3), PROBLEMS, ["3 minibatches; change one"]),
    "one update a rollout": (key(f"{TRAINING_KEY}/minibatches", 1), PROBLEMS,
                             ["every ratio is exactly 1", "set training"]),
    "weights all zero": (key(f"{TRAINING_KEY}/level_weights", {"easy": 0.0}), PROBLEMS, ["level_weights", "give one"]),
    "unknown level": (key(f"{TRAINING_KEY}/level_weights", {"eazy": 1.0}), PROBLEMS, ["'eazy'", "easy, normal, hard"]),
    "strange seeds": (key("experiments/kpo/seeds", [7]), PROBLEMS, ["experiments.kpo.seeds [7]", "add them"]),
    # Problem files.
    "no problems": (gone(TRAIN), PRETRAIN, [TRAIN, "no such file", "check the path"]),
    "problems empty": (content(TRAIN, ""), PRETRAIN, [TRAIN, "line 1", "no problem; give"]),
    "problems binary": (content(TRAIN, b"{}\n\x00\xff"), PRETRAIN, [TRAIN, "line 2", "binary", "UTF-8"]),
    "problems in UTF-16": (content(TRAIN, json.dumps(ROW).encode("utf-16-le")), PRETRAIN, [TRAIN, "line 1", "UTF-8"]),
    "problems cut": (added(TRAIN, '{"id": "y", "ques'), PRETRAIN, [TRAIN, "line 601", "give one JSON object a line"]),
    "id twice": (rows(TRAIN, ROW, ROW), PRETRAIN, [TRAIN, "line 2", "'x' occurs already", "make ids unique"]),
    "wrong answer": (rows(TRAIN, {**ROW, "answer": "4"}), PRETRAIN, [TRAIN, "line 1", "worth 3; correct the row"]),
    "answer as number": (rows(TRAIN, {**ROW, "answer": 3}), PRETRAIN, [TRAIN, "line 1", "'answer' must be a string"]),
    "field missing": (rows(TRAIN, {"id": "x"}), PRETRAIN, [TRAIN, "line 1", "'question' is missing; each row needs"]),
    "evil question": (rows(TRAIN, {**ROW, "question": "__import__('os').abort()"}), PRETRAIN, [TRAIN, "line 1"]),
    "towers of powers": (rows(TRAIN, {**ROW, "question": "9**9**9**9"}), PRETRAIN, [TRAIN, "line 1"]),
    "a list of problems": (content(TRAIN, json.dumps([ROW])), PRETRAIN, [TRAIN, "line 1", "give one JSON object"]),
    "deep problem": (content(TRAIN, "[" * 100_000), PRETRAIN, [TRAIN, "line 1", "nested too deeply"]),
    "level not configured": (rows(TRAIN, {**ROW, "level": "eazy"}), PRETRAIN, [TRAIN, "'eazy'", "easy, normal, hard"]),
    "held-out level not configured": (rows(HELD_OUT, {**ROW, "level": "eazy"}), EVALUATE, [HELD_OUT, "'eazy'", "easy"]),
    "no problem of a level": (rows(TRAIN, ROW), TRAINING, ["level 'normal'", "generate them again"]),
    "no held-out of a level": (rows(HELD_OUT, ROW), EVALUATE, [HELD_OUT, "'normal'", "generate them again"]),
    "arithmetic file missing": (key("arithmetic_file", "none.jsonl"), EVALUATE, ["none.jsonl", "check the path"]),
    # Models.
    "no model": (gone(MODEL), TRAINING, [MODEL, "python -m reproduction pretrain"]),
    "no model to evaluate": (nothing, ["evaluate", "--experiment", "krpo", "--method", "krpo", "--seed", "1"],
                             [f"{RUN}/model", "python -m reproduction train"]),
    "weights cut": (cut(f"{MODEL}/model.safetensors"), TRAINING, [MODEL, "make it again"]),
    "weights are text": (content(f"{MODEL}/model.safetensors", "weights"), EVALUATE, [MODEL, "make it again"]),
    "weights missing": (gone(f"{MODEL}/model.safetensors"), EVALUATE, [MODEL, "make it again"]),
    "a pickle in their place": (both(gone(f"{MODEL}/model.safetensors"), content(
        f"{MODEL}/pytorch_model.bin", b"\x80\x04.")), EVALUATE, [MODEL, "make it again"]),
    "model config cut": (cut(f"{MODEL}/config.json"), TRAINING, [MODEL, "make it again"]),
    "tokenizer missing": (both(gone(f"{MODEL}/tokenizer.json"), gone(f"{MODEL}/tokenizer_config.json")),
                          EVALUATE, [MODEL, "make it again"]),
    # Results that later steps read.
    "summary without evaluations": (nothing, ["summarise"], ["evaluation.json is missing", "evaluate"]),
    "evaluation cut": (content(EVALUATED, '{"splits": '), ["summarise"], [EVALUATED, "line 1"]),
    "evaluation a list": (content(EVALUATED, "[]"), ["summarise"],
                          [EVALUATED, "evaluate the model again"]),
    "evaluation without counts": (content(EVALUATED, EVALUATION), ["summarise"],
                                  [EVALUATED, "evaluate the model again"]),
    "measuring nothing": (nothing, ["measure"], ["is missing; finish the run"]),
    "claims without measures": (nothing, ["claims"], ["measures.json is missing", "python -m reproduction measure"]),
    "measures nested deeply": (content("smoke/measures.json", "[" * 100_000), ["claims"],
                               ["measures.json", "nested too deeply"]),
    "measures not JSON": (content("smoke/measures.json", "{"), ["claims"], ["measures.json", "line 1"]),
    "measures of another form": (content("smoke/measures.json", "[]"), ["claims"],
                                 ["measures.json", "measure the runs again"]),
    "measures of another scale": (content("smoke/measures.json", '{"scale": "laptop", "runs": [], "missing": []}'),
                                  ["claims"], ["measures.json", "'laptop'", "measure the runs again"]),
    "publishing nothing": (nothing, ["publish"], ["summary.json is missing; finish the workflow"]),
    "verifying nowhere": (nothing, ["verify", "--no-config", "nowhere"],
                          ["nowhere", "no such folder; give the folder"]),
    "verifying no results": (gone(CONFIG), ["verify", "--no-config", "smoke"], ["smoke/config.yaml", "no such file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_one_line(place, capfd, monkeypatch, name):
    arrange, arguments, words = CASES[name]
    monkeypatch.chdir(place)
    arrange(place)
    arguments = [argument.replace("CONFIG", str(place / CONFIG)) for argument in arguments]
    if "--no-config" in arguments or not arguments:
        arguments = [argument for argument in arguments if argument != "--no-config"]
    else:
        arguments += ["--config", str(place / CONFIG)]
    capfd.readouterr()
    try:
        status = main(arguments)
    except SystemExit as ended:  # as argparse does
        status = ended.code
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert status not in (0, None)
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    for word in words:
        assert word in lines[0], lines[0]


def test_there_are_enough_of_them():
    commands = {arguments[0] for _, arguments, _ in CASES.values() if arguments}
    assert len(CASES) >= 60
    assert {
        "plan",
        "problems",
        "pretrain",
        "train",
        "evaluate",
        "summarise",
        "measure",
        "claims",
        "publish",
    } <= commands
