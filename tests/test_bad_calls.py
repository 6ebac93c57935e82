"""Bad calls of models and executables, and bad data: refused by name, before anything moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from trained_models import Trained, assert_refused

import gemmc
from gemmc import CompileError, DataError, GemmcError, ReLU

nan = math.nan


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


def compiled(**arguments: Any) -> Callable[[Trained], object]:
    """compile, with a shape that fits unless another is given."""
    return lambda t: gemmc.compile(**{"model": t.model, "input_shape": (4,), **arguments})


Run = Callable[[Trained], object]
CALLS: list[tuple[str, Run, type[GemmcError], tuple[str, ...]]] = [
    # compile
    ("a list for a model", compiled(model=[ReLU()]), CompileError, ("model: got list",)),
    ("an integer shape", compiled(input_shape=4), CompileError, ("input_shape: got 4", "(1, 28")),
    ("an empty shape", compiled(input_shape=()), CompileError, ("input_shape: got ()",)),
    ("a shape with 0", compiled(input_shape=(0,)), CompileError, ("input_shape: got 0", ">= 1")),
    (
        "a shape with None",
        compiled(input_shape=(None, 4)),
        CompileError,
        ("input_shape: got None",),
    ),
    ("batch_size 0", compiled(batch_size=0), CompileError, ("batch_size: got 0", ">= 1")),
    ("batch_size 3.5", compiled(batch_size=3.5), CompileError, ("batch_size: got 3.5",)),
    *(
        (
            f"a batch_size beyond all memory on {runtime}",
            compiled(batch_size=rows, runtime=runtime),
            *(CompileError, (f"batch_size: got {rows}", " bytes are more", "fewer rows")),
        )
        for rows in (2**46, 2**62)
        for runtime in ("native", "blas")
    ),
    ("an unknown runtime", compiled(runtime="gpu"), CompileError, ("runtime: got 'gpu'", "blas")),
    ("an unknown dtype", compiled(dtype="float16"), CompileError, ("dtype: got 'float16'",)),
    ("a torch dtype", compiled(dtype=torch.float32), CompileError, ("dtype: got torch.float32",)),
    ("a list for a dtype", compiled(dtype=[]), CompileError, ("dtype: got []", "float32")),
    (
        "float64 on blas",
        compiled(dtype="float64", runtime="blas"),
        *(CompileError, ('dtype: got "float64"', 'use runtime="reference"')),
    ),
    ("threads 0", compiled(threads=0), CompileError, ("threads: got 0", ">= 1")),
    (
        "tune on a runtime with nothing to tune",
        compiled(tune=True, runtime="blas"),
        *(CompileError, ("tune: got True", 'use runtime="native"')),
    ),
    (
        "tune as a number",
        compiled(tune=1, runtime="native"),
        *(CompileError, ("tune: got 1", "expected True, False")),
    ),
    ("a dump that is no path", compiled(dump=3), CompileError, ("dump: got 3", "a folder")),
    ("a dump into a file", compiled(dump=__file__), CompileError, ("dump: ", "test_bad_calls.py")),
    # the compiler's stages
    (
        "an unknown stage",
        lambda t: t.exe.ir("fused"),
        CompileError,
        ("stage: got 'fused'", "fuse,"),
    ),
    ("no graph of a plan", lambda t: t.exe.graph("plan"), CompileError, ("stage: got 'plan'",)),
    (
        "an unknown program",
        lambda t: t.exe.ir("trace", "train"),
        *(CompileError, ("program: got 'train'", "step, evaluate, predict, grads")),
    ),
    (
        "a profile without steps",
        lambda t: t.reference.profile(t.x, t.y),
        CompileError,
        ("profile",),
    ),
    ("repeat 0", lambda t: t.exe.profile(t.x, t.y, repeat=0), CompileError, ("repeat: got 0",)),
    # labels
    (
        "a label too high",
        lambda t: t.exe.train_step(t.x, t.labels(3)),
        *(DataError, ("y: got label 3 at row 7, expected 0 to 2: the model has 3 outputs",)),
    ),
    (
        "a negative label",
        lambda t: t.exe.loss_and_grads(t.x, t.labels(-1)),
        *(DataError, ("y: got label -1 at row 7, expected 0 to 2",)),
    ),
    (
        "a label beyond int64",
        lambda t: t.exe.evaluate(t.x, t.y.astype(np.uint64) + np.uint64(2**63)),
        *(DataError, ("y: got label 9223372036854775808 at row 0",)),
    ),
    (
        "float labels",
        lambda t: t.exe.train_step(t.x, t.y.astype(np.float32)),
        *(DataError, ("y: got dtype float32, expected integer labels: use y.astype('int64')",)),
    ),
    (
        "boolean labels",
        lambda t: t.exe.train_step(t.x, t.y > 1),
        *(DataError, ("y: got dtype bool, expected integer labels",)),
    ),
    (
        "one-hot labels",
        lambda t: t.exe.train_step(t.x, np.eye(3)[t.y]),
        *(DataError, ("y: got shape [10, 3], expected labels [rows]: use y.argmax(1)",)),
    ),
    (
        "a column of labels",
        lambda t: t.exe.fit(t.x, t.y[:, None]),
        *(DataError, ("y: got shape [10, 1], expected labels [rows]",)),
    ),
    # targets
    (
        "[N] for [N, 1]",
        lambda t: t.regressing.train_step(t.x, t.floats[:, 0]),
        *(DataError, ("y: got shape [10], expected [rows, 1]", "use y[:, None]")),
    ),
    (
        "[N, 2] for [N, 1]",
        lambda t: t.regressing.evaluate(t.x, np.hstack([t.floats] * 2)),
        *(DataError, ("y: got shape [10, 2], expected [rows, 1]",)),
    ),
    (
        "integer targets",
        lambda t: t.regressing.train_step(t.x, t.y[:, None]),
        *(DataError, ("y: got dtype int64, expected floats: use y.astype('float32')",)),
    ),
    # inputs
    (
        "too few features",
        lambda t: t.exe.train_step(t.x[:, :3], t.y),
        *(DataError, ("x: got shape [10, 3], expected [rows, 4]",)),
    ),
    (
        "one sample without rows",
        lambda t: t.exe(t.x[0]),
        *(DataError, ("x: got shape [4], expected [rows, 4]", "x[None] is [1, 4]")),
    ),
    (
        "images without channels",
        lambda t: t.seeing(t.images[:, 0]),
        *(DataError, ("x: got shape [5, 8, 8], expected [rows, 1, 8, 8]", "x[:, None]")),
    ),
    (
        "images with channels last",
        lambda t: t.seeing(t.images.transpose(0, 2, 3, 1)),
        *(DataError, ("x: got shape [5, 8, 8, 1]", "x.transpose(0, 3, 1, 2)")),
    ),
    (
        "integer inputs",
        lambda t: t.exe(t.x.astype(int)),
        *(DataError, ("x: got dtype int64, expected floats", "uint8", "x.astype('float32')")),
    ),
    ("boolean inputs", lambda t: t.exe(t.x > 0), DataError, ("x: got dtype bool",)),
    ("complex inputs", lambda t: t.exe(t.x + 1j), DataError, ("x: got dtype complex64",)),
    (
        "masked inputs",
        lambda t: t.exe.train_step(np.ma.masked_less(t.x, 0), t.y),
        *(DataError, ("x: got ", " masked entries", "use .filled(0)")),
    ),
    (
        "masked labels",
        lambda t: t.exe.fit(t.x, np.ma.masked_equal(t.y, 1)),
        *(DataError, ("y: got ", " masked entries", "use .filled(0)")),
    ),
    (
        "a tensor with gradients",
        lambda t: t.exe(torch.from_numpy(t.x).requires_grad_()),
        *(DataError, ("x: got Tensor, expected an array", "detach()")),
    ),
    ("text", lambda t: t.exe(t.x.astype(str)), DataError, ("x: got dtype <U",)),
    ("None", lambda t: t.exe(None), DataError, ("x: got NoneType, expected an array",)),
    ("a number", lambda t: t.exe(1.5), DataError, ("x: got shape [], expected [rows, 4]",)),
    ("ragged rows", lambda t: t.exe([[1.0], [1.0, 2.0]]), DataError, ("x: got list",)),
    ("a sample to a model", lambda t: t.model(t.x[0]), DataError, ("x: got shape [4]",)),
    ("ragged rows to a model", lambda t: t.model([[1.0], []]), DataError, ("x: got list",)),
    # rows
    (
        "lengths that differ",
        lambda t: t.exe.train_step(t.x, t.y[1:]),
        *(DataError, ("x, y: got 10 and 9 rows, expected the same",)),
    ),
    (
        "an empty batch",
        lambda t: t.exe.train_step(t.x[:0], t.y[:0]),
        *(DataError, ("x: got 0 rows, expected at least 1",)),
    ),
    ("an empty set", lambda t: t.exe.fit(t.x[:0], t.y[:0]), DataError, ("X: got 0 rows",)),
    ("nothing to evaluate", lambda t: t.exe.evaluate(t.x[:0], t.y[:0]), DataError, ("X: got 0",)),
    (
        "a batch beyond batch_size",
        lambda t: t.exe.train_step(np.vstack([t.x] * 2), np.hstack([t.y] * 2)),
        *(DataError, ("x: got 20 rows, expected at most 16", "batch_size")),
    ),
    # fit
    ("epochs -1", lambda t: t.exe.fit(t.x, t.y, epochs=-1), CompileError, ("epochs: got -1",)),
    ("epochs 1.5", lambda t: t.exe.fit(t.x, t.y, epochs=1.5), CompileError, ("epochs: got 1.5",)),
    ("verbose -1", lambda t: t.exe.fit(t.x, t.y, verbose=-1), CompileError, ("verbose: got -1",)),
    (
        "shuffle 'no'",
        lambda t: t.exe.fit(t.x, t.y, shuffle="no"),
        *(CompileError, ("shuffle: got 'no', expected True or False",)),
    ),
    ("X_val alone", lambda t: t.exe.fit(t.x, t.y, t.x), DataError, ("X_val, y_val: got one",)),
    ("y_val alone", lambda t: t.exe.fit(t.x, t.y, None, t.y), DataError, ("X_val, y_val",)),
    (
        "a bad label to validate",
        lambda t: t.exe.fit(t.x, t.y, t.x, t.labels(9)),
        *(DataError, ("y_val: got label 9 at row 7",)),
    ),
    # train_val and test
    (
        "no model to train",
        lambda t: gemmc.train_val(t.exe, t.x, t.y, t.x, t.y),
        *(CompileError, ("model: got Executable, expected a Sequential",)),
    ),
    (
        "one sample to train on",
        lambda t: gemmc.train_val(t.model, t.x[0], t.y, t.x, t.y),
        *(DataError, ("X_train: got shape [4], expected [rows, ...]",)),
    ),
    (
        "a bad label to train on",
        lambda t: gemmc.train_val(t.model, t.x, t.labels(5), t.x, t.y),
        *(DataError, ("y_train: got label 5 at row 7",)),
    ),
    (
        "validation of another shape",
        lambda t: gemmc.train_val(t.model, t.x, t.y, t.x[:, :2], t.y),
        *(DataError, ("X_val: got shape [10, 2], expected [rows, 4]",)),
    ),
    (
        "verbose_freq -1",
        lambda t: gemmc.train_val(t.model, t.x, t.y, t.x, t.y, verbose_freq=-1),
        *(CompileError, ("verbose_freq: got -1",)),
    ),
    (
        "a bad label to test on",
        lambda t: gemmc.test(t.model, t.x, t.labels(5)),
        *(DataError, ("y_test: got label 5 at row 7",)),
    ),
    # what a model lacks
    (
        "a step without a loss",
        lambda t: gemmc.compile(t.lossless, (4,)).train_step(t.x, t.y),
        *(CompileError, ("loss_func: the model has none: use Sequential(loss_func=",)),
    ),
    (
        "a step without an optimiser",
        lambda t: gemmc.compile(t.untrainable, (4,)).train_step(t.x, t.y),
        *(CompileError, ("optimizer: the model has none: use Sequential(optimizer=",)),
    ),
    (
        "training without an optimiser",
        lambda t: gemmc.train_val(t.untrainable, t.x, t.y, t.x, t.y),
        *(CompileError, ("optimizer: the model has none",)),
    ),
    # state
    (
        "lr nan",
        lambda t: setattr(t.model.optimizer, "lr", nan),
        CompileError,
        ("Adam: lr: got nan",),
    ),
    (
        "no arrays",
        lambda t: t.model.load_state_dict(None),
        DataError,
        ("state_dict: got NoneType",),
    ),
    (
        "a missing array",
        lambda t: t.model.load_state_dict({"0.weight": np.ones((8, 4))}),
        *(DataError, ("state_dict: missing ['0.bias', '3.weight', '3.bias']",)),
    ),
    (
        "an unknown array",
        lambda t: t.model.load_state_dict({**t.model.state_dict(), "9.bias": t.x}),
        *(DataError, ("state_dict: missing nothing, unexpected ['9.bias']",)),
    ),
    (
        "a transposed array",
        lambda t: t.model.load_state_dict({**t.model.state_dict(), "3.weight": np.ones((8, 3))}),
        *(DataError, ("state_dict: 3.weight: got float64 [8, 3], expected floats [3, 8]",)),
    ),
    (
        "an integer array",
        lambda t: t.model.load_state_dict({**t.model.state_dict(), "3.bias": [1, 2, 3]}),
        *(DataError, ("state_dict: 3.bias: got int64 [3], expected floats [3]",)),
    ),
    (
        "a tensor with gradients to load",
        lambda t: t.model.load_state_dict(
            {**t.model.state_dict(), "3.bias": torch.ones(3, requires_grad=True)}
        ),
        *(DataError, ("state_dict: 3.bias: got Tensor", "detach()")),
    ),
    ("a bad summary shape", lambda t: t.model.summary((5,)), CompileError, ("use Linear(5, 8)",)),
    ("a negative epoch", lambda t: gemmc.epoch_order(0, -1, 3), CompileError, ("epoch: got -1",)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.dtype("float64")])
def test_a_dtype_may_be_numpys(trained: Trained, dtype: Any) -> None:
    exe = gemmc.compile(trained.model, (4,), runtime="reference", dtype=dtype)
    assert exe.dtype == np.dtype(dtype).name
    assert exe(trained.x).dtype == dtype


@pytest.mark.parametrize(
    ("run", "error", "words"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS]
)
def test_a_bad_call_is_refused_before_anything_moves(
    trained: Trained, run: Run, error: type[GemmcError], words: tuple[str, ...]
) -> None:
    assert_refused(trained, error, lambda: run(trained), words)
