"""The CUDA sources, compiled when a kernel is first asked for, and their launch.

Kernels do not know who launches them: they call `xp.launch`, which is the `launch` below. Tests
without a GPU put another `launch` in its place, which runs the same sources compiled for the host.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 512
"""Rows that one block sums; a batch of the usual size has no more, and takes one launch."""
REALS = {"float32": "float", "float64": "double"}
"""What `real` is in the sources, by the dtype that a kernel computes in."""
WIDE = {"int32": 0, "int64": 1}
"""What `wide` is in the sources, by the dtype of labels or indices; they take no other dtype."""
SOURCES = Path(__file__).with_name("sources")
THREADS = 256
"""Threads of a block of the usual size."""
MOST_THREADS = 1024
"""Threads of a block that is the only one of its launch."""
WARP = 32
"""Threads of a warp, which run together; a block is a whole number of warps."""
LANES = 16
"""Parts in which a column is summed, each by a thread of another warp; `LANES` in the sources."""
ENOUGH = 256
"""Blocks that give all parts of a GPU work: with as many, each block may do more."""
A_WARP = 8 * WARP
"""Numbers of a row that are worth another warp: the warps of a block wait for one another."""
PACK = 16
"""Bytes that a thread reads at once: `Pack` in the sources."""


@functools.cache
def sources() -> dict[str, str]:
    """The text of every source, complete, by the name of its file."""
    common = (SOURCES / "common.cuh").read_text(encoding="utf-8")
    paths = sorted(SOURCES.glob("*.cu"))
    return {path.stem: common + path.read_text(encoding="utf-8") for path in paths}


@functools.cache
def kernels() -> dict[str, str]:
    """The source that each kernel is in, by the kernel's name."""
    return {
        name: source
        for source, text in sources().items()
        for name in re.findall(r"^KERNEL (\w+)\(", text, re.MULTILINE)
    }


def options(dtype: Any) -> tuple[str, ...]:
    """The compiler's options; a kernel that computes with integers only ignores the dtype."""
    return (f"-DREAL={REALS[np.dtype(dtype).name]}",)


@functools.cache
def compiled(kernel: str, real: str) -> Any:
    """A kernel as an object of CuPy's, which loads it once for each device."""
    import cupy

    module = cupy.RawModule(code=sources()[kernels()[kernel]], options=options(real))
    return module.get_function(kernel)


def on_device(device: int, *given: Any) -> None:
    """Raise ValueError unless every array given is on the current device.

    A kernel would read the memory of another device, if it may at all, as if it were its own.
    """
    for array in given:
        there = getattr(getattr(array, "data", None), "device_id", device)
        if there != device:
            raise ValueError(
                f"an array of {tuple(array.shape)} is on cuda:{there}, and the current device is "
                f"cuda:{device}; call within `with cupy.cuda.Device({there}):`"
            )


def launch(kernel: str, dtype: Any, blocks: int, threads: int, *args: Any) -> None:
    """Start a kernel on the current stream.

    Arrays are passed as their addresses, None as a null pointer, and NumPy's 0-d arrays by value.
    The caller makes sure that arrays are contiguous.
    """
    import cupy

    on_device(cupy.cuda.runtime.getDevice(), *args)
    compiled(kernel, np.dtype(dtype).name)((blocks,), (threads,), args)


def elementwise(xp: Any, kernel: str, dtype: Any, size: int, *args: Any, each: int = 1) -> None:
    """Start a kernel with one thread for every `each` of `size` elements; nothing if size is 0."""
    if size:
        xp.launch(kernel, dtype, -(-size // (each * THREADS)), THREADS, *args)


def by_pack(xp: Any, kernel: str, dtype: Any, size: int, *args: Any) -> None:
    """Start a kernel with one thread for every pack of `size` numbers."""
    elementwise(xp, kernel, dtype, size, *args, each=PACK // np.dtype(dtype).itemsize)


def by_row(xp: Any, kernel: str, dtype: Any, rows: int, length: int, *args: Any) -> None:
    """Start a kernel with one block per row, which has one warp for every `A_WARP` numbers."""
    if rows:
        warps = -(-length // A_WARP)
        xp.launch(kernel, dtype, rows, max(WARP, min(THREADS, WARP * warps)), *args)


def real(*arrays: Any) -> bool:
    """Whether all arrays have the same dtype, float32 or float64; None is passed over."""
    dtypes = {a.dtype for a in arrays if a is not None}
    return len(dtypes) == 1 and dtypes.pop().name in REALS


def contiguous(xp: Any, array: Any) -> Any:
    """The array, or a copy where its numbers do not lie one after another."""
    return array if array.flags.c_contiguous else xp.asarray(array, order="C", copy=True)


def _columns_at_once(xp: Any, parts: int, columns: int, x: Any, *others: Any) -> int:
    """How many columns a thread sums: a pack if that leaves enough blocks and all are aligned."""
    each = PACK // x.itemsize
    aligned = all(a is None or not xp.address(a) % PACK for a in (x, *others))
    many = parts * columns >= ENOUGH * each * WARP
    return each if many and aligned and not columns % each else 1


def column_sum(xp: Any, x: Any, kept: Any = None, terms: Any = None) -> Any:
    """The sum over the rows of a matrix, in an order that depends on its shape only.

    If `kept` is given, a number of `x` counts as 0 where `kept` is 0. If `terms` is given, the
    numbers that are summed are written to it, rounded to bfloat16 if that is the dtype of `terms`.
    """
    rows, columns = x.shape
    if not rows:
        return xp.zeros((columns,), dtype=x.dtype)
    x = xp.contiguous(x)
    chunk = max(CHUNK, 2 ** math.ceil(math.log2(rows) / 2))
    while columns:
        parts = -(-rows // chunk)
        out = xp.empty((parts, columns) if parts > 1 else (columns,), dtype=x.dtype)
        each = _columns_at_once(xp, parts, columns, x, kept, terms, out)
        blocks = parts * -(-columns // (each * WARP))
        how = (blocks, LANES * WARP, x, kept, out, rows, columns, chunk, each)
        if terms is None:
            xp.launch("column_sum", x.dtype, *how)
        else:
            name = "column_sum_and_terms" if terms.dtype == x.dtype else "column_sum_to_bfloat16"
            xp.launch(name, x.dtype, *how, terms)
        if parts == 1:
            return out
        x, rows, chunk, kept, terms = out, parts, parts, None, None
    return xp.empty((0,), dtype=x.dtype)
