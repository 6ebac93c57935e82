"""The desk where a pool's work is laid out, as LLVM text: what workers do there and who calls them.

A call lays out a function and its context, and draws a new ticket; workers that see one do it, and
count themselves done. Each notes which core it is on, where the system says so.
"""

from __future__ import annotations

import sys

from ..cores import cores
from .parking import LOT, parking, spins

# Where things are, in bytes: what different threads write lies in cache lines of its own. Each
# worker has a line at the end: the last ticket it saw, and its core.
TICKET, DONE, COUNT, FUNCTION, CONTEXT, LOUNGE = 0, 64, 128, 136, 144, 192
LINES, LINE, SEEN, CORE = LOUNGE + LOT, 64, 0, 4


def desk_bytes(count: int) -> int:
    """The size of a desk for so many workers."""
    return LINES + LINE * count


def desk(workers: int) -> str:
    """serve(desk, worker), call(desk, function, context), and dismiss(desk).

    serve comes back when it was dismissed, the function then being 0, or has done its work on the
    core of a worker with a lower number.
    """
    places = {k: v for k, v in globals().items() if isinstance(v, int)}
    known = sys.platform == "linux" and workers <= cores()  # else there is no free core to go to
    core = CORE_OF if known else NO_CORE
    places["spins"] = spins(workers)
    parts = [parking(workers), core, SERVE % places, CALL % places]
    return "\n".join([*parts, "attributes #0 = { nounwind }"])


CORE_OF = """
declare i32 @sched_getcpu()
define i32 @core() #0 {
  %core = call i32 @sched_getcpu()
  ret i32 %core
}"""
NO_CORE = """
define i32 @core() #0 {
  ret i32 -1
}"""

SERVE = """
define ptr @line(ptr %%desk, i64 %%worker) #0 {
  %%behind = mul i64 %%worker, %(LINE)d
  %%begin = add i64 %%behind, %(LINES)d
  %%line = getelementptr i8, ptr %%desk, i64 %%begin
  ret ptr %%line
}

define void @serve(ptr %%desk, i64 %%worker) #0 {
entry:
  %%ticket = getelementptr i8, ptr %%desk, i64 %(TICKET)d
  %%done = getelementptr i8, ptr %%desk, i64 %(DONE)d
  %%lounge = getelementptr i8, ptr %%desk, i64 %(LOUNGE)d
  %%function = getelementptr i8, ptr %%desk, i64 %(FUNCTION)d
  %%context = getelementptr i8, ptr %%desk, i64 %(CONTEXT)d
  %%line = call ptr @line(ptr %%desk, i64 %%worker)
  %%place = getelementptr i8, ptr %%line, i64 %(CORE)d
  br label %%idle
idle:
  %%seen = load i32, ptr %%line, align 4
  call void @park(ptr %%ticket, i32 %%seen, ptr %%lounge)
  %%new = add i32 %%seen, 1
  store i32 %%new, ptr %%line, align 4
  %%f = load ptr, ptr %%function, align 8
  %%c = load ptr, ptr %%context, align 8
  %%dismissed = icmp eq ptr %%f, null
  br i1 %%dismissed, label %%over, label %%work
work:
  call void %%f(ptr %%c, i64 %%worker)
  %%core = call i32 @core()
  store atomic i32 %%core, ptr %%place monotonic, align 4
  %%before = atomicrmw add ptr %%done, i32 1 release
  %%known = icmp sge i32 %%core, 0
  br i1 %%known, label %%compare, label %%idle
compare:
  %%i = phi i64 [0, %%work], [%%next, %%other]
  %%line.of.i = call ptr @line(ptr %%desk, i64 %%i)
  %%place.of.i = getelementptr i8, ptr %%line.of.i, i64 %(CORE)d
  %%core.of.i = load atomic i32, ptr %%place.of.i monotonic, align 4
  %%same = icmp eq i32 %%core.of.i, %%core
  br i1 %%same, label %%over, label %%other
other:
  %%next = add i64 %%i, 1
  %%more = icmp slt i64 %%next, %%worker
  br i1 %%more, label %%compare, label %%idle
over:
  ret void
}

define void @dismiss(ptr %%desk) #0 {
  %%function = getelementptr i8, ptr %%desk, i64 %(FUNCTION)d
  %%lounge = getelementptr i8, ptr %%desk, i64 %(LOUNGE)d
  store ptr null, ptr %%function, align 8
  %%before = atomicrmw add ptr %%desk, i32 1 seq_cst
  call void @unpark(ptr %%lounge)
  ret void
}"""

CALL = """
define void @call(ptr %%desk, ptr %%f, ptr %%c) #0 {
entry:
  %%ticket = getelementptr i8, ptr %%desk, i64 %(TICKET)d
  %%done = getelementptr i8, ptr %%desk, i64 %(DONE)d
  %%count = getelementptr i8, ptr %%desk, i64 %(COUNT)d
  %%function = getelementptr i8, ptr %%desk, i64 %(FUNCTION)d
  %%context = getelementptr i8, ptr %%desk, i64 %(CONTEXT)d
  %%lounge = getelementptr i8, ptr %%desk, i64 %(LOUNGE)d
  store ptr %%f, ptr %%function, align 8
  store ptr %%c, ptr %%context, align 8
  store atomic i32 0, ptr %%done monotonic, align 4
  %%core = call i32 @core()
  %%line = call ptr @line(ptr %%desk, i64 0)
  %%place = getelementptr i8, ptr %%line, i64 %(CORE)d
  store atomic i32 %%core, ptr %%place monotonic, align 4
  %%before = atomicrmw add ptr %%ticket, i32 1 seq_cst
  call void @unpark(ptr %%lounge)
  call void %%f(ptr %%c, i64 0)
  %%all = load i32, ptr %%count, align 4
  %%others = sub i32 %%all, 1
  br label %%wait
wait:
  %%turns = phi i32 [0, %%entry], [%%more, %%again], [%%more, %%yield]
  %%returned = load atomic i32, ptr %%done acquire, align 4
  %%joined = icmp eq i32 %%returned, %%others
  br i1 %%joined, label %%over, label %%again
again:
  %%more = add i32 %%turns, 1
  %%enough = icmp sgt i32 %%more, %(spins)d
  br i1 %%enough, label %%yield, label %%wait
yield:
  %%ignored = call i32 @sched_yield()
  br label %%wait
over:
  ret void
}"""
