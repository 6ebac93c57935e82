"""Randomness: a counter-based generator, so that a mask is a pure function of where it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import CompileError
from ..graph import Builder, Node
from ..op import REQUIRED, Gradients, Op, register
from ..types import DTYPES, TensorType
from .shape import inverse

MASK64 = (1 << 64) - 1


@register
class DropoutMask(Op):
    """0 with probability p, else 1/(1-p), drawn anew for each (seed, step, key) and element.

    The element is its index in the tensor the user wrote, in row-major order: axis i of the result
    is axis `perm[i]` of that tensor, so the mask is the same in every layout. Its 32-bit hash is
    compared with p * 2^32. Operands: seed and step, i64[]. No gradient.
    """

    kinds = "ii"
    attrs = {"shape": REQUIRED, "p": REQUIRED, "key": REQUIRED, "perm": None, "dtype": "f32"}
    examples = (
        "dropout_mask i64[], i64[] {shape=(N, 6), p=0.5, key=1}",
        "dropout_mask i64[], i64[] {shape=(N, 4, 5, 3), p=0.3, key=2, perm=(0, 2, 3, 1)}",
    )
    domain = (0, 9)

    def infer(
        self,
        seed: TensorType,
        step: TensorType,
        *,
        shape: tuple,
        p: float,
        key: int,
        perm: tuple | None,
        dtype: str,
    ) -> TensorType:
        if seed.shape or step.shape:
            raise CompileError(f"dropout_mask: got {seed} and {step}, expected i64[] twice")
        if not 0.0 <= p <= 1.0:
            raise CompileError(f"dropout_mask: got p = {p}, expected a number from 0 to 1")
        if perm is not None and sorted(perm) != list(range(len(shape))):
            raise CompileError(f"dropout_mask: {perm} is no order of the axes of {shape}")
        return TensorType(shape, dtype)

    def evaluate(
        self,
        xp: Any,
        seed: Any,
        step: Any,
        *,
        shape: tuple,
        p: float,
        key: int,
        perm: tuple | None,
        dtype: str,
    ) -> Any:
        bits = hash32(element_indices(shape, perm), *stream(int(seed), int(step), key))
        scale = np.asarray(keep_scale(p), DTYPES[dtype])
        return np.where(bits >= drop_threshold(p), scale, np.zeros((), scale.dtype))

    def gradient(self, b: Builder, node: Node, g: Node) -> Gradients:
        return None, None


def element_indices(shape: tuple[int, ...], perm: tuple[int, ...] | None) -> np.ndarray:
    """The row-major index, modulo 2^32, of each element of `shape` in the tensor the user wrote."""
    order = perm or tuple(range(len(shape)))
    logical = tuple(shape[i] for i in inverse(order))
    indices = np.arange(math.prod(shape), dtype=np.uint64).astype(np.uint32)
    return np.transpose(indices.reshape(logical), order)


def drop_threshold(p: float) -> int:
    """Hashes below this are dropped: p of all 2^32."""
    return round(p * 2**32)


def keep_scale(p: float) -> float:
    """What keeps the expectation: 1/(1-p), and 0 where everything is dropped."""
    return 1.0 / (1.0 - p) if p < 1.0 else 0.0


def stream(seed: int, step: int, key: int) -> tuple[int, int]:
    """The two 32-bit words that make the draws of (seed, step, key) their own.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), applied to each in turn.
    """
    word = 0
    for part in (seed, step, key):
        word = (word ^ part) + 0x9E3779B97F4A7C15 & MASK64
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK64
        word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK64
        word ^= word >> 31
    return word & 0xFFFFFFFF, word >> 32


# x ^= x >> a; x *= m, as often as there are pairs, and a last x ^= x >> 16.
# Source: C. Wellons, "Prospecting for Hash Functions", lowbias32 (bias 0.174).
HASH_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B))


def hash32(index: np.ndarray, low: int, high: int) -> np.ndarray:
    """The 32-bit hash of each index in the stream (low, high): lowbias32, twice."""
    x = index ^ np.uint32(low)
    for word in (high, 0):
        for shift, factor in HASH_ROUNDS:
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        x = (x ^ (x >> np.uint32(16))) + np.uint32(word)
    return x
