"""Worker threads: Python threads that spend a program's run inside one native call each."""

from __future__ import annotations

import ctypes
import operator
import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

Native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)  # (context, worker): no GIL held


class Workers:
    """`count` workers, the calling thread among them; the others end with this or the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._calls: dict[int, Callable[[int, int], None]] = {}  # by address
        self._hire()

    def run(self, address: int, context: int, keep: object = None) -> None:
        """Calls the function at `address` on every worker; its last barrier makes this wait.

        `keep` is what the function needs: the others may be about to leave it when this is back.
        """
        call = self._calls.get(address) or self._calls.setdefault(address, Native(address))
        if self.count == 1:
            call(context, 0)
            return
        if self._process != os.getpid():
            self._hire()
        starts = [
            partial(queue.put, (partial(call, context, i), keep))
            for i, queue in enumerate(self._queues, 1)
        ]
        # In one call of C: between two of Python's, Ctrl-C could leave workers waiting for ever.
        deque(map(operator.call, [*starts, partial(call, context, 0)]), maxlen=0)

    def _hire(self) -> None:
        """Starts the threads; once more in a process that was forked, which has none of them."""
        self._process = os.getpid()
        self._queues: list[SimpleQueue] = [SimpleQueue() for _ in range(1, self.count)]
        for i, queue in enumerate(self._queues, 1):
            Thread(target=_serve, args=(queue,), name=f"gemmc-{i}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._queues)


def _serve(queue: SimpleQueue) -> None:
    """Does what is put into the queue, until that is None."""
    while (task := queue.get()) is not None:
        task[0]()
        del task  # what it keeps may go before the next one comes


def _dismiss(queues: list[SimpleQueue]) -> None:
    for queue in queues:
        queue.put(None)
