"""The algorithms for a product: cuBLASLt's first, the one chosen, the fastest, and our own kernel.

    python tests/benchmarks/gpu_products.py [float32 | tf32 | bfloat16]

Prints a table of microseconds. `polynet_cupy.products.FEW_TILES` and its neighbours come from this
table, and so does `polynet_cupy.cublaslt.choice`. It also shows how much `polynet_cupy.tuning`
saves.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cupy
from measure import table

from polynet import get_backend
from polynet_cupy import cublaslt, products, tuning

PRECISION = sys.argv[1] if sys.argv[1:] else "float32"
LAYERS = (
    (32, 32, 64), (32, 64, 64), (32, 64, 2), (64, 784, 128), (128, 784, 256), (128, 256, 128),
    (128, 128, 10), (256, 512, 10), (512, 84, 10), (512, 120, 84), (512, 400, 120),
    (512, 784, 1024), (512, 1024, 1024), (512, 1024, 10), (8192, 512, 2048), (8192, 4096, 4096),
)  # fmt: skip
"""Batch, inputs and outputs of layers; each layer has three products."""
ENOUGH = 400
"""Microseconds that a graph of launches should take."""


def microseconds(run: Callable[[], object]) -> float:
    """The time of one launch, from a graph of many; the median of five runs of that graph."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        run()
        stream.synchronize()
        about = _in_a_graph(stream, run, 3)
        return _in_a_graph(stream, run, max(3, min(50, round(ENOUGH / about))))


def _in_a_graph(stream: Any, run: Callable[[], object], launches: int) -> float:
    stream.begin_capture()
    for _ in range(launches):
        run()
    graph = stream.end_capture()
    start, end, taken = cupy.cuda.Event(), cupy.cuda.Event(), []
    for _ in range(6):
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        taken.append(cupy.cuda.get_elapsed_time(start, end) * 1e3 / launches)
    return statistics.median(taken[1:])


def of_layer(batch: int, inputs: int, outputs: int) -> Iterator[tuple[str, Any, Any]]:
    """The products of a layer, forward and backward, in the layouts that they have there."""
    draw = cupy.random.default_rng(0).standard_normal
    shapes = ((batch, inputs), (outputs, inputs), (batch, outputs))
    x, weight, g = (draw(shape, dtype=cupy.float32) for shape in shapes)
    yield "x Wᵀ", x, weight.T
    yield "g W", g, weight
    yield "gᵀ x", g.T, x


class ByLibrary(NamedTuple):
    """What cuBLASLt's algorithms take, in microseconds, and how many there are.

    `first` is the first in the library's list, `chosen` the one that `choice` picks, `timed` the
    one that `tuning` then takes, and `best` the fastest of all. `algorithms` is the length of the
    list, and `alike` counts those that give the same bits.
    """

    first: float
    chosen: float
    timed: float
    best: float
    algorithms: int
    alike: int


def by_cublaslt(x: Any, y: Any) -> ByLibrary:
    """The times of a product in PRECISION, by cuBLASLt."""
    xp, seen = get_backend("cupy").with_precision(PRECISION).xp, []
    gemm = xp.gemm
    xp.gemm = lambda how, *given: seen.append((how, *given)) or gemm(how, *given)
    x, y = (products.rounded(xp, a) for a in (x, y))
    products.library_product(xp, x, y)
    ((how, _, out, *_),) = seen
    device = cupy.cuda.runtime.getDevice()
    plan = gemm._plans[device, how]
    before = plan.algorithm
    for _ in range(tuning.TIMED_AT):
        products.library_product(xp, x, y)

    def start(algorithm: cublaslt.Heuristic, *arrays: Any) -> None:
        gemm._start(device, plan.described, algorithm, *(a.data.ptr for a in arrays))

    def time(algorithm: cublaslt.Heuristic) -> float:
        try:
            return microseconds(lambda: start(algorithm, out, x, y))
        except RuntimeError:  # the library lists some that it cannot run
            return float("inf")

    taken = [time(a) for a in plan.algorithms]
    first = [before, *(a for a in plan.algorithms if a is not before)]
    free, _ = cupy.cuda.runtime.memGetInfo()
    alike = tuning.Trial(cupy, how, start, free).alike(first)
    chosen, timed = (
        next(t for a, t in zip(plan.algorithms, taken, strict=True) if a is which)
        for which in (before, plan.algorithm)
    )
    return ByLibrary(taken[0], chosen, timed, min(taken), len(taken), len(alike))


def rows() -> Iterator[list[str]]:
    xp = get_backend("cupy").with_precision(PRECISION).xp
    for layer in LAYERS:
        for name, x, y in of_layer(*layer):
            (m, k), n = x.shape, y.shape[1]
            small = products.small(xp, x, y)
            ours = float("nan")
            if PRECISION == "float32" and m * n * k < 1 << 32:
                ours = microseconds(lambda x=x, y=y: products.small_product(xp, x, y))
            found = by_cublaslt(x, y)
            given = [f"{t:.2f}" for t in (*found[:4], ours)]
            alike = f"{found.alike} of {found.algorithms}"
            taken = "ours" if small else "by the clock"
            yield [name, f"{m}×{k}×{n}", f"{products._tiles(m, n)}", *given, alike, taken]


def main() -> None:
    """Print each row as soon as it is known, since the last ones take longest."""
    header = [
        *("product", "m×k×n", "tiles", "cuBLASLt's first", "chosen", "by the clock", "best"),
        *("ours", "of the same bits", "taken"),
    ]
    print(f"## Products in {PRECISION}, µs\n\n{table(header, [])}", end="")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
