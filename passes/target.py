"""What a program is compiled for: what the choice of forms needs to know of machine and BLAS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FORMS = ("im2col", "shift")


@dataclass(frozen=True)
class Target:
    """A machine as the cost model sees it. `products` and `conv_form` override it where they can;
    `choices` has forms that were measured to be the fastest, by `passes.forms.product_key`.

    The figures are orders of magnitude, good enough to rank forms: a pure choice must not depend on
    what else the machine was doing. cache_bytes is what a tile's working set should fit in.
    `python -m gemmc.bench forms` shows what is chosen beside what is faster.
    """

    generated: bool = False  # whether the runtime generates loops for products and convolutions
    products: str | None = None  # "loops", "blas", or None to choose, where loops are generated
    conv_form: str | None = None  # "im2col", "shift", "direct", or None to choose
    choices: Mapping[str, str] = field(default_factory=dict)
    lanes: int = 16  # float32 in a vector, and how many vectors there are registers for
    registers: int = 32
    shards: int = 1  # into how many parts workers may take a region's rows
    cache_bytes: int = 1 << 20  # a core's L2
    gemm_flops: float = 120e9  # what sgemm reaches on good shapes, FLOP/s
    copy_bytes: float = 30e9  # what a strided NumPy copy reaches, bytes written a second
    narrow: int = 24  # a product's inner dimension at which sgemm reaches half of gemm_flops


CPU = Target()
