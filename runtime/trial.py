"""Whether a library has an sgemm: it is to compute one small product, exactly.

A library that a user names may have none, and end the process when it is called: Fortran's xerbla
may stop it, a wrong calling convention crashes it. So such a library is first tried in a process
of its own, which runs this file as a script: it needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import sys

# void sgemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), all of them pointers.
# Source: BLAS, https://www.netlib.org/blas. Matrices are by columns, integers have 32 bits.
SGEMM = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)
RIGHT = "right"
A = (1, 2, 3, 4, 5, 6)  # [2, 3] by rows, which is to be transposed
B = (7, 8, 9, 10, 11, 12)  # [3, 2]
C = (1, 2, -1, 3, 4, -1)  # [2, 2] in columns of 3: each last entry is to stay
PRODUCT = (99, 242, -1, 133, 330, -1)  # 2 A B - C


def trial(sgemm: int) -> str:
    """RIGHT, or what the sgemm at this address does instead.

    Read as 64-bit integers all sizes are negative: who does so refuses them, and leaves C alone.
    """
    c = _floats(*C)
    two, three = ((ctypes.c_int32 * 2)(size, -1) for size in (2, 3))
    left, right = (b"T", _floats(*A)), (b"N", _floats(*B))
    SGEMM(sgemm)(
        *(left[0], right[0], two, two, three, _floats(2), left[1], three, right[1], three),
        *(_floats(-1), c, three),
    )
    if tuple(c) == C:
        return "leaves the result alone, as one that takes 64-bit integers (ILP64) does"
    return RIGHT if tuple(c) == PRODUCT else f"makes {[*c]} of {[*PRODUCT]}"


def _floats(*values: float) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * len(values))(*values)


if __name__ == "__main__":
    path, name = sys.argv[1:]
    print(trial(ctypes.cast(getattr(ctypes.CDLL(path), name), ctypes.c_void_p).value or 0))
