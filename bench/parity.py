"""Whether gemmc and PyTorch compute the same: losses and gradients from equal weights.

Two correct programs in float32 differ by rounding, 2e-5 at most in the sample. Now and then that
puts an activation on the other side of a ReLU's kink, or lets another entry win a pool's window:
one term more or less of very many, which moved a gradient by 4e-4 where it was met (float32 beside
float64, both PyTorch's). So gradients are compared as a whole, by their L2 norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .models import task_of
from .peers.ours import compiled
from .process import Task
from .sample import Sample

STEPS = 3  # of training: the second sees the first one's update
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 2e-3  # relative
Result = tuple[Sequence[float], Mapping[str, np.ndarray]]  # losses of the steps, gradients


def check(sample: Sample, runtime: str, threads: int) -> list[str]:
    """Where gemmc and PyTorch part on one batch, dropout off; empty if they agree."""
    return disagreements(gemmc_result(sample, runtime, threads), torch_result(sample, threads))


def disagreements(ours: Result, theirs: Result) -> list[str]:
    """A line for each loss and gradient of `ours` that is not that of `theirs`."""
    losses = {f"loss of step {i}": np.array(loss) for i, loss in enumerate(theirs[0])}
    seen = {**dict(zip(losses, map(np.array, ours[0]), strict=True)), **ours[1]}
    wrong = []
    for name, expected in {**losses, **theirs[1]}.items():
        apart = _distance(seen[name], expected)
        tolerance = LOSS_TOLERANCE if name in losses else GRADIENT_TOLERANCE
        if not apart <= tolerance:  # NaN is not
            wrong.append(f"{name}: {apart:.2g} from PyTorch's, relative; expected {tolerance:g}")
    return wrong


def _distance(seen: np.ndarray, expected: np.ndarray) -> float:
    """The L2 norm of the difference, as a part of that of `expected`."""
    if seen.shape != expected.shape:
        return np.inf
    apart, size = np.linalg.norm(seen - expected), np.linalg.norm(expected)
    return float(apart / size) if size else float(apart)


def gemmc_result(sample: Sample, runtime: str, threads: int) -> Result:
    """What gemmc computes, from the weights that the sample starts with."""
    task, (x, y) = _task(sample, runtime, threads), _batch(sample)
    executable = compiled(task)
    gradients = executable.loss_and_grads(x, y)[1]
    return [executable.train_step(x, y) for _ in range(STEPS)], gradients


def torch_result(sample: Sample, threads: int) -> Result:
    """What PyTorch computes, from the weights that the sample starts with."""
    import torch  # an extra: only this needs it

    from .peers.pytorch import Eager

    torch.set_num_threads(threads)
    trainer = Eager(_task(sample, "auto", threads))
    x, y = map(torch.from_numpy, _batch(sample))
    losses, gradients = [], {}
    for step in range(STEPS):
        trainer.optimizer.zero_grad()
        given = x.clone().requires_grad_()
        loss = trainer.loss(trainer.net(given), y)
        loss.backward()
        if step == 0:
            gradients = {n: p.grad.numpy().copy() for n, p in trainer.net.named_parameters()}
            gradients["input"] = given.grad.numpy()
        trainer.optimizer.step()
        losses.append(loss.item())
    return losses, gradients


def _task(sample: Sample, runtime: str, threads: int) -> Task:
    x, y = _batch(sample)
    data = {"x": x, "y": y}
    return task_of(
        sample.model(),
        data,
        dropout=False,
        batch=len(x),
        threads=threads,
        rows=len(x),
        runtime=runtime,
    )


def _batch(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    x, y = sample.data()
    return x[: sample.batch], y[: sample.batch]
