"""Waiting for a word to change, as LLVM text: by looking, then by yielding, then asleep.

`park(word, seen, lot)` comes back when the word is no longer `seen`; who changes the word calls
`unpark(lot)`. The one who parks first counts itself and then reads the word, the other first
writes the word and then reads the count, in one order for all threads: nobody sleeps on.
Sleeping also moves a thread to a core that is idle, which looking never does.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache

import numpy as np

from ..cores import cores

SPINS = 20000  # turns of looking, about 10 us, before the core is offered to others
CROWDED_SPINS = 100  # the same where there are more workers than cores
PATIENCE = 50e-6  # seconds of yielding before a thread goes to sleep
SHARED = 5e-6  # seconds of one yield that show that another thread runs on this core

# A parking lot, in bytes: how many sleep, a mutex and a condition of POSIX threads.
SLEEPING, MUTEX, CONDITION, LOT = 0, 64, 192, 320


def parking(workers: int) -> str:
    """park, unpark and what they call: now(), seconds from some moment on, as a double."""
    places = {"mutex": MUTEX, "condition": CONDITION, "spins": spins(workers)}
    clock = NOW % time.CLOCK_MONOTONIC
    return "\n".join(
        [clock, PARKING % {"patience": f"{PATIENCE:e}", "shared": f"{SHARED:e}", **places}]
    )


def spins(workers: int) -> int:
    """Turns of looking where so many workers wait for one another."""
    return SPINS if workers <= cores() else CROWDED_SPINS


def prepare(block: np.ndarray, lot: int) -> None:
    """Makes the bytes from `lot` on of a block, which are zero, a parking lot."""
    address = block.ctypes.data + lot
    for name, place in (("mutex", MUTEX), ("cond", CONDITION)):
        _library()[f"pthread_{name}_init"](ctypes.c_void_p(address + place), None)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


NOW = """
declare i32 @clock_gettime(i32, ptr)
define double @now() #0 {
  %%slot = alloca [2 x i64]
  %%failed = call i32 @clock_gettime(i32 %d, ptr %%slot)
  %%seconds = load i64, ptr %%slot
  %%second = getelementptr i64, ptr %%slot, i64 1
  %%nanos = load i64, ptr %%second
  %%whole = sitofp i64 %%seconds to double
  %%part = sitofp i64 %%nanos to double
  %%scaled = fmul double %%part, 1.0e-9
  %%now = fadd double %%whole, %%scaled
  ret double %%now
}"""

PARKING = """
declare i32 @sched_yield()
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define void @park(ptr %%word, i32 %%seen, ptr %%lot) #0 {
entry:
  br label %%look
look:
  %%spins = phi i32 [0, %%entry], [%%more, %%again]
  %%first = load atomic i32, ptr %%word acquire, align 4
  %%changed = icmp ne i32 %%first, %%seen
  br i1 %%changed, label %%done, label %%again
again:
  %%more = add i32 %%spins, 1
  %%enough = icmp sgt i32 %%more, %(spins)d
  br i1 %%enough, label %%offer, label %%look
offer:
  %%since = call double @now()
  br label %%yield
yield:
  %%begin = phi double [%%since, %%offer], [%%moment, %%patience]
  %%ignored = call i32 @sched_yield()
  %%then = load atomic i32, ptr %%word acquire, align 4
  %%open = icmp ne i32 %%then, %%seen
  br i1 %%open, label %%done, label %%patience
patience:
  %%moment = call double @now()
  %%waited = fsub double %%moment, %%since
  %%yielded = fsub double %%moment, %%begin
  %%tired = fcmp ogt double %%waited, %(patience)s
  %%shared = fcmp ogt double %%yielded, %(shared)s
  %%enough.of.it = or i1 %%tired, %%shared
  br i1 %%enough.of.it, label %%sleep, label %%yield
sleep:
  %%mutex = getelementptr i8, ptr %%lot, i64 %(mutex)d
  %%condition = getelementptr i8, ptr %%lot, i64 %(condition)d
  %%locked = call i32 @pthread_mutex_lock(ptr %%mutex)
  %%sleepers = atomicrmw add ptr %%lot, i32 1 seq_cst
  br label %%asleep
asleep:
  %%last = load atomic i32, ptr %%word seq_cst, align 4
  %%woken = icmp ne i32 %%last, %%seen
  br i1 %%woken, label %%wake, label %%rest
rest:
  %%roused = call i32 @pthread_cond_wait(ptr %%condition, ptr %%mutex)
  br label %%asleep
wake:
  %%others = atomicrmw sub ptr %%lot, i32 1 seq_cst
  %%unlocked = call i32 @pthread_mutex_unlock(ptr %%mutex)
  br label %%done
done:
  ret void
}

define void @unpark(ptr %%lot) #0 {
entry:
  %%sleepers = load atomic i32, ptr %%lot seq_cst, align 4
  %%some = icmp ne i32 %%sleepers, 0
  br i1 %%some, label %%rouse, label %%done
rouse:
  %%mutex = getelementptr i8, ptr %%lot, i64 %(mutex)d
  %%condition = getelementptr i8, ptr %%lot, i64 %(condition)d
  %%locked = call i32 @pthread_mutex_lock(ptr %%mutex)
  %%all = call i32 @pthread_cond_broadcast(ptr %%condition)
  %%unlocked = call i32 @pthread_mutex_unlock(ptr %%mutex)
  br label %%done
done:
  ret void
}"""
