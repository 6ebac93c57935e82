"""The command line: `python -m gemmc COMMAND` and the console script `gemmc`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from . import CompileError, DataError, Executable, GemmcError, Sequential, compile, load
from .frontend import doctor, experiments, profiling, stages
from .frontend.command_line import (
    INTERRUPTED,
    REFUSED,
    Parser,
    check_file,
    check_folder,
    many,
    writing,
)
from .frontend.demo import demo
from .frontend.experiments import EXPERIMENTS, Experiment
from .frontend.explorer import command as explorer
from .frontend.model_file import named_object
from .frontend.runtimes import RUNTIMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code. What is refused is one line on standard error."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words[:1] == ["bench"]:  # it has a command line of its own
            from .bench.__main__ import main as bench

            return bench(words[1:])
        chosen = _parser().parse_args(words)
        return chosen.run(chosen) or 0
    except GemmcError as error:
        print(f"gemmc: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"gemmc: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("gemmc: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="gemmc", description="A graph compiler that trains small networks on the CPU."
    )
    parser.add_argument("--version", action="version", version=f"gemmc {version('gemmc')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "demo", _demo, "train two models and show what the compiler did to them")
    train = _add(commands, "train", _train, "run one of the two experiments")
    train.add_argument("experiment", choices=EXPERIMENTS)
    train.add_argument("--epochs", type=int, help="default: 100 for spiral, 10 for fashion-mnist")
    train.add_argument("--batch-size", type=int, default=32)
    train.add_argument("--seed", type=int, default=0, help="of data, split, weights and order")
    train.add_argument("--runtime", choices=RUNTIMES, default="auto")
    train.add_argument(
        "--threads", type=int, help="most workers; default: all cores, 1 for small models"
    )
    train.add_argument("--subset", action="store_true", help="a small part of the data")
    train.add_argument("--save", metavar="FILE", help="write the trained model (safetensors)")
    train.add_argument("--plots", metavar="DIR", help="write figures (needs matplotlib)")
    evaluate = _add(commands, "evaluate", _evaluate, "test a saved model on its test data")
    evaluate.add_argument("file", metavar="FILE")
    evaluate.add_argument("--subset", action="store_true", help="as the model was trained")
    dump = _add(commands, "dump", _dump, "print what the compiler makes of a model")
    models = f"{', '.join(EXPERIMENTS)}, or FILE.py:NAME"
    dump.add_argument("model", help=f"{models}; with --pass: FILE.ir, or - for standard input")
    stages.add_arguments(dump)
    profile = _add(commands, "profile", _profile, "say where the time of a training step goes")
    profile.add_argument("model", help=models)
    profiling.add_arguments(profile)
    explain = _add(commands, "explain", _explain, "write a page that shows all of a model")
    explain.add_argument("model", help=models)
    explorer.add_arguments(explain)
    verify = _add(commands, "verify", _verify, "check IR as text, and infer its types anew")
    verify.add_argument("file", metavar="FILE.ir", help="or - for standard input")
    commands.add_parser("bench", help="compare with PyTorch and other libraries")
    _add(commands, "doctor", _doctor, "what this machine runs gemmc with, and what holds it back")
    return parser


def _add(commands: Any, name: str, run: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=run)
    return parser


def _demo(chosen: argparse.Namespace) -> None:
    demo()


def _doctor(chosen: argparse.Namespace) -> None:
    print(doctor.report())


def _train(chosen: argparse.Namespace) -> int:
    experiment = experiments.find(chosen.experiment)
    model = experiment.model(chosen.seed)
    executable = compile(
        model, experiment.input_shape, chosen.batch_size, chosen.runtime, chosen.threads
    )
    check_file("--save", chosen.save)
    check_folder("--plots", chosen.plots)
    save = _figures(experiment) if chosen.plots else None
    X_train, X_val, X_test, y_train, y_val, y_test = experiment.load(chosen.seed, chosen.subset)
    rows = f"{len(X_train):,} rows to train on, {len(X_val):,} to validate, {len(X_test):,} to test"
    print(f"{experiment.title}: {rows}")
    epochs = experiment.epochs if chosen.epochs is None else chosen.epochs
    history = executable.fit(X_train, y_train, X_val, y_val, epochs, verbose=max(1, epochs // 10))
    if history.interrupted:
        steps, whole = many(model.state.step, "step"), many(len(history.loss), "whole epoch")
        print(f"stopped by Ctrl-C after {steps}, {whole}")
    loss, accuracy = executable.evaluate(X_test, y_test)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%}, {history.seconds:.1f} s")
    if chosen.save:
        model.notes["trained on"] = experiments.trained_on(experiment, chosen.subset)
        model.save(chosen.save)
        print(f"saved {chosen.save}")
    if save:
        with writing("--plots", chosen.plots):
            drawn = save(chosen.plots, executable, history, X_train, y_train, X_test, y_test)
        for path in drawn:
            print(f"wrote {path}")
    return INTERRUPTED if history.interrupted else 0


def _figures(experiment: Experiment) -> Any:
    """What draws an experiment's figures; refused before training where matplotlib is missing."""
    from .frontend import figures

    figures.require_matplotlib()
    return {"spiral": figures.save_spiral, "fashion-mnist": figures.save_fashion_mnist}[
        experiment.name
    ]


def _evaluate(chosen: argparse.Namespace) -> None:
    model = load(chosen.file)
    experiment = experiments.fitting(model)
    asked = experiments.trained_on(experiment, chosen.subset)
    trained = model.notes.get("trained on", "")
    if trained and trained != asked:
        raise DataError(
            f"{chosen.file}: was trained on {trained}, some of which may be test rows of {asked}: "
            f"evaluate it {'without' if chosen.subset else 'with'} --subset"
        )
    _, _, X_test, _, _, y_test = experiment.load(model.seed, chosen.subset)
    executable = compile(model, experiment.input_shape, batch_size=128)
    loss, accuracy = executable.evaluate(X_test, y_test)
    which = "the subset's" if chosen.subset else "all"
    print(f"{experiment.name}, {which} {len(X_test):,} test rows of seed {model.seed}:")
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%}")
    if not trained:
        print("the file does not say what it was trained on: some of these rows may be among it")


def _dump(chosen: argparse.Namespace) -> None:
    for text in stages.dumped(chosen, _executable):
        print(text)


def _profile(chosen: argparse.Namespace) -> None:
    check_file("--trace", chosen.trace)
    check_file("--json", chosen.json)
    for text in profiling.profiled(chosen, _executable(chosen)):
        print(text)


def _explain(chosen: argparse.Namespace) -> None:
    check_file("--html", chosen.html)
    print(explorer.explained(chosen, _executable(chosen)))


def _verify(chosen: argparse.Namespace) -> None:
    print(stages.verified(chosen.file))


def _executable(chosen: argparse.Namespace) -> Executable:
    threads = vars(chosen).get("threads")
    if chosen.model in EXPERIMENTS:
        experiment = EXPERIMENTS[chosen.model]
        model, shape = experiment.model(0), experiment.input_shape
        return compile(model, shape, chosen.batch_size, chosen.runtime, threads)
    found = named_object(chosen.model, EXPERIMENTS)
    if isinstance(found, Executable):
        return found
    if not isinstance(found, Sequential):
        raise CompileError(f"{chosen.model}: got {type(found).__name__}, expected a Sequential")
    if not chosen.input_shape:
        raise CompileError("--input-shape: missing, expected the shape of one sample: 1,28,28")
    try:
        shape = tuple(int(d) for d in chosen.input_shape.split(","))
    except ValueError:
        raise CompileError(
            f"--input-shape: got {chosen.input_shape!r}, expected integers like 1,28,28"
        ) from None
    return compile(found, shape, chosen.batch_size, chosen.runtime, threads)


if __name__ == "__main__":
    sys.exit(main())
