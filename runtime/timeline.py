"""What each worker did when, as a trace that Perfetto and chrome://tracing show.

Source: the Trace Event Format, complete events ("ph": "X") and thread names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Span:
    """Something that a worker did: `begin` is seconds from the first span of all."""

    worker: int
    layer: str
    op: str
    begin: float
    seconds: float


def write_trace(path: str | PathLike, spans: Sequence[Span]) -> None:
    """Writes spans as a JSON trace, with a lane for each worker; OSError where that cannot be."""
    workers = sorted({s.worker for s in spans})
    named = [_event("M", "thread_name", w, args={"name": f"worker {w}"}) for w in workers]
    done = [
        _event("X", s.op, s.worker, cat=s.layer, ts=s.begin * 1e6, dur=s.seconds * 1e6)
        | {"args": {"layer": s.layer}}
        for s in spans
    ]
    trace = {"displayTimeUnit": "ns", "traceEvents": [*named, *done]}
    Path(path).write_text(json.dumps(trace))


def _event(phase: str, name: str, worker: int, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": 0, "tid": worker, **more}
