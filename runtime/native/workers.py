"""Worker threads: Python threads that spend a program's run inside one native call each."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor

Native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)  # (context, worker): no GIL held


class Workers:
    """`count` workers, the calling thread among them; the others end with the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "gemmc") if count > 1 else None

    def run(self, address: int, context: int) -> None:
        """Calls the function at `address` on every worker, and waits for all of them."""
        call = Native(address)
        others: list[Future[None]] = []
        if self._pool is not None:
            others = [self._pool.submit(call, context, i) for i in range(1, self.count)]
        call(context, 0)
        for other in others:
            other.result()
