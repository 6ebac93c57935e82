"""Worker threads: Python threads that live inside one native call each, where they wait for work.

A `Pool` is a number of threads beside the one that calls; each Python thread that calls programs
has its own, so that two of them have two. Between calls a worker looks for the next one for a short
time, so that it is there within a microsecond, and then sleeps until it is woken.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import numpy as np

from ..arena import aligned_arena
from .desk import CORE, COUNT, FUNCTION, LINE, LINES, LOUNGE, desk, desk_bytes
from .jit import Machine
from .parking import prepare

Native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)  # (context, worker): no GIL held


class Workers:
    """`count` workers, the calling thread among them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._alone: dict[int, Callable[[int, int], None]] = {}  # functions by address
        if count > 1:
            pool(count)

    def run(self, address: int, context: int) -> None:
        """Calls the function (context, worker) at `address` on every worker; all have returned."""
        if self.count > 1:
            pool(self.count).call(address, context)
            return
        call = self._alone.get(address) or self._alone.setdefault(address, Native(address))
        call(context, 0)


class Pool:
    """The threads of a pool, which end with it, and the desk where work is laid out."""

    def __init__(self, count: int) -> None:
        code = _code(count)
        self._desk = aligned_arena(desk_bytes(count))
        self._desk.fill(0)
        self._desk.view(np.int32)[COUNT // 4] = count
        prepare(self._desk, LOUNGE)
        self._address = self._desk.ctypes.data
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)
        self._call = function(code.address("call"))
        weakref.finalize(self, _dismiss, code, self._desk, os.getpid()).atexit = False
        for i in range(1, count):
            arguments = (code, self._desk, i)
            threading.Thread(target=_work, args=arguments, name=f"gemmc-{i}", daemon=True).start()

    def call(self, address: int, context: int) -> None:
        """One call of C, so that Ctrl-C cannot leave workers behind that wait for the others."""
        self._call(self._address, address, context)


class _Own(threading.local):
    """The pools of a Python thread, by process and count: a forked process has no threads."""

    def __init__(self) -> None:
        self.pools: dict[tuple[int, int], Pool] = {}


_own = _Own()


def pool(count: int) -> Pool:
    """This thread's pool of so many workers."""
    key = os.getpid(), count
    return _own.pools.get(key) or _own.pools.setdefault(key, Pool(count))


@cache
def _code(count: int) -> Machine:
    return Machine(desk(count))


def _work(code: Machine, block: np.ndarray, worker: int) -> None:
    """A thread's life. One that finds itself on another one's core moves to a free one.

    Linux leaves two threads on one core for long when both are always busy.
    """
    serve, address = Native(code.address("serve")), block.ctypes.data
    cores = block.view(np.int32)[(LINES + CORE) // 4 :: LINE // 4]
    function = block.view(np.int64)[FUNCTION // 8 :]
    while True:
        serve(address, worker)
        if not function[0]:
            return
        allowed = os.sched_getaffinity(0)
        if free := allowed.difference(cores[:worker].tolist()):
            with suppress(OSError):  # some sandboxes forbid it: it then works where it is
                os.sched_setaffinity(0, free)
                os.sched_setaffinity(0, allowed)


def _dismiss(code: Machine, block: np.ndarray, process: int) -> None:
    """Sends a pool's threads home; a process forked from theirs has none, and no use of locks."""
    if os.getpid() == process:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address("dismiss"))(block.ctypes.data)
