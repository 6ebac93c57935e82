"""What every module has in LLVM text: the workers' barrier, the clock, and the mode of the CPU."""

from __future__ import annotations

import time

from .jit import host

SPINS = 2000  # turns of waiting at a barrier before the core is offered to others

BARRIER = """
declare i32 @sched_yield()

define void @meet(ptr %%meet) #0 {
entry:
  %%turn = getelementptr i8, ptr %%meet, i64 64
  %%now = load atomic i32, ptr %%turn acquire, align 4
  %%before = atomicrmw add ptr %%meet, i32 1 acq_rel
  %%others = add i32 %%before, 1
  %%last = icmp eq i32 %%others, %d
  br i1 %%last, label %%release, label %%wait
release:
  store atomic i32 0, ptr %%meet monotonic, align 4
  %%next = add i32 %%now, 1
  store atomic i32 %%next, ptr %%turn release, align 4
  ret void
wait:
  %%spins = phi i32 [0, %%entry], [%%more, %%patience], [0, %%yield]
  %%seen = load atomic i32, ptr %%turn acquire, align 4
  %%open = icmp ne i32 %%seen, %%now
  br i1 %%open, label %%done, label %%patience
patience:
  %%more = add i32 %%spins, 1
  %%tired = icmp sgt i32 %%more, %d
  br i1 %%tired, label %%yield, label %%wait
yield:
  %%ignored = call i32 @sched_yield()
  br label %%wait
done:
  ret void
}"""

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


def prelude(workers: int, timed: bool) -> str:
    """What a program's functions call: meet, flush, restore, and in a timed one now."""
    parts = [BARRIER % (workers, SPINS), flush_mode()]
    return "\n".join([*parts, NOW % time.CLOCK_MONOTONIC] if timed else parts)


def flush_mode() -> str:
    """flush(ptr) keeps the CPU's mode and sets flush-to-zero; restore(ptr) puts it back."""
    if host().triple.startswith("x86_64"):
        return X86_FLUSH
    if host().triple.startswith(("aarch64", "arm64")):
        return ARM_FLUSH
    return NO_FLUSH


X86_FLUSH = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @flush(ptr %mode) #0 {
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %was = load i32, ptr %mode
  %set = or i32 %was, 32768
  %slot = alloca i32
  store i32 %set, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)
  ret void
}
define void @restore(ptr %mode) #0 {
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  ret void
}"""
ARM_FLUSH = """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define void @flush(ptr %mode) #0 {
  %was = call i64 @llvm.aarch64.get.fpcr()
  %short = trunc i64 %was to i32
  store i32 %short, ptr %mode
  %set = or i64 %was, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %set)
  ret void
}
define void @restore(ptr %mode) #0 {
  %short = load i32, ptr %mode
  %was = zext i32 %short to i64
  call void @llvm.aarch64.set.fpcr(i64 %was)
  ret void
}"""
NO_FLUSH = """
define void @flush(ptr %mode) #0 {
  ret void
}
define void @restore(ptr %mode) #0 {
  ret void
}"""
