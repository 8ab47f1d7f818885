"""Which algorithm of a product is the fastest here, of those that give the same bits.

A library names first what it thinks fastest, and is wrong now and then. So a large product that is
asked for again and again is timed, once. An algorithm is taken only if it gives, bit for bit, what
the library's own choice gives for random numbers: the clock decides how long a step takes, and
never its numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from polynet_cupy.products import Operand, Product

A = TypeVar("A")

TIMED_AT = 3
"""The call of a product at which it is timed: one that comes so often will come again."""
WORTH = 1 << 26
"""Terms of all sums of a product that is worth it: others take as long as their launch."""
PERIOD = 1_000_003
"""After so many numbers the random ones come again: a prime, that rows of no matrix are alike."""
ENOUGH = 200.0
"""Microseconds in which a clock tells algorithms apart."""
MOST_LAUNCHES = 20
ROUNDS = 3
NEAR = 1.1
"""What took longer than so many times the fastest in the first round is in no other."""
GAIN = 0.01
"""Part of the time that another algorithm must save: less is noise."""


def is_worth_it(how: Product) -> bool:
    """Whether the time of a product is more than that of its launch."""
    return how.batch * how.m * how.n * how.k >= WORTH


def timed(
    xp: Any,
    how: Product,
    algorithms: Sequence[A],
    start: Callable[[A, Any, Any, Any], object],
    microseconds: Callable[[Callable[[], object], int], float],
) -> A:
    """The fastest of the algorithms that give the bits of the first.

    `start(algorithm, out, x, y)` computes a product, and `microseconds(work, launches)` is how long
    it took to do `work` so many times, for one of them. Where the device has no room for numbers to
    try them with, it is the first.
    """
    try:
        candidates, run = alike(xp, how, algorithms, start)
        return fastest(candidates, run, microseconds)
    except MemoryError:
        return algorithms[0]


@functools.cache
def _numbers(precision: str) -> np.ndarray:
    """Random numbers as a product in that precision takes them."""
    numbers = np.random.default_rng(0).standard_normal(PERIOD, dtype=np.float32)
    if precision == "bfloat16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(np.float64 if precision == "float64" else np.float32)


def _operand(xp: Any, how: Product, operand: Operand, shape: tuple[int, int]) -> Any:
    """Random numbers in all the memory of an operand, of matrices of this shape."""
    lines, length = shape[::-1] if operand.transposed else shape
    size = (how.batch - 1) * operand.stride + (lines - 1) * operand.ld + length
    numbers = xp.asarray(_numbers(how.precision))
    return xp.tile(numbers, -(-size // PERIOD))[:size]


def alike(
    xp: Any, how: Product, algorithms: Sequence[A], start: Callable[[A, Any, Any, Any], object]
) -> tuple[list[A], Callable[[A], object]]:
    """Those that give the bits of the first for random numbers, and what runs one on these."""
    x = _operand(xp, how, how.left, (how.m, how.k))
    y = _operand(xp, how, how.right, (how.k, how.n))
    kind = xp.float64 if how.precision == "float64" else xp.float32
    expected, out = (xp.empty(how.batch * how.m * how.n, dtype=kind) for _ in range(2))
    first, *others = algorithms
    start(first, expected, x, y)
    found = [first]
    for other in others:
        out.fill(math.nan)  # what an algorithm leaves out is not what another has left there
        start(other, out, x, y)
        if xp.array_equal(out.view(xp.int32), expected.view(xp.int32)):
            found.append(other)
    return found, lambda algorithm: start(algorithm, out, x, y)


def fastest(
    candidates: Sequence[A],
    run: Callable[[A], object],
    microseconds: Callable[[Callable[[], object], int], float],
) -> A:
    """The fastest candidate; the first, unless another is faster by `GAIN`."""

    def taken(candidate: A, launches: int) -> float:
        return microseconds(lambda: run(candidate), launches)

    about = max(taken(candidates[0], 1), 1e-3)
    launches = min(MOST_LAUNCHES, math.ceil(ENOUGH / about))
    times = [math.inf] * len(candidates)
    for _ in range(ROUNDS):
        near = NEAR * min(times)
        for i, candidate in enumerate(candidates):
            if i == 0 or times[i] <= near:
                times[i] = min(times[i], taken(candidate, launches))
    best = min(times)
    return candidates[times.index(best)] if best < (1 - GAIN) * times[0] else candidates[0]
