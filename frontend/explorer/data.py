"""Everything the page shows of one compiled model, as plain data."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ...runtime.profile import Profile
from ..command_line import many
from ..executable import Executable
from ..profiling import example_batch
from ..summary import layer_rows, written
from .program import memory_data, roof_data, steps_data
from .stages import Stage, stages_data, stages_of


def explorer_data(executable: Executable, title: str = "") -> dict[str, Any]:
    """What the page shows of an executable's main program; a training step is run to time it."""
    compiled = executable.compiled()
    plan, profile = compiled.plan, _profile(executable, title)
    stages = stages_of(compiled.stages)
    told = stages_data(stages, {s.node: s.time for s in plan.steps()}, plan.rows)
    listing = compiled.text("loops") if "loops" in executable.stages else ""
    return {
        "title": title,
        "program": plan.graph.name,
        "facts": _facts(executable),
        "layers": _layers(executable),
        "stages": told,
        "apart": _apart(executable, stages, told),
        "plan": compiled.text("plan").split("\n"),
        "ms": {stage: 1e3 * seconds for stage, seconds in compiled.seconds.items()},
        "steps": steps_data(plan, profile, listing),
        "step_ms": profile.step_ms if profile else 0.0,
        "memory": memory_data(plan),
        "roof": roof_data(profile) if profile else None,
    }


def _profile(executable: Executable, title: str) -> Profile | None:
    """Where a training step's time goes, on data that fits; None where nothing can be timed."""
    trained = executable.model.loss_func is not None and executable.model.optimizer is not None
    if executable.runtime == "reference" or not trained:
        return None
    return executable.profile(*example_batch(executable, title))


def _apart(
    executable: Executable, stages: list[Stage], told: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Why steps that follow one another were not fused."""
    names = [stage.name for stage in stages]
    lower = names.index("lower")
    ids, nodes = stages[lower].ids, told[lower]["nodes"]
    return [
        {
            "producer": nodes[ids[apart.producer]]["steps"],
            "consumer": nodes[ids[apart.consumer]]["steps"],
            "reason": apart.reason,
        }
        for apart in executable.left_apart(executable.compiled().plan.graph.name)
    ]


def _facts(executable: Executable) -> dict[str, str]:
    runtime = executable.runtime
    threads = getattr(executable.compiled().runner, "workers", None)
    return {
        "program": executable.compiled().plan.graph.name,
        "gemmc": version("gemmc"),
        "runtime": f"{runtime}, {many(threads.count, 'worker')}" if threads else runtime,
        "batch": many(executable.batch_size, "row"),
        "input": str(list(executable.input_shape)),
    }


def _layers(executable: Executable) -> list[dict[str, Any]]:
    """The model as the user wrote it: layers, then loss and optimiser."""
    model = executable.model
    layers = [
        {
            "name": row.layer,
            "arguments": row.arguments,
            "output": row.cells["output"],
            "parameters": row.parameters,
            "flops": row.flops,
            "bytes": row.nbytes,
        }
        for row in layer_rows(model, executable.input_shape)
    ]
    parts = [part for part in (model.loss_func, model.optimizer) if part is not None]
    others = [{"name": type(part).__name__, "arguments": written(part)} for part in parts]
    return [*layers[:-1], *others, layers[-1]]
