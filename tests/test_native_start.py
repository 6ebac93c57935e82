"""When LLVM is loaded, and what happens on a machine that has none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gemmc

ROOT = Path(gemmc.__file__).parent
WITHOUT = {
    "it is not installed": """
        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "llvmlite":
                    raise ModuleNotFoundError("No module named 'llvmlite'")
        sys.meta_path.insert(0, Missing())
    """,
    "it is blocked": "sys.modules['llvmlite'] = None",
    "its library cannot be loaded": """
        class Broken(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name == "llvmlite.binding":
                    raise OSError("Could not find/load shared object file")
        sys.meta_path.insert(0, Broken())
    """,
    "it knows no such CPU": """
        import llvmlite.binding
        def initialize():
            raise RuntimeError("No available targets are compatible with this triple")
        llvmlite.binding.initialize_native_target = initialize
    """,
}
BEGIN = """
import importlib.abc, sys, warnings
import numpy as np
import gemmc
from gemmc import *
def model():
    return Sequential([Linear(3, 4), ReLU(), Linear(4, 2)], CrossEntropyLoss(), Adam())
X, y = np.ones((9, 3), np.float32), np.zeros(9, np.int64)
"""


def run(code: str) -> subprocess.CompletedProcess:
    """What Python says to it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(*parts: str) -> list[str]:
    """The lines that these parts of a program print."""
    done = run("\n".join(textwrap.dedent(part) for part in parts))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("why", WITHOUT)
def test_without_llvm_auto_is_the_blas_runtime_with_one_warning(why: str) -> None:
    lines = said(
        BEGIN,
        WITHOUT[why],
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            exes = [gemmc.compile(model(), (3,)) for _ in range(3)]
            exes[0].fit(X, y, epochs=2)
            train_val(model(), X, y, X, y, epochs=1, verbose_freq=0)
            test(model(), X, y)
            model()(X)
        print(*(e.runtime for e in exes))
        for w in caught:
            print(w.category.__name__, w.filename, w.message)
        """,
    )
    assert lines[0] == "blas blas blas"
    (warning,) = lines[1:]
    assert warning.startswith("RuntimeWarning <string> "), "it names the line that compiles"
    for word in ("llvmlite", "blas runtime", "pip install llvmlite"):
        assert word in warning


@pytest.mark.parametrize("why", WITHOUT)
def test_without_llvm_native_is_refused_with_what_would_help(why: str) -> None:
    lines = said(
        BEGIN,
        WITHOUT[why],
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                try:
                    gemmc.compile(model(), (3,), runtime="native")
                except gemmc.CompileError as error:
                    print(error)
            exe = gemmc.compile(model(), (3,), runtime="blas")
        print(exe.train_step(X, y) > 0)
        """,
    )
    assert lines[0] == lines[1] and lines[2] == "True"
    for word in ('runtime: got "native"', "llvmlite", "pip install llvmlite", 'runtime="auto"'):
        assert word in lines[0]


def test_importing_gemmc_does_not_load_llvm_and_compiling_does() -> None:
    lines = said(
        BEGIN,
        """
        print("llvmlite" in sys.modules)
        exe = gemmc.compile(model(), (3,), runtime="blas")
        exe.train_step(X, y)
        gemmc.compile(model(), (3,), runtime="reference")
        print("llvmlite" in sys.modules)
        print(gemmc.compile(model(), (3,)).runtime, "llvmlite" in sys.modules)
        """,
    )
    assert lines == ["False", "False", "native True"]


def test_the_loops_of_a_program_can_be_read_beside_its_llvm_and_assembly() -> None:
    model = gemmc.Sequential([gemmc.Linear(3, 40), gemmc.ReLU(), gemmc.Linear(40, 2)])
    exe = gemmc.compile(model, (3,), runtime="native")
    loops = exe.ir("loops", "predict")
    heads = [line for line in loops.splitlines() if line and not line.startswith(" ")]
    assert all(line.partition("  #")[0].endswith("):") for line in heads)
    for step in exe.plan.steps():
        assert any(step.node.loc in line for line in heads), step.node
    assert "  for " in loops and " = " in loops and "%" not in loops
    assert exe.ir("llvm", "predict").count("\ndefine ") >= len(heads)
    assert "run:" in exe.ir("assembly", "predict")


def test_runtime_and_stages_of_auto_are_those_of_native() -> None:
    model = gemmc.Sequential([gemmc.Linear(3, 2)], gemmc.MSELoss(), gemmc.SGD())
    auto, native = (gemmc.compile(model, (3,), runtime=r) for r in ("auto", "native"))
    assert auto.runtime == native.runtime == "native"
    assert auto.stages == native.stages
    for stage in ("loops", "llvm", "assembly"):
        assert stage in auto.stages and auto.ir(stage) == native.ir(stage)
