"""What training shows while it runs, and how Ctrl-C ends it: at a step boundary."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .training import History


class Progress:
    """A progress bar on a terminal; elsewhere a line every `verbose` epochs; nothing for 0."""

    def __init__(self, epochs: int, steps: int, verbose: int) -> None:
        self.epochs, self.verbose = epochs, verbose
        self._bar: Any = None
        if verbose and sys.stderr.isatty():
            from tqdm import tqdm  # 30 ms, and only for people who watch

            form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
            columns = shutil.get_terminal_size().columns  # 80 for a terminal that does not say
            self._bar = tqdm(total=epochs * steps, bar_format=form, ncols=columns)

    def step(self, count: int) -> None:
        """`count` training steps are done."""
        if self._bar is not None:
            self._bar.update(count)

    def epoch(self, number: int, history: History) -> None:
        """Epoch `number`, from 1, is done and validated."""
        if self._bar is not None:
            self._bar.set_postfix_str(history.brief())
        elif self.verbose and (number % self.verbose == 0 or number in (1, self.epochs)):
            print(f"epoch {number}/{self.epochs}: {history.last()}, {history.seconds:.1f} s")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.close()


class Interrupt:
    """Whether Ctrl-C was pressed since training began."""

    requested = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turns the first Ctrl-C inside into a request; the second one raises KeyboardInterrupt.

    Only in the main thread, and only where Python's own handler is in place.
    """
    interrupt, ours = Interrupt(), signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def request(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True

    signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
