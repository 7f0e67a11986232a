"""`python -m reproduction <step>`: every step of the workflow, usable without Snakemake.

A step that was given something wrong exits with 2 and one line on standard error, before any work is lost.
"""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from reproduction.jobs.allocator import keep_freed_memory
from reproduction.jobs.devices import hold_lease
from reproduction.jobs.files import read_json, write_json

# Steps import what they need themselves: settings load PyTorch, which --help, leases and notebooks are quicker without.
if TYPE_CHECKING:
    from reproduction.settings.configuration import Configuration
    from reproduction.settings.run import Run


def main(argv: list[str] | None = None) -> int:
    """Run one step; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status = arguments.step(arguments) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        said = "interrupted; the same command continues"
        print(f"python -m reproduction {arguments.name}: {said}", file=sys.stderr, flush=True)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        log = getattr(arguments, "log", None)
        stream = getattr(arguments, "terminal", None) or sys.stderr
        if isinstance(error, BrokenPipeError) and stream is sys.stderr:  # who read a listing, such as `head`, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        place = f" (log: {log})" if log else ""
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"python -m reproduction {arguments.name}: {said}{place}", file=stream, flush=True)
        if log:
            traceback.print_exc()
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m reproduction", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    steps = parser.add_subparsers(dest="name", required=True, metavar="step")

    def plain(name, function, help_text):
        command = steps.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(step=function)
        return command

    def step(name, function, help_text):
        command = plain(name, function, help_text)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="a resolved configuration")
        command.add_argument("--log", type=Path, metavar="FILE", help="send all but progress and errors to this file")
        command.add_argument("--threads", type=int, default=1, help="CPU threads to compute with (default 1)")
        return command

    def run_step(name, function, help_text, default=None):
        command = step(name, function, help_text)
        command.add_argument("--experiment", default=default, required=default is None)
        command.add_argument("--method", default=default, required=default is None)
        command.add_argument("--seed", type=int, required=True)
        return command

    command = plain("plan", _plan, "print what a configuration will run and how long it should take")
    command.add_argument("--scale", default=None)
    command.add_argument("--configfile", type=Path, action="append", default=[], metavar="FILE")
    command.add_argument("--cores", type=int, default=os.cpu_count())
    command = plain("methods", _methods, "list the methods, their sources, and whether they were measured")
    command.add_argument("--json", action="store_true", help="as JSON, with every value")

    step("problems", _problems, "generate the train and held-out problems")
    command = step("pretrain", _pretrain, "pretrain the small base model of a seed")
    command.add_argument("--seed", type=int, required=True)
    command = run_step("train", _train, "train one method from a base model")
    command.add_argument(
        "--sample", action="store_true", help="also sample what the run's evaluation needs (small models)"
    )
    command = run_step("evaluate", _evaluate, "answer the held-out problems with a model of a run", default="base")
    command.add_argument(
        "--share", type=_share, metavar="I/N", help="of a Hugging Face model make only the shards I, I+N, I+2N, ..."
    )

    command = step("mathematics", _mathematics, "load and check one mathematics dataset")
    command.add_argument("--set", required=True, metavar="NAME")
    command = step("model", _model, "fetch and check one experiment's model, and write down where it is")
    command.add_argument("--experiment", required=True)
    command = step("mirror", _mirror, "fetch all datasets and models of a configuration into a folder")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER")

    wait = {"type": float, "default": None, "help": "seconds to wait for free devices (default: no limit)"}
    command = run_step("launch", _launch, "train or evaluate on CUDA devices that no other job holds")
    command.add_argument("--step", dest="inner", choices=("train", "evaluate"), required=True)
    command.add_argument("--devices", type=int, default=None, help="devices given to the job (default: those it needs)")
    command.add_argument("--wait", **wait)
    command = plain("lease", _lease, "run a command on CUDA devices that no other job holds")
    command.add_argument("--devices", type=int, required=True)
    command.add_argument("--wait", **wait)
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- command")

    command = step("summarise", _summarise, "gather all evaluations into one table")
    command.add_argument("--allow-missing", action="store_true", help="gather the evaluations that exist")
    command = step("measure", _measure, "measure every run for the claims")
    command.add_argument("--allow-missing", action="store_true", help="list missing runs instead of refusing them")
    step("claims", _claims, "judge every claim of both papers from the measures")
    command = plain("study", _study, "go on with the study of every claim for some hours, and judge it")
    command.add_argument("--hours", type=float, required=True, help="how long; 0 judges and says what is next")
    command.add_argument("--cores", default="all", help="jobs at once, a number or all (default)")
    command.add_argument("--results", default="results", metavar="FOLDER", help="folder of all results")
    step("related", _related, "compare the related methods from the measures")
    step("tables", _tables, "fill the papers' main tables with what was measured")
    command = plain("notebook", _notebook, "execute one notebook on results")
    command.add_argument("notebook", metavar="NAME", help="such as 02_structure_in_the_ratios")
    command.add_argument("--results", type=Path, metavar="FOLDER", help="of a scale (default: what is there)")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="the executed notebook")
    step("report", _report, "gather verdicts, figures and tables into one page, report.html")
    command = step("publish", _publish, "copy a finished scale's results into results_published/, README and notebooks")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--allow-missing", action="store_true", help="publish without runs that were not made")
    which.add_argument("--unfinished", action="store_true", help="keep what a study has made so far, to go on with")
    which.add_argument("--related", action="store_true", help="keep the comparison of the related methods")
    command = step("unpack", _unpack, "copy published results, named by their config.yaml, into a results folder")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="all results (default: results/published)")
    command = plain("verify", _verify, "check that a results folder is complete, untampered and consistent")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="results of one scale, such as results/laptop")
    return parser


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I below N, such as 0/2, found {text!r}")
    return int(number), int(count)


def _start(arguments, offline: bool = True) -> "Configuration":
    """Read the configuration, set the threads and send what libraries print to the log."""
    from reproduction.settings.configuration import read_resolved

    arguments.terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    if arguments.threads < 1:
        raise ValueError(f"--threads must be at least 1, found {arguments.threads}")
    configuration = read_resolved(arguments.config)
    if arguments.log is not None:
        _open_log(arguments)
    # Only the steps that fetch something use the network, and no service is told of a run.
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    return configuration


def _open_log(arguments) -> None:
    try:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        # Open until the process ends; of several processes of one job the first begins the file.
        log = open(arguments.log, "w" if os.environ.get("RANK", "0") == "0" else "a", buffering=1)
    except OSError as error:
        path, arguments.log = arguments.log, None
        raise ValueError(f"--log {path} cannot be written ({error.strerror}); name another file") from None
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())


def _plan(arguments) -> None:
    from snakemake.utils import update_config

    from reproduction.jobs.plan import plan_text
    from reproduction.settings.configuration import load
    from reproduction.settings.files import read_yaml

    overrides: dict = {}
    for path in arguments.configfile:
        update_config(overrides, read_yaml(path))
    if arguments.cores is not None and arguments.cores < 1:
        raise ValueError(f"--cores must be at least 1, found {arguments.cores}")
    if arguments.scale is not None:
        overrides["scale"] = arguments.scale
    print(plan_text(load(overrides), arguments.cores))


def _problems(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.data import make_splits, write_problems
    from reproduction.data.splits import levels
    from reproduction.jobs.checksums import write_checksums

    settings, folder = configuration.problems, configuration.folder / "problems"
    sizes = settings.train_per_level, settings.held_out_per_level, settings.seed, settings.one_digit_share
    train, held_out = make_splits(levels(configuration.problems), *sizes)
    write_problems(folder / "train.jsonl", train)
    write_problems(folder / "held_out.jsonl", held_out)
    write_checksums(folder, "problems", ["train.jsonl", "held_out.jsonl"])


def _pretrain(arguments) -> None:
    from reproduction.settings.run import get_run

    configuration = _start(arguments)
    get_run(configuration, "base", "base", arguments.seed)  # refuses an unknown seed
    from reproduction.training.pretrain_base import pretrain_base

    pretrain_base(configuration, arguments.seed, arguments.terminal)


def _train(arguments) -> None:
    from reproduction.data.experiment_data import evaluation_problems, training_problems
    from reproduction.settings.configuration import ConfigurationError
    from reproduction.settings.run import get_run

    configuration = _start(arguments)
    hold_lease()
    run = get_run(configuration, arguments.experiment, arguments.method, arguments.seed)
    if run.method is None:
        raise ConfigurationError("'base' is the untrained model; name a method to train")
    base, problems = _untrained_model(configuration, run, arguments), training_problems(configuration, run.settings)
    if arguments.sample and run.hub is not None:
        raise ConfigurationError("--sample is for the small models; evaluate a Hugging Face model in its own job")
    if run.hub is not None and run.hub.trainer == "verl":
        from reproduction.training.through_verl import train_through_verl

        train_through_verl(run, base, problems, arguments.terminal)
        return
    from reproduction.sampling.answers import sample_ahead
    from reproduction.training.train import train

    def then() -> None:
        sample_ahead(run, run.folder / "model", evaluation_problems(configuration, run.settings), arguments.terminal)

    train(run, base, problems, arguments.terminal, *([then] if arguments.sample else []))


def _evaluate(arguments) -> None:
    from reproduction.data.experiment_data import evaluation_problems
    from reproduction.jobs.launch import run_arguments, step_command
    from reproduction.settings.run import get_run

    configuration = _start(arguments)
    hold_lease()
    run = get_run(configuration, arguments.experiment, arguments.method, arguments.seed)
    if arguments.share is not None and run.hub is None:
        raise ValueError("--share is for Hugging Face models; those of this experiment are evaluated in one process")
    from reproduction.evaluation.evaluate import evaluate

    again = run_arguments(arguments.config, arguments.experiment, arguments.method, arguments.seed)
    evaluate(
        run,
        _existing(run.folder / "model", "train") if run.method else _untrained_model(configuration, run, arguments),
        evaluation_problems(configuration, run.settings),
        arguments.terminal,
        worker=step_command("evaluate", 1, [*again, "--threads", str(arguments.threads)]),
        share=arguments.share,
    )


def _untrained_model(configuration: "Configuration", run: "Run", arguments) -> Path:
    """The folder of the model that a run starts from."""
    from reproduction.data.experiment_data import model_file
    from reproduction.settings.configuration import ConfigurationError

    if run.hub is None:
        return _existing(configuration.run_folder("base", "base", run.seed) / "model", "pretrain")
    file, step = Path(model_file(configuration, arguments.experiment)), f"model --experiment {arguments.experiment}"
    if not file.exists():
        raise ConfigurationError(f"{file} is missing; make it with `python -m reproduction {step}`")
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("folder"), str):
        raise ConfigurationError(f"{file} names no folder; make it again with `python -m reproduction {step}`")
    return _existing(Path(found["folder"]), step)


def _existing(folder: Path, step: str) -> Path:
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no model; make it with `python -m reproduction {step}` first")
    return folder


def _mathematics(arguments) -> None:
    configuration = _start(arguments, offline=False)
    from reproduction.data.experiment_data import keep_set

    keep_set(configuration, arguments.set)


def _model(arguments) -> None:
    from reproduction.data.experiment_data import model_file

    configuration = _start(arguments, offline=False)
    from reproduction.data.experiment_data import longest_window
    from reproduction.data.model_source import model_folder, model_source

    hub = _hub_settings(configuration, arguments.experiment)
    folder = model_folder(hub.model, configuration.data.mirror, longest_window(configuration, hub.model))
    record = {"name": hub.model.name, "revision": hub.model.revision, "folder": str(folder.resolve())}
    source = model_source(folder)
    write_json(model_file(configuration, arguments.experiment), {**record, "source": source})
    print(f"{hub.model.name}: {', '.join(map(str, source.values()))}", file=arguments.terminal, flush=True)


def _hub_settings(configuration: "Configuration", experiment: str):
    from reproduction.settings.configuration import ConfigurationError

    if experiment not in configuration.experiments:
        raise ConfigurationError(f"unknown experiment {experiment!r}; known are {', '.join(configuration.experiments)}")
    hub = configuration.experiments[experiment].pretrained
    if hub is None:
        raise ConfigurationError(f"experiment {experiment!r} pretrains its own base model; there is none to fetch")
    return hub


def _mirror(arguments) -> None:
    configuration = _start(arguments, offline=False)
    from reproduction.data.experiment_data import check_pins, needed_sets
    from reproduction.data.mathematics import write_mirror
    from reproduction.data.model_source import write_model_mirror

    check_pins(configuration)
    for name in needed_sets(configuration):
        print(write_mirror(name, arguments.output, configuration.data.pins))
    models = [settings.pretrained.model for settings in configuration.experiments.values() if settings.pretrained]
    for model in {model.id: model for model in models}.values():
        print(write_model_mirror(model, arguments.output))


def _launch(arguments) -> None:
    from reproduction.jobs.launch import launch, run_arguments
    from reproduction.settings.configuration import ConfigurationError, read_resolved
    from reproduction.settings.run import get_run

    configuration = read_resolved(arguments.config)
    run = get_run(configuration, arguments.experiment, arguments.method, arguments.seed)
    if run.hub is None:
        raise ConfigurationError(
            f"experiment {arguments.experiment!r} needs no device; use `python -m reproduction {arguments.inner}`"
        )
    given = run_arguments(arguments.config, arguments.experiment, arguments.method, arguments.seed)
    given += ["--threads", str(arguments.threads), *(["--log", str(arguments.log)] if arguments.log else [])]
    # What fails before the job begins goes to the terminal; the job opens its log itself.
    arguments.log = None
    launch(configuration, arguments.inner, arguments.experiment, given, arguments.wait, arguments.devices)


def _lease(arguments) -> None:
    from reproduction.jobs.devices import run_with_lease

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    run_with_lease(arguments.devices, command, arguments.wait)


def _methods(arguments) -> None:
    from reproduction.publish.methods import methods_table

    table = methods_table()
    if arguments.json:
        print(json.dumps(table, indent=1, ensure_ascii=False))
        return
    for row in table:
        measured = ", ".join(row["measured"]) or "not measured"
        print(f"{row['name']:<20} {row['paper']:<18} {measured}\n    {row['description']}")


def _summarise(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.evaluation.summary import write_summary

    write_summary(configuration, arguments.allow_missing)


def _measure(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.runs import write_measures

    write_measures(configuration, allow_missing=arguments.allow_missing)


def _claims(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.record import write_claims

    write_claims(configuration)


def _study(arguments) -> None:
    from reproduction.claims.study import go_on
    from reproduction.workflow import prepare

    cores = str(os.cpu_count()) if arguments.cores == "all" else arguments.cores
    if not cores.isdecimal() or int(cores) < 1:
        raise ValueError(f"--cores must be a number of at least 1 or all, found {arguments.cores!r}")
    if not 0 <= arguments.hours < float("inf"):
        raise ValueError(f"--hours must be 0 or more, found {arguments.hours}")
    settings = prepare({"study": "full", "results": arguments.results})
    go_on(settings, arguments.hours, int(cores), lambda text: print(text, flush=True))


def _related(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.related.comparison import write_comparison

    write_comparison(configuration)


def _tables(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.tables import write_tables

    write_tables(configuration)


def _notebook(arguments) -> None:
    from reproduction.execute_notebook import execute

    execute(arguments.notebook, arguments.results, arguments.output)


def _report(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.report import write_report

    write_report(configuration)


def _publish(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.publish.publish import publish, publish_unfinished

    if arguments.related:
        from reproduction.publish.related import publish_related

        publish_related(configuration, Path.cwd())
    elif arguments.unfinished:
        publish_unfinished(configuration, Path.cwd())
    else:
        publish(configuration, Path.cwd(), allow_missing=arguments.allow_missing)


def _unpack(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.publish.published import UNPACKED, unpack

    unpack(configuration, arguments.config.parent, arguments.output or Path(UNPACKED))


def _verify(arguments) -> int:
    from reproduction.verify.folder import verify

    found = verify(arguments.folder)
    for note in found.notes:
        print(f"note: {note}")
    for problem in found.problems:
        print(problem)
    count = len(found.problems)
    print(f"{arguments.folder}: {found.runs} runs, {f'{count} problems' if count else 'nothing wrong'}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
