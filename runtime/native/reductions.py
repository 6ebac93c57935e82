"""Sums and maxima over any axes, and what compares a row's scores with its label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .dsl import BITS, Array, Function, Value
from .jit import host
from .movers import concrete, strides
from .site import Int, Site, Work, alone

TURNS = 4  # sums in flight, so that additions do not wait for one another


def emit_sum(site: Site) -> Work:
    """sum over any axes."""
    return Reduced(site, Reduction(lambda x, y: x + y, "fadd", -0.0, 0.0)).work()


def emit_max(site: Site) -> Work:
    """max over any axes: NaN where there is one."""
    how = Reduction(lambda x, y: x.k.intrinsic("maximum", x, y), "fmaximum", None, -math.inf)
    return Reduced(site, how).work()


class Reduction:
    """How two values combine, what does so over lanes, and what changes nothing."""

    def __init__(
        self,
        combine: Callable[[Value, Value], Value],
        lanes: str,
        first: float | None,
        neutral: float,
    ) -> None:
        self.combine, self.lanes, self.first, self.neutral = combine, lanes, first, neutral

    def across(self, x: Value) -> Value:
        """The lanes of x combined."""
        return x.k.reduce(self.lanes, x, self.first)


class Reduced:
    """Loops over the axes that stay; the last axis lies in lanes whether it stays or not.

    `outer` are the axes that stay but for the last one, the first of which is shared out; `summed`
    are (size, step) of those that do not.
    """

    def __init__(self, site: Site, how: Reduction) -> None:
        self.k, self.how = site.k, how
        (self.x,), (self.y,) = site.operands, site.results
        shape, axes = site.node.inputs[0].shape, site.node.attrs["axes"]
        self.sizes, self.steps = concrete(shape, site.rows), strides(shape)
        kept = [i for i in range(len(shape)) if i not in axes]
        self.y_steps = dict(zip(kept, strides([shape[i] for i in kept]), strict=True))
        self.last = len(shape) - 1
        self.outer = [i for i in kept if i != self.last]
        self.summed = _merged([(self.sizes[i], self.steps[i]) for i in axes if i != self.last])
        over_rows = bool(shape) and not isinstance(shape[0], int) and 0 in axes
        self.accumulate = site.accumulate and over_rows

    def work(self) -> Work:
        """Shared out along the first axis that stays, if there is one."""
        if self.outer:
            return Work(self.sizes[self.outer[0]], self._run)
        if self.last in self.y_steps:
            return Work(self.sizes[self.last], self._run, host().lanes)
        return alone(lambda: self._run(0, 1))

    def _run(self, begin: Int, end: Int) -> None:
        if not self.outer:
            self._line(0, 0, begin, end)
            return
        first, *inner = self.outer
        with self.k.range(begin, end) as i:
            self._loops(inner, i * self.steps[first], i * self.y_steps[first])

    def _loops(self, rest: Sequence[int], x_at: Int, y_at: Int) -> None:
        """The lines of all indices of the axes in `rest`."""
        if not rest:
            self._line(x_at, y_at, 0, self.sizes[self.last])
            return
        axis, *inner = rest
        with self.k.range(0, self.sizes[axis]) as i:
            self._loops(inner, x_at + i * self.steps[axis], y_at + i * self.y_steps[axis])

    def _line(self, x_at: Int, y_at: Int, begin: Int, end: Int) -> None:
        """Results along the last axis from begin to end, or one result if it is reduced."""
        if self.last in self.y_steps:
            _lines(self.k, begin, end, x_at, y_at, self._column)
            return
        size = self.sizes[self.last]
        self._finish(_along(self.k, self.x.at(x_at), self.summed, size, self.how), y_at)

    def _column(self, x_at: Int, y_at: Int, lanes: int) -> None:
        """Results in a vector's lanes, or one where there are none."""
        self._finish(_down(self.k, self.x.at(x_at), self.summed, lanes, self.how), y_at)

    def _finish(self, value: Value, at: Int) -> None:
        if self.accumulate:
            value = self.how.combine(self.y.load(at, value.lanes), value)
        self.y.store(value, at)


def _lines(
    k: Function,
    begin: Int,
    end: Int,
    x_at: Int,
    y_at: Int,
    columns: Callable[[Int, Int, int], None],
) -> None:
    """Vectors of columns from begin to end."""
    width = host().lanes
    stop = (end - begin) // width * width + begin
    if isinstance(end, int) and isinstance(stop, int):
        if stop > begin:
            with k.range(begin, stop, width) as c:
                columns(x_at + c, y_at + c, width)
        if end > stop:
            columns(x_at + stop, y_at + stop, end - stop)
        return
    with k.range(begin, stop, width) as c:
        columns(x_at + c, y_at + c, width)
    with k.range(stop, end) as c:
        columns(x_at + c, y_at + c, 0)


def _merged(axes: list[tuple[Int, int]]) -> list[tuple[Int, int]]:
    """(size, step) of axes, those that lie behind one another joined."""
    result: list[tuple[Int, int]] = []
    for size, step in axes:
        if result and isinstance(size, int) and result[-1][1] == size * step:
            result[-1] = (result[-1][0] * size, step)
        else:
            result.append((size, step))
    return result


def _down(
    k: Function, x: Array, summed: Sequence[tuple[Int, int]], lanes: int, how: Reduction
) -> Value:
    """What is in the same lane of each vector, combined; in several strands over the last loop."""
    neutral = k.constant(how.neutral, x.scalar, lanes)

    def loops(rest: Sequence[tuple[Int, int]], at: Int, values: list[Value]) -> list[Value]:
        if not rest:
            return [how.combine(values[0], x.load(at, lanes)), *values[1:]]
        (size, step), *inner = rest
        if inner:
            return k.fold(0, size, values, lambda i, v: loops(inner, at + i * step, v))
        whole = size // TURNS * TURNS

        def turn(i: Int, v: list[Value]) -> list[Value]:
            return [how.combine(one, x.load(at + (i + t) * step, lanes)) for t, one in enumerate(v)]

        values = k.fold(0, whole, values, turn, TURNS)
        return k.fold(
            whole,
            size,
            values,
            lambda i, v: [how.combine(v[0], x.load(at + i * step, lanes)), *v[1:]],
        )

    a, b, c, d = loops(summed, 0, [neutral] * TURNS)
    return how.combine(how.combine(a, b), how.combine(c, d))


def _along(
    k: Function, x: Array, summed: Sequence[tuple[Int, int]], size: Int, how: Reduction
) -> Value:
    """All elements of the last axis, in every turn of the loops, combined."""
    width = host().lanes
    vector = k.constant(how.neutral, x.scalar, width)
    single = k.constant(how.neutral, x.scalar)

    def line(at: Int, values: list[Value]) -> list[Value]:
        whole = size // width * width
        total, rest = values
        (total,) = k.fold(
            0, whole, [total], lambda i, v: [how.combine(v[0], x.load(at + i, width))], width
        )
        if isinstance(size, int) and isinstance(whole, int):
            if size > whole:
                tail = x.load(at + whole, size - whole)
                rest = how.combine(rest, how.across(tail))
            return [total, rest]
        (rest,) = k.fold(whole, size, [rest], lambda i, v: [how.combine(v[0], x.load(at + i))])
        return [total, rest]

    def loops(rest: Sequence[tuple[Int, int]], at: Int, values: list[Value]) -> list[Value]:
        if not rest:
            return line(at, values)
        (count, step), *inner = rest
        return k.fold(0, count, values, lambda i, v: loops(inner, at + i * step, v))

    total, rest = loops(summed, 0, [vector, single])
    return how.combine(how.across(total), rest)


def emit_correct(site: Site) -> Work:
    """correct: the first largest score of each row, NaN the largest of all, against the label."""
    (scores, labels), (y,), k = site.operands, site.results, site.k
    classes = site.node.inputs[0].shape[1]

    def run(begin: Int, end: Int) -> None:
        with k.range(begin, end) as n:
            winner = winning_class(k, scores.at(n * classes), classes)
            hit = k.compare("eq", winner, labels.load(n))
            y.store(k.convert("zext", hit, "i8"), n)

    return Work(concrete(site.node.shape, site.rows)[0], run)


def first_largest(row: Sequence[Value], most: Value) -> Value:
    """The number, i64, of the first of a row's lanes that is `most` or NaN; of 64 lanes at most."""
    k, total, start = most.k, most.k.constant(0, "i64"), 0
    for v in row:
        hit = k.compare("eq", v, k.splat(most, v.lanes)) | k.unordered(v)
        part = k.bits(hit)
        wide = k.convert("zext", part, "i64") if v.lanes < BITS["i64"] else part
        total = total | (wide << start if start else wide)
        start += v.lanes
    return k.lowest_bit(total)


def winning_class(k: Function, scores: Array, classes: int) -> Value:
    """The number of the first largest of `classes` scores, i64."""
    best, which = scores.load(0), k.constant(0, "i64")

    def turn(i: Int, values: list[Value]) -> list[Value]:
        most, where = values
        x = scores.load(i)
        better = k.compare("gt", x, most) | (k.unordered(x) & k.ordered(most))
        return [k.select(better, x, most), k.select(better, k.integer(i), where)]

    return k.fold(1, classes, [best, which], turn)[1]
