"""Matrix products: small ones by a kernel of ours, the others by cuBLASLt.

CuPy refuses to call cuBLAS while a stream is being captured, so a product in a CUDA graph cannot
use it. Products here never use it, so that a captured step gives the same bits as one that is not
captured. cuBLASLt gets a description of the product: the matrices' shapes, their layout in memory,
and how many there are. This module writes the description. It consists of numbers only, so it can
be tested on any machine.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from polynet_cupy.launch import THREADS, WARP, by_pack, column_sum, elementwise, real
from polynet_cupy.rows import stopped

PRECISIONS = ("float32", "tf32", "bfloat16")
"""The precisions of products of float32 matrices: see `CupyBackend.with_precision`."""
ALIGNED = 256
"""The alignment of new memory in bytes; a part of an array may be aligned to less."""
MOST_AT_ONCE = 65535 // ALIGNED * ALIGNED
"""The most products in one call: kernels count them in the z axis of the grid, which ends at 65535.

It is a multiple of `ALIGNED`, so that the results of every call are aligned, as cuBLASLt assumes.
"""


class Operand(NamedTuple):
    """A matrix, or a stack of them, as a library sees it that stores matrices column by column.

    Such a library sees a matrix of ours, which lies row by row, as its transpose. `transposed` says
    that the library must transpose what it sees. In numbers, `ld` is the distance from one of its
    columns to the next, and `stride` the distance from one matrix to the next. `aligned` is the
    alignment in bytes.
    """

    transposed: bool
    ld: int
    stride: int
    aligned: int


class Product(NamedTuple):
    """`batch` products (m, k) × (k, n) in a precision, or in float64; the result is contiguous.

    With `bias`, a bias is added to each product; with `relu`, numbers below 0 then become 0.
    """

    precision: str
    batch: int
    m: int
    n: int
    k: int
    left: Operand
    right: Operand
    bias: bool
    relu: bool = False


TILE = 16
"""Rows and columns of the tile that one block of a small product computes, a thread per number."""
FEW_TILES, FEW_TERMS, FEW = 400, 800, 400 * 256
"""Limits of a small product: its tiles, the terms of its sums, and these two multiplied. Up to them
our kernel was faster on an H100, in float32 (`tests/benchmarks/results/gpu_products.md`)."""


def small(xp: Any, x: Any, y: Any, *, sums: bool = False) -> bool:
    """Whether our kernel computes a product of two matrices sooner than cuBLASLt.

    With `sums`, the rows of `x` are summed as well. cuBLASLt would need a second kernel for that,
    so ours is the faster one for larger products too.
    """
    if xp.precision != "float32" and x.dtype.name != "float64":
        return False
    if not x.ndim == y.ndim == 2 or not all(a.flags.forc for a in (x, y)):
        return False
    tiles, terms = _tiles(x.shape[0], y.shape[1]), x.shape[1]
    return tiles <= FEW_TILES * (2 if sums else 1) and terms <= FEW_TERMS and tiles * terms <= FEW


def _tiles(m: int, n: int) -> int:
    return -(-m // TILE) * -(-n // TILE)


def small_product(
    xp: Any, x: Any, y: Any, bias: Any = None, *, kept: Any = None, relu: bool = False
) -> tuple[Any, Any]:
    """The product of two small matrices, and the sums of the rows of `x`.

    `x` counts as 0 where `kept` is 0, if that is given; it has the layout of `x`. With `relu`,
    numbers of the product below 0 become 0.
    """
    (m, k), n = x.shape, y.shape[1]
    out, sums = (xp.empty(shape, dtype=x.dtype) for shape in ((m, n), (m,)))
    by_row = [a.flags.c_contiguous for a in (x, y)]
    x, y = (a if rows else a.T for a, rows in zip((x, y), by_row, strict=True))
    kept = kept if kept is None or by_row[0] else kept.T
    how = (m, n, k, *map(int, (*by_row, relu)))
    blocks = _tiles(m, n)
    xp.launch("small_product", out.dtype, blocks, TILE**2, x, kept, y, bias, out, sums, *how)
    return out, sums


def matmul(xp: Any, x: Any, y: Any, /) -> Any:
    """The matrix product of the standard; by CuPy's own where cuBLASLt lacks the dtype."""
    if not x.ndim or not y.ndim or not real(x, y) or not y.size or not x.size:
        return xp.plain_matmul(x, y)
    row, column = x.ndim == 1, y.ndim == 1
    x = x[None, :] if row else x
    y = y[:, None] if column else y
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(
            f"matmul of {tuple(x.shape)} and {tuple(y.shape)}: the last axis of the first must be "
            "as long as the second-last of the second"
        )
    out = product(xp, x, y)
    out = out[..., 0, :] if row else out
    return out[..., 0] if column else out


def _is_to_be_rounded(xp: Any, x: Any) -> bool:
    return bool(xp.precision == "bfloat16" and x.dtype.name == "float32")


def rounded(xp: Any, x: Any) -> Any:
    """Matrices as products take them: rounded if the precision is bfloat16, in the same layout."""
    if not _is_to_be_rounded(xp, x):
        return x
    turned = not x.flags.c_contiguous and x.mT.flags.c_contiguous
    x = xp.contiguous(x.mT if turned else x)
    out = xp.empty(x.shape, dtype=xp.uint16)
    by_pack(xp, "to_bfloat16", "float32", x.size, x, out, x.size)
    return out.mT if turned else out


def _rounded_and_summed(xp: Any, x: Any, kept: Any) -> tuple[Any, Any]:
    """A matrix, `rounded`, and the sums of its columns before rounding; 0 where `kept` is 0."""
    if _is_to_be_rounded(xp, x):
        terms = xp.empty(x.shape, dtype=xp.uint16)
    elif kept is not None:
        terms = xp.empty(x.shape, dtype=x.dtype)
    else:
        return x, column_sum(xp, x)
    return terms, column_sum(xp, x, kept, terms)


def product(xp: Any, x: Any, y: Any, bias: Any = None, *, relu: bool = False) -> Any:
    """The product of matrices, or of stacks of them, none of them empty.

    `bias` has one number per column. With `relu`, numbers below 0 become 0. The matrices may be
    `rounded` already, which saves work for a matrix that enters several products.
    """
    if small(xp, x, y):
        return small_product(xp, x, y, bias, relu=relu)[0]
    return library_product(xp, x, y, bias, relu=relu)


def library_product(xp: Any, x: Any, y: Any, bias: Any = None, *, relu: bool = False) -> Any:
    """`product`, but by cuBLASLt whatever the size."""
    if bias is not None and xp.address(bias) % ALIGNED:
        bias = xp.asarray(bias, copy=True)  # cuBLASLt is not told how a bias is aligned
    x, y = rounded(xp, x), rounded(xp, y)
    x = turned(xp, x) if _is_worth_turning(xp, x, y) else x
    batch = _broadcast(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
    (m, k), n = x.shape[-2:], y.shape[-1]
    x, y = (_stacked(xp, a, batch) for a in (x, y))
    precision = "float64" if x.dtype.name == "float64" else xp.precision
    out = xp.empty((*batch, m, n), dtype=xp.float64 if precision == "float64" else xp.float32)
    if out.size:
        total = math.prod(batch)
        for first in range(0, total, MOST_AT_ONCE):
            operands = _operand(xp, x, first), _operand(xp, y, first)
            count = min(MOST_AT_ONCE, total - first)
            how = Product(precision, count, m, n, k, *operands, bias is not None, relu)
            done = xp.gemm(how, first, out, x, y, bias)
            if done != how:
                part = xp.reshape(out, (total, m, n))[first : first + count, ...]
                _finish(xp, part, None if done.bias else bias, relu=relu and not done.relu)
    return out


def _finish(xp: Any, out: Any, bias: Any, *, relu: bool) -> None:
    """Add the bias, and apply the ReLU, that cuBLASLt left out of a product; in place."""
    if bias is not None:
        elementwise(xp, "add_bias", out.dtype, out.size, out, bias, out.size, out.shape[-1])
    if relu:
        by_pack(xp, "relu_forward", out.dtype, out.size, out, out, out.size)


LINE, ENOUGH = 2048, 1 << 33
"""Columns of a product, and terms of all its sums, from which it is worth turning a matrix."""


def _is_worth_turning(xp: Any, x: Any, y: Any) -> bool:
    """Whether a product is in TF32 and large, and neither matrix lies along the sums.

    Hopper's tensor cores read TF32 along the sums only, so a matrix that lies across them is turned
    on the way to the cores. On an H100 such a product took 1.4 times as long as one whose first
    matrix was turned before.
    """
    if xp.precision != "tf32" or x.dtype.name != "float32" or not x.ndim == y.ndim == 2:
        return False
    (m, k), n = x.shape, y.shape[1]
    across = not x.flags.c_contiguous and x.T.flags.c_contiguous and y.flags.c_contiguous
    return across and n >= LINE and m * n * k >= ENOUGH


def turned(xp: Any, x: Any) -> Any:
    """A copy in row order of a matrix that lies column by column."""
    out = xp.empty(x.shape, dtype=x.dtype)
    columns, rows = x.shape
    blocks = -(-rows // WARP) * -(-columns // WARP)
    xp.launch("turn", x.dtype, blocks, THREADS, x.T, out, rows, columns)
    return out


def linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """y = x Wᵀ + b; the gradient of b is the sum of g over the rows."""
    return _linear(xp, x, weight, bias, relu=False)


def linear_relu(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """max(x Wᵀ + b, 0): where that is 0, g is set to 0 before all sums and products."""
    return _linear(xp, x, weight, bias, relu=True)


def _linear(xp: Any, x: Any, weight: Any, bias: Any, *, relu: bool) -> Any:
    if x.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        return NotImplemented
    if not real(x, weight, bias) or not x.size or not weight.size:
        return NotImplemented
    if x.shape[1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return NotImplemented
    x, weight = rounded(xp, x), rounded(xp, weight)
    bias = None if bias is None else xp.contiguous(bias)

    y = product(xp, x, weight.T, bias, relu=relu)
    kept, biased = y if relu else None, bias is not None
    return y, lambda g, needs: _linear_back(xp, g, x, weight, kept, needs, biased=biased)


def _linear_back(
    xp: Any, g: Any, x: Any, weight: Any, kept: Any, needs: tuple[bool, ...], *, biased: bool
) -> tuple[Any, ...]:
    """The gradients of a linear layer; `kept` is the result of its ReLU, or None without a ReLU."""
    found: list[Any] = [None] * len(needs)
    g = g if kept is None else xp.contiguous(g)
    summed = any(needs[2:])
    together = (needs[1] or summed) and small(xp, g.T, x, sums=biased)
    if summed and not together:
        (g, found[2]), kept = _rounded_and_summed(xp, g, kept), None
    elif kept is not None and not (together and (not needs[0] or small(xp, g, weight))):
        g, kept = stopped(xp, g, kept), None
    g = g if together else rounded(xp, g)
    if needs[0]:
        found[0] = _kept_product(xp, g, weight, kept)
    if together:  # even if only one of the two is asked for, so that its bits are always the same
        both = small_product(xp, g.T, x, kept=None if kept is None else kept.T)
        found[1:] = [a if wanted else None for a, wanted in zip(both, needs[1:], strict=False)]
    elif needs[1]:
        found[1] = product(xp, g.T, x)
    return tuple(found)


def _kept_product(xp: Any, x: Any, y: Any, kept: Any) -> Any:
    """`product`, with `x` counted as 0 where `kept` is 0; a `kept` is for small products only."""
    return product(xp, x, y) if kept is None else small_product(xp, x, y, kept=kept)[0]


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which the shapes of two stacks of matrices broadcast."""
    if left == right:
        return left
    axes = max(len(left), len(right))
    pairs = zip((1,) * (axes - len(left)) + left, (1,) * (axes - len(right)) + right, strict=True)
    shape = tuple(b if a == 1 else a for a, b in pairs)
    for stack in (left, right):
        if any(n not in (1, whole) for n, whole in zip(stack[::-1], shape[::-1], strict=False)):
            raise ValueError(f"matmul: stacks of matrices {left} and {right} do not broadcast")
    return shape


def placed(xp: Any, x: Any) -> Any:
    """The matrices, or a copy where cuBLASLt cannot take their layout.

    A product would make that copy itself. Making it before saves copies where the matrices enter
    several products.
    """
    return x if _place(x) is not None else xp.contiguous(x)


def _stacked(xp: Any, x: Any, batch: tuple[int, ...]) -> Any:
    """The matrices broadcast to the shape `batch`, in a layout that cuBLASLt can take."""
    if tuple(x.shape[:-2]) != batch:
        x = xp.broadcast_to(x, (*batch, *x.shape[-2:]))
    return placed(xp, x)


def _operand(xp: Any, x: Any, first: int) -> Operand:
    """The description of the matrices from number `first` on."""
    place = _place(x)
    assert place is not None
    transposed, ld, stride = place
    address = xp.address(x) + first * stride * x.itemsize
    return Operand(transposed, ld, stride, min(ALIGNED, address & -address))


def _place(x: Any) -> tuple[bool, int, int] | None:
    """`transposed`, `ld` and `stride` of an `Operand`; None if the matrices have no such layout."""
    rows, columns = x.shape[-2:]
    steps = [s // x.itemsize for s in x.strides]
    stride = _one_stride(x.shape[:-2], steps[:-2])
    if stride is None:
        return None
    down, across = steps[-2:]
    if (across == 1 or columns == 1) and (rows == 1 or down >= columns):
        return False, columns if rows == 1 else down, stride
    if (down == 1 or rows == 1) and (columns == 1 or across >= rows):
        return True, rows if columns == 1 else across, stride
    return None


def _one_stride(shape: tuple[int, ...], steps: list[int]) -> int | None:
    """The distance from one matrix to the next, or None if it is not the same all over a stack."""
    axes = [(n, s) for n, s in zip(shape, steps, strict=True) if n > 1]
    for (_, outer), (n, inner) in itertools.pairwise(axes):
        if outer != n * inner:
            return None
    stride = axes[-1][1] if axes else 0
    return stride if stride >= 0 else None
