"""What ops do where a function has a corner or a number is none: at ties, 0, NaN and infinity.

The interpreter, both compiled runtimes and, where an op says it follows it, PyTorch must agree.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from one_op import EXAMPLES, GENERATED, joined
from running import compile_program

from gemmc.ir import Builder, Graph, TensorType, interpret, parse
from gemmc.ir.types import N
from gemmc.passes.autodiff import autodiff
from gemmc.passes.pipeline import Program
from gemmc.passes.target import CPU, Target
from gemmc.runtime.native.target import native_target

nan, inf = np.nan, np.inf
SPECIAL = np.array([nan, inf, -inf, 0.0, -0.0, 1.0, 1.0, -1.0, 3.5, 1e-42], np.float32)
RUNTIMES: dict[str, Target] = {"native": native_target(), "blas": CPU}
# a BLAS may skip zeros, so that 0 * inf is 0 or NaN; what is generated does or sums differently
CONVOLUTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "shift_matmul", *GENERATED)
PRODUCTS = ("matmul", *CONVOLUTIONS)


@pytest.mark.parametrize("target", RUNTIMES.values(), ids=RUNTIMES)
def test_interpreter_and_kernels_agree_on_ties_zeros_nans_and_infinities(target: Target) -> None:
    some = [e for e in EXAMPLES if e.op.name not in PRODUCTS and e.float_operands]
    graph = joined([e.graph() for e in some])  # compiled together
    compiled = compile_program(Program(graph, 6, target=target))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        arrays = {}
        for i, example in enumerate(some):
            given = example.draw(rng, 6)
            for x in (f"x{j}" for j in example.float_operands):
                given[x] = rng.choice(SPECIAL, given[x].shape).astype(given[x].dtype)
            arrays.update((f"{i}.{name}", array) for name, array in given.items())
        expected, got = interpret(graph, arrays, 6), compiled.run(arrays, 6)
        for name, y in expected.items():
            about = f"{name} of {some[int(name.split('.')[0])]}, seed {seed}"
            np.testing.assert_allclose(got[name], y, rtol=1e-5, atol=1e-6, err_msg=about)


def test_relu_hands_nan_on_and_has_gradient_0_at_0_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([nan, inf, -inf, 0.0, -0.0, 2.0, -2.0], np.float32)
    g = np.array([5.0, 6.0, 7.0, 8.0, 9.0, inf, nan], np.float32)
    twin = torch.tensor(x, requires_grad=True)
    y = torch.relu(twin)
    y.backward(torch.tensor(g))
    for got in everywhere(differentiated("%0: f32[N] = relu %x", "f32[N]", "f32[N]"), x=x, g=g):
        np.testing.assert_array_equal(got["y"], y.detach().numpy())
        np.testing.assert_array_equal(got["x.grad"], twin.grad.numpy())


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_of_a_tie_in_a_window_the_first_entry_wins_as_in_pytorch(stride: int, padding: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(stride)
    x = rng.integers(-1, 2, (4, 2, 7, 8)).astype(np.float32)  # three values: ties everywhere
    x[0] = 0.0 if padding else -inf  # where all is -inf, padding of ours is as good as any entry
    x[1] = 0.0
    twin = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(twin, (3, 2), stride, padding)
    g = rng.normal(size=y.shape).astype(np.float32)
    y.backward(torch.tensor(g))
    for got in everywhere(pool_graph(stride, padding, y.shape), x=x, g=g):
        np.testing.assert_array_equal(got["y"], y.detach().numpy())
        np.testing.assert_allclose(got["x.grad"], twin.grad.numpy(), atol=1e-6)  # order of sums


def test_a_nan_wins_its_window_and_gets_the_gradient_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = np.zeros((5, 1, 2, 2), np.float32)
    x[0, 0, 0, 1] = nan
    x[1, 0, 1, 1] = nan
    x[1, 0, 0, 0] = inf
    x[2, 0, 1, 0] = inf
    x[3] = -inf
    twin = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(twin, 2)
    g = np.arange(1, 6, dtype=np.float32).reshape(y.shape)
    y.backward(torch.tensor(g))
    for got in everywhere(pool_graph(2, 0, y.shape, (2, 2), (2, 2)), x=x, g=g):
        np.testing.assert_array_equal(got["y"], y.detach().numpy())
        np.testing.assert_array_equal(got["x.grad"], twin.grad.numpy())


def test_of_several_nans_in_a_window_the_first_one_wins() -> None:
    x = np.array([1.0, nan, nan, 2.0], np.float32).reshape(1, 1, 2, 2)
    g = np.full((1, 1, 1, 1), 7.0, np.float32)
    for got in everywhere(pool_graph(2, 0, g.shape, (2, 2), (2, 2)), x=x, g=g):
        np.testing.assert_array_equal(got["x.grad"].ravel(), [0.0, 7.0, 0.0, 0.0])


def test_an_infinite_or_nan_gradient_reaches_the_winner_and_nothing_else() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    g = np.array([inf, nan, -inf, 1.0], np.float32).reshape(1, 1, 2, 2)
    expected = np.zeros((4, 4), np.float32)
    expected[1::2, 1::2] = g[0, 0]
    for got in everywhere(pool_graph(2, 0, g.shape, (2, 2), (4, 4)), x=x, g=g):
        np.testing.assert_array_equal(got["x.grad"][0, 0], expected)


def test_where_ignores_the_branch_it_does_not_take() -> None:
    graph = parse(
        """graph choice(%c: bool[N], %x: f32[N], %y: f32[N]) {
          %0: f32[N] = where %c, %x, %y
          return z=%0
        }"""
    )
    c = np.array([True, True, True, False, False, False])
    x = np.array([-0.0, 1.0, inf, nan, inf, -inf], np.float32)
    y = np.array([nan, inf, -inf, -0.0, 2.0, nan], np.float32)
    for got in everywhere(graph, c=c, x=x, y=y):
        np.testing.assert_array_equal(got["z"], [-0.0, 1.0, inf, -0.0, 2.0, nan])
        np.testing.assert_array_equal(np.signbit(got["z"]), np.signbit([-0.0, 1, 1, -0.0, 1, 1]))


def test_the_gradient_of_max_is_shared_by_those_that_tie_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-1, -inf, 0, 0]], np.float32)
    g = np.array([6.0, 8.0, 10.0], np.float32)
    twin = torch.tensor(x, requires_grad=True)
    y = torch.amax(twin, 1)
    y.backward(torch.tensor(g))
    for got in everywhere(
        differentiated("%0: f32[N] = max %x {axes=(1,)}", "f32[N,4]", "f32[N]"), x=x, g=g
    ):
        np.testing.assert_array_equal(got["y"], y.detach().numpy())
        np.testing.assert_allclose(got["x.grad"], twin.grad.numpy(), rtol=1e-6)


def test_a_row_is_correct_if_its_first_largest_score_is_at_its_label() -> None:
    graph = parse(
        """graph right(%s: f32[N,3], %y: i64[N]) {
          %0: bool[N] = correct %s, %y
          return right=%0
        }"""
    )
    scores = np.array([[1, 2, 2], [1, 2, 2], [0, nan, 5], [nan, nan, 9], [-inf] * 3], np.float32)
    labels = np.array([1, 2, 1, 0, 0])
    for got in everywhere(graph, s=scores, y=labels):
        assert got["right"].tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_of_huge_scores_is_finite_as_in_pytorch(op: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([[1e4, 0, -1e4], [88.8, 88.9, -200], [-1e30, 1e30, 0], [0, 0, -inf]], np.float32)
    g = np.array([[1, 2, 3]] * 4, np.float32)
    twin = torch.tensor(x, requires_grad=True)
    y = getattr(torch, op)(twin, 1)
    y.backward(torch.tensor(g))
    graph = differentiated(f"%0: f32[N,3] = {op} %x", "f32[N,3]", "f32[N,3]")
    for got in everywhere(graph, x=x, g=g):
        np.testing.assert_allclose(got["y"], y.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got["x.grad"], twin.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_mask_drops_everything_at_p_1_and_nothing_at_p_0() -> None:
    for p, value in ((1.0, 0.0), (0.0, 1.0)):
        for got in everywhere(mask_graph(p), seed=np.array(3), step=np.array(1)):
            assert (got["y"] == value).all()


def test_a_mask_is_the_same_in_every_layout_and_for_every_number_of_rows() -> None:
    given = {"seed": np.array(-5), "step": np.array(1 << 40)}
    plain = interpret(mask_graph(0.4), given, 6)["y"]
    turned = mask_graph(0.4, shape=(N, 5, 3, 4), perm=(0, 2, 3, 1))
    for rows in (1, 4, 6):
        for got in everywhere(turned, rows=rows, **given):
            np.testing.assert_array_equal(got["y"], plain.transpose(0, 2, 3, 1)[:rows])


def test_a_mask_drops_a_share_of_p_anew_for_each_seed_step_and_key() -> None:
    graphs = [mask_graph(0.3, shape=(N, 1000), key=key) for key in (0, 1)]
    masks = [
        interpret(graph, {"seed": np.array(seed), "step": np.array(step)}, 40)["y"]
        for graph in graphs
        for seed in (0, 1)
        for step in (1, 2)
    ]
    for i, mask in enumerate(masks):
        assert abs((mask == 0).mean() - 0.3) < 0.01  # 4 standard deviations of 40,000 draws
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
        for other in masks[:i]:
            both_zero = ((mask == 0) & (other == 0)).mean()
            assert abs(both_zero - 0.09) < 0.01  # independent of each other


def everywhere(
    graph: Graph, rows: int | None = None, **arrays: np.ndarray
) -> list[Mapping[str, np.ndarray]]:
    """What the interpreter and both compiled runtimes make of the same arrays."""
    rows = rows or next((len(a) for a in arrays.values() if np.ndim(a)), 6)
    compiled = [compile_program(Program(graph, max(rows, 6), target=t)) for t in RUNTIMES.values()]
    return [interpret(graph, arrays, rows), *(c.run(arrays, rows) for c in compiled)]


def differentiated(statement: str, x: str, y: str) -> Graph:
    """Output y of one statement on %x, and x.grad for the gradient g of y."""
    axes = tuple(range(y.count(",") + 1))
    forward = parse(
        f"""graph edge(%x: {x}, %g: {y}) {{
          {statement}
          %1: {y} = mul %0, %g
          %2: f32[] = sum %1 {{axes={axes}}}
          return y=%0, loss=%2
        }}"""
    )
    return without_loss(autodiff(forward, ("x",), {}))


def pool_graph(
    stride: int,
    padding: int,
    shape: tuple[int, ...],
    kernel: tuple[int, int] = (3, 2),
    size: tuple[int, int] = (7, 8),
) -> Graph:
    """Max-pooling of %x and its gradient for %g."""
    b = Builder()
    channels = shape[1]
    x = b.input("x", TensorType((N, channels, *size), "f32"))
    g = b.input("g", TensorType((N, *shape[1:]), "f32"))
    pads = (padding, padding)
    pooled = b.max_pool2d(x, kernel=kernel, stride=(stride, stride), padding=pads)
    y = b.item(pooled, index=0)
    loss = b.sum(b.mul(y, g), axes=(0, 1, 2, 3))
    return without_loss(autodiff(b.graph("pool", [x, g], {"y": y, "loss": loss}), ("x",), {}))


def without_loss(graph: Graph) -> Graph:
    """The same without the sum that only served to differentiate: infinities meet in it."""
    b = Builder()
    inputs = [b.clone(n, ()) for n in graph.inputs]
    outputs = b.inline(graph, inputs)
    del outputs["loss"]
    return b.graph(graph.name, inputs, outputs)


def mask_graph(
    p: float,
    shape: tuple = (N, 4, 5, 3),
    perm: tuple[int, ...] | None = None,
    key: int = 7,
) -> Graph:
    """A dropout mask, as output y."""
    b = Builder()
    seed, step = (b.input(name, TensorType((), "i64")) for name in ("seed", "step"))
    y = b.dropout_mask(seed, step, shape=shape, p=p, key=key, perm=perm)
    return b.graph("mask", [seed, step], {"y": y})
