"""Loops that Numba compiles, where it is installed: one pass over memory instead of several.

They do what NumPy's own way does, operation by operation, so that the numbers are the same to the
last bit, whichever runs, and on however many threads. Numba keeps what it compiled on disk for the
next process. To import and load it takes a second, so that it is not asked for before there is
as much to save: `WORTH` elements have been updated, or the program has imported it itself.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

WORTH = 300_000_000
"""Elements whose update takes a second longer without Numba."""
SHARE = 1 << 17
"""Elements that a thread gets at least: below, waking it takes longer than its work."""

seconds: dict[str, float] = {}
"""How long it took to import Numba, and to compile each function or load it from disk."""
_done = 0


def _adam(  # type: ignore[no-untyped-def]
    p, g, m, v, rate, floor, beta1, beta2, rest1, rest2, decay, shrink  # noqa: ANN001
) -> None:  # fmt: skip
    for i in range(p.size):
        d = g[i] if decay == 0 else g[i] + decay * p[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * (d * d)
        p[i] = p[i] * shrink - rate * (m[i] / (math.sqrt(v[i]) + floor))


def adam(vectors: tuple[np.ndarray, ...], numbers: tuple[Any, ...]) -> bool:
    """One update of Adam in place, of vectors (p, g, m, v); False where Numba should not run."""
    global _done  # noqa: PLW0603 (one count for the process)
    size, dtype = vectors[0].size, vectors[0].dtype
    if _done < WORTH and "numba" not in sys.modules:
        _done += size
        return False
    loop = _compiled(_adam, 4, len(numbers), dtype)
    if loop is None:
        return False
    given = [dtype.type(x) for x in numbers]
    parts = min(_threads(), max(size // SHARE, 1))
    cuts = [size * i // parts for i in range(parts + 1)]
    pieces = [[v[a:b] for v in vectors] for a, b in pairwise(cuts)]
    others = [_pool().submit(loop, *piece, *given) for piece in pieces[1:]]
    loop(*pieces[0], *given)
    for other in others:
        other.result()
    return True


def version() -> str | None:
    """Numba's version; None where there is none, which is known without importing it."""
    return metadata.version("numba") if find_spec("numba") is not None else None


@cache
def _compiled(
    function: Callable[..., None], vectors: int, numbers: int, dtype: Any
) -> Callable[..., None] | None:
    """The loop for a dtype; None where there is no Numba."""
    if find_spec("numba") is None:
        return None
    start = time.perf_counter()
    import numba

    seconds.setdefault("import", time.perf_counter() - start)
    start = time.perf_counter()
    kind = numba.from_dtype(dtype)
    signature = numba.void(*[kind[::1]] * vectors, *[kind] * numbers)
    compile_ = numba.njit(signature, cache=True, nogil=True, error_model="numpy")
    loop: Callable[..., None] = compile_(function)
    seconds[f"{function.__name__.strip('_')}, {dtype}"] = time.perf_counter() - start
    return loop


@cache
def _threads() -> int:
    """As many as Numba would take: a core each, or NUMBA_NUM_THREADS."""
    import numba

    return int(numba.get_num_threads())


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(_threads() - 1, 1), "polynet-numpy")
