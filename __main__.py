"""The command line: `python -m gemmc COMMAND` and the console script `gemmc`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from . import CompileError, Executable, GemmcError, Sequential, compile, load
from .frontend import doctor, experiments
from .frontend.demo import demo
from .frontend.experiments import EXPERIMENTS, Experiment
from .frontend.runtimes import ALL_STAGES, RUNTIMES
from .frontend.trace import PROGRAMS

REFUSED, INTERRUPTED = 2, 130  # exit codes: a bad argument or file; Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code. What is refused is one line on standard error."""
    chosen = _parser().parse_args(arguments)
    try:
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


class Parser(argparse.ArgumentParser):
    """argparse's, with what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}: see {self.prog} --help\n")


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
    dump.add_argument("model", help=f"{', '.join(EXPERIMENTS)}, or FILE.py:NAME")
    dump.add_argument("--stage", choices=ALL_STAGES, help="default: all of them")
    dump.add_argument("--program", choices=PROGRAMS, default="step")
    dump.add_argument("--runtime", choices=RUNTIMES, default="auto")
    dump.add_argument("--batch-size", type=int, default=32)
    dump.add_argument("--input-shape", metavar="1,28,28", help="of one sample, for FILE.py:NAME")
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
    _check_places(chosen.save, chosen.plots)
    save = _figures(experiment) if chosen.plots else None
    X_train, X_val, X_test, y_train, y_val, y_test = experiment.load(chosen.seed, chosen.subset)
    rows = f"{len(X_train):,} rows to train on, {len(X_val):,} to validate, {len(X_test):,} to test"
    print(f"{experiment.title}: {rows}")
    epochs = experiment.epochs if chosen.epochs is None else chosen.epochs
    history = executable.fit(X_train, y_train, X_val, y_val, epochs, verbose=max(1, epochs // 10))
    if history.interrupted:
        steps, whole = model.state.step, len(history.loss)
        print(f"stopped by Ctrl-C after {steps:,} steps, {whole} whole epochs")
    loss, accuracy = executable.evaluate(X_test, y_test)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%}, {history.seconds:.1f} s")
    if chosen.save:
        model.save(chosen.save)
        print(f"saved {chosen.save}")
    if save:
        for path in save(chosen.plots, executable, history, X_train, y_train, X_test, y_test):
            print(f"wrote {path}")
    return INTERRUPTED if history.interrupted else 0


def _check_places(file: str | None, folder: str | None) -> None:
    """Refuses, before training, places that could not be written to after it."""
    if file and not Path(file).resolve().parent.is_dir():
        raise CompileError(f"--save: {file}: there is no folder {Path(file).resolve().parent}")
    if file and Path(file).is_dir():
        raise CompileError(f"--save: {file}: is a folder, expected the name of a file")
    if folder and Path(folder).exists() and not Path(folder).is_dir():
        raise CompileError(f"--plots: {folder}: is no folder")


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
    _, _, X_test, _, _, y_test = experiment.load(model.seed, chosen.subset)
    executable = compile(model, experiment.input_shape, batch_size=128)
    loss, accuracy = executable.evaluate(X_test, y_test)
    which = "the subset's" if chosen.subset else "all"
    print(f"{experiment.name}, {which} {len(X_test):,} test rows of seed {model.seed}:")
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%}")


def _dump(chosen: argparse.Namespace) -> None:
    executable = _executable(chosen)
    if chosen.stage:
        print(executable.ir(chosen.stage, chosen.program))
        return
    for stage in executable.stages:
        print(f"// stage {stage}\n{executable.ir(stage, chosen.program)}\n")


def _executable(chosen: argparse.Namespace) -> Executable:
    if chosen.model in EXPERIMENTS:
        experiment = EXPERIMENTS[chosen.model]
        model, shape = experiment.model(0), experiment.input_shape
        return compile(model, shape, chosen.batch_size, chosen.runtime)
    found = _from_file(chosen.model)
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
    return compile(found, shape, chosen.batch_size, chosen.runtime)


def _from_file(text: str) -> object:
    """The object that FILE.py:NAME names; running the file is what importing it does."""
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name:
        known = ", ".join(EXPERIMENTS)
        raise CompileError(f"model: got {text!r}, expected {known}, or FILE.py:NAME")
    if not Path(file).is_file():
        raise CompileError(f"model: {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise CompileError(f"model: {file} has no {name!r}")
    return getattr(module, name)


if __name__ == "__main__":
    sys.exit(main())
