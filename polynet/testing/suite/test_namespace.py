"""The namespace: all of it that polynet uses, its values, and where its results are."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import value_and_grad
from polynet.backend import Backend, get_backend
from polynet.ops import LOCALLY_CONSTANT, OPS
from polynet.ops.differentiable import INQUIRIES
from polynet.testing.samples import SAMPLES
from polynet.testing.suite.cases import (
    about,
    arrays,
    base,
    by_name,
    is_capable,
    require,
    same,
    stays,
    to_backend,
    what,
    with_arrays,
)

FUNCTIONS = by_name()
total = OPS["sum"]


def used_names() -> frozenset[str]:
    """Every name that polynet's source takes from a namespace: `xp.exp`, `backend.xp.stack`."""
    names = set()
    folder = Path(str(polynet.__file__)).parent
    for path in set(folder.rglob("*.py")) - set(folder.joinpath("testing").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                called = getattr(owner, "id", getattr(owner, "attr", None))
                if called == "xp" and not node.attr.startswith("_"):
                    names.add(node.attr)
    return frozenset(names)


REQUIRED = (
    used_names()
    | LOCALLY_CONSTANT
    | INQUIRIES
    | {name for name, f in OPS.items() if f.__module__.startswith("polynet.ops.")}
) - {"getitem", "to_device", "from_dlpack", "linalg", "fft", "isin", "broadcast_shapes"}
"""Without `x[key]` and a method, and what a library need not have: it may not share, lack the
extensions, and what came with 2025.12."""


ATTRIBUTES = "shape dtype ndim device mT".split()
OPERATORS = (
    "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift radd rsub rmul rtruediv "
    "rpow rmatmul lt le gt ge eq ne neg invert abs getitem bool float int"
).split()


def test_arrays_have_what_polynet_uses(backend: Backend) -> None:
    x = backend.from_host(np.ones((2, 2), np.float32), backend.device(None))
    missing = [name for name in ATTRIBUTES if not hasattr(x, name)]
    missing += [f"__{name}__" for name in OPERATORS if not hasattr(x, f"__{name}__")]
    assert not missing, f"an array lacks {', '.join(missing)}"
    kinds = [type(n).__qualname__ for n in x.shape if not isinstance(n, int)]
    assert not kinds, f"an array's .shape is of {kinds[0]}; expected Python's int"


def test_the_namespace_has_what_polynet_uses(backend: Backend) -> None:
    needed = REQUIRED - {"float64", "int64"}
    needed -= {name for name, need in NEEDS.items() if not is_capable(backend, need)}
    missing = sorted(name for name in needed if not hasattr(backend.xp, name))
    assert not missing, f"xp lacks {', '.join(missing)}"


def test_dtypes_by_name(backend: Backend) -> None:
    for name in ("float32", "float64", "int32", "int64", "bool"):
        if name in ("float64", "int64") and not hasattr(backend.xp, name):
            with pytest.raises(TypeError, match=f"has no {name}"):
                backend.dtype(name)
            continue
        assert backend.dtype(name) == getattr(backend.xp, name), f"dtype({name!r})"
    with pytest.raises(ValueError, match="float33"):
        backend.dtype("float33")


def test_inquiries(backend: Backend) -> None:
    xp, native = backend.xp, backend.device(None)
    defaults = xp.__array_namespace_info__().default_dtypes(device=native)
    words = "xp.__array_namespace_info__().default_dtypes()['indexing']"
    integers = [getattr(xp, name) for name in ("int32", "int64") if hasattr(xp, name)]
    assert defaults["indexing"] in integers, f"{words} is {defaults['indexing']}"
    for dtype, kind, expected in (
        (xp.float32, "real floating", True),
        (xp.float32, "integral", False),
        (xp.int32, "integral", True),
        (xp.bool, "bool", True),
        (xp.bool, "integral", False),
    ):
        assert xp.isdtype(dtype, kind) is expected, f"xp.isdtype({dtype}, {kind!r})"
    assert float(xp.finfo(xp.float32).eps) == 2.0**-23, "xp.finfo(float32).eps"
    assert int(xp.iinfo(xp.int32).max) == 2**31 - 1, "xp.iinfo(int32).max"
    assert xp.result_type(xp.float32, xp.float32) == xp.float32, "xp.result_type"
    if hasattr(xp, "float64"):
        assert xp.can_cast(xp.float32, xp.float64) is True, "xp.can_cast(float32, float64)"


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "all": lambda xp, a: xp.all(a.flags, axis=0),
    "any": lambda xp, a: xp.any(a.flags, axis=0),
    "arange": lambda xp, a: xp.arange(2, 7, dtype=xp.int32, device=a.device),
    "argmax": lambda xp, a: xp.argmax(a.x, axis=1),
    "argmin": lambda xp, a: xp.argmin(a.x, axis=0),
    "argsort": lambda xp, a: xp.argsort(a.row),
    "argsort stable": lambda xp, a: xp.argsort(a.rows, stable=True),
    "asarray": lambda xp, a: xp.asarray(a.x, copy=True),
    "asarray of numbers": lambda xp, a: xp.asarray([1.5, 2], dtype=xp.float32, device=a.device),
    "astype": lambda xp, a: xp.astype(a.x, xp.int32),
    "astype of truths": lambda xp, a: xp.astype(a.flags, xp.float32),
    "bitwise_and": lambda xp, a: xp.bitwise_and(a.n, a.m),
    "bitwise_invert": lambda xp, a: xp.bitwise_invert(a.n),
    "bitwise_left_shift": lambda xp, a: xp.bitwise_left_shift(a.n, a.few),
    "bitwise_or": lambda xp, a: xp.bitwise_or(a.n, a.m),
    "bitwise_right_shift": lambda xp, a: xp.bitwise_right_shift(a.n, a.few),
    "bitwise_xor": lambda xp, a: xp.bitwise_xor(a.n, a.m),
    "ceil": lambda xp, a: xp.ceil(a.x),
    "count_nonzero": lambda xp, a: xp.count_nonzero(a.flags),
    "empty_like": lambda xp, a: xp.where(a.x == a.x, a.x, xp.empty_like(a.x)),
    "cumulative_sum": lambda xp, a: xp.cumulative_sum(a.n, axis=0),
    "equal": lambda xp, a: xp.equal(a.n, a.m),
    "eye": lambda xp, a: xp.eye(2, 3, k=1, dtype=xp.float32, device=a.device),
    "eye of truths": lambda xp, a: xp.eye(3, k=-1, dtype=xp.bool, device=a.device),
    "floor": lambda xp, a: xp.floor(a.x),
    "floor_divide": lambda xp, a: xp.floor_divide(a.x, a.y + 0.25),
    "full": lambda xp, a: xp.full((2, 3), 1.5, dtype=xp.float32, device=a.device),
    "full_like": lambda xp, a: xp.full_like(a.x, 2.5),
    "greater": lambda xp, a: xp.greater(a.x, a.y),
    "greater_equal": lambda xp, a: xp.greater_equal(a.x, a.y),
    "isfinite": lambda xp, a: xp.isfinite(a.odd),
    "isinf": lambda xp, a: xp.isinf(a.odd),
    "isnan": lambda xp, a: xp.isnan(a.odd),
    "less": lambda xp, a: xp.less(a.x, a.y),
    "less_equal": lambda xp, a: xp.less_equal(a.x, a.y),
    "logical_and": lambda xp, a: xp.logical_and(a.flags, a.x > 0),
    "logical_not": lambda xp, a: xp.logical_not(a.flags),
    "logical_or": lambda xp, a: xp.logical_or(a.flags, a.x > 0),
    "logical_xor": lambda xp, a: xp.logical_xor(a.flags, a.x > 0),
    "max of no number": lambda xp, a: xp.max(a.odd),
    "min of no number": lambda xp, a: xp.min(a.odd),
    "nonzero": lambda xp, a: xp.nonzero(a.flags)[1],
    "not_equal": lambda xp, a: xp.not_equal(a.n, a.m),
    "remainder has the sign of what divides": lambda xp, a: xp.remainder(a.x, a.y * 0 - 0.5),
    "ones": lambda xp, a: xp.ones((2, 3), dtype=xp.float32, device=a.device),
    "ones_like": lambda xp, a: xp.ones_like(a.x),
    "prod": lambda xp, a: xp.prod(a.x, axis=1),
    "round": lambda xp, a: xp.round(a.x),
    "searchsorted": lambda xp, a: xp.searchsorted(xp.sort(a.row), a.row),
    "searchsorted right": lambda xp, a: xp.searchsorted(xp.sort(a.row), a.row, side="right"),
    "signbit": lambda xp, a: xp.signbit(a.x),
    "sort": lambda xp, a: xp.sort(a.row),
    "take": lambda xp, a: xp.take(a.x, a.rows, axis=0),
    "tril": lambda xp, a: xp.tril(a.flags),
    "trunc": lambda xp, a: xp.trunc(a.x),
    "zeros": lambda xp, a: xp.zeros((2, 3), dtype=xp.float32, device=a.device),
    "zeros_like": lambda xp, a: xp.zeros_like(a.n),
    # Operators, and Python's numbers beside arrays, which leave the dtype alone.
    "x + 1.5": lambda xp, a: a.x + 1.5,
    "2.5 - x": lambda xp, a: 2.5 - a.x,
    "x * 2": lambda xp, a: a.x * 2,
    "x / 4": lambda xp, a: a.x / 4,
    "x**2": lambda xp, a: a.x**2,
    "-x": lambda xp, a: -a.x,
    "x > 0": lambda xp, a: a.x > 0,
    "x[1, :]": lambda xp, a: a.x[1, :],
    "n + 1": lambda xp, a: a.n + 1,
    "n << 3": lambda xp, a: a.n << 3,
    "n >> 7": lambda xp, a: a.n >> 7,
    "n & 0xFFFF": lambda xp, a: a.n & 0xFFFF,
    "n ^ m": lambda xp, a: a.n ^ a.m,
    "n | m": lambda xp, a: a.n | a.m,
}
"""Calls of functions that have no derivative, hence no samples, by name."""

NEEDS = {"nonzero": "data-dependent shapes"}
"""What a library must be capable of, by the name of the function."""

TYPES = frozenset("bool float32 float64 int32 int64".split())


def operands() -> dict[str, np.ndarray]:
    """What the calls are made with.

    `m` beside `n` makes every pair of its numbers; `few` is small enough to shift by.
    """
    x = (base("float64") * 0.75).astype(np.float32)
    n = np.asarray([0, 1, -1, 7, -8, 2**31 - 1, -(2**31), 123456789], dtype=np.int32)
    return {
        "x": x,
        "y": x[::-1].copy(),
        "row": np.asarray([0.5, -2.0, 3.25, 0.25, -0.125], dtype=np.float32),
        "odd": np.asarray([1.0, np.nan, np.inf, -np.inf], dtype=np.float32),
        "flags": base("int32") % 2 == 0,
        "n": n,
        "m": n[:, None].copy(),
        "few": np.asarray([0, 1, 2, 3, 4, 5, 13, 31], dtype=np.int32),
        "rows": np.asarray([2, 0, 2]),
    }


def operands_on(backend: Backend, device: Any) -> SimpleNamespace:
    index = backend.index_dtype(device)
    there = {
        name: backend.from_host(a.astype(index) if name == "rows" else a, device)
        for name, a in operands().items()
    }
    return SimpleNamespace(**there, device=device)


def test_every_function_is_called() -> None:
    called = {name.partition(" ")[0] for name in CALLS}
    assert called | set(SAMPLES) >= REQUIRED - INQUIRIES - TYPES


@pytest.mark.parametrize("call", CALLS)
def test_functions_without_derivative(backend: Backend, call: str) -> None:
    """The value and dtype that NumPy gives, on the device of the arguments."""
    name = call.partition(" ")[0]
    if name.isidentifier():
        require(backend, name, NEEDS.get(name, ""))
    numpy = get_backend("numpy")
    expected = np.asarray(CALLS[call](numpy.xp, operands_on(numpy, numpy.device(None))))
    for device_name, native in backend.devices().items():
        with about(f"xp: {call} on {device_name!r}"):
            result = CALLS[call](backend.xp, operands_on(backend, native))
            stays(result, backend, native)
            host = backend.to_host(result)
            if expected.dtype == np.int64:  # the integers of indices and counts differ
                assert host.dtype.kind == "i", f"expected integers, got {host.dtype}"
                host = host.astype(np.int64)
            same(host, expected)


INT32: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "^": operator.xor,
    "&": operator.and_,
    "|": operator.or_,
}
SHIFTS: dict[str, Callable[[Any, Any], Any]] = {"<<": operator.lshift, ">>": operator.rshift}


def test_int32_wraps_around_and_keeps_its_sign(backend: Backend) -> None:
    """What random numbers are made of: 32 bits, no overflow, `>>` that carries the sign."""
    here = operands_on(backend, backend.device(None))
    there = SimpleNamespace(**operands())
    cases = [(symbol, f, here.n, here.m, there.n, there.m) for symbol, f in INT32.items()]
    cases += [(symbol, f, here.n, here.few, there.n, there.few) for symbol, f in SHIFTS.items()]
    cases += [(symbol, f, here.n, 13, there.n, 13) for symbol, f in SHIFTS.items()]
    for symbol, function, a, b, host_a, host_b in cases:
        with about(f"int32 {symbol} int32"), np.errstate(over="ignore"):
            same(backend.to_host(function(a, b)), function(host_a, host_b))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if SAMPLES[name]])
def test_results_and_gradients_stay(backend: Backend, name: str) -> None:
    """On the last device, which is another than the default one where there are two."""
    require(backend, name)
    device_name, native = list(backend.devices().items())[-1]
    sample = SAMPLES[name][0]
    words = f"{what(name, sample, backend)}, on device {device_name!r}"

    def call(inputs: list[Any]) -> Any:
        args = [to_backend(a, backend, "float32", native) for a in with_arrays(sample, inputs)]
        return FUNCTIONS[name](*args, **sample.options)

    given = [to_backend(a, backend, "float32", native) for a in arrays(sample)]
    with about(words):
        stays(call(given), backend, native, "float32")
    with about(f"the gradient of {words}"):
        for slope in value_and_grad(lambda inputs: total(call(inputs)))(given)[1]:
            stays(slope, backend, native, "float32")
