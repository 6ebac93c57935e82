"""What holds for all tests: a thread for each process of tests, and Ctrl-C as Python has it."""

import os
import signal

# OpenBLAS spins while it waits for its threads: with two processes of two threads each on two
# cores, a training step took fifty times as long. It reads this once, when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# So do our own workers. Where there is a process for each core, programs get one unless they ask
# for more, as the tests of threads do.
if "PYTEST_XDIST_WORKER" in os.environ:
    from gemmc.runtime.native import target

    target.cores = lambda: 1

# A shell makes what it runs in the background ignore Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
