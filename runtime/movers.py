"""Kernels that move data: patches, borders, pooling and the small rest, as NumPy calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from ..ir import Node
from ..ir.ops.conv import taps
from ..ir.ops.random import HASH_ROUNDS, drop_threshold, element_indices, keep_scale, stream
from ..ir.types import DTYPES
from .binding import Binding, Call

RUN = 8  # elements: shorter runs are copied tap by tap, in long strided rows instead


def bind_im2col(k: Binding) -> Iterator[Call]:
    """im2col: one strided copy in runs of kw*C, or one a column where those are short."""
    (x,), (p,) = k.operands, k.results
    (kh, kw), (sh, sw) = k.node.attrs["kernel"], k.node.attrs["stride"]
    n, ho, wo, _ = p.shape
    channels = x.shape[3]
    if kw * channels >= RUN:
        sn, s_h, s_w, s_c = x.strides
        shape = (n, ho, wo, kh, kw * channels)
        strides = (sn, sh * s_h, sw * s_w, s_h, s_c)
        seen = np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
        yield partial(np.copyto, p.reshape(shape), seen)
        return
    columns = p.reshape(n, ho, wo, kh, kw, channels)
    for i, j, view in taps(x, (kh, kw), (sh, sw)):
        for c in range(channels):
            yield partial(np.copyto, columns[:, :, :, i, j, c], view[..., c])


def bind_col2im(k: Binding) -> Iterator[Call]:
    """col2im: zeros, then one strided addition a tap."""
    (p,), (x,) = k.operands, k.results
    kernel, stride = k.node.attrs["kernel"], k.node.attrs["stride"]
    yield partial(x.fill, 0.0)
    patches = p.reshape(*p.shape[:3], *kernel, x.shape[3])
    for i, j, view in taps(x, kernel, stride):
        yield partial(np.add, view, patches[:, :, :, i, j], view)


def bind_pad(k: Binding) -> Iterator[Call]:
    """pad: the border is written, axis by axis, and x copied into the middle."""
    (x,), (y,) = k.operands, k.results
    middle = y
    for axis, (low, high) in enumerate(zip(k.node.attrs["low"], k.node.attrs["high"], strict=True)):
        size = middle.shape[axis]
        for part in (slice(0, low), slice(size - high, size)):
            if part.start < part.stop:
                border = middle[(slice(None),) * axis + (part,)]
                yield partial(border.fill, k.node.attrs["value"])
        middle = middle[(slice(None),) * axis + (slice(low, size - high),)]
    yield partial(np.copyto, middle, x)


def bind_slice(k: Binding) -> Iterator[Call]:
    """slice: a copy."""
    (x,), (y,) = k.operands, k.results
    start = k.node.attrs["start"]
    yield partial(
        np.copyto, y, x[tuple(slice(s, s + n) for s, n in zip(start, y.shape, strict=True))]
    )


def bind_transpose(k: Binding) -> Iterator[Call]:
    """transpose: a copy."""
    yield partial(np.copyto, k.results[0], np.transpose(k.operands[0], k.node.attrs["perm"]))


def bind_reverse(k: Binding) -> Iterator[Call]:
    """reverse: a copy."""
    yield partial(np.copyto, k.results[0], np.flip(k.operands[0], k.node.attrs["axes"]))


def bind_broadcast(k: Binding) -> Iterator[Call]:
    """broadcast, where something other than a sweep reads it: a copy."""
    (x,), (y,), axes = k.operands, k.results, k.node.attrs["axes"]
    placed = x.reshape([n if i in axes else 1 for i, n in enumerate(y.shape)])
    yield partial(np.copyto, y, placed)


def bind_full(k: Binding) -> Iterator[Call]:
    """full, where something other than a sweep reads it."""
    yield partial(k.results[0].fill, k.node.attrs["value"])


def bind_max(k: Binding) -> Iterator[Call]:
    """max: NumPy's, which hands NaN on."""
    yield partial(np.maximum.reduce, k.operands[0], axis=k.node.attrs["axes"], out=k.results[0])


def correct_scratch(node: Node, rows: int) -> int:
    """Bytes of the predicted labels."""
    return node.tensor.size(rows) * 8


def bind_correct(k: Binding) -> Iterator[Call]:
    """correct: argmax of each row, compared with the labels."""
    (scores, labels), (y,) = k.operands, k.results
    predicted = k.room[: y.size * 8].view(np.int64)
    yield partial(scores.argmax, 1, predicted)
    yield partial(np.equal, predicted, labels, y)


def bind_one_hot(k: Binding) -> Iterator[Call]:
    """one_hot: labels compared with every class."""
    classes = np.arange(k.node.attrs["classes"])
    yield partial(np.equal, k.operands[0][:, None], classes, k.results[0])


def pool_scratch(node: Node, rows: int) -> int:
    """Bytes of the window entries, gathered, and of two masks."""
    x, (kh, kw) = node.inputs[0].tensor, node.attrs["kernel"]
    size = node.type.items[0].size(rows)  # type: ignore[union-attr]
    return size * (kh * kw * x.numpy.itemsize + 2)


def bind_max_pool2d(k: Binding) -> Iterator[Call]:
    """max_pool2d: the entries of all windows side by side, their maximum, and which came first.

    The winner's number is how many entries in a row, from the first, are not the maximum. NaN is
    the maximum wherever it stands, although it equals nothing.
    """
    (x,), (y, winner) = k.operands, k.results
    kh, kw = k.node.attrs["kernel"]
    count, nbytes = kh * kw, kh * kw * y.nbytes
    entries = k.room[:nbytes].view(y.dtype).reshape(count, *y.shape)
    miss, one = k.room[nbytes : nbytes + 2 * y.size].view(bool).reshape(2, *y.shape)
    for entry, (_, _, view) in zip(entries, taps(x, (kh, kw), k.node.attrs["stride"]), strict=True):
        yield partial(np.copyto, entry, view)
    yield partial(np.copyto, y, entries[0])
    for entry in entries[1:]:
        yield partial(np.maximum, y, entry, out=y)
    yield partial(winner.fill, 0)
    for i, entry in enumerate(entries[:-1]):
        yield partial(np.not_equal, entry, y, one)
        yield partial(np.logical_and, miss, one, out=miss) if i else partial(np.copyto, miss, one)
        yield partial(np.equal, entry, entry, one)
        yield partial(np.logical_and, miss, one, out=miss)
        yield partial(np.add, winner, miss.view(np.uint8), winner)


def unpool_scratch(node: Node, rows: int) -> int:
    """Bytes of one mask and, where windows overlap, of one masked gradient."""
    g = node.inputs[0].tensor
    return g.size(rows) * (1 + g.numpy.itemsize)


def bind_max_unpool2d(k: Binding) -> Iterator[Call]:
    """max_unpool2d: for each entry of the windows, g where that entry won and 0 elsewhere.

    The selection is a product of bits with 0 or 1, which keeps NaN and infinities where they are.
    """
    (g, winner), (dx,) = k.operands, k.results
    kernel, stride = k.node.attrs["kernel"], k.node.attrs["stride"]
    bits = np.dtype(f"u{g.itemsize}")
    part = k.room[: g.nbytes].view(g.dtype).reshape(g.shape)
    won = k.room[g.nbytes : g.nbytes + g.size].view(bool).reshape(g.shape)
    apart = kernel[0] <= stride[0] and kernel[1] <= stride[1]
    covered = kernel == stride and g.size * math.prod(kernel) == dx.size
    if not covered:
        yield partial(dx.fill, 0.0)
    for i, j, view in taps(dx, kernel, stride):
        yield partial(np.equal, winner, np.uint8(i * kernel[1] + j), won)
        if apart:
            yield partial(np.multiply, g.view(bits), won, view.view(bits))
        else:
            yield partial(np.multiply, g.view(bits), won, part.view(bits))
            yield partial(np.add, view, part, view)


def mask_scratch(node: Node, rows: int) -> int:
    """Bytes of the hashes, of what is mixed into them, and of the comparison."""
    return node.tensor.size(rows) * 9 + 64


def bind_dropout_mask(k: Binding) -> Iterator[Call]:
    """dropout_mask: the op's hash in place, for the elements from row `at` on."""
    (seed, step), (y,) = k.operands, k.results
    attrs = k.node.attrs
    words, room = k.room[:8].view(np.uint32), k.room[64:]
    x, mixed = (room[i * 4 * y.size :][: 4 * y.size].view(np.uint32) for i in (0, 1))
    keep = room[8 * y.size :][: y.size].view(bool)
    rows = len(y) if k.node.tensor.per_row else 1
    shape = (1, *y.shape[1:]) if k.node.tensor.per_row else y.shape
    row = np.ascontiguousarray(element_indices(shape, attrs["perm"])).reshape(-1)
    first = (np.arange(k.row, k.row + rows, dtype=np.uint64) * row.size).astype(np.uint32)
    yield partial(_set_stream, words, seed, step, attrs["key"])
    yield partial(np.add, first[:, None], row, x.reshape(rows, row.size))
    yield partial(np.bitwise_xor, x, words[:1], x)
    for i in (1, 0):
        for shift, factor in HASH_ROUNDS:
            yield partial(np.right_shift, x, np.uint32(shift), mixed)
            yield partial(np.bitwise_xor, x, mixed, x)
            yield partial(np.multiply, x, np.uint32(factor), x)
        yield partial(np.right_shift, x, np.uint32(16), mixed)
        yield partial(np.bitwise_xor, x, mixed, x)
        if i:
            yield partial(np.add, x, words[1:], x)
    threshold = drop_threshold(attrs["p"])
    if threshold >> 32:
        yield partial(y.fill, 0.0)
        return
    scale = np.asarray(keep_scale(attrs["p"]), DTYPES[attrs["dtype"]])
    yield partial(np.greater_equal, x, np.uint32(threshold), keep)
    yield partial(np.multiply, keep.reshape(y.shape), scale, y)


def _set_stream(words: np.ndarray, seed: np.ndarray, step: np.ndarray, key: int) -> None:
    words[:] = stream(int(seed), int(step), key)


def bind_rows_reciprocal(k: Binding) -> Iterator[Call]:
    """rows_reciprocal: known when the batch is."""
    yield partial(k.results[0].fill, 1.0 / k.rows)
