"""What `gemmc bench kernels` measures: graphs as text, the op in each that counts, and its form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import Template

from ..frontend.optimizers import Adam
from ..frontend.trace import trace_update
from ..ir import Graph, parse

Sizes = tuple[int, int, int, int]  # channels in and out, image, kernel
CONVOLUTIONS: tuple[Sizes, ...] = (
    *((1, 16, 28, 3), (16, 32, 14, 3), (64, 64, 14, 3), (16, 32, 14, 5), (64, 64, 14, 1)),
)
LINEAR = ((128, 10), (1568, 128), (512, 512))  # features in and out
SQUARES = (64, 128, 256, 512, 1024)
UPDATED = ((512,), (1568, 128), (2048, 2048))  # shapes of parameters

# Inputs, then a line a node, of which the last is the result.
FORWARD = """%x: f32[N,$c,$s,$s], %w: f32[$o,$c,$k,$k]
  %0: f32[N,$o,$s,$s] = conv2d %x, %w {padding=($p, $p)}"""
INPUT_GRADIENT = """%dy: f32[N,$o,$s,$s], %w: f32[$o,$c,$k,$k]
  %dx: f32[N,$c,$s,$s] = conv2d_input_grad %dy, %w {padding=($p, $p), size=($s, $s)}"""
WEIGHT_GRADIENT = """%x: f32[N,$c,$s,$s], %dy: f32[N,$o,$s,$s]
  %dw: f32[$o,$c,$k,$k] = conv2d_weight_grad %x, %dy {padding=($p, $p), kernel=($k, $k)}"""
POOLED = f"""{FORWARD}
  %1: (f32[N,$o,$h,$h], u8[N,$o,$h,$h]) = max_pool2d %0 {{kernel=(2, 2), stride=(2, 2)}}
  %2: f32[N,$o,$h,$h] = item %1 {{index=0}}
  %3: f32[N,$o,$h,$h] = relu %2"""
WINNERS = """%y: f32[N,$o,$s,$s], %dp: f32[N,$o,$h,$h], %x: f32[N,$c,$s,$s], %w: f32[$o,$c,$k,$k]
  %0: (f32[N,$o,$h,$h], u8[N,$o,$h,$h]) = max_pool2d %y {kernel=(2, 2), stride=(2, 2)}
  %1: u8[N,$o,$h,$h] = item %0 {index=1}
  %dy: f32[N,$o,$s,$s] = max_unpool2d %dp, %1 {kernel=(2, 2), stride=(2, 2), size=($s, $s)}
  """
DIRECT = {
    "forward": ("conv2d", FORWARD),
    "input gradient": ("conv2d", INPUT_GRADIENT),  # a convolution with the weights turned
    "weight gradient": ("conv2d_weight_grad", WEIGHT_GRADIENT),
}
BEHIND_A_POOL = {
    "input gradient": ("pooled_input_grad", WINNERS + INPUT_GRADIENT.splitlines()[1]),
    "weight gradient": ("pooled_weight_grad", WINNERS + WEIGHT_GRADIENT.splitlines()[1]),
}
LINEARS = {
    "forward": "%x: f32[N,$i], %w: f32[$i,$o]\n %0: f32[N,$o] = matmul %x, %w",
    "input gradient": """%dy: f32[N,$o], %w: f32[$i,$o]
  %0: f32[N,$i] = matmul %dy, %w {transpose_b=True}""",
    "weight gradient": """%x: f32[N,$i], %dy: f32[N,$o]
  %0: f32[$i,$o] = matmul %x, %dy {transpose_a=True}""",
}
SQUARE = "%a: f32[$n,$n], %b: f32[$n,$n]\n %0: f32[$n,$n] = matmul %a, %b"
OTHERS = {  # by the kernel and its shape: the op that is measured, and the graph
    ("sum", "over the batch, [N,128]"): (
        "sum",
        "%x: f32[N,128]\n %0: f32[128] = sum %x {axes=(0,)}",
    ),
    ("sum", "along rows, [N,1000]"): (
        "sum",
        "%x: f32[N,1000]\n %0: f32[N] = sum %x {axes=(1,)}",
    ),
    ("sum", "of channels, [N,14,14,32]"): (
        "sum",
        "%x: f32[N,14,14,32]\n %0: f32[32] = sum %x {axes=(0, 1, 2)}",
    ),
    ("max", "along rows, [N,1000]"): (
        "max",
        "%x: f32[N,1000]\n %0: f32[N] = max %x {axes=(1,)}",
    ),
    ("max_pool2d", "2 x 2, [N,16,28,28]"): (
        "max_pool2d",
        """%x: f32[N,16,28,28]
  %0: (f32[N,16,14,14], u8[N,16,14,14]) = max_pool2d %x {kernel=(2, 2), stride=(2, 2)}
  %1: f32[N,16,14,14] = item %0 {index=0}""",
    ),
    ("max_unpool2d", "2 x 2, [N,16,14,14]"): (
        "max_unpool2d",
        """%dy: f32[N,16,14,14], %w: u8[N,16,14,14]
  %0: f32[N,16,28,28] = max_unpool2d %dy, %w {kernel=(2, 2), stride=(2, 2), size=(28, 28)}""",
    ),
    ("softmax", "[N,10]"): ("exp", "%x: f32[N,10]\n %0: f32[N,10] = softmax %x"),
    ("softmax", "[N,100]"): ("exp", "%x: f32[N,100]\n %0: f32[N,100] = softmax %x"),
    ("tanh", "[N,4096]"): ("tanh", "%x: f32[N,4096]\n %0: f32[N,4096] = tanh %x"),
    ("relu", "[N,4096]"): ("relu", "%x: f32[N,4096]\n %0: f32[N,4096] = relu %x"),
    ("dropout", "[N,4096]"): (
        "mul",
        """%x: f32[N,4096], %seed: i64[], %step: i64[]
  %0: f32[N,4096] = dropout_mask %seed, %step {shape=(N, 4096), p=0.5, key=0}
  %1: f32[N,4096] = mul %x, %0""",
    ),
    ("transpose", "[1024,1024]"): (
        "transpose",
        "%x: f32[1024,1024]\n %0: f32[1024,1024] = transpose %x {perm=(1, 0)}",
    ),
    ("pad", "by 1, [N,14,14,32]"): (
        "pad",
        """%x: f32[N,14,14,32]
  %0: f32[N,16,16,32] = pad %x {low=(0, 1, 1, 0), high=(0, 1, 1, 0)}""",
    ),
}


@dataclass(frozen=True)
class Case:
    """A graph, the op in it that is measured, and the form in which its product is to run."""

    kernel: str
    op: str
    shape: str
    graph: Graph
    form: str | None = None


def cases() -> Iterator[Case]:
    """All of them."""
    for sizes in CONVOLUTIONS:
        yield from _convolutions(sizes)
    for i, o in LINEAR:
        for name, text in LINEARS.items():
            for form in ("loops", "blas"):
                yield _product("matmul", f"{i} to {o}, {name}", text, form, i=i, o=o)
    for n in SQUARES:
        for form in ("loops", "blas"):
            yield _product("matmul", f"{n} x {n} x {n}", SQUARE, form, n=n)
    for (kernel, shape), (op, text) in OTHERS.items():
        yield Case(kernel, op, shape, _graph(text))
    for size in UPDATED:
        yield Case("Adam", "sqrt", str(list(size)), trace_update(Adam(), size, "f32"))


def _convolutions(sizes: Sizes) -> Iterator[Case]:
    """One of some sizes, in all forms that are generated for it."""
    c, o, s, k = sizes
    size = {"c": c, "o": o, "s": s, "k": k, "p": k // 2, "h": s // 2}
    shape = f"{c} to {o}, {s} x {s}, {k} x {k}"
    for name, (op, text) in DIRECT.items():
        yield _product(op, f"{shape}, {name}", text, "direct", **size)
    yield _product("conv2d", f"{shape}, pooled", POOLED, "direct", **size)
    if k != 3:
        return
    for name in ("forward", "input gradient"):
        text = DIRECT[name][1]
        yield _product("winograd_conv2d", f"{shape}, {name}", text, "winograd", **size)
    yield _product("winograd_conv2d", f"{shape}, pooled", POOLED, "winograd", **size)
    for name, (op, text) in BEHIND_A_POOL.items():
        if c == 1 and name == "input gradient":
            continue  # walks winners only where channels fill the lanes
        yield _product(op, f"{shape}, {name}", text, "winners", **size)


def _product(op: str, shape: str, text: str, form: str, **sizes: int) -> Case:
    return Case(op, op, shape, _graph(Template(text).substitute(sizes)), form)


def _graph(text: str) -> Graph:
    """Lines as a graph that hands out what the last one makes."""
    inputs, *lines = text.splitlines()
    result = lines[-1].split(":")[0].strip()
    return parse(
        "\n".join([f"graph kernel({inputs}) {{", *lines, f"  return result={result}", "}"])
    )
