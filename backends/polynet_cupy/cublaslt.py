"""The few functions of cuBLASLt that a matrix product needs, called through ctypes.

The stream and the workspace are arguments of the call, so the call can be captured. The workspace
comes from CuPy's current allocator and is given back at once. That is safe, since the allocator
gives it only to later work on the same stream. The names are those of NVIDIA's header, cublasLt.h.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from polynet_cupy import tuning
from polynet_cupy.launch import WARP, launch, on_device
from polynet_cupy.products import Operand, Product

R_32F, R_64F, R_16BF = 0, 1, 14
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
LAYOUT_BATCH_COUNT, LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
PREF_MAX_WORKSPACE_BYTES = 1
CONFIG_SPLITK_NUM = 2
PREF_MIN_ALIGNMENT_BYTES = {"A": 5, "B": 6, "C": 7, "D": 8}
EPILOGUE_BIAS, EPILOGUE_RELU_BIAS = 4, 6
INVALID_VALUE, NOT_SUPPORTED = 7, 15

ASKED = 16
"""How many algorithms the library is asked for; it lists first the one it thinks fastest."""
CHOICE = 8
"""How many of these are considered before any of them is timed."""
LEAST_SUM = 8
"""The least terms in each part of a split sum. The library's first choice may split the sums of a
small product into hundreds of parts, with less than one term each, which takes ten times as long.
"""
BY_ITSELF, LITTLE = -1, 1 << 16
"""The number of parts that the library reports if it decides about splitting as it runs; and so few
bytes of workspace that they hold its counters, but no parts of sums, so that no sum is split."""
MANY = 1 << 21
"""So many results keep a GPU of today busy without splitting their sums."""
CLOCKS = 60_000
"""Clock cycles of about 30 microseconds in all: longer than the host takes to start a product."""
WORKSPACE = 32 << 20
"""The most bytes of workspace for an algorithm: NVIDIA's advice for its largest devices."""


class Kind(NamedTuple):
    """The types of a product: of its operands, its result, its sums, and the factor on it."""

    operands: int
    result: int
    compute: int
    number: type[Any]


KINDS = {
    "float64": Kind(R_64F, R_64F, COMPUTE_64F, ctypes.c_double),
    "float32": Kind(R_32F, R_32F, COMPUTE_32F, ctypes.c_float),
    "tf32": Kind(R_32F, R_32F, COMPUTE_32F_FAST_TF32, ctypes.c_float),
    "bfloat16": Kind(R_16BF, R_32F, COMPUTE_32F, ctypes.c_float),
}
"""By the precision of a `Product`."""


class Heuristic(ctypes.Structure):
    """The header's cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The library, from NVIDIA's wheels or an installed toolkit; CuPy looks in the same places."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    found = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    found.cublasLtGetStatusString.restype = ctypes.c_char_p
    return found


def call(name: str, *args: Any) -> None:
    """Call a function of the library; if it fails, raise RuntimeError with the library's words."""
    status = getattr(library(), name)(*args)
    if status:
        raise _refused(name, status)


def _refused(name: str, status: int) -> RuntimeError:
    words = library().cublasLtGetStatusString(status).decode()
    return RuntimeError(f"{name} answered {status}, {words}")


def _new(kind: str, *args: Any) -> ctypes.c_void_p:
    """A descriptor, which lives as long as the process: each kind of product has only a few."""
    made = ctypes.c_void_p()
    call(f"cublasLt{kind}Create", ctypes.byref(made), *args)
    return made


def _set(kind: str, descriptor: ctypes.c_void_p, attribute: int, value: Any) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(value))
    call(f"cublasLt{kind}SetAttribute", descriptor, attribute, ctypes.byref(value), size)


class Descriptors:
    """What describes a kind of product to cuBLASLt, which takes our second matrix as its first."""

    def __init__(self, how: Product) -> None:
        kind = KINDS[how.precision]
        self.number = kind.number
        self.matmul = _new("MatmulDesc", kind.compute, kind.result)
        a, b = how.right, how.left
        _set("MatmulDesc", self.matmul, DESC_TRANSA, ctypes.c_int32(a.transposed))
        _set("MatmulDesc", self.matmul, DESC_TRANSB, ctypes.c_int32(b.transposed))
        if how.bias:
            epilogue = EPILOGUE_RELU_BIAS if how.relu else EPILOGUE_BIAS
            _set("MatmulDesc", self.matmul, DESC_EPILOGUE, ctypes.c_int32(epilogue))
        self.a = self._layout(how, kind.operands, (how.n, how.k), a)
        self.b = self._layout(how, kind.operands, (how.k, how.m), b)
        out = Operand(transposed=False, ld=how.n, stride=how.m * how.n, aligned=0)
        self.d = self._layout(how, kind.result, (how.n, how.m), out)
        self.preference = _new("MatmulPreference")
        most = ctypes.c_uint64(WORKSPACE)
        _set("MatmulPreference", self.preference, PREF_MAX_WORKSPACE_BYTES, most)
        for letter, operand in (("A", a), ("B", b)):
            at = PREF_MIN_ALIGNMENT_BYTES[letter]
            _set("MatmulPreference", self.preference, at, ctypes.c_uint32(operand.aligned))

    @staticmethod
    def _layout(
        how: Product, kind: int, shape: tuple[int, int], operand: Operand
    ) -> ctypes.c_void_p:
        rows, columns = shape[::-1] if operand.transposed else shape
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(operand.ld))
        layout = _new("MatrixLayout", kind, *sizes)
        if how.batch > 1:
            _set("MatrixLayout", layout, LAYOUT_BATCH_COUNT, ctypes.c_int32(how.batch))
            stride = ctypes.c_int64(operand.stride)
            _set("MatrixLayout", layout, LAYOUT_STRIDED_BATCH_OFFSET, stride)
        return layout


def _simpler(how: Product) -> Iterator[Product]:
    """The product; the product without its ReLU; and without its bias, too.

    cuBLASLt has a ReLU only after a bias, so a product with a ReLU and no bias is left out.
    """
    if how.relu and how.bias:
        yield how
    yield (how := how._replace(relu=False))
    if how.bias:
        yield how._replace(bias=False)


def _set_bias(d: Descriptors, bias: Any) -> None:
    _set("MatmulDesc", d.matmul, DESC_BIAS_POINTER, ctypes.c_void_p(bias.data.ptr))


def parts(algorithm: Heuristic) -> int:
    """Into how many parts an algorithm splits each sum.

    An algorithm that decides this as it runs counts as 2 if it asks for memory to keep parts in,
    else as 1.
    """
    found, written = ctypes.c_int32(), ctypes.c_size_t()
    call(
        "cublasLtMatmulAlgoConfigGetAttribute", ctypes.byref(algorithm), CONFIG_SPLITK_NUM,
        ctypes.byref(found), ctypes.c_size_t(ctypes.sizeof(found)), ctypes.byref(written),
    )  # fmt: skip
    by_itself = 2 if algorithm.workspace > LITTLE else 1
    return by_itself if found.value == BY_ITSELF else found.value


def choice(splits: list[int], terms: int, results: int) -> int:
    """The index of the algorithm to take; `splits` holds into how many parts each splits its sums.

    A sum has `terms` terms. For `MANY` results or more, take the first that splits no sum. Else, or
    if there is none, take the first that leaves `LEAST_SUM` terms in a part; else the first with
    the fewest parts.
    """
    limits = [*([1] if results >= MANY else []), max(1, terms // LEAST_SUM), min(splits)]
    return next(i for most in limits for i, n in enumerate(splits) if n <= most)


@dataclass
class Plan:
    """The description of a product, the algorithm that computes it, and all that could."""

    described: Descriptors
    algorithm: Heuristic
    algorithms: list[Heuristic]
    calls: int = 0
    timed: bool = False
    kept_nan: Heuristic | None = None
    """The algorithm whose ReLU has been seen to leave NaN as it is."""


class Gemm:
    """Computes products, with a handle for each device and an algorithm for each kind of product.

    The algorithm is one that the library's heuristic lists. The list depends only on the product,
    its layout in memory, and the device, so equal products with the same layout give equal bits.
    For a large product that comes again and again, the fastest algorithm with these bits is taken:
    see `tuning`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[int, ctypes.c_void_p] = {}
        self._plans: dict[tuple[int, Product], Plan | None] = {}

    def __call__(
        self, how: Product, first: int, out: Any, x: Any, y: Any, bias: Any = None
    ) -> Product:
        """Compute products, from number `first` on, into `out`, on the current stream.

        Returns what was computed. Where cuBLASLt has no ReLU or no bias for this kind of product,
        that is the product without it, and the caller must add what is missing.
        """
        import cupy

        device = cupy.cuda.runtime.getDevice()
        on_device(device, out, x, y, bias)
        places = (
            out.data.ptr + first * how.m * how.n * out.itemsize,
            x.data.ptr + first * how.left.stride * x.itemsize,
            y.data.ptr + first * how.right.stride * y.itemsize,
        )
        with self._lock:  # from `_set_bias` to the call a descriptor holds the address of one bias
            for kind in _simpler(how):
                plan = self._plan(device, kind, bias)
                if plan is None:
                    continue
                self._time(device, kind, plan)
                if kind.relu:
                    results = out.reshape(-1, how.m, how.n)[first : first + how.batch]
                    if not self._keeps_nan(plan, device, kind, results, places):
                        continue
                if kind.bias:
                    _set_bias(plan.described, bias)
                if self._run(device, kind, plan, *places):
                    return kind
            raise RuntimeError(f"cuBLASLt has no algorithm for {how}")

    def _keeps_nan(
        self, plan: Plan, device: int, how: Product, results: Any, places: tuple[int, ...]
    ) -> bool:
        """Whether the plan's ReLU leaves NaN as it is: NVIDIA does not say so, hence a trial.

        During a capture nothing can be tried, so only a ReLU that has passed the trial is used. If
        the plan's algorithm fails the trial, an earlier one that passed is used again. If there is
        none, this kind of product has no plan from then on.
        """
        import cupy

        if plan.kept_nan is plan.algorithm:
            return True
        if cupy.cuda.get_current_stream().is_capturing():
            return False
        bias = cupy.full(how.n, math.nan, dtype=results.dtype)
        _set_bias(plan.described, bias)
        with suppress(RuntimeError):
            self._start(device, plan.described, plan.algorithm, *places)
            if cupy.isnan(results).all():
                plan.kept_nan = plan.algorithm
        if plan.kept_nan is None:
            self._plans[device, how] = None
            return False
        plan.algorithm = plan.kept_nan
        return True

    def _run(self, device: int, how: Product, plan: Plan, *places: int) -> bool:
        """Start the product; if the library cannot run the algorithm, take the next that it can.

        During a capture no other is tried, since the failure has already spoilt the capture. For a
        product with a ReLU no other is tried either, since none has passed the trial with NaN: the
        result is False, and this kind of product has no plan from then on.
        """
        import cupy

        try:
            self._start(device, plan.described, plan.algorithm, *places)
        except RuntimeError:
            if cupy.cuda.get_current_stream().is_capturing():
                raise
            if how.relu:
                self._plans[device, how] = None
                return False
            if not self._by_another(device, plan, *places):
                raise
        return True

    def _by_another(self, device: int, plan: Plan, *places: int) -> bool:
        """Whether another listed algorithm can run; the plan then keeps that one."""
        for other in (a for a in plan.algorithms if a is not plan.algorithm):
            with suppress(RuntimeError):
                self._start(device, plan.described, other, *places)
                plan.algorithm = other
                return True
        return False

    def _start(
        self, device: int, d: Descriptors, found: Heuristic, out: int, x: int, y: int
    ) -> None:
        import cupy

        workspace = cupy.cuda.alloc(found.workspace)
        one, zero = d.number(1), d.number(0)
        into = ctypes.c_void_p(out)
        call(
            "cublasLtMatmul", self._handles[device], d.matmul,
            ctypes.byref(one), ctypes.c_void_p(y), d.a, ctypes.c_void_p(x), d.b,
            ctypes.byref(zero), into, d.d, into, d.d,
            ctypes.byref(found.algorithm), ctypes.c_void_p(workspace.ptr),
            ctypes.c_size_t(found.workspace),
            ctypes.c_void_p(cupy.cuda.get_current_stream().ptr),
        )  # fmt: skip

    def _plan(self, device: int, how: Product, bias: Any = None) -> Plan | None:
        """The plan of a product, made when it first comes; None where there is no algorithm."""
        key = device, how
        if key not in self._plans:
            if device not in self._handles:
                self._handles[device] = _new("")
            d, found, count = Descriptors(how), (Heuristic * ASKED)(), ctypes.c_int()
            if how.bias:
                _set_bias(d, bias)
            status = library().cublasLtMatmulAlgoGetHeuristic(
                self._handles[device], d.matmul, d.a, d.b, d.d, d.d, d.preference, ASKED,
                found, ctypes.byref(count),
            )  # fmt: skip
            if status not in (0, NOT_SUPPORTED, *([INVALID_VALUE] if how.bias else [])):
                raise _refused("cublasLtMatmulAlgoGetHeuristic", status)
            able = [] if status else [f for f in found[: count.value] if not f.state]
            self._plans[key] = self._planned(how, d, able) if able else None
        return self._plans[key]

    @staticmethod
    def _planned(how: Product, d: Descriptors, able: list[Heuristic]) -> Plan:
        splits = [parts(f) for f in able[:CHOICE]]
        chosen = choice(splits, how.k, how.batch * how.m * how.n)
        return Plan(d, able[chosen], able)

    def _time(self, device: int, how: Product, plan: Plan) -> None:
        """Look for the fastest algorithm with the same bits, once, where that is worth the time."""
        import cupy

        plan.calls += 1
        if plan.timed or plan.calls < tuning.TIMED_AT or not tuning.is_worth_it(how):
            return
        if cupy.cuda.get_current_stream().is_capturing():
            return
        plan.timed = True
        # Allocators raise either one where there is no room; other errors come with the product.
        with suppress(MemoryError, RuntimeError):
            plan.algorithm = self._fastest(device, how, plan)

    def _fastest(self, device: int, how: Product, plan: Plan) -> Heuristic:
        """The fastest of the plan's algorithms that give the same bits as the one in use."""
        import cupy

        def start(algorithm: Heuristic, *arrays: Any) -> None:
            self._start(device, plan.described, algorithm, *(a.data.ptr for a in arrays))

        candidates = [plan.algorithm, *(a for a in plan.algorithms if a is not plan.algorithm)]
        if how.bias:  # the caller's may be all zeros, and then it does not show where it is added
            kind = "float64" if how.precision == "float64" else "float32"
            bias = tuning.random_numbers(cupy, kind, how.n)
            _set_bias(plan.described, bias)
        free, _ = cupy.cuda.runtime.memGetInfo()
        with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):  # freed at the end
            trial = tuning.Trial(cupy, how, start, free)
            return tuning.timed(trial, candidates, microseconds)


def microseconds(work: Callable[[], object], launches: int) -> float:
    """The device's time for `work`, as the mean of `launches` runs.

    The device is kept busy until the host has started all of them, since starting the work may
    take the host longer than the work takes the device.
    """
    import cupy

    launch("spin", "float32", 1, WARP, launches * CLOCKS)
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(launches):
        work()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) * 1e3 / launches
