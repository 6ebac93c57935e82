"""compile: a model becomes an Executable, the programs that train and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from os import PathLike
from threading import RLock
from typing import Any, NoReturn

import numpy as np

from ..ir import CompileError, DataError, Graph, TensorType
from ..passes.fuse import Apart, left_apart
from ..passes.pipeline import PassError, timed
from ..passes.plan import Plan
from ..passes.reproduce import reproduced
from ..runtime.profile import Profile
from . import batches
from .arguments import integer, sample_shape
from .batches import Batches
from .compiled_in import CompiledIn
from .runtimes import DTYPES, Compiled, Tune, choose
from .sequential import Sequential
from .stages import dump_folder, write_stages
from .trace import PROGRAMS, output_type, trace_program
from .training import History, fit

DType = str | type[np.floating] | np.dtype
SCALARS = ("lr", "step", "seed")


def compile(
    model: Sequential,
    input_shape: tuple[int, ...],
    batch_size: int = 32,
    runtime: str = "auto",
    threads: int | None = None,
    dtype: DType = "float32",
    tune: Tune = False,
    dump: str | PathLike | None = None,
    sanitize: bool = False,
) -> Executable:
    """An Executable of `model` for inputs [rows, *input_shape], up to batch_size rows at a time.

    runtime: "native" compiles the plan with LLVM; "blas" runs it on SciPy's BLAS and NumPy;
    "reference" interprets the graph before it is laid out, lowered and planned; "auto" is "native",
    or "blas" with a warning where llvmlite is missing. dtype "float64" is for checking gradients,
    on the reference runtime. `threads` is how many workers share a program's work, or how many
    threads the blas runtime's library may use; by default all cores, and 1 for small programs.
    `tune` True measures, in a second or two a program, in which form each product is fastest
    instead of estimating it; what was chosen is `Executable.choices`, and may be given as `tune`
    in place of True. `dump` names a folder, in which each program that is compiled writes its
    stages into one of its own. `sanitize` True guards the plan while programs run, step by step and
    slowly: memory that no one holds is NaN, and SanitizeError names both buffers where one is
    written over another that is still needed.
    CompileError names the layer or argument that does not fit; nothing of the model has moved.
    """
    arguments = (runtime, threads, dtype, tune, dump, sanitize)
    return Executable(model, input_shape, batch_size, *arguments)


def taking_turns(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of an Executable, which Python threads call one after the other."""

    @wraps(method)
    def locked(self: Executable, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **named)

    return locked


class Executable:
    """A compiled model; made by `compile`. Its programs are compiled when first needed.

    "step" is forward, backward and update; "evaluate" loss and number correct; "predict" the
    output; "grads" the loss and all gradients. All work on the model's own parameters.
    Python threads that share one take turns; for them to run at once each needs its own.
    """

    def __init__(
        self,
        model: Sequential,
        input_shape: tuple[int, ...],
        batch_size: int,
        runtime: str,
        threads: int | None,
        dtype: DType,
        tune: Tune,
        dump: str | PathLike | None,
        sanitize: bool = False,
    ) -> None:
        if not isinstance(model, Sequential):
            raise CompileError(f"model: got {type(model).__name__}, expected a Sequential")
        self._lock = RLock()
        self.model = model
        self.input_shape = sample_shape(input_shape)
        self.batch_size = integer("compile", "batch_size", batch_size)
        self.dtype = np.dtype(dtype).name if isinstance(dtype, (type, np.dtype)) else dtype
        self._runtime = choose(runtime, self.dtype, tune, sanitize)
        self.threads = None if threads is None else integer("compile", "threads", threads)
        self._dump = None if dump is None else dump_folder(dump)
        self._compiled: dict[tuple[str, bool], Compiled] = {}
        self._compiled_in = CompiledIn(model)
        self.output_type = output_type(model, self.input_shape, DTYPES[self.dtype])
        self.plan  # what cannot be compiled is refused here, not at the first step  # noqa: B018

    def __reduce__(self) -> NoReturn:
        raise CompileError("an Executable cannot be copied: pickle exe.model, and compile again")

    @property
    def runtime(self) -> str:
        """What runs the programs: "native", "blas" or "reference"."""
        return self._runtime.name

    @property
    def choices(self) -> dict[str, str]:
        """The forms that were measured to be fastest, or given, by product: JSON, or `tune`."""
        return dict(self._runtime.target.choices)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the compiler's stages, in order."""
        return self._runtime.stages

    @cached_property
    def plan(self) -> Plan:
        """The plan of the main program: the training step, where the model can be trained."""
        return self._program(self._main).plan

    def compiled(self, program: str = "") -> Compiled:
        """A program with its stages, plan and what runs it; by default the main one."""
        return self._program(program or self._main)

    def ir(self, stage: str, program: str = "step") -> str:
        """The text of `program` after `stage`.

        "plan" gives the steps with their places; on the native runtime "loops" gives the generated
        loops as people read them, "llvm" and "assembly" what LLVM makes of them.
        """
        if stage not in self.stages:
            raise CompileError(f"stage: got {stage!r}, expected one of {', '.join(self.stages)}")
        return self._program(program).text(stage)

    def graph(self, stage: str, program: str = "step") -> Graph:
        """The graph of `program` after `stage`, for a stage that has one."""
        stages = self._program(program).stages
        if stage not in stages:
            raise CompileError(f"stage: got {stage!r}, expected one of {', '.join(stages)}")
        return stages[stage]

    def _repr_html_(self) -> str:
        from .notebook import executable_html  # for notebooks only

        return executable_html(self)

    @taking_turns
    def __call__(self, x: object) -> np.ndarray:
        """The model's output for inputs [rows, ...], in evaluation mode; any number of rows."""
        self._check_unchanged()
        given = batches.inputs("x", x, self.input_shape, least=0)
        runner = self._program("predict").runner
        native = self.runtime == "native" and runner.takes(given.array)
        if native and 0 < len(given) <= self.batch_size:
            made: np.ndarray = runner.predict(given.array).copy()
            return made
        made = np.empty(self.output_type.concrete(len(given)), self.output_type.numpy)
        if native:
            for start in range(0, len(given), runner.call_rows):
                rows = slice(start, start + runner.call_rows)
                runner.apply(given.array[rows], made[rows])
            return made
        for start, stop in self._chunks(len(given)):
            given.put(start, stop, runner.bind(stop - start).inputs["x"])
            made[start:stop] = runner.run(stop - start)["output"]
        return made

    def train_step(self, x: object, y: object) -> float:
        """One step of training on a batch of 1 to batch_size rows; the batch's mean loss before it.

        Parameters, optimiser state and the step count advance. DataError, and nothing has moved, if
        the arrays do not fit.
        """
        given, wanted = self._batch(x, y)
        return self.step(given, wanted, np.arange(len(given)))[0]

    @taking_turns
    def step(self, x: Batches, y: Batches, order: np.ndarray) -> tuple[float, float]:
        """(loss, number correct) of one step of training on the rows `order` of checked arrays."""
        rows, runner = len(order), self._program("step").runner
        slots = runner.bind(rows).inputs
        x.gather(order, slots["x"])
        y.gather(order, slots["y"])
        self._put_scalars(slots)
        self.model.state.version += 1
        outputs = runner.run(rows)
        self.model.state.step += 1
        return float(outputs["loss"]), float(outputs.get("correct", np.nan))

    @taking_turns
    def steps(self, x: Batches, y: Batches, order: np.ndarray) -> tuple[float, float]:
        """(sum of loss times rows, number correct) of steps over the rows `order`, batch by batch.

        Where the arrays need no conversion, the native runtime makes them in one call.
        """
        compiled = self._program("step")
        if self.runtime == "native" and compiled.runner.takes(x.array, y.array):
            self.model.state.version += 1
            sums = compiled.runner.epoch(x.array, y.array, order, *self._scalars())
            self.model.state.step += -(-len(order) // self.batch_size)
            return sums
        loss = right = 0.0
        for start, stop in self._chunks(len(order)):
            mean, correct = self.step(x, y, order[start:stop])
            loss += mean * (stop - start)
            right += correct
        return loss, right

    @taking_turns
    def loss_and_grads(
        self, x: object, y: object, train: bool = False
    ) -> tuple[float, dict[str, np.ndarray]]:
        """(the loss of a batch, its gradients by parameter name and for "input"); moves nothing.

        With train=True dropout is on, with the masks of the next step.
        """
        given, wanted = self._batch(x, y)
        rows, runner = len(given), self._program("grads", train).runner
        slots = runner.bind(rows).inputs
        given.put(0, rows, slots["x"])
        wanted.put(0, rows, slots["y"])
        self._put_scalars(slots)
        outputs = runner.run(rows)
        grads = {name: np.array(outputs[f"{name}.grad"]) for name in self.model.parameters}
        return float(outputs["loss"]), {**grads, "input": np.array(outputs["x.grad"])}

    def evaluate(self, X: object, y: object) -> tuple[float, float]:
        """(mean loss, accuracy) over the rows of X, in evaluation mode; at least one row."""
        return self.evaluate_checked(*self.checked("X", X, "y", y))

    @taking_turns
    def evaluate_checked(self, x: Batches, y: Batches) -> tuple[float, float]:
        """`evaluate` on arrays that are already checked."""
        runner = self._program("evaluate").runner
        loss = right = 0.0
        if self.runtime == "native" and runner.takes(x.array, y.array):
            for start in range(0, len(x), runner.call_rows):
                order = np.arange(start, min(start + runner.call_rows, len(x)))
                sums = runner.epoch(x.array, y.array, order)
                loss, right = loss + sums[0], right + sums[1]
            return loss / len(x), right / len(x)
        for start, stop in self._chunks(len(x)):
            rows = stop - start
            slots = runner.bind(rows).inputs
            x.put(start, stop, slots["x"])
            y.put(start, stop, slots["y"])
            outputs = runner.run(rows)
            loss += float(outputs["loss"]) * rows
            right += float(outputs.get("correct", np.nan))
        return loss / len(x), right / len(x)

    def fit(
        self,
        X: object,
        y: object,
        X_val: object = None,
        y_val: object = None,
        epochs: int = 10,
        shuffle: bool = True,
        verbose: int = 0,
    ) -> History:
        """Trains for `epochs` epochs, validating after each if there is validation data.

        Each epoch sees all rows once, in the order `epoch_order` gives; the last batch may be
        short. verbose: report every so many epochs, 0 never. DataError before anything has moved.
        """
        self._require_loss(optimizer=True)
        integer("fit", "epochs", epochs, least=0)
        integer("fit", "verbose", verbose, least=0)
        if not isinstance(shuffle, bool):
            raise CompileError(f"fit: shuffle: got {shuffle!r}, expected True or False")
        train = self.checked("X", X, "y", y)
        if (X_val is None) != (y_val is None):
            raise DataError("X_val, y_val: got one of them, expected both or neither")
        val = None if X_val is None else self.checked("X_val", X_val, "y_val", y_val)
        return fit(self, train, val, epochs, shuffle, verbose)

    @taking_turns
    def profile(self, x: object, y: object, repeat: int = 20) -> Profile:
        """Where the time of a training step on this batch goes, a row per step; moves nothing.

        Measured in `repeat` turns of about 0.02 s, or of two steps where those take longer.
        """
        given, wanted = self._batch(x, y)
        runner = self._program("step").runner
        if self.runtime == "reference":
            raise CompileError("profile: the reference runtime has no steps to time")
        slots = runner.bind(len(given)).inputs

        def feed() -> None:
            given.put(0, len(given), slots["x"])
            wanted.put(0, len(given), slots["y"])
            self._put_scalars(slots)

        with self.model.state.kept():
            return runner.profile(len(given), feed, integer("profile", "repeat", repeat))

    def left_apart(self, program: str = "step") -> tuple[Apart, ...]:
        """The neighbours in a program that were not fused, each with the reason."""
        return left_apart(self._program(program).stages["lower"], self._runtime.target)

    def checked(self, x_name: str, x: object, y_name: str, y: object) -> tuple[Batches, Batches]:
        """x and y as inputs and targets of this model, of the same number of rows."""
        self._check_unchanged()
        self._require_loss()
        loss = self.model.loss_func
        assert loss is not None
        given = batches.inputs(x_name, x, self.input_shape)
        shape = loss.target_shape(self.output_type.shape)
        t = TensorType(shape, "i64" if loss.target_dtype == "i64" else self.output_type.dtype)
        wanted = batches.targets(y_name, y, t, loss.classes(self.output_type.shape))
        batches.check_lengths(x_name, given, y_name, wanted)
        return given, wanted

    @property
    def _main(self) -> str:
        if self.model.loss_func is None:
            return "predict"
        return "step" if self.model.optimizer is not None else "evaluate"

    def _batch(self, x: object, y: object) -> tuple[Batches, Batches]:
        given, wanted = self.checked("x", x, "y", y)
        if len(given) > self.batch_size:
            raise DataError(
                f"x: got {len(given)} rows, expected at most {self.batch_size}, the batch_size "
                "this was compiled for"
            )
        return given, wanted

    def _require_loss(self, optimizer: bool = False) -> None:
        if self.model.loss_func is None:
            raise CompileError("loss_func: the model has none: use Sequential(loss_func=...)")
        if optimizer and self.model.optimizer is None:
            raise CompileError("optimizer: the model has none: use Sequential(optimizer=...)")

    def changed(self) -> str:
        """What hyper-parameter that is compiled in has another value by now; "" if none has."""
        return self._compiled_in.changed()

    def _check_unchanged(self) -> None:
        if changed := self.changed():
            raise CompileError(f"{changed}: compile again")

    def _scalars(self) -> tuple[float, int, int]:
        """What SCALARS are in the next step."""
        model = self.model
        lr = model.optimizer.lr if model.optimizer else 0.0
        return lr, model.state.step + 1, model.seed

    def _put_scalars(self, slots: Mapping[str, np.ndarray]) -> None:
        for name, value in zip(SCALARS, self._scalars(), strict=True):
            if name in slots:
                slots[name][...] = value

    def _chunks(self, rows: int) -> list[tuple[int, int]]:
        return [(i, min(i + self.batch_size, rows)) for i in range(0, rows, self.batch_size)]

    def _program(self, name: str, training: bool | None = None) -> Compiled:
        key = (name, name == "step" if training is None else training)
        if key not in self._compiled:
            if name not in PROGRAMS:
                raise CompileError(f"program: got {name!r}, expected one of {', '.join(PROGRAMS)}")
            if name != "predict":
                self._require_loss(optimizer=name == "step")
            self._compiled[key] = self._compile(*key)
        return self._compiled[key]

    def _compile(self, name: str, training: bool) -> Compiled:
        seconds: dict[str, float] = {}
        with timed("trace", seconds):
            what = (self.model, self.input_shape, name, DTYPES[self.dtype], training)
            program = trace_program(*what, self.batch_size, self._runtime.target)
        given = {n.name for n in program.graph.inputs} - {*program.storage}
        assert given <= {"x", "y", *SCALARS}, "an input that nobody fills"
        try:
            compiled = self._runtime.compile(program, self.model.state, self.threads)
        except PassError as error:
            raise reproduced(error, self._dump) from error.__cause__
        except MemoryError as error:
            seen = f"batch_size: got {self.batch_size}: {error}"
            raise CompileError(f"{seen}, expected fewer rows: nothing has moved") from error
        compiled.seconds.update(seconds)
        if self._dump is not None:
            own = f"{name}.train" if name == "grads" and training else name
            write_stages(self._dump / own, self.stages, compiled)
        return compiled
