"""The contract itself: each method of a plug-in does what `polynet.backend.Backend` says.

Every failure names the function at fault, since whoever wrote the plug-in reads it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import value_and_grad
from polynet.backend import CONTRACT, Backend, get_backend
from polynet.ops import OPS
from polynet.testing.suite.cases import (
    about,
    base,
    overwrite,
    same,
    stays,
)

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


@pytest.mark.polynet_part("probe")
def test_probe_passes_on_every_device(backend: Backend) -> None:
    for name, native in backend.devices().items():
        with about(f"probe({name!r})"):
            backend.probe(native)


@pytest.mark.polynet_part("device_of")
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
        if overwrite(there):
            with about(f"from_host lets a write on the device reach the host's array ({layout})"):
                same(host, expected)


def test_to_host_is_a_copy(backend: Backend) -> None:
    there = backend.from_host(base("float32"), backend.device(None))
    wide = VIEWS["broadcast"](backend.xp, there)
    for view, array in (
        ("an array", there),
        ("a number", there[1, 2]),
        ("a broadcast array", wide),
    ):
        host = backend.to_host(array)
        expected = np.array(host)
        assert host.flags.writeable, f"to_host of {view} returned a read-only array"
        changed = np.array(host)
        host[(0,) * host.ndim] = changed[(0,) * host.ndim] = 99
        with about(f"to_host of {view} has one place for several elements"):
            same(host, changed)
        host[...] = 99
        with about(f"to_host shares memory with the device's array ({view})"):
            same(backend.to_host(array), expected)


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


@pytest.mark.polynet_part("jit")
@pytest.mark.filterwarnings("ignore:.*one operation at a time:RuntimeWarning")
@pytest.mark.parametrize("reads", [False, True])
def test_a_function_made_one_program_gives_what_it_gave(backend: Backend, reads: bool) -> None:
    """In whole numbers; of other shapes, too, and of one that reads an array's value."""
    xp, native = backend.xp, backend.device(None)

    def function(arrays: Mapping[str, Any], number: int, x: Any) -> Any:
        y = xp.sum(x * arrays["weight"], axis=0) + number
        return {"y": y, "many": x.shape[0] > 2 or not reads or bool(xp.all(y > -99)), "x": x}

    weight = backend.from_host(np.asarray([1.0, 2.0], np.float32), native)
    program = backend.jit(function)
    for count, number in ((3, 0), (3, 7), (2, 7), (3, 1)):
        x = backend.from_host(np.arange(2.0 * count, dtype=np.float32).reshape(count, 2), native)
        found, expected = program({"weight": weight}, number, x), backend.to_host(x)
        with about(f"jit, of {count} rows and the number {number}"):
            same(backend.to_host(found["x"]), expected)
            wanted = (expected * np.asarray([1, 2], np.float32)).sum(axis=0) + number
            stays(found["y"], backend, native, "float32")
            same(backend.to_host(found["y"]), wanted.astype(np.float32))
            assert found["many"], "a value within it is another"


@pytest.mark.polynet_part("owned")
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
        if expected.size and overwrite(own, first):
            expected[first] = 77
            with about(f"{words} has one place for several elements"):
                same(backend.to_host(own), expected)
        overwrite(own)
        with about(f"{words} shares memory with that array"):
            same(backend.to_host(there), whole)


def test_work_on_a_device_stays_there(backend: Backend) -> None:
    """Within `on`, which matters where the library has a current device."""
    for name, native in backend.devices().items():
        x = backend.from_host(np.ones(3, np.float32), native)
        with about(f"within on(device) of {name!r}"), backend.on(native):
            for y in (backend.xp.asarray(x, copy=True), x + 1):
                stays(y, backend, native, "float32")


def test_a_copy_that_is_fetched_later(backend: Backend) -> None:
    for view, make in VIEWS.items():
        array = make(backend.xp, backend.from_host(base("float32"), backend.device(None)))
        fetch = backend.to_host_later(array)
        with about(f"to_host_later of an array that is {view}"):
            for _ in range(2):
                same(fetch(), backend.to_host(array))


@pytest.mark.polynet_part("share")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_share_is_the_same_memory_or_an_error(backend: Backend, layout: str) -> None:
    for name, native in backend.devices().items():
        for dtype in MANDATORY:
            host = LAYOUTS[layout](base(dtype))
            words = f"share of {dtype}, {layout}, with device {name!r}"
            try:
                there = polynet.asarray(host, backend=backend, device=name, copy=False)
            except ValueError:
                continue
            with about(words):
                stays(there, backend, native, dtype)
                if host.flags.writeable:
                    host[...] = 1 - host.astype("int32")
                else:
                    assert not overwrite(there), "read-only memory can be written to"
            with about(f"{words} is a copy"):
                same(backend.to_host(there), np.array(host))


@pytest.mark.polynet_part("share")
def test_share_of_its_own_arrays(backend: Backend) -> None:
    """Also with NumPy, where that is possible: two views of one memory are no copies."""
    for name, native in backend.devices().items():
        x = backend.from_host(base("float32"), native)
        shared = backend.share(x, native)
        overwrite(x)
        with about(f"share of an array that is on {name!r} already"):
            stays(shared, backend, native, "float32")
            same(backend.to_host(shared), backend.to_host(x))
        try:
            views = [polynet.to_numpy(x, copy=False) for _ in range(2)]
        except ValueError:
            continue
        with about(f"to_numpy(copy=False) of an array on {name!r}"):
            same(views[0], backend.to_host(x))
            assert np.shares_memory(*views), "it is a copy"
            assert views[0].flags.writeable <= overwrite(x), "an array that is constant changes"
