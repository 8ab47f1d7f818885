"""CuPy's kernels without a GPU: the same CUDA sources, compiled by g++, behind the same Python.

`launch` takes the place of the plug-in's own. It checks every call against the kernel's signature:
the number of arguments, their kinds and dtypes, and that no read-only array is written to.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat.numpy as compat
import numpy as np

from polynet.backend import Backend
from polynet.errors import MissingDependency, NotCompiledError
from polynet_cupy import graph
from polynet_cupy import kernels as cupy_kernels
from polynet_cupy import launch as cuda
from polynet_cupy.namespace import extended
from polynet_cupy.products import Operand, Product

SHIM = Path(__file__).with_name("shim.h")
WAITS = r"__syncthreads|__shfl_\w+"
"""Functions that make threads wait for one another."""
DEFINED = re.compile(r"(?:__device__ [\w<> ]*?|#define |^KERNEL )(\w+)\(", re.MULTILINE)
"""The beginning of a function of the sources, with its name; its text ends at the next one."""
FLAGS = "-O1 -std=c++17 -shared -fPIC -w -fmax-errors=5".split()
FLAGS += os.environ.get("CUDA_ON_HOST_FLAGS", "").split()  # such as -fsanitize=address
DTYPES = {
    "int": "int32", "bool": "bool", "integer": "int64", "float": "float32", "bfloat16": "uint16",
}  # fmt: skip


BACKWARDS = ContextVar("backwards", default=False)
"""Whether the last block, warp and thread run first, and each warp as far as it can."""


class Parameter(NamedTuple):
    """A parameter of a kernel: its type, whether it is a pointer, and whether to constants."""

    kind: str
    pointer: bool
    constant: bool
    name: str


def waiting(text: str) -> re.Pattern[str]:
    """A pattern for calls that make threads wait, directly or through other functions."""
    _, *parts = DEFINED.split(text)
    bodies, names = dict(zip(parts[::2], parts[1::2], strict=True)), {WAITS}
    while True:
        calls = re.compile(rf"\b(?:{'|'.join(names)})\b[(<]")
        found = {name for name, body in bodies.items() if calls.search(body)}
        if found <= names:
            return calls
        names |= found


@functools.cache
def signatures(source: str) -> dict[str, tuple[list[Parameter], bool]]:
    """The parameters of each kernel of a source, and whether its threads wait for each other."""
    text = re.sub(r"//[^\n]*", "", cuda.sources()[source])
    found, calls = {}, waiting(text)
    for part in re.split(r"^KERNEL ", text, flags=re.MULTILINE)[1:]:
        name, arguments = re.match(r"(\w+)\(([^)]*)\)", part).groups()
        found[name] = [_parameter(a) for a in arguments.split(",")], bool(calls.search(part))
    return found


def _parameter(text: str) -> Parameter:
    constant, kind, star, name = re.match(r"\s*(const )?(\w+)(\*?) (\w+)\s*$", text).groups()
    return Parameter(kind, bool(star), bool(constant), name)


def _wrappers(source: str) -> str:
    """Functions that ctypes can call: each runs a kernel over a grid."""
    lines = []
    for name, (parameters, synchronizes) in signatures(source).items():
        given, passed = ["long long blocks_", "long long threads_"], []
        for p in parameters:
            by_value = p.kind[0].isupper()
            const = "const " if p.constant or by_value else ""
            given.append(f"{const}{p.kind}{'*' if p.pointer or by_value else ''} {p.name}")
            passed.append(f"*{p.name}" if by_value else p.name)
        call = f"{name}({', '.join(passed)})"
        lines.append(
            f'extern "C" void run_{name}({", ".join(given)}) {{ host::run(blocks_, threads_, '
            f"{str(synchronizes).lower()}, [=] {{ {call}; }}); }}"
        )
    structs = {p.kind for ps, _ in signatures(source).values() for p in ps if p.kind[0].isupper()}
    lines += [f'extern "C" long long size_{s}() {{ return sizeof({s}); }}' for s in structs]
    return "\n".join(lines)


@functools.cache
def library(source: str, dtype: str) -> ctypes.CDLL:
    """A source compiled for the host; it is compiled again only if it has changed."""
    text = f'#include "{SHIM}"\n{cuda.sources()[source]}\n{_wrappers(source)}\n'
    made_of = text + SHIM.read_text() + dtype + " ".join(FLAGS)
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    made = Path(tempfile.gettempdir()) / f"polynet-cuda-on-host-{digest}.so"
    if not made.exists():
        with tempfile.TemporaryDirectory() as folder:
            file, new = Path(folder, f"{source}.cpp"), Path(folder, "new.so")
            file.write_text(text)
            command = ["g++", *FLAGS, *cuda.options(dtype), "-o", new, file]
            subprocess.run(command, check=True)
            part = made.with_suffix(
                f".{os.getpid()}"
            )  # another process may be making the same file
            shutil.copy(new, part)
            part.replace(made)
    return ctypes.CDLL(str(made))


def launch(kernel: str, dtype: Any, blocks: int, threads: int, *args: Any) -> None:
    """Run a kernel, as `polynet_cupy.launch.launch` starts one."""
    source, dtype = cuda.kernels()[kernel], np.dtype(dtype).name
    parameters, _ = signatures(source)[kernel]
    assert type(blocks) is type(threads) is int, (blocks, threads)
    assert 0 < blocks < 2**31, f"{kernel}: {blocks} blocks"
    assert 0 < threads <= 1024 and threads % 32 == 0, f"{kernel}: {threads} threads"
    assert len(args) == len(parameters), f"{kernel} takes {len(parameters)}; got {len(args)}"
    loaded, kept = library(source, dtype), []
    for p, a in zip(parameters, args, strict=True):
        kept.append(_argument(kernel, p, a, dtype, loaded))
    loaded.run_backwards(int(BACKWARDS.get()))
    getattr(loaded, f"run_{kernel}")(
        ctypes.c_longlong(blocks), ctypes.c_longlong(threads), *(value for value, _ in kept)
    )


def _argument(kernel: str, p: Parameter, a: Any, dtype: str, loaded: Any) -> tuple[Any, Any]:
    """What ctypes passes for an argument, and the object that must live until the call ends.

    CuPy packs Python's numbers by their type, so an int must not stand for a double.
    """
    where = f"{kernel}'s {p.name}: {type(a).__name__} {getattr(a, 'dtype', a)}"
    if not p.pointer and not p.kind[0].isupper():
        assert type(a) is {"integer": int, "double": float}[p.kind], where
        return (ctypes.c_longlong if p.kind == "integer" else ctypes.c_double)(a), a
    if a is None:
        assert p.pointer and p.constant, where
        return ctypes.c_void_p(None), a
    held = np.asarray(a)
    assert isinstance(a, np.ndarray | np.generic) and held.flags.c_contiguous, where
    assert p.constant or not p.pointer or (held.flags.writeable and held is a), where
    if not p.pointer:
        assert held.shape == (), where
        assert held.itemsize == getattr(loaded, f"size_{p.kind}")(), where
    elif p.kind == "void":
        assert held.dtype.name in ("int32", "int64"), where
    elif p.kind != "unsigned":
        assert held.dtype.name == (dtype if p.kind == "real" else DTYPES[p.kind]), where
    return ctypes.c_void_p(held.ctypes.data), held


def gemm(how: Product, first: int, out: Any, x: Any, y: Any, bias: Any = None) -> Product:
    """Products computed from their description for cuBLASLt alone, not from the arrays' shapes."""
    dtype = {"float64": "float64", "bfloat16": "uint16"}.get(how.precision, "float32")
    result = "float64" if how.precision == "float64" else "float32"
    assert [x.dtype.name, y.dtype.name, out.dtype.name] == [dtype, dtype, result], how
    left = widened(_matrices(x, how.left, first, how.batch, how.m, how.k))
    right = widened(_matrices(y, how.right, first, how.batch, how.k, how.n))
    into = out.reshape(-1, how.m, how.n)[first : first + how.batch]
    into[...] = np.matmul(left, right)
    return how._replace(bias=False, relu=False)


def widened(x: Any) -> Any:
    """Numbers of bfloat16, which are stored as their bits, as float32; others as they are."""
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x


def _matrices(x: Any, operand: Operand, first: int, batch: int, rows: int, columns: int) -> Any:
    """The matrices that an operand describes; the library that it is for sees their transposes."""
    steps = (1, operand.ld) if operand.transposed else (operand.ld, 1)
    assert operand.ld >= (rows if operand.transposed else columns), operand
    strides = [s * x.itemsize for s in (operand.stride, *steps)]
    assert (x.ctypes.data + first * strides[0]) % operand.aligned == 0, operand
    return np.lib.stride_tricks.as_strided(x, (first + batch, rows, columns), strides)[first:]


def empty(shape: Any, *, dtype: Any, device: Any = None) -> np.ndarray:
    """New memory, filled with NaN, true or 77: numbers that nobody wrote show in the results."""
    array = np.empty(shape, dtype=dtype)
    array.fill({"f": np.nan, "c": np.nan, "b": True}.get(array.dtype.kind, 77))
    return array


def contiguous(x: Any) -> Any:
    """As the plug-in's own; a NumPy scalar becomes a 0-d array, as CuPy would have it."""
    return cuda.contiguous(np, np.asarray(x))


def memory(array: Any) -> int:
    """The address of an array's memory; it is equal for arrays that share memory."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return int(np.asarray(array).ctypes.data)


class CudaOnHost(Backend):
    name = "cuda_on_host"
    contract = 1
    version = np.__version__
    kernels = cupy_kernels.KERNELS
    steps_per_call = 4

    def __init__(self) -> None:
        if shutil.which("g++") is None:
            raise MissingDependency("g++", "the system's package manager")
        self.xp = self.namespace("float32")

    def namespace(self, precision: str) -> Any:
        return extended(
            compat, "cuda_on_host.xp", precision, launch=launch, gemm=gemm, empty=empty,
            memory=memory, address=lambda x: x.ctypes.data, contiguous=contiguous,
        )  # fmt: skip

    def with_precision(self, precision: str) -> Backend:
        """As CuPy's."""
        other = self.variant("with_precision", precision)
        other.xp = self.namespace(precision)
        return other

    def devices(self) -> dict[str, Any]:
        return {"cpu": "cpu"}

    def device_of(self, array: Any) -> Any:
        return "cpu"

    def is_array(self, x: object) -> bool:
        return isinstance(x, np.ndarray | np.generic)

    def from_host(self, array: np.ndarray, device: Any) -> np.ndarray:
        return np.array(array)

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array)

    def compile(self, step: Any) -> Any:
        """As CuPy's, but each step is called again where CuPy replays a captured graph."""
        if getattr(step, "required", False):
            raise NotCompiledError("on the host kernels run one after another")
        return graph.steps(self, step, capture=lambda run: run)

    def synchronize(self) -> None:
        """The host is done when it returns."""


load = CudaOnHost
