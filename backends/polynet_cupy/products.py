"""Matrix products: small ones by a kernel, the others as cuBLASLt takes them.

CuPy refuses cuBLAS while a stream is being captured, so a product that is to stand in a CUDA graph
goes round it; here it does so always, that a captured step gives the bits of one that is not. To
cuBLASLt it is said which matrices they are, how they lie in memory, and how many: numbers only, the
same on any machine.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from polynet_cupy.launch import THREADS, WARP, by_pack, column_sum, elementwise, real
from polynet_cupy.rows import stopped

PRECISIONS = ("float32", "tf32", "bfloat16")
"""In what products of float32 matrices can be computed: see `CupyBackend.with_precision`."""
ALIGNED = 256
"""Bytes to which memory comes aligned; of a part of an array it may be less."""
MOST_AT_ONCE = 65535 // ALIGNED * ALIGNED
"""Products in one call: kernels count them in the third of a grid's numbers, up to 65535.

By so many the results of every call are aligned, which cuBLASLt takes them to be.
"""


class Operand(NamedTuple):
    """A matrix, or several, for a library whose columns lie one after another.

    To it, a matrix of ours is its own transpose. `transposed` says that it must turn the matrix
    round; `ld` is the distance of its columns, `stride` that of the matrices, in numbers.
    """

    transposed: bool
    ld: int
    stride: int
    aligned: int


class Product(NamedTuple):
    """`batch` products (m, k) × (k, n) in a precision, or float64; the result lies in order.

    To each a bias is added, if so described, and then what would be below 0 is 0.
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
"""Rows and columns of what one block of a small product computes, a thread for each number."""
FEW_TILES, FEW_TERMS, FEW = 400, 800, 400 * 256
"""Tiles of a small product, terms of its sums, and both multiplied: up to there the kernel here was
the faster one on an H100, in float32 (`tests/benchmarks/results/gpu_products.md`)."""


def small(xp: Any, x: Any, y: Any, *, sums: bool = False) -> bool:
    """Whether a product of two matrices is one that the kernel here does sooner than cuBLASLt.

    Where the first's rows are to be summed, too, cuBLASLt's needs a second kernel beside it.
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
    """The product of two small matrices, and the sums of the rows of the first.

    Where `kept`, which lies as the first, is 0, so is the first; with `relu`, so is what would be
    below 0 of the product.
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
    """The matrix product of the standard; of what cuBLASLt lacks, CuPy's own."""
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
    """Matrices as products take them: in bfloat16, where that is asked for, in the same layout."""
    if not _is_to_be_rounded(xp, x):
        return x
    turned = not x.flags.c_contiguous and x.mT.flags.c_contiguous
    x = xp.contiguous(x.mT if turned else x)
    out = xp.empty(x.shape, dtype=xp.uint16)
    by_pack(xp, "to_bfloat16", "float32", x.size, x, out, x.size)
    return out.mT if turned else out


def _rounded_and_summed(xp: Any, x: Any, kept: Any) -> tuple[Any, Any]:
    """A matrix, `rounded`, and the sums of its columns, which are not; 0 where `kept` is 0."""
    if _is_to_be_rounded(xp, x):
        terms = xp.empty(x.shape, dtype=xp.uint16)
    elif kept is not None:
        terms = xp.empty(x.shape, dtype=x.dtype)
    else:
        return x, column_sum(xp, x)
    return terms, column_sum(xp, x, kept, terms)


def product(xp: Any, x: Any, y: Any, bias: Any = None, *, relu: bool = False) -> Any:
    """The product of matrices, or of stacks of them, that have numbers; `bias` is one a column.

    With `relu`, what would be below 0 is 0. The matrices may be `rounded` already, as is worth it
    for what enters several products.
    """
    if small(xp, x, y):
        return small_product(xp, x, y, bias, relu=relu)[0]
    return library_product(xp, x, y, bias, relu=relu)


def library_product(xp: Any, x: Any, y: Any, bias: Any = None, *, relu: bool = False) -> Any:
    """`product`, by cuBLASLt whatever its size."""
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
    """What cuBLASLt did not do of a product, in place."""
    if bias is not None:
        elementwise(xp, "add_bias", out.dtype, out.size, out, bias, out.size, out.shape[-1])
    if relu:
        by_pack(xp, "relu_forward", out.dtype, out.size, out, out, out.size)


LINE, ENOUGH = 2048, 1 << 33
"""Numbers of a row of a product, and terms of all its sums, that are worth turning a matrix for."""


def _is_worth_turning(xp: Any, x: Any, y: Any) -> bool:
    """Whether neither matrix lies along the sums, in TF32, and the product is a large one.

    Tensor cores of Hopper read TF32 along the sums only, and what lies across is turned round on
    its way to them: on an H100 a product took 1.4 times as long as with the first turned before.
    """
    if xp.precision != "tf32" or x.dtype.name != "float32" or not x.ndim == y.ndim == 2:
        return False
    (m, k), n = x.shape, y.shape[1]
    across = not x.flags.c_contiguous and x.T.flags.c_contiguous and y.flags.c_contiguous
    return across and n >= LINE and m * n * k >= ENOUGH


def turned(xp: Any, x: Any) -> Any:
    """A matrix whose transpose lies in order, copied so that it does itself."""
    out = xp.empty(x.shape, dtype=x.dtype)
    columns, rows = x.shape
    blocks = -(-rows // WARP) * -(-columns // WARP)
    xp.launch("turn", x.dtype, blocks, THREADS, x.T, out, rows, columns)
    return out


def linear(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """y = x Wᵀ + b; a bias's gradient is the sum over the rows."""
    return _linear(xp, x, weight, bias, relu=False)


def linear_relu(xp: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """max(x Wᵀ + b, 0): where that is 0, the gradient stops before all sums and products."""
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
    if together:  # whichever is asked for: it has the same bits always
        both = small_product(xp, g.T, x, kept=None if kept is None else kept.T)
        found[1:] = [a if wanted else None for a, wanted in zip(both, needs[1:], strict=False)]
    elif needs[1]:
        found[1] = product(xp, g.T, x)
    return tuple(found)


def _kept_product(xp: Any, x: Any, y: Any, kept: Any) -> Any:
    """The product, of a first matrix that is 0 where `kept` is, which only a small one may be."""
    return product(xp, x, y) if kept is None else small_product(xp, x, y, kept=kept)[0]


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of two stacks of matrices together."""
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
    """Matrices as they lie, or a copy where cuBLASLt cannot take them so.

    A product would copy, too: each of several, for itself.
    """
    return x if _place(x) is not None else xp.contiguous(x)


def _stacked(xp: Any, x: Any, batch: tuple[int, ...]) -> Any:
    """Matrices, as many as there are products, that lie as cuBLASLt can take them."""
    if tuple(x.shape[:-2]) != batch:
        x = xp.broadcast_to(x, (*batch, *x.shape[-2:]))
    return placed(xp, x)


def _operand(xp: Any, x: Any, first: int) -> Operand:
    """How the matrices lie, from number `first` on."""
    place = _place(x)
    assert place is not None
    transposed, ld, stride = place
    address = xp.address(x) + first * stride * x.itemsize
    return Operand(transposed, ld, stride, min(ALIGNED, address & -address))


def _place(x: Any) -> tuple[bool, int, int] | None:
    """How matrices lie: turned round, distance of columns and of matrices; None if otherwise."""
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
    """The distance of one matrix from the next, if it is the same for all of a stack."""
    axes = [(n, s) for n, s in zip(shape, steps, strict=True) if n > 1]
    for (_, outer), (n, inner) in itertools.pairwise(axes):
        if outer != n * inner:
            return None
    stride = axes[-1][1] if axes else 0
    return stride if stride >= 0 else None
