"""The contract itself: each method of a plug-in does what `polynet.backend.Backend` says.

Every failure names the function at fault, since whoever wrote the plug-in reads it first.
"""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import value_and_grad
from polynet.backend import CONTRACT, Backend, get_backend
from polynet.ops import LOCALLY_CONSTANT, OPS
from polynet.ops.differentiable import INQUIRIES
from polynet.testing.samples import SAMPLES
from polynet.testing.suite.cases import about, arrays, by_name, to_backend, what, with_arrays
from polynet.tree import named_leaves

FUNCTIONS = by_name()
total = OPS["sum"]


# What it is


def test_name_version_and_contract(backend: Backend) -> None:
    for attribute, kind in (("name", str), ("version", str), ("contract", int)):
        value = getattr(backend, attribute)
        right = isinstance(value, kind) and not isinstance(value, bool)
        assert right, f"{attribute} is {value!r}; expected a {kind.__name__}"
    assert backend.version, "version is empty; expected the array library's"
    assert backend.contract == CONTRACT
    assert get_backend(backend.name) is backend, "name is not the entry point's"


def test_the_optional_attributes(backend: Backend) -> None:
    assert isinstance(backend.kernels, Mapping), f"kernels is a {type(backend.kernels).__name__}"
    for name, kernel in backend.kernels.items():
        assert type(name) is str, f"kernels has the key {name!r}; expected names"
        assert callable(kernel), f"kernels[{name!r}] is {kernel!r}; expected a function"
    count = backend.steps_per_call
    assert type(count) is int, f"steps_per_call is {count!r}; expected an integer"
    assert count >= 1, f"steps_per_call is {count}; expected at least 1"


def test_without_kernels_takes_them_from_a_copy(backend: Backend) -> None:
    before = dict(backend.kernels)
    plain = backend.without_kernels()
    assert plain is not backend, "without_kernels() returned the backend itself"
    assert dict(plain.kernels) == {}, "without_kernels() kept some"
    assert dict(backend.kernels) == before, "without_kernels() took the original's kernels"
    assert (plain.name, plain.xp) == (backend.name, backend.xp)


# Devices


def test_devices_have_names_and_the_first_is_the_default(backend: Backend) -> None:
    devices = backend.devices()
    assert isinstance(devices, Mapping), f"devices() returned a {type(devices).__name__}"
    assert devices, "devices() is empty"
    for name, native in devices.items():
        assert type(name) is str, f"devices() has the name {name!r}; expected a string"
        assert backend.device(name) == native, f"device({name!r}) is not devices()[{name!r}]"
    assert backend.device(None) == next(iter(devices.values())), "device(None) is not the first"
    assert list(backend.devices().items()) == list(devices.items()), "devices() changes"


def test_an_unknown_device_is_an_error_by_name(backend: Backend) -> None:
    said = None
    try:
        backend.device("no_such_device")
    except ValueError as error:
        said = str(error)
    assert said is not None, "device('no_such_device') raised no ValueError"
    for name in (backend.name, "no_such_device", *backend.devices()):
        assert name in said, f"the error of device('no_such_device') does not name {name!r}: {said}"


def test_probe_passes_on_every_device(backend: Backend) -> None:
    for name, native in backend.devices().items():
        with about(f"probe({name!r})"):
            backend.probe(native)


def test_device_of_says_where_an_array_is(backend: Backend) -> None:
    """Of arrays that the namespace made, so that `from_host` has no part in it."""
    for name, native in backend.devices().items():
        made = backend.xp.zeros((2,), dtype=backend.xp.float32, device=native)
        found = backend.device_of(made)
        assert found == native, f"device_of(xp.zeros(…, device={native!r})) is {found!r}"
        found = backend.device_name(made)
        assert found == name, f"device_name(xp.zeros(…, device={native!r})) is {found!r}"


def test_from_host_lands_on_the_device_asked_for(backend: Backend) -> None:
    for name, native in backend.devices().items():
        there = backend.xp.zeros((2,), dtype=backend.xp.float32, device=native)
        sent = backend.from_host(np.zeros(2, dtype=np.float32), native)
        found = backend.device_name(sent)
        wanted = backend.device_name(there)
        assert found == wanted, f"from_host(…, device {name!r}) put the array on {found!r}"


def test_synchronize_returns(backend: Backend) -> None:
    for native in backend.devices().values():
        started = backend.xp.ones((64, 64), dtype=backend.xp.float32, device=native)
        started = backend.xp.matmul(started, started)
        result = backend.synchronize()
        assert result is None, f"synchronize() returned {result!r}"


# To and from the host


def base(dtype: str) -> np.ndarray:
    """Numbers of both signs where the dtype has them, truths of both kinds."""
    return (np.arange(24).reshape(4, 6) * 5 % 7 - 3).astype(dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a matrix": lambda a: a,
    "a vector": lambda a: a[0].copy(),
    "0-d": lambda a: np.array(a[0, 0]),
    "empty": lambda a: a[:0].copy(),
    "every other column": lambda a: a[:, ::2],
    "backwards": lambda a: a[:, ::-1],
    "transposed": lambda a: a.T,
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "in Fortran's order": np.asfortranarray,
    "read-only": read_only,
}
MANDATORY = ("float32", "int32", "bool")
OTHERS = tuple("float64 float16 int8 int16 int64 uint8 uint16 uint32 uint64".split())


def same(actual: Any, expected: np.ndarray) -> None:
    """Assert that `actual` is a NumPy array like `expected`, to the bit."""
    assert type(actual) is np.ndarray, f"expected a numpy.ndarray, got {type(actual)}"
    assert actual.dtype == expected.dtype, f"expected {expected.dtype}, got {actual.dtype}"
    assert actual.shape == expected.shape, f"expected shape {expected.shape}, got {actual.shape}"
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(backend: Backend, layout: str) -> None:
    native = backend.device(None)
    for dtype in dict.fromkeys([*MANDATORY, backend.index_dtype(native)]):
        host = LAYOUTS[layout](base(dtype))
        expected = np.array(host)
        with about(f"from_host of {dtype}, {layout}"):
            there = backend.from_host(host, native)
            assert backend.is_array(there), f"is_array is false of what came, a {type(there)}"
            assert there.dtype == backend.dtype(dtype), f"the dtype became {there.dtype}"
            assert tuple(there.shape) == expected.shape, f"the shape became {there.shape}"
        with about(f"to_host of {dtype}, {layout}, from from_host"):
            same(backend.to_host(there), expected)


@pytest.mark.parametrize("dtype", OTHERS)
def test_a_dtype_stays_or_is_refused(backend: Backend, dtype: str) -> None:
    """TypeError says that a device lacks a dtype; another dtype instead would be silent."""
    for name, native in backend.devices().items():
        try:
            there = backend.from_host(base(dtype), native)
        except TypeError:
            continue
        if hasattr(backend.xp, dtype):
            wanted = getattr(backend.xp, dtype)
            words = f"from_host made {there.dtype} of {dtype} on {name!r}; it may raise TypeError"
            assert there.dtype == wanted, words
        with about(f"to_host of {dtype} on {name!r}"):
            same(backend.to_host(there), base(dtype))


VIEWS: dict[str, Callable[[Any, Any], Any]] = {
    "transposed": lambda xp, a: xp.permute_dims(a, (1, 0)),
    "every other column": lambda xp, a: a[:, ::2],
    "backwards": lambda xp, a: xp.flip(a, axis=1),
    "broadcast": lambda xp, a: xp.broadcast_to(a[:, :1], (4, 6)),
    "one number": lambda xp, a: a[1, 2],
    "no row": lambda xp, a: a[:0, :],
}


@pytest.mark.parametrize("view", VIEWS)
def test_to_host_of_a_view(backend: Backend, view: str) -> None:
    there = backend.from_host(base("float32"), backend.device(None))
    with about(f"to_host of an array that is {view}"):
        same(backend.to_host(VIEWS[view](backend.xp, there)), VIEWS[view](np, base("float32")) + 0)


def test_from_host_is_a_copy(backend: Backend) -> None:
    for layout in ("a matrix", "0-d", "every other column"):
        host = LAYOUTS[layout](base("float32"))
        expected = np.array(host)
        there = backend.from_host(host, backend.device(None))
        host[...] = 99
        with about(f"from_host shares memory with the host's array ({layout})"):
            same(backend.to_host(there), expected)
        host[...] = expected
        if overwritten(there):
            with about(f"from_host lets a write on the device reach the host's array ({layout})"):
                same(host, expected)


def test_to_host_is_a_copy(backend: Backend) -> None:
    there = backend.from_host(base("float32"), backend.device(None))
    for view, array in (("an array", there), ("a number", there[1, 2])):
        host = backend.to_host(array)
        expected = np.array(host)
        assert host.flags.writeable, f"to_host of {view} returned a read-only array"
        host[...] = 99
        with about(f"to_host shares memory with the device's array ({view})"):
            same(backend.to_host(array), expected)


def overwritten(array: Any, where: Any = ...) -> bool:
    """Write 77 to `array`, and say whether its library can do that."""
    try:
        array[where] = 77
    except (TypeError, ValueError):  # its arrays cannot change, or this one is read-only
        return False
    return True


# Arrays


def test_is_array_of_its_own(backend: Backend) -> None:
    xp, native = backend.xp, backend.device(None)
    x = backend.from_host(base("float32"), native)
    for source, array in {
        "from_host": x,
        "from_host of 0-d": backend.from_host(np.ones((), dtype=np.float32), native),
        "xp.zeros": xp.zeros((0, 2), dtype=xp.float32, device=native),
        "xp.sum": xp.sum(x),
        "an index": x[0, 0],
        "a comparison": x > 0,
        "an operator": x * 2.0,
    }.items():
        assert backend.is_array(array), (
            f"is_array is false of the result of {source}, {type(array)}"
        )


def test_is_array_of_nothing_else(backend: Backend) -> None:
    x = backend.from_host(base("float32"), backend.device(None))

    class Alien:
        dtype, shape, device, ndim = "float32", (1,), "cpu", 1

    others = [1, 1.0, True, None, "1", [1.0], (x,), {"x": x}, object(), Alien(), type(x)]
    if not isinstance(x, np.ndarray):
        others += [np.ones(2, dtype=np.float32), np.float32(1)]
    value_and_grad(lambda a: others.append(a) or total(a))(x)
    for other in others:
        words = f"is_array is true of a {type(other).__module__}.{type(other).__qualname__}"
        assert not backend.is_array(other), words


def test_owned_is_equal_and_alone(backend: Backend) -> None:
    """What a user is handed may be written to, and nothing else may change."""
    for view, make in VIEWS.items():
        there = backend.from_host(base("float32"), backend.device(None))
        array = make(backend.xp, there)
        expected = backend.to_host(array)
        whole = backend.to_host(there)
        own = backend.owned(array)
        words = f"owned of an array that is {view}"
        with about(words):
            assert backend.is_array(own), f"it returned a {type(own)}"
            assert backend.device_of(own) == backend.device_of(array), "it moved the array"
            same(backend.to_host(own), expected)
        first = (0,) * expected.ndim
        if expected.size and overwritten(own, first):
            expected[first] = 77
            with about(f"{words} has one place for several elements"):
                same(backend.to_host(own), expected)
        overwritten(own)
        with about(f"{words} shares memory with that array"):
            same(backend.to_host(there), whole)


# The namespace


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
) - {"getitem"}  # which is `x[key]`


def test_the_namespace_has_what_polynet_uses(backend: Backend) -> None:
    missing = sorted(name for name in REQUIRED if not hasattr(backend.xp, name))
    assert not missing, f"xp lacks {', '.join(missing)}"


def test_dtypes_by_name(backend: Backend) -> None:
    for name in ("float32", "float64", "int32", "int64", "bool"):
        assert backend.dtype(name) == getattr(backend.xp, name), f"dtype({name!r})"
    with pytest.raises(ValueError, match="float33"):
        backend.dtype("float33")


def test_inquiries(backend: Backend) -> None:
    xp, native = backend.xp, backend.device(None)
    defaults = xp.__array_namespace_info__().default_dtypes(device=native)
    words = "xp.__array_namespace_info__().default_dtypes()['indexing']"
    assert defaults["indexing"] in (xp.int32, xp.int64), f"{words} is {defaults['indexing']}"
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
    assert xp.can_cast(xp.float32, xp.float64) is True, "xp.can_cast(float32, float64)"


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "all": lambda xp, a: xp.all(a.flags, axis=0),
    "any": lambda xp, a: xp.any(a.flags, axis=0),
    "cumulative_sum": lambda xp, a: xp.cumulative_sum(a.n, axis=0),
    "arange": lambda xp, a: xp.arange(2, 7, dtype=xp.int32, device=a.device),
    "argmax": lambda xp, a: xp.argmax(a.x, axis=1),
    "argmin": lambda xp, a: xp.argmin(a.x, axis=0),
    "argsort": lambda xp, a: xp.argsort(a.row),
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
    "empty_like": lambda xp, a: xp.empty_like(a.x) * 0,
    "equal": lambda xp, a: xp.equal(a.n, a.m),
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
    "nonzero": lambda xp, a: xp.nonzero(a.flags)[1],
    "not_equal": lambda xp, a: xp.not_equal(a.n, a.m),
    "ones": lambda xp, a: xp.ones((2, 3), dtype=xp.float32, device=a.device),
    "ones_like": lambda xp, a: xp.ones_like(a.x),
    "round": lambda xp, a: xp.round(a.x),
    "searchsorted": lambda xp, a: xp.searchsorted(xp.sort(a.row), a.row),
    "sign": lambda xp, a: xp.sign(a.x),
    "signbit": lambda xp, a: xp.signbit(a.x),
    "sort": lambda xp, a: xp.sort(a.row),
    "take": lambda xp, a: xp.take(a.x, a.rows, axis=0),
    "tril": lambda xp, a: xp.tril(a.flags),
    "trunc": lambda xp, a: xp.trunc(a.x),
    "unstack": lambda xp, a: xp.unstack(a.n)[1],
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


def test_functions_without_derivative(backend: Backend) -> None:
    """The value and dtype that NumPy gives, on the device of the arguments."""
    numpy = get_backend("numpy")
    there = operands_on(numpy, numpy.device(None))
    for device_name, native in backend.devices().items():
        here = operands_on(backend, native)
        for name, call in CALLS.items():
            expected = np.asarray(call(numpy.xp, there))
            with about(f"xp: {name} on {device_name!r}"):
                result = call(backend.xp, here)
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


def stays(result: Any, backend: Backend, device: Any, dtype: str | None = None) -> None:
    """Assert that `result` is an array of `backend` on `device`."""
    kind = f"{type(result).__module__}.{type(result).__qualname__}"
    assert backend.is_array(result), f"the result is a {kind}, no array of {backend.name!r}"
    found = backend.device_of(result)
    assert found == device, f"the result is on {found}, its arguments on {device}"
    if dtype is not None:
        assert result.dtype == backend.dtype(dtype), f"{result.dtype} came of {dtype}"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if SAMPLES[name]])
def test_results_and_gradients_stay(backend: Backend, name: str) -> None:
    """On the last device, which is another than the default one where there are two."""
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


# The step


def step_of(xp: Any) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A step in whole numbers, which every compiler computes alike.

    `key` stays as it is, and the optimizer's two leaves are equal, but two.
    """

    def step(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        x, y = (xp.take(a, rows, axis=0) for a in data)
        weight, bias = state["params"]["weight"], state["params"]["bias"]
        loss = xp.sum(x * weight - xp.expand_dims(y, axis=1)) + bias
        return {
            "params": {"weight": weight + xp.sum(x, axis=0), "bias": bias + 1},
            "optimizer": {name: old + weight for name, old in state["optimizer"].items()},
            "key": state["key"],
            "step": state["step"] + 1,
        }, loss

    return step


def start(backend: Backend, device: Any) -> tuple[Any, Any]:
    """A state to begin with, and the data."""

    def put(numbers: Any, dtype: Any = np.float32) -> Any:
        return backend.from_host(np.asarray(numbers, dtype=dtype), device)

    state = {
        "params": {"weight": put([1, 2, 3]), "bias": put(5)},
        "optimizer": {"first": put([0, 0, 0]), "second": put([0, 0, 0])},
        "key": put([17, -4], np.int32),
        "step": put([0], np.int32),
    }
    x = np.arange(24).reshape(8, 3) % 5 - 2
    return state, (put(x), put(np.arange(8) % 3))


def batches_of(backend: Backend, device: Any, count: int, size: int) -> list[Any]:
    index = backend.index_dtype(device)
    rows = [(np.arange(size) * 3 + 5 * i) % 8 for i in range(count)]
    return [backend.from_host(r.astype(index), device) for r in rows]


def read(backend: Backend, tree: Any) -> dict[str, np.ndarray]:
    """Every leaf by its path, on the host."""
    return {path: backend.to_host(leaf) for path, leaf in named_leaves(tree)}


def one_by_one(backend: Backend, device: Any, *sets: list[Any]) -> tuple[Any, list[np.ndarray]]:
    """The last state, and the losses, of calling the step itself."""
    state, data = start(backend, device)
    losses = []
    for batches in sets:
        for rows in batches:
            state, loss = step_of(backend.xp)(state, data, rows)
            losses.append(backend.to_host(loss))
    return read(backend, state), losses


def equal_leaves(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    names, wanted = sorted(found), sorted(expected)  # JAX sorts a dict, which is the same dict
    assert names == wanted, f"it has the leaves {names}, not {wanted}"
    for path, value in expected.items():
        with about(f"leaf {path!r}"):
            same(found[path], value)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_compile_runs_the_steps_in_order(backend: Backend, count: int) -> None:
    for name, native in backend.devices().items():
        batches = batches_of(backend, native, count, 4)
        expected, losses = one_by_one(backend, native, batches)
        state, data = start(backend, native)
        state, found = backend.compile(step_of(backend.xp))(state, data, batches)
        with about(f"compile, the state after {count} steps on {name!r}"):
            equal_leaves(read(backend, state), expected)
            for path, leaf in named_leaves(state):
                with about(f"leaf {path!r}"):
                    stays(leaf, backend, native)
        with about(f"compile, the losses of {count} steps on {name!r}"):
            stays(found, backend, native, "float32")
            same(backend.to_host(found), np.stack(losses))


def test_compile_can_be_called_again_and_with_other_sizes(backend: Backend) -> None:
    native = backend.device(None)
    calls = [batches_of(backend, native, *sizes) for sizes in ((2, 4), (2, 4), (1, 3), (2, 4))]
    expected, losses = one_by_one(backend, native, *calls)
    state, data = start(backend, native)
    run = backend.compile(step_of(backend.xp))
    found = []
    for call, batches in enumerate(calls):
        state, launched = run(state, data, batches)
        found += list(backend.to_host(launched))
        with about(f"compile, the losses of call {call}"):
            same(np.stack(found), np.stack(losses[: len(found)]))
    with about("compile, the state after several calls"):
        equal_leaves(read(backend, state), expected)


def test_compile_overwrites_nothing_that_others_hold(backend: Backend) -> None:
    """It may spend the state; the losses it returned, the data and the rows are not its own."""
    native = backend.device(None)
    state, data = start(backend, native)
    batches = batches_of(backend, native, 2, 4)
    run = backend.compile(step_of(backend.xp))
    state, losses = run(state, data, batches)
    kept = {"losses of an earlier call": losses, "data": list(data), "rows": batches}
    before = read(backend, kept)
    for _ in range(2):
        state, _ = run(state, data, batches)
    with about("compile: a later call overwrote what others hold"):
        equal_leaves(read(backend, kept), before)


def test_compile_returns_leaves_of_their_own(backend: Backend) -> None:
    """No leaf is another, nor shares memory with another where that can be seen."""
    native = backend.device(None)
    state, data = start(backend, native)
    state, losses = backend.compile(step_of(backend.xp))(
        state, data, batches_of(backend, native, 2, 4)
    )
    leaves = named_leaves({"state": state, "losses": losses})
    for path, leaf in leaves:
        others = [(p, a, backend.to_host(a)) for p, a in leaves if p != path]
        for other, a, _ in others:
            assert a is not leaf, f"compile: {path!r} is {other!r} too"
        overwritten(leaf)
        for other, a, before in others:
            with about(f"compile: {path!r} shares memory with {other!r}"):
                same(backend.to_host(a), before)


def test_two_compiled_steps_are_two(backend: Backend) -> None:
    native = backend.device(None)
    batches = batches_of(backend, native, 2, 4)

    def doubled(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        state, loss = step_of(backend.xp)(state, data, rows)
        return state, loss * 2

    runs = [backend.compile(step) for step in (step_of(backend.xp), doubled)]
    once, twice = (backend.to_host(run(*start(backend, native), batches)[1]) for run in runs)
    with about("compile: the second step compiled is not the one it was given"):
        same(twice, once * 2)


def test_compile_reads_nothing_on_the_host(backend: Backend) -> None:
    """A step that waits for the host in its midst is slow, however right its numbers are."""
    native = backend.device(None)
    spied = copy.copy(backend)
    reads: list[Any] = []

    def to_host(array: Any) -> np.ndarray:
        reads.append(array)
        return backend.to_host(array)

    spied.to_host = to_host  # type: ignore[method-assign]
    state, data = start(backend, native)
    spied.compile(step_of(backend.xp))(state, data, batches_of(backend, native, 3, 4))
    assert not reads, f"compile: its runner called to_host {len(reads)} times"
