"""`python -m reproduction <step>`: every step of the workflow, usable without Snakemake.

Each step exits with 2 and one line on standard error where what it was given is wrong, before any work is lost.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

from reproduction.jobs.allocator import keep_freed_memory
from reproduction.jobs.devices import hold_lease
from reproduction.settings.configuration import Configuration, ConfigurationError, load, read_resolved
from reproduction.settings.files import laid_over, read_yaml


def main(argv: list[str] | None = None) -> int:
    """Run one step; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.step(arguments) or 0
    except KeyboardInterrupt:
        print(
            f"python -m reproduction {arguments.name}: interrupted; the same command goes on",
            file=sys.stderr,
            flush=True,
        )
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        log = getattr(arguments, "log", None)
        stream = getattr(arguments, "terminal", None) or sys.stderr
        where = f" (log: {log})" if log else ""
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"python -m reproduction {arguments.name}: {said}{where}", file=stream, flush=True)
        if log:
            traceback.print_exc()
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m reproduction", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    steps = parser.add_subparsers(dest="name", required=True, metavar="step")

    def step(name, function, help_text, run=False, model=False):
        command = steps.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(step=function)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="a resolved configuration")
        command.add_argument("--log", type=Path, metavar="FILE", help="send all but progress and errors to this file")
        command.add_argument("--threads", type=int, default=1, help="CPU threads to compute with (default 1)")
        if run or model:
            command.add_argument("--experiment", default="base" if model else None, required=run)
            command.add_argument("--method", default="base" if model else None, required=run)
        return command

    command = steps.add_parser("plan", help="print what a configuration will run and how long it should take")
    command.set_defaults(step=_plan)
    command.add_argument("--scale", default=None)
    command.add_argument("--configfile", type=Path, action="append", default=[], metavar="FILE")
    command.add_argument("--cores", type=int, default=os.cpu_count())

    command = step("problems", _problems, "generate the train and held-out problems")
    command = step("pretrain", _pretrain, "pretrain the small base model of a seed")
    command.add_argument("--seed", type=int, required=True)
    command = step("train", _train, "train one method from a base model", run=True)
    command.add_argument("--seed", type=int, required=True)
    command = step("evaluate", _evaluate, "answer the held-out problems with a model of a run", model=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument(
        "--share", type=_share, metavar="I/N", help="with a model of the hub: make only the shards I, I+N, I+2N, ..."
    )
    command = step("mathematics", _mathematics, "load and check one mathematics set")
    command.add_argument("--set", required=True, metavar="NAME")
    command = step("model", _model, "fetch and check one experiment's model, and say where it lies")
    command.add_argument("--experiment", required=True)
    command = step("mirror", _mirror, "fetch all data sets and models of a configuration into a folder")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    command = step("launch", _launch, "train or evaluate on CUDA devices that no other job holds", run=True)
    command.add_argument("--step", dest="inner", choices=("train", "evaluate"), required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--devices", type=int, default=None, help="devices given to the job (default: those it needs)")
    command.add_argument(
        "--wait", type=float, default=None, help="seconds to wait for free devices (default: for ever)"
    )
    command = steps.add_parser("lease", help="run a command on CUDA devices that no other job holds")
    command.set_defaults(step=_lease)
    command.add_argument("--devices", type=int, required=True)
    command.add_argument(
        "--wait", type=float, default=None, help="seconds to wait for free devices (default: for ever)"
    )
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- command")
    command = step("summarise", _summarise, "gather all evaluations into one table")
    command.add_argument("--allow-missing", action="store_true", help="gather the evaluations that exist")
    command = step("measure", _measure, "measure every run for the claims")
    command.add_argument("--allow-missing", action="store_true", help="list missing runs instead of refusing them")
    step("claims", _claims, "judge every claim of both papers from the measures")
    step("tables", _tables, "fill the papers' main tables with what was measured")
    step("report", _report, "gather verdicts, figures and tables into one page, report.html")
    command = step("publish", _publish, "copy a finished scale's results into results_published/, README and notebooks")
    command.add_argument("--allow-missing", action="store_true", help="publish without runs that were not made")
    command = step("unpack", _unpack, "copy published results, named by their config.yaml, into a results folder")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="all results (default: results/published)")
    command = steps.add_parser("verify", help="check that a results folder is complete, untampered and consistent")
    command.set_defaults(step=_verify)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="results of one scale, such as results/laptop")
    return parser


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I below N, such as 0/2, found {text!r}")
    return int(number), int(count)


def _start(arguments, offline: bool = True) -> Configuration:
    """Read the configuration, set the threads and send what libraries print to the log."""
    arguments.terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    if arguments.threads < 1:
        raise ValueError(f"--threads must be at least 1, found {arguments.threads}")
    configuration = read_resolved(arguments.config)
    if arguments.log is not None:
        try:
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            # Open until the process ends; of several processes of one job the first begins the file.
            log = open(arguments.log, "w" if os.environ.get("RANK", "0") == "0" else "a", buffering=1)
        except OSError as error:
            path, arguments.log = arguments.log, None
            raise ValueError(f"--log {path} cannot be written ({error.strerror}); name another file") from None
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    # Nothing is fetched at run time but by the steps that are there for it, and no service is told of a run.
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    return configuration


def _plan(arguments) -> None:
    from reproduction.jobs.plan import plan_text

    overrides: dict = {}
    for path in arguments.configfile:
        overrides = laid_over(overrides, read_yaml(path))
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

    settings = configuration.problems
    train, held_out = make_splits(
        levels(configuration),
        settings.train_per_level,
        settings.held_out_per_level,
        settings.seed,
        settings.one_digit_share,
    )
    for name, problems in (("train", train), ("held_out", held_out)):
        write_problems(configuration.folder / "problems" / f"{name}.jsonl", problems)
    write_checksums(configuration.folder / "problems", "problems", ["train.jsonl", "held_out.jsonl"])


def _pretrain(arguments) -> None:
    configuration = _start(arguments)
    _known_seed(configuration.seeds, arguments.seed)
    from reproduction.training.pretrain_base import pretrain_base

    pretrain_base(configuration, arguments.seed, arguments.terminal)


def _train(arguments) -> None:
    configuration = _start(arguments)
    hold_lease()
    _known_run(configuration, arguments.experiment, arguments.method)
    _known_seed(configuration.seeds_of(arguments.experiment), arguments.seed)
    if configuration.experiments[arguments.experiment].pretrained is not None:
        _train_pretrained(configuration, arguments)
        return
    from reproduction.data import read_problems
    from reproduction.training.run import train_run

    train_run(
        configuration,
        arguments.experiment,
        arguments.method,
        arguments.seed,
        base_model=_existing_model(configuration.run_folder("base", "base", arguments.seed) / "model"),
        problems=read_problems(configuration.folder / "problems" / "train.jsonl"),
        output=configuration.run_folder(arguments.experiment, arguments.method, arguments.seed),
        progress_stream=arguments.terminal,
    )


def _evaluate(arguments) -> None:
    configuration = _start(arguments)
    hold_lease()
    if arguments.experiment != "base":
        _known_run(configuration, arguments.experiment, arguments.method)
    _known_seed(configuration.seeds_of(arguments.experiment), arguments.seed)
    if arguments.experiment != "base" and configuration.experiments[arguments.experiment].pretrained is not None:
        _evaluate_pretrained(configuration, arguments)
        return
    if arguments.share is not None:
        raise ValueError("--share is for models of the hub; those of this experiment are evaluated in one process")
    from reproduction.data.splits import evaluation_splits
    from reproduction.evaluation.run import evaluate_run

    folder = configuration.run_folder(arguments.experiment, arguments.method, arguments.seed)
    label = "base" if arguments.experiment == "base" else f"{arguments.experiment}/{arguments.method}"
    evaluate_run(
        configuration,
        f"{label} seed {arguments.seed}",
        _existing_model(folder / "model"),
        evaluation_splits(configuration),
        folder,
        arguments.terminal,
    )


def _train_pretrained(configuration: Configuration, arguments) -> None:
    from reproduction.data.experiment_data import training_problems
    from reproduction.training.pretrained import train_pretrained

    train_pretrained(
        configuration,
        arguments.experiment,
        arguments.method,
        arguments.seed,
        model_folder=_hub_model(configuration, arguments.experiment),
        problems=training_problems(configuration, configuration.experiments[arguments.experiment]),
        output=configuration.run_folder(arguments.experiment, arguments.method, arguments.seed),
        progress_stream=arguments.terminal,
    )


def _evaluate_pretrained(configuration: Configuration, arguments) -> None:
    from reproduction.data.experiment_data import evaluation_problems
    from reproduction.evaluation.pretrained import evaluate_pretrained
    from reproduction.jobs.launch import run_arguments, step_command

    folder = configuration.run_folder(arguments.experiment, arguments.method, arguments.seed)
    is_base = arguments.method == "base"
    again = run_arguments(arguments.config, arguments.experiment, arguments.method, arguments.seed)
    evaluate_pretrained(
        configuration,
        arguments.experiment,
        f"{arguments.experiment}/{arguments.method} seed {arguments.seed}",
        _hub_model(configuration, arguments.experiment) if is_base else _existing_model(folder / "model"),
        evaluation_problems(configuration, configuration.experiments[arguments.experiment]),
        folder,
        arguments.terminal,
        worker=step_command("evaluate", 1, [*again, "--threads", str(arguments.threads)]),
        share=arguments.share,
    )


def _hub_model(configuration: Configuration, experiment: str) -> Path:
    from reproduction.jobs.files import read_json
    from reproduction.workflow import model_file

    file = Path(model_file(configuration, experiment))
    if not file.exists():
        raise ConfigurationError(
            f"{file} is missing; make it with `python -m reproduction model --experiment {experiment}`"
        )
    return _existing_model(Path(read_json(file)["folder"]))


def _mathematics(arguments) -> None:
    configuration = _start(arguments, offline=False)
    from reproduction.data.experiment_data import keep_set

    keep_set(configuration, arguments.set)


def _model(arguments) -> None:
    configuration = _start(arguments, offline=False)
    from reproduction.data.model_source import model_folder
    from reproduction.jobs.files import write_json
    from reproduction.workflow import model_file

    _known_experiment(configuration, arguments.experiment)
    experiment = configuration.experiments[arguments.experiment]
    if experiment.pretrained is None:
        raise ConfigurationError(f"experiment {arguments.experiment!r} has a base model of its own, none of the hub")
    model = experiment.pretrained.model
    windows = [
        other.pretrained.max_prompt_length
        + max(other.training.max_completion_length, other.pretrained.sampling.max_completion_length)
        for other in configuration.experiments.values()
        if other.pretrained is not None and other.pretrained.model.id == model.id
    ]
    folder = model_folder(model, configuration.data.mirror, max(windows))
    write_json(
        model_file(configuration, arguments.experiment),
        {"name": model.name, "revision": model.revision, "folder": str(folder.resolve())},
    )


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

    configuration = read_resolved(arguments.config)
    _known_run(configuration, arguments.experiment, arguments.method)
    _known_seed(configuration.seeds_of(arguments.experiment), arguments.seed)
    if configuration.experiments[arguments.experiment].pretrained is None:
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


def _summarise(arguments) -> None:
    configuration = _start(arguments)
    if arguments.allow_missing:
        from reproduction.evaluation.partial_summary import write_partial_summary

        write_partial_summary(configuration)
        return
    from reproduction.evaluation.summary import write_summary

    write_summary(configuration)


def _measure(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.runs import write_measures

    write_measures(configuration, allow_missing=arguments.allow_missing)


def _claims(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.judge import write_claims

    write_claims(configuration)


def _tables(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.claims.tables import write_tables

    write_tables(configuration)


def _report(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.report import write_report

    write_report(configuration)


def _publish(arguments) -> None:
    configuration = _start(arguments)
    from reproduction.publish.publish import publish

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


def _existing_model(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} holds no model; make it with `python -m reproduction pretrain` or `python -m reproduction train` first"
        )
    return folder


def _known_experiment(configuration: Configuration, experiment: str) -> None:
    if experiment not in configuration.experiments:
        raise ConfigurationError(f"unknown experiment {experiment!r}; known are {', '.join(configuration.experiments)}")


def _known_run(configuration: Configuration, experiment: str, method: str) -> None:
    _known_experiment(configuration, experiment)
    methods = configuration.experiments[experiment].methods
    if method == "base" and configuration.experiments[experiment].pretrained is not None:
        return
    if method not in methods:
        raise ConfigurationError(f"experiment {experiment!r} has no method {method!r}; it has {', '.join(methods)}")


def _known_seed(seeds: list[int], seed: int) -> None:
    if seed not in seeds:
        raise ConfigurationError(f"--seed {seed} is none of this configuration's; it has {', '.join(map(str, seeds))}")


if __name__ == "__main__":
    sys.exit(main())
