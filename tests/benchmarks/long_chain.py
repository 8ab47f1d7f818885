"""Whether an op costs the same in a long chain as in a short one: µs per op, by length of chain.

    python tests/benchmarks/long_chain.py [--out results.md]

A chain of `x * c` on four numbers: forward; forward and backward; and the second order (the
gradient of ⟨∇f, v⟩). Python's cyclic garbage collector looks at all live objects again and again,
at least once each time their number has grown by a quarter. So a live record costs a constant
factor more, whatever its length. That is why the chain runs with the collector on, as users have
it, and with the collector off. polynet leaves no garbage to the collector, and does not switch it
off.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from measure import environment, publish, table

import polynet
from polynet.ops import OPS

LENGTHS = (1_000, 10_000, 100_000)
X = np.asarray([0.1, 0.2, 0.3, 0.4])


def chain(length: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        for _ in range(length):
            x = x * 1.000001
        return OPS["sum"](x)

    return f


def forward(length: int) -> float:
    """Seconds until the record is written."""
    start = time.perf_counter()
    _, pullback = polynet.vjp(chain(length), X)
    seconds = time.perf_counter() - start
    del pullback
    return seconds


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


WAYS: dict[str, Callable[[int], float]] = {
    "forward": forward,
    "forward and backward": lambda n: timed(lambda: polynet.grad(chain(n))(X)),
    "second order": lambda n: timed(lambda: polynet.hvp(chain(n), (X,), (X,))),
}


def microseconds(way: str, length: int, repeats: int) -> float:
    """The least time per op of all repeats: other work of the machine can only add to it."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        best = min(best, WAYS[way](length))
    return best / length * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the results here too, as Markdown")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for collector in ("on", "off"):
        (gc.enable if collector == "on" else gc.disable)()
        for way in WAYS:
            found = [microseconds(way, n, options.repeats) for n in LENGTHS]
            rows.append([way, collector, *(f"{t:.2f}" for t in found)])
    header = ["µs per op", "collector", *(f"{n:,} ops" for n in LENGTHS)]
    publish(environment(["numpy"]) + "\n" + table(header, rows), options.out)


if __name__ == "__main__":
    main()
