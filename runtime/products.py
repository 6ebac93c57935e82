"""Matrix products as calls of scipy.linalg.blas, in place on C-ordered arrays.

BLAS is column-major: the transpose of a C-ordered matrix is what it calls a matrix, so a product
`Y = A B` is asked for as `Y.T = B.T A.T`. SciPy writes into its argument only if that is contiguous
and of the routine's dtype, and silently into a copy otherwise: every binding asserts both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.linalg import blas

from ..ir import Node
from .binding import Binding, Call

GEMM = {"f4": blas.sgemm, "f8": blas.dgemm}
GEMV = {"f4": blas.sgemv, "f8": blas.dgemv}
GER = {"f4": blas.sger, "f8": blas.dger}
AXPY = {"f4": blas.saxpy, "f8": blas.daxpy}


def as_matrix(x: np.ndarray) -> np.ndarray:
    """x with its leading axes as rows: a view."""
    assert x.flags.c_contiguous
    return x.reshape(-1, x.shape[-1])


def product(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, beta: float, trans_a: bool, trans_b: bool
) -> Call:
    """The call `y = op(a) @ op(b) + beta*y` for C-ordered matrices; sgemv where one is a vector."""
    for x in (a, b, y):
        assert x.flags.c_contiguous and x.dtype == y.dtype
    if y.shape[0] == 1 and not trans_a:
        return matvec(b, a.reshape(-1), y.reshape(-1), beta, not trans_b)
    if y.shape[1] == 1 and not trans_b:
        return matvec(a, b.reshape(-1), y.reshape(-1), beta, trans_a)
    gemm = GEMM[y.dtype.str[1:]]
    return partial(gemm, 1.0, b.T, a.T, beta, y.T, int(trans_b), int(trans_a), 1)


def matvec(a: np.ndarray, x: np.ndarray, y: np.ndarray, beta: float, trans: bool) -> Call:
    """The call `y = op(a) @ x + beta*y` for a C-ordered matrix and vectors."""
    assert a.flags.c_contiguous and x.flags.c_contiguous and y.flags.c_contiguous
    gemv = GEMV[y.dtype.str[1:]]
    return partial(gemv, 1.0, a.T, x, beta, y, 0, 1, 0, 1, int(not trans), 1)


def outer(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> Call:
    """The call `a += x y^T` for vectors and a C-ordered matrix."""
    assert a.flags.c_contiguous and x.dtype == y.dtype == a.dtype
    return partial(GER[a.dtype.str[1:]], 1.0, y, x, 1, 1, a.T, 1, 1, 1)


def accumulate(x: np.ndarray, y: np.ndarray) -> Call:
    """The call `y += x` for contiguous arrays of one shape."""
    return partial(AXPY[y.dtype.str[1:]], x.reshape(-1), y.reshape(-1), y.size, 1.0)


def bind_matmul(k: Binding) -> Iterator[Call]:
    """matmul: one sgemm, or sgemv, or sger where one row is summed into a weight gradient."""
    a, b, y = as_matrix(k.operands[0]), as_matrix(k.operands[1]), as_matrix(k.results[0])
    if not k.node.attrs["transpose_a"]:
        yield product(a, b, y, 0.0, False, k.node.attrs["transpose_b"])
    elif len(a) == 1:
        if k.first:
            yield partial(y.fill, 0.0)
        yield outer(a[0], b[0], y)
    else:
        yield product(a, b, y, 0.0 if k.first else 1.0, True, False)


def shift_scratch(node: Node, rows: int) -> int:
    """Bytes of a plane as wide as x, in which shift_matmul makes its result."""
    n, h, width, _ = node.inputs[0].tensor.concrete(rows)
    return n * h * width * node.tensor.concrete(rows)[-1] * node.tensor.numpy.itemsize


def bind_shift_matmul(k: Binding) -> Iterator[Call]:
    """shift_matmul: one accumulating sgemm a tap, then the valid part of the plane is copied out.

    Seen as a matrix with a row per position, x shifted by a tap is x from a later row on. What that
    drags in from the next line or image lands outside the valid part.
    """
    (x, w), (y,) = k.operands, k.results
    kh, kw = w.shape[:2]
    n, h, width, _ = x.shape
    plane = k.room[: n * h * width * y.shape[3] * y.itemsize].view(y.dtype).reshape(-1, y.shape[3])
    for i, (shift, count) in enumerate(_shifts(x.shape, kh, kw)):
        tap = w[i // kw, i % kw]
        shifted = as_matrix(x)[shift : shift + count]
        yield product(shifted, tap, plane[:count], float(i > 0), False, False)
    valid = plane.reshape(n, h, width, -1)[:, : y.shape[1], : y.shape[2]]
    yield partial(np.copyto, y, valid)


def bind_shift_weight_grad(k: Binding) -> Iterator[Call]:
    """shift_matmul_weight_grad: for each tap, one sgemm of shifted x with dy."""
    (x, dy), (dw,) = k.operands, k.results
    kh, kw = dw.shape[:2]
    for i, (shift, count) in enumerate(_shifts(x.shape, kh, kw)):
        shifted = as_matrix(x)[shift : shift + count]
        target = dw[i // kw, i % kw]
        yield product(shifted, as_matrix(dy)[:count], target, 0.0 if k.first else 1.0, True, False)


def _shifts(shape: tuple[int, ...], kh: int, kw: int) -> Iterator[tuple[int, int]]:
    """For each tap, how many rows x is shifted by, and how many rows every shift has."""
    n, h, width, _ = shape
    count = n * h * width - (kh - 1) * width - (kw - 1)
    for i in range(kh):
        for j in range(kw):
            yield i * width + j, count


def sum_scratch(node: Node, rows: int) -> int:
    """Bytes of the vector of ones, or of a partial sum that is then accumulated."""
    x, axes = node.inputs[0].tensor, node.attrs["axes"]
    if _sums_matrix(x.rank, axes):
        return math.prod(x.concrete(rows)[a] for a in axes) * x.numpy.itemsize
    return node.tensor.nbytes(rows)


def bind_sum(k: Binding) -> Iterator[Call]:
    """sum over leading or trailing axes: sgemv with a vector of ones; over others NumPy's."""
    (x,), (y,), axes = k.operands, k.results, k.node.attrs["axes"]
    over_rows = k.node.inputs[0].tensor.per_row and 0 in axes
    beta = 1.0 if over_rows and not k.first else 0.0
    if _sums_matrix(x.ndim, axes):
        count = math.prod(x.shape[a] for a in axes)
        ones = k.room[: count * x.itemsize].view(x.dtype)
        yield partial(ones.fill, 1.0)
        leading = axes[0] == 0
        matrix = x.reshape(count, -1) if leading else x.reshape(-1, count)
        yield matvec(matrix, ones, y.reshape(-1), beta, leading)
    elif beta:
        part = k.room[: y.nbytes].view(y.dtype).reshape(y.shape)
        yield partial(np.add.reduce, x, axis=axes, out=part)
        yield accumulate(part, y)
    else:
        yield partial(np.add.reduce, x, axis=axes, out=y)


def _sums_matrix(rank: int, axes: tuple[int, ...]) -> bool:
    """Whether x is a matrix of which the rows or the columns are summed."""
    n = len(axes)
    return axes in (tuple(range(n)), tuple(range(rank - n, rank)))
