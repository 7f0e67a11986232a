"""Cost of a run at laptop scale, in alternation with another one: `python -m benchmarks.training_run --against X`.

X is a folder with another commit of this repository, `trl` (a plain `trl.GRPOTrainer` on the same model, prompts and
settings), or `nothing`. Against a commit, both sides train and evaluate runs from the same base model, each in its own
processes; against TRL only `train()` is timed. Each round gives one ratio (X's processor time over this one's). Printed
are the median and range of the ratios, the peak memory, and the samples a second of rollouts and evaluation.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parents[1]
DUMP = "import sys, yaml; from {module} import load, dump; print(dump(load(yaml.safe_load(sys.stdin.read()))))"
RUNS = ("kpo/grpo", "krpo/krpo")
TRL_OVERRIDES = {  # 384 completions, 24 updates, with a KL term
    "methods": {"grpo": {"kl_weight": 0.01}},
    "training": {"rollout_batches": 3, "minibatches": 8},
}


class Side:
    """One commit with its own results folder."""

    def __init__(self, repository: Path, results: Path, overrides: dict):
        self.repository, self.new = repository, (repository / "reproduction").is_dir()
        module = "reproduction.settings.configuration" if self.new else "kpo.config"
        asked = yaml.safe_dump({**overrides, "results": str(results)})
        text = _checked([sys.executable, "-c", DUMP.format(module=module)], repository, asked)
        self.folder = results / yaml.safe_load(text)["scale"]
        self.folder.mkdir(parents=True)
        self.config = self.folder / "config.yaml"
        self.config.write_text(text)

    def step(self, name: str, *arguments: str) -> dict[str, float]:
        """Run a step to its end; its seconds, processor seconds and peak memory in MiB."""
        package = "reproduction" if self.new else "kpo"
        command = [sys.executable, "-m", package, name, "--config", str(self.config), *arguments]
        with tempfile.TemporaryFile() as said:
            started = time.perf_counter()
            process = subprocess.Popen(command, cwd=self.repository, env=_environment(), stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            if status:
                said.seek(0)
                raise SystemExit(f"{' '.join(command)} failed in {self.repository}:\n{said.read().decode()[-2000:]}")
        return {"seconds": seconds, "processor": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}

    def run(self, run: str, seed: int) -> dict[str, float]:
        """Train and evaluate."""
        experiment, method = run.split("/")
        shutil.rmtree(self.folder / run, ignore_errors=True)
        asked = ["--experiment", experiment, "--method", method, "--seed", str(seed)]
        train = self.step("train", *asked, *(["--sample"] if self.new else []))
        evaluate = self.step("evaluate", *asked)
        found = {name: train[name] + evaluate[name] for name in ("seconds", "processor")}
        return {**found, "peak_mib": max(train["peak_mib"], evaluate["peak_mib"])}


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _checked(command: list[str], folder: Path, text: str = "") -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(), input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{done.stderr[-2000:]}")
    return done.stdout


def in_alternation(rounds: int, this, other) -> dict:
    """Both, in turn and in the other order each second round; the ratio of processor times in each round."""
    found = {"this": [], "other": []}
    for number in range(rounds):
        for name in ("this", "other") if number % 2 == 0 else ("other", "this"):
            found[name].append({"this": this, "other": other}[name]())
    pairs = zip(found["this"], found["other"], strict=True)
    ratios = [theirs["processor"] / ours["processor"] for ours, theirs in pairs]
    return {
        **found,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def train_once(kind: str, config: Path, seed: int) -> dict[str, float]:
    """In its own process: train experiment kpo's first method with this project's trainer, or with plain TRL."""
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    from reproduction.data.experiment_data import training_problems
    from reproduction.jobs.allocator import keep_freed_memory
    from reproduction.rewards.rules import batch_rewards
    from reproduction.settings.configuration import read_resolved
    from reproduction.settings.run import get_run
    from reproduction.training.arguments import trainer_arguments
    from reproduction.training.prompts import chosen_prompts
    from reproduction.training.rollouts import DecodingTrainer
    from reproduction.training.saving import load_model

    torch.set_num_threads(1)
    keep_freed_memory()
    configuration = read_resolved(config)
    run = get_run(configuration, "kpo", next(iter(configuration.experiments["kpo"].methods)), seed)
    model, tokenizer = load_model(configuration.run_folder("base", "base", seed) / "model")
    with tempfile.TemporaryDirectory() as scratch:
        keywords = {
            "model": model,
            "args": trainer_arguments(run.settings.training, run.method.kl_weight, seed, scratch),
            "processing_class": tokenizer,
            "reward_funcs": lambda completions, answer, **_: batch_rewards(
                "exact", completions, answer, tags=("<", ">")
            ),
            "train_dataset": Dataset.from_list(
                chosen_prompts(run.settings, training_problems(configuration, run.settings), tokenizer, seed)
            ),
        }
        trainer = GRPOTrainer(**keywords) if kind == "trl" else DecodingTrainer(**keywords, method=run.method)
        started, processor = time.perf_counter(), time.process_time()
        trainer.train()
        return {"processor": time.process_time() - processor, "seconds": time.perf_counter() - started}


def sampling(config: Path, seed: int) -> dict[str, float]:
    """In its own process: samples a second of processor time, of a rollout batch and of an evaluation's shard."""
    import torch

    from reproduction.data.expressions import normalise_question
    from reproduction.data.splits import evaluation_splits
    from reproduction.sampling.engine import DecodeEngine, TransformersEngine
    from reproduction.settings.configuration import read_resolved
    from reproduction.settings.run import get_run

    torch.set_num_threads(1)
    configuration = read_resolved(config)
    run, found = get_run(configuration, "base", "base", seed), {}
    folder = run.folder / "model"
    training = next(iter(configuration.experiments.values())).training
    problems = [problem for split in evaluation_splits(configuration).values() for problem in split]
    for name, engine_of in (("decode", DecodeEngine), ("generate", TransformersEngine)):
        engine = engine_of(folder, run.sampling(""))
        prompts = [engine.tokenizer(normalise_question(problem.question)).input_ids for problem in problems]
        jobs = {"rollouts": (prompts[:: max(1, len(prompts) // training.prompts_per_rollout)], training.group_size)}
        jobs["evaluation"] = (prompts[::4], run.evaluation.samples_per_problem)
        for job, (asked, count) in jobs.items():
            engine.sample(asked, count, greedy=False, seed=0)
            started = time.process_time()
            engine.sample(asked, count, greedy=False, seed=1)
            found[f"{job}, {name}"] = len(asked) * count / (time.process_time() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", default="nothing", metavar="FOLDER|trl|nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), metavar="EXPERIMENT/METHOD")
    parser.add_argument("--configfile", type=Path, help="YAML that changes the scale, for both sides")
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--inner", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if arguments.inner:
        kind, config, seed = arguments.inner
        found = sampling(Path(config), int(seed)) if kind == "sampling" else train_once(kind, Path(config), int(seed))
        print(json.dumps(found))
        return
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, found {arguments.rounds}")
    overrides = yaml.safe_load(arguments.configfile.read_text()) if arguments.configfile else {}
    overrides = {"scale": arguments.scale, "seeds": [1], **overrides}
    if arguments.against == "trl":
        experiments = overrides.get("experiments", {})
        overrides["experiments"] = {**experiments, "kpo": {**TRL_OVERRIDES, **experiments.get("kpo", {})}}
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(arguments, overrides, Path(scratch))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(arguments, overrides: dict, scratch: Path) -> dict:
    """All that was asked for, printed as it is found."""
    this, seed = Side(HERE, scratch / "this", overrides), overrides["seeds"][0]
    this.step("problems")
    pretraining = this.step("pretrain", "--seed", str(seed))
    print(f"base model: {pretraining['processor']:.1f} s of processor time")

    def inner(kind: str) -> dict:
        command = [sys.executable, "-m", "benchmarks.training_run", "--inner", kind, str(this.config), str(seed)]
        return json.loads(_checked(command, HERE).splitlines()[-1])

    results: dict = {"against": arguments.against, "rounds": arguments.rounds, "pretrain": pretraining}
    if arguments.against == "trl":
        results["train"] = in_alternation(arguments.rounds, lambda: inner("own"), lambda: inner("trl"))
        show("train(), plain TRL over this", results["train"])
    elif arguments.against == "nothing":
        for run in arguments.runs:
            results[run] = [this.run(run, seed) for _ in range(arguments.rounds)]
            print(f"{run}: {statistics.median(one['processor'] for one in results[run]):.1f} s of processor time")
    else:
        other = Side(Path(arguments.against).resolve(), scratch / "other", overrides)
        for name in ("problems", "base"):
            shutil.copytree(this.folder / name, other.folder / name)
        for run in arguments.runs:
            sides = [lambda side=side, run=run: side.run(run, seed) for side in (this, other)]
            results[run] = in_alternation(arguments.rounds, *sides)
            show(f"{run}, train and evaluate, other over this", results[run])
    results["samples a second of processor time"] = inner("sampling")
    for name, rate in results["samples a second of processor time"].items():
        print(f"{name}: {rate:.0f} samples a second of processor time")
    return results


def show(name: str, found: dict) -> None:
    ours, theirs = ([one["processor"] for one in found[side]] for side in ("this", "other"))
    print(
        f"{name}: {found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f}); processor time "
        f"{statistics.median(ours):.1f} against {statistics.median(theirs):.1f} s"
    )
    if "peak_mib" in found["this"][0]:
        peaks = [max(one["peak_mib"] for one in found[side]) for side in ("this", "other")]
        print(f"    peak memory {peaks[0]:.0f} against {peaks[1]:.0f} MiB")


if __name__ == "__main__":
    main()
