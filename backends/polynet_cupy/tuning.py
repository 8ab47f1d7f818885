"""Which algorithm of a product is the fastest here, of those that give the same bits.

A library names first what it thinks fastest, and is wrong now and then. So a large product that is
asked for again and again is timed, once. An algorithm is taken only if it gives, for random numbers
in matrices of this size, bit for bit what the library's own choice gives: the clock is to decide
how long a step takes, and not its numbers.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from polynet_cupy.products import Operand, Product

A = TypeVar("A")

TIMED_AT = 3
"""The call of a product at which it is timed: one that comes so often will come again."""
WORTH = 1 << 27
"""Terms of all sums of a product that is worth it: others take little longer than a launch."""
RESULTS = 256
"""Numbers of its result, at least: fewer might be equal by accident."""
ROOM = 0.5
"""Part of the memory that is free which numbers to try may take."""
PERIOD = 1_000_003
"""After so many numbers the random ones come again: a prime, that rows of no matrix are alike."""
APART = 4096
"""By so many numbers the two operands are: a matrix times itself has sums that are equal."""
BUDGET = 1e5
"""Microseconds for a product: where it takes long, fewer algorithms are tried, and more briefly."""
MOST_LAUNCHES = 20
"""Those timed together. A device that is busy for long is held back by its power: an algorithm that
kept up for 4 milliseconds was 7 % behind for 16 (`tests/benchmarks/results/gpu_products.md`)."""
ROUNDS = 3
NEAR = 1.25
"""What took longer than so many times the fastest in the first round, is not in the others."""
GAIN = 0.02
"""Part of the time that another algorithm must save: less is noise."""


def is_worth_it(how: Product) -> bool:
    """Whether a product takes so long that a faster algorithm is worth looking for."""
    results = how.batch * how.m * how.n
    return results >= RESULTS and results * how.k >= WORTH


@functools.cache
def _numbers(kind: str) -> np.ndarray:
    """Random numbers as a product takes them: of a dtype, or the bits of bfloat16."""
    numbers = np.random.default_rng(0).standard_normal(PERIOD, dtype=np.float32)
    if kind == "bfloat16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(kind)


def random_numbers(xp: Any, kind: str, size: int) -> Any:
    """So many random numbers on the current device."""
    return xp.tile(xp.asarray(_numbers(kind)), -(-size // PERIOD))[:size]


def _extent(how: Product, operand: Operand, shape: tuple[int, int]) -> int:
    """The numbers from the first to the last of an operand, of matrices of this shape."""
    lines, length = shape[::-1] if operand.transposed else shape
    return (how.batch - 1) * operand.stride + (lines - 1) * operand.ld + length


class Trial:
    """A product of random numbers, to try algorithms with: `start(algorithm, out, x, y)` is one.

    `free` bytes are free on the device; raises MemoryError where it would take too many.
    """

    def __init__(
        self, xp: Any, how: Product, start: Callable[[Any, Any, Any, Any], object], free: int
    ) -> None:
        sizes = [
            _extent(how, how.left, (how.m, how.k)),
            _extent(how, how.right, (how.k, how.n)) + APART,
        ]
        result = "float64" if how.precision == "float64" else "float32"
        kind = "bfloat16" if how.precision == "bfloat16" else result
        results = how.batch * how.m * how.n
        each = _numbers(kind).itemsize, np.dtype(result).itemsize
        if max(sizes) * each[0] + 3 * results * each[1] > ROOM * free:
            raise MemoryError
        numbers = random_numbers(xp, kind, max(sizes))
        self._operands = numbers, numbers[APART:]
        self._out = xp.empty(results, dtype=result)
        self._start = start
        self._xp = xp

    def run(self, algorithm: Any) -> Any:
        """The result, which the next one overwrites."""
        self._start(algorithm, self._out, *self._operands)
        return self._out

    def alike(self, algorithms: Sequence[A]) -> list[A]:
        """Those that give the bits of the first; one that fails is none of them."""
        first, *others = algorithms
        expected = self.run(first).copy()
        found = [first]
        for other in others:
            self._out.fill(math.nan)  # what it leaves out is not what another has left there
            try:
                out = self.run(other)
            except RuntimeError:  # the library lists some that it cannot run
                continue
            if self._xp.array_equal(out.view(np.int32), expected.view(np.int32)):
                found.append(other)
        return found


def timed(
    trial: Trial,
    algorithms: Sequence[A],
    microseconds: Callable[[Callable[[], object], int], float],
) -> A:
    """The fastest of the algorithms that give the bits of the first; it, unless one gains `GAIN`.

    `microseconds(work, launches)` is how long it took to do `work` so many times, for one of them.
    """

    def taken(algorithm: A, launches: int) -> float:
        return microseconds(lambda: trial.run(algorithm), launches)

    first = algorithms[0]
    taken(first, 1)  # which loads its code, too
    about = max(taken(first, 1), 1e-3)
    candidates = trial.alike(algorithms[: max(1, int(BUDGET / about))])
    if len(candidates) == 1:
        return first
    launches = int(BUDGET / (ROUNDS * len(candidates) * about))
    launches = min(MOST_LAUNCHES, max(1, launches))
    medians = _medians(candidates, lambda candidate: taken(candidate, launches))
    best = min(medians, key=medians.__getitem__)
    if medians[best] >= (1 - GAIN) * medians[0]:
        return first
    alike = trial.alike([first, candidates[best]])  # bits that vary are equal once
    return candidates[best] if len(alike) > 1 else first


def _medians(candidates: Sequence[A], taken: Callable[[A], float]) -> dict[int, float]:
    """The median time by a candidate's place, of the first and of those that are `NEAR`."""
    seen = [[taken(candidate)] for candidate in candidates]
    near = NEAR * min(times[0] for times in seen)
    places = [0, *(i for i in range(1, len(seen)) if seen[i][0] <= near)]
    for _ in range(1, ROUNDS):
        for i in places:
            seen[i].append(taken(candidates[i]))
    return {i: statistics.median(seen[i]) for i in places}
