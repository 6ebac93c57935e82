"""Peaks: the loops that measure them, sizes of caches, the roofline, and no LLVM."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from native_running import a_cpu_without

from gemmc.runtime.arena import aligned_arena
from gemmc.runtime.native import peaks as module
from gemmc.runtime.native.peaks import Level, Peaks, cache_sizes, peaks
from gemmc.runtime.native.streams import LOOPS, Streams, chains, granule

LEVELS = tuple(
    Level(name, 1, read=rate, copy=rate / 2, update=2 * rate)
    for name, rate in (("L1", 400.0), ("L2", 200.0), ("L3", 100.0), ("memory", 20.0))
)
MACHINE = Peaks(workers=2, flops=1000.0, levels=LEVELS)


def memory_of(count: int, workers: int) -> np.ndarray:
    """Numbers for each worker to go through."""
    memory = aligned_arena(4 * count * workers).view(np.float32)
    memory[:] = np.random.default_rng(0).integers(1, 4, memory.size)
    return memory


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("lacking", [(), ("avx512",), ("avx", "fma")], ids=str)
def test_every_worker_goes_through_memory_of_its_own(
    workers: int, lacking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_cpu_without(monkeypatch, *lacking):
        streams, count = Streams(workers), granule()
        memory = memory_of(count, workers)
        was = memory.reshape(workers, 2, -1).copy()
        assert all(streams._run("update", memory, count, 2) > 0)
        np.testing.assert_array_equal(memory.reshape(was.shape), was)
        streams._run("copy", memory, count, 1)
        copied = memory.reshape(was.shape)
        np.testing.assert_array_equal(copied[:, 0], was[:, 0])
        np.testing.assert_array_equal(copied[:, 1], was[:, 0])
        memory[:] = 1.0
        streams._run("read", memory, count, 5)
        sums = memory.reshape(workers, -1)
        assert set(sums[:, : count // 2].flat) == {10.0}  # a lane sums 2 vectors, 5 times
        assert (sums[:, count // 2 :] == 1.0).all()


def test_multiply_adds_are_done_as_often_as_they_are_counted() -> None:
    memory, turns = memory_of(chains(), 1), 4
    memory[:2] = 0.5, 3.0
    expected = memory.copy()
    Streams(1)._run("fma", memory, chains(), turns)
    for _ in range(turns):
        expected = expected * np.float32(0.5) + np.float32(3.0)
    np.testing.assert_array_equal(memory, expected)


def test_peaks_have_a_level_for_each_cache_and_are_measured_once() -> None:
    found = peaks(2)
    assert found is peaks(2)
    assert (found.workers, found.source) == (2, "loops")
    names = [level.name for level in found.levels]
    assert names in (["L1", "L2", "memory"], ["L1", "L2", "L3", "memory"])
    rates = [getattr(level, kind) for level in found.levels for kind in LOOPS if kind != "fma"]
    assert np.isfinite([found.flops, *rates]).all() and min(found.flops, *rates) > 0
    assert [level.nbytes for level in found.levels] == sorted(x.nbytes for x in found.levels)
    assert all(level.nbytes <= found.caches[level.name] for level in found.levels[:-1])


def test_without_llvm_the_peaks_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemmc.runtime.native.streams", None)
    found = peaks.__wrapped__(1)
    assert found.source == "numpy" and found.flops > 0
    assert [x.name for x in found.levels] == [x.name for x in peaks(2).levels]


def test_a_working_set_is_in_the_nearest_level_that_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "cache_sizes", lambda: {"L1": 10, "L2": 100, "L3": 1000})
    sizes = (1, 20, 21, 200, 201, 1000, 1001)  # two workers: twice the L1 and L2, one L3
    found = [MACHINE.level(nbytes).name for nbytes in sizes]
    assert found == ["L1", "L1", "L2", "L2", "L3", "L3", "memory"]


def test_the_roofline_rises_with_the_intensity_up_to_the_peak() -> None:
    assert [MACHINE.attainable(i) for i in (0.0, 1.0, 50.0, 51.0)] == [0.0, 20.0, 1000.0, 1000.0]
    assert MACHINE.attainable(1.0, "L1") == 400.0
    assert MACHINE.bytes["L2"] == 200.0


def test_sizes_of_caches_are_as_linux_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, (kind, level, size) in enumerate(
        [("Instruction", 1, "64K"), ("Data", 1, "48K"), ("Unified", 2, "1024K"), ("Odd", 3, "?")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(module, "CPU_CACHES", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_sizes.__wrapped__() == {"L1": 48 << 10, "L2": 1 << 20}
    monkeypatch.setattr(module, "CPU_CACHES", tmp_path / "missing")
    assert cache_sizes.__wrapped__() == module.UNKNOWN
