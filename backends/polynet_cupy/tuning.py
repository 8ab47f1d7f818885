"""The fastest algorithm for a product, among those that give the same bits.

A library lists first the algorithm that it thinks fastest, and is sometimes wrong. So the
algorithms of a large product that comes again and again are timed, once. Another algorithm is taken
only if it gives the same bits as the library's own choice, for random numbers in matrices of this
size. So the clock decides how long a step takes, and never what it computes.
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
"""The call of a product at which its algorithms are timed: by then it is likely to come again."""
WORTH = 1 << 27
"""Terms of all sums from which a product is worth timing: smaller ones cost little but a launch."""
RESULTS = 256
"""The least numbers in its result: fewer might be equal by accident."""
ROOM = 0.5
"""The part of the free memory that the numbers for a trial may take."""
PERIOD = 1_000_003
"""The random numbers repeat after so many: a prime, so that the rows of a matrix are not alike."""
APART = 4096
"""How many numbers later the second operand begins: a matrix times itself has equal sums."""
BUDGET = 1e5
"""Microseconds for timing a product: if that takes long, fewer algorithms are run, less often."""
MOST_LAUNCHES = 20
"""The most launches that are timed together. A device that is busy for long slows down to limit its
power: an algorithm that was as fast as others over 4 milliseconds was 7 % slower over 16
(`tests/benchmarks/results/gpu_products.md`)."""
ROUNDS = 3
NEAR = 1.25
"""An algorithm takes part in further rounds if its first time is within this factor of the best."""
GAIN = 0.02
"""The part of the time that another algorithm must save: a smaller gain may be noise."""


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
    """`size` random numbers on the current device."""
    return xp.tile(xp.asarray(_numbers(kind)), -(-size // PERIOD))[:size]


def _extent(how: Product, operand: Operand, shape: tuple[int, int]) -> int:
    """How many numbers an operand spans, from its first to its last, for matrices of this shape."""
    lines, length = shape[::-1] if operand.transposed else shape
    return (how.batch - 1) * operand.stride + (lines - 1) * operand.ld + length


class Trial:
    """A product of random numbers for trying algorithms; `start(algorithm, out, x, y)` computes it.

    `free` is the number of free bytes on the device. Raises MemoryError if the trial would take too
    many of them.
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
        """The result by an algorithm; the next call overwrites it."""
        self._start(algorithm, self._out, *self._operands)
        return self._out

    def alike(self, algorithms: Sequence[A]) -> list[A]:
        """The algorithms that give the bits of the first; one that fails is left out."""
        first, *others = algorithms
        expected = self.run(first).copy()
        found = [first]
        for other in others:
            self._out.fill(math.nan)  # or numbers that it leaves out would be those of the last one
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
    """The fastest algorithm with the bits of the first; the first itself if none saves `GAIN`.

    `microseconds(work, launches)` runs `work` so many times, and returns the time of one run.
    """

    def taken(algorithm: A, launches: int) -> float:
        return microseconds(lambda: trial.run(algorithm), launches)

    first = algorithms[0]
    taken(first, 1)  # not counted: this run also loads the code
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
    alike = trial.alike([first, candidates[best]])  # bits that vary may be equal once
    return candidates[best] if len(alike) > 1 else first


def _medians(candidates: Sequence[A], taken: Callable[[A], float]) -> dict[int, float]:
    """The median times by the candidate's place, of the first and of all that are `NEAR`."""
    seen = [[taken(candidate)] for candidate in candidates]
    near = NEAR * min(times[0] for times in seen)
    places = [0, *(i for i in range(1, len(seen)) if seen[i][0] <= near)]
    for _ in range(1, ROUNDS):
        for i in places:
            seen[i].append(taken(candidates[i]))
    return {i: statistics.median(seen[i]) for i in places}
