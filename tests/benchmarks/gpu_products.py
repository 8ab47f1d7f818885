"""Which algorithm a product gets: cuBLASLt's first, the one chosen, its best, and the kernel here.

    python tests/benchmarks/gpu_products.py

Prints a table of microseconds. From it come `polynet_cupy.products.FEW_TILES` and the like, and
`polynet_cupy.cublaslt.choice`.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import cupy
from measure import table

from polynet import get_backend
from polynet_cupy import cublaslt, products
from polynet_cupy.products import Product

LAYERS = (
    (32, 32, 64), (32, 64, 64), (32, 64, 2), (64, 784, 128), (128, 784, 256), (128, 256, 128),
    (128, 128, 10), (256, 512, 10), (512, 84, 10), (512, 120, 84), (512, 400, 120),
    (512, 784, 1024), (512, 1024, 1024), (512, 1024, 10), (8192, 512, 2048), (8192, 4096, 4096),
)  # fmt: skip
"""Batch, inputs, outputs; each has three products."""
ENOUGH = 400
"""Microseconds of a graph."""


def microseconds(run: Callable[[], object]) -> float:
    """Of one launch of many that stand in a graph; the median of five graphs."""
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
    """The products of a layer forth and back, as they lie."""
    draw = cupy.random.default_rng(0).standard_normal
    shapes = ((batch, inputs), (outputs, inputs), (batch, outputs))
    x, weight, g = (draw(shape, dtype=cupy.float32) for shape in shapes)
    yield "x Wᵀ", x, weight.T
    yield "g W", g, weight
    yield "gᵀ x", g.T, x


def by_cublaslt(x: Any, y: Any) -> tuple[float, float, float]:
    """Its first algorithm, the chosen one, the fastest."""
    xp, seen = get_backend("cupy").with_precision("float32").xp, []
    gemm = xp.gemm
    xp.gemm = lambda how, *given: seen.append((how, *given)) or gemm(how, *given)
    products.library_product(xp, x, y)
    ((how, _, out, *_),) = seen
    device = cupy.cuda.runtime.getDevice()
    taken = []
    chosen = gemm._plans[device, how]
    found = algorithms(gemm._handles[device], how, chosen[0])
    for algorithm in (*found, chosen[1]):
        places = map(ctypes.c_void_p, (out.data.ptr, x.data.ptr, y.data.ptr))
        given = (device, (chosen[0], algorithm), *places)
        taken.append(microseconds(lambda given=given: gemm._start(*given)))
    return taken[0], taken[-1], min(taken)


def algorithms(handle: Any, how: Product, d: cublaslt.Descriptors) -> list[cublaslt.Heuristic]:
    found, count = (cublaslt.Heuristic * cublaslt.CHOICE)(), ctypes.c_int()
    cublaslt.call(
        "cublasLtMatmulAlgoGetHeuristic", handle, d.matmul, d.a, d.b, d.d, d.d, d.preference,
        cublaslt.CHOICE, found, ctypes.byref(count),
    )  # fmt: skip
    return [f for f in found[: count.value] if not f.state]


def rows() -> Iterator[list[str]]:
    xp = get_backend("cupy").xp
    for layer in LAYERS:
        for name, x, y in of_layer(*layer):
            (m, k), n = x.shape, y.shape[1]
            small = products.small(xp, x, y)
            ours = float("nan")
            if m * n * k < 1 << 32:
                ours = microseconds(lambda x=x, y=y: products.small_product(xp, x, y))
            given = [f"{t:.2f}" for t in (*by_cublaslt(x, y), ours)]
            taken = "ours" if small else "chosen"
            yield [name, f"{m}×{k}×{n}", f"{products._tiles(m, n)}", *given, taken]


def main() -> str:
    header = ["product", "m×k×n", "tiles", "cuBLASLt's first", "chosen", "best", "ours", "taken"]
    return "## Products in float32, µs\n\n" + table(header, list(rows()))


if __name__ == "__main__":
    print(main())
