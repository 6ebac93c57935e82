"""Doctor: what it measures, what it makes of that, and what it says to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_running import Code

from gemmc.frontend import doctor, machine
from gemmc.frontend.machine import Measured, denormal_slowdown, facts, findings, measure
from gemmc.runtime.native.peaks import Level, Peaks

LEVELS = (Level("L1", 1, 4e11, 4e11, 8e11), Level("memory", 1, 2e10, 2e10, 2e10))
WELL = Measured(
    Peaks(1, 2e11, LEVELS), Peaks(4, 8e11, LEVELS), 1.8e11, load=0.3, allowed=None, denormal=1.1
)
CASES = {
    "all is well": ({}, None),
    "BLAS far from the peak": ({"blas_flops": 0.7e11}, "reaches 70 of 200 GFLOP/s on one core"),
    "a busy machine": ({"load": 3.5}, "3.5 tasks run or wait on 4 cores"),
    "a machine that tells no load": ({"load": None}, None),
    "a container of one and a half cores": ({"allowed": 1.5}, "use threads=1"),
    "a container of eight cores": ({"allowed": 8.0}, None),
    "cores that share": ({"every": Peaks(4, 4.2e11, LEVELS)}, "4 cores do 2.1 times what one does"),
    "denormals that become zero": ({"denormal": None}, "built with -ffast-math"),
    "slow denormals": ({"denormal": 35.0}, "35 times as slow"),
    "peaks of NumPy": ({"one": Peaks(1, 9e11, LEVELS, "numpy"), "every": WELL.one}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_finding_says_what_was_measured_and_what_to_do(name: str) -> None:
    changes, expected = CASES[name]
    found = list(findings(replace(WELL, **changes)))
    assert len(found) == (expected is not None), found
    assert expected is None or expected in found[0]


def test_facts_have_a_line_each() -> None:
    lines = [f"{name}: {fact}" for name, fact in facts(replace(WELL, allowed=2.0))]
    assert lines == [
        "peak: 1 core: 200 GFLOP/s; reads GB/s: L1 400, memory 20",
        "peak: 4 cores: 800 GFLOP/s; reads GB/s: L1 400, memory 20",
        "sgemm: 180 GFLOP/s on 1 core, 90% of its peak",
        "load: 0.30, 2 cores' worth of time allowed",
        "denormals: kept, 1.1 times as slow",
    ]


def test_this_machine_is_measured() -> None:
    found = measure()
    assert found.one.workers == 1 and found.every.workers == doctor.cores()
    assert np.isfinite(found.blas_flops) and found.blas_flops > 0
    assert found.denormal is None or found.denormal > 0


def test_a_cpu_that_flushes_denormals_is_noticed() -> None:
    """The mode is set, and put back, by the functions that native programs have for it."""
    code, mode = Code(), np.zeros(1, np.int32)
    code.add("set", lambda k, word: k.call("@flush", word.pointer()), mode)
    code.add("put_back", lambda k, word: k.call("@restore", word.pointer()), mode)
    code.call("set", mode)
    try:
        flushed = denormal_slowdown()
    finally:
        code.call("put_back", mode)
    assert flushed is None and denormal_slowdown() is not None


LIMITS = {"150000 100000\n": 1.5, "max 100000\n": None, "odd\n": None}


@pytest.mark.parametrize("text", LIMITS)
def test_a_containers_limit_is_read(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(machine, "CPU_MAX", tmp_path / "cpu.max")
    assert machine._allowed() == LIMITS[text]


@pytest.mark.parametrize(("quota", "allowed"), [("200000", 2.0), ("-1", None)])
def test_an_older_kernels_limit_is_read(
    quota: str, allowed: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("CPU_MAX", None), ("CPU_QUOTA", quota), ("CPU_PERIOD", "100000")):
        monkeypatch.setattr(machine, name, tmp_path / name)
        if text:
            (tmp_path / name).write_text(text)
    assert machine._allowed() == allowed


def test_what_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "not installed")
    monkeypatch.setattr(doctor, "DEBIAN_FOLDER", tmp_path / "nothing")
    monkeypatch.setenv("GEMMC_DATA", str(tmp_path / "no data"))
    monkeypatch.setattr(doctor, "cache_folder", lambda: tmp_path / "cache")
    llvmlite, data = doctor._missing()
    assert "pip install llvmlite" in llvmlite
    assert f"downloaded to {tmp_path / 'cache'}" in data and "GEMMC_DATA" in data
