"""A stand-in for CUDA graphs: the work of a step is captured with its addresses, and replayed.

Arrays are NumPy's, of a class that notes every function, operator and kernel that makes numbers or
moves them. Views make no numbers, so there is nothing to replay for them. As on a device, a capture
computes nothing, only the replay does: at the end of a capture everything that the step wrote is
undone, and the memory that it allocated is filled with wrong numbers. During a capture, reading an
array's value on the host is refused.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Self

import array_api_compat.numpy as compat
import numpy as np

from polynet_cupy import graph, optimizers
from polynet_cupy import launch as cuda
from polynet_cupy.namespace import extended

from .cuda_on_host import CudaOnHost, empty, gemm, launch, memory, signatures

INQUIRIES = {"isdtype", "finfo", "iinfo", "result_type", "can_cast", "broadcast_shapes"}
UNCAPTURED = {
    *("clip", "isin", "nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values"),
}
"""Functions that copy to or from the host; array-api-compat's `clip` selects by a mask, as most of
the others do."""
BY_LIBRARY = {
    *("cholesky", "det", "eigh", "eigvalsh", "inv", "matrix_power", "matrix_rank", "pinv", "qr"),
    *("slogdet", "solve", "svd", "svdvals"),
}
"""Functions of `linalg` for which CuPy calls cuBLAS or cuSOLVER, which a capture does not allow."""
PRODUCTS = {"matmul", "tensordot", "vecdot"}
"""Functions for which CuPy calls cuBLAS, unless the numbers are whole."""


class Capture:
    """The work that was started, in order, and the arrays that it wrote to."""

    current: Capture | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple, dict, list[np.ndarray]]] = []
        self.before: list[tuple[np.ndarray, np.ndarray]] = []
        self.fresh: dict[int, np.ndarray] = {}

    def __enter__(self) -> Self:
        Capture.current = self
        return self

    def __exit__(self, *exception: object) -> None:
        """Undo all writes, and fill new memory with wrong numbers."""
        Capture.current = None
        for array, old in reversed(self.before):
            array[...] = old
        for array in self.fresh.values():
            if array.flags.writeable:
                array.fill({"f": np.nan, "b": True}.get(array.dtype.kind, 77))

    def note(self, f: Any, args: tuple, options: dict, results: list[np.ndarray]) -> None:
        self.calls.append((f, args, options, results))
        given = {memory(a) for a in arrays_in([*args, *options.values()])}
        self.fresh.update({memory(r): root(r) for r in results if memory(r) not in given})

    def replay(self) -> None:
        for f, args, options, results in self.calls:
            found = f(*args, **options)
            for old, new in zip(results, arrays_in([found]), strict=True):
                if memory(old) != memory(new):
                    old[...] = new


def root(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of `array`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def arrays_in(x: Any) -> list[np.ndarray]:
    if isinstance(x, np.ndarray | np.generic):
        return [np.asarray(x)]
    return [a for member in x for a in arrays_in(member)] if type(x) in (list, tuple) else []


def plain(x: Any) -> Any:
    """`x` with each of our arrays replaced by one of NumPy's class, with the same memory."""
    if type(x) in (list, tuple):
        return type(x)(map(plain, x))
    return x.view(np.ndarray) if isinstance(x, Array) else x


def ours(x: Any) -> Any:
    """`x` with each of NumPy's arrays and scalars replaced by an array of our class."""
    if type(x) in (list, tuple):
        return type(x)(map(ours, x))
    return np.asarray(x).view(Array) if isinstance(x, np.ndarray | np.generic) else x


def run(f: Callable[..., Any], *args: Any, writes: Sequence[Any] = (), **options: Any) -> Any:
    """Call a function that makes numbers; in a capture, note it, and save what it writes to."""
    capture = Capture.current
    on_the_device(args)
    args, options = plain(args), {name: plain(x) for name, x in options.items()}
    if capture is not None:
        capture.before += [(a, a.copy()) for a in map(plain, writes)]
    result = ours(f(*args, **options))
    if capture is not None:
        capture.note(f, args, options, arrays_in([plain(result)]))
    return result


def uncaptured(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function that copies to or from the host, or calls a library: no capture allows it."""
    if Capture.current is not None:
        raise RuntimeError(f"{f.__name__} is not permitted when stream is capturing")
    return run(f, *args, **options)


def repeated(x: Any, repeats: Any, /, **options: Any) -> Any:
    """`repeat`; CuPy reads on the host how often, if an array says so."""
    how = uncaptured if isinstance(repeats, np.ndarray) else run
    return how(np.repeat, x, repeats, **options)


def made(x: Any, /, **options: Any) -> Any:
    """`asarray`; CuPy copies the numbers of a list from the host."""
    return (uncaptured if isinstance(x, list | tuple) else run)(compat.asarray, x, **options)


def by_cublas(f: Callable[..., Any], x: Any, y: Any, /, **options: Any) -> Any:
    return (run if x.dtype.kind in "biu" else uncaptured)(f, x, y, **options)


def on_the_device(args: Any) -> None:
    """Refuse NumPy's own arrays among ours, as CuPy refuses arrays of the host."""
    for a in args:
        if type(a) in (list, tuple):
            on_the_device(a)
        elif isinstance(a, np.ndarray) and not isinstance(a, Array) and a.dtype.names is None:
            raise TypeError(f"Unsupported type {type(a)}: it is on the host")


def on_the_host(name: str) -> Callable[..., Any]:
    """A method that reads an array's value, which is an error during a capture."""
    method = getattr(np.ndarray, name)

    def reading(self: Any, *args: Any) -> Any:
        if Capture.current is not None:
            raise RuntimeError(f"{name} reads the device, not permitted when stream is capturing")
        return method(self.view(np.ndarray), *args)

    return reading


def no_masks(keys: tuple[Any, ...]) -> None:
    """Refuse masks during a capture: how many numbers a mask selects is read on the host."""
    if Capture.current is not None and any(getattr(k, "dtype", 0) == "bool" for k in keys):
        raise RuntimeError("a mask reads the device, not permitted when stream is capturing")


class Array(np.ndarray):
    """NumPy's numbers, as on a device."""

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> Any:
        out = options.get("out", ())
        result = run(getattr(ufunc, method), *args, writes=out, **options)
        return out[0] if out else result

    def __array_function__(self, f: Any, types: Any, args: Any, options: Any) -> Any:
        return run(f, *args, **options)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        no_masks(keys)
        if any(isinstance(k, np.ndarray) for k in keys):
            return run(operator.getitem, self, key)
        return ours(self.view(np.ndarray)[(*keys, *(() if Ellipsis in keys else (...,)))])

    def __setitem__(self, key: Any, value: Any) -> None:
        no_masks(key if isinstance(key, tuple) else (key,))
        run(operator.setitem, self, key, value, writes=(self,))


for _name in ("__bool__", "__int__", "__float__", "__complex__", "__index__", "item", "tolist"):
    setattr(Array, _name, on_the_host(_name))


def launched(kernel: str, dtype: Any, blocks: int, threads: int, *args: Any) -> None:
    parameters, _ = signatures(cuda.kernels()[kernel])[kernel]
    pairs = zip(parameters, args, strict=True)
    writes = [a for p, a in pairs if p.pointer and not p.constant and a is not None]
    for table in args:
        if isinstance(table, np.ndarray) and table.dtype == optimizers.TABLE:
            writes += in_table(table, np.dtype(dtype))
    run(launch, kernel, dtype, blocks, threads, *args, writes=writes)


def in_table(table: Any, dtype: Any) -> list[np.ndarray]:
    """The arrays that a kernel writes to by the addresses in its table."""
    places = [
        (int(address), int(size))
        for column in ("new_p", "new_a", "new_b")
        for address, size in zip(table[column], table["size"], strict=True)
        if address
    ]
    held = [((ctypes.c_char * (dtype.itemsize * n)).from_address(a)) for a, n in places]
    return [np.frombuffer(memory, dtype) for memory in held]


def multiplied(how: Any, first: int, out: Any, x: Any, y: Any, bias: Any = None) -> Any:
    run(gemm, how, first, out, x, y, bias, writes=(out,))
    return how._replace(bias=False, relu=False)


def namespace(precision: str) -> ModuleType:
    how = dict.fromkeys(UNCAPTURED, uncaptured) | dict.fromkeys(PRODUCTS, by_cublas)
    noted = noting(compat, how)
    noted.asarray, noted.empty, noted.repeat = made, partial(run, empty), repeated
    noted.linalg = noting(compat.linalg, dict.fromkeys(BY_LIBRARY, uncaptured))
    return extended(
        noted, "captured.xp", precision, launch=launched, gemm=multiplied, memory=memory,
        address=lambda x: x.ctypes.data, contiguous=contiguous,
    )  # fmt: skip


def noting(module: ModuleType, how: dict[str, Callable[..., Any]]) -> ModuleType:
    """The module, with functions that are noted as they run, by `run` if `how` does not say how."""
    noted = ModuleType("captured", "NumPy, whose functions are noted.")
    for name, value in vars(module).items():
        function = callable(value) and not isinstance(value, type)
        function = function and not name.startswith("_") and name not in INQUIRIES
        setattr(noted, name, partial(how.get(name, run), value) if function else value)
    return noted


def contiguous(x: Any) -> Any:
    return x if x.flags.c_contiguous else run(np.array, x, order="C")


def capture(f: Callable[[], None]) -> Callable[[], object]:
    with Capture() as captured:
        f()
    return captured.replay


class CudaCaptured(CudaOnHost):
    """The plug-in on the host, with steps that are captured and replayed, as CuPy's on a device."""

    name = "cuda_captured"

    def namespace(self, precision: str) -> Any:
        return namespace(precision)

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        return np.array(array).view(Array)

    def to_host(self, array: Any) -> np.ndarray:
        return uncaptured(np.array, array).view(np.ndarray)

    def is_array(self, x: object) -> bool:
        return isinstance(x, Array)

    def compile(self, step: Any) -> Any:
        return graph.steps(self, step, capture=capture)
