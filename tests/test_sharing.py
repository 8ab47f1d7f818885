"""The same memory for two libraries: every pair, what is refused and why, and what is no copy."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.backend import Backend, registry
from polynet.data import Place
from polynet.errors import RecordError
from polynet.ops import OPS

needs_writeable_views = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0",
    reason="NumPy before 2.1 takes memory by DLPack read-only, and gives away none that is",
)
SOURCES = [name for name in ("numpy", "strict", "torch", "jax") if registry.status(name).available]
DTYPES = ("float32", "float64", "int32", "int64", "bool")
LAYOUTS = {
    "a matrix": lambda a: a,
    "0-d": lambda a: a[:1, :1].reshape(()),
    "empty": lambda a: a[:0],
    "transposed": lambda a: a.T,
    "every other column": lambda a: a[:, ::2],
    "backwards": lambda a: a[:, ::-1],
    "one element on": lambda a: a.reshape(-1)[1:],
}
CANNOT = {
    "jax": {"every other column": "compact", "backwards": "compact", "one element on": "aligned"},
    "torch": {"backwards": "negative"},
}
"""What a library does not take, and a word of the reason that it gives."""


@pytest.fixture(autouse=True)
def wide_jax():
    """JAX with 64 bits, as the pairs are compared in all dtypes."""
    if "jax" not in SOURCES:
        yield
        return
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def aligned(dtype):
    """A matrix on memory that every library takes: JAX asks for 64 bytes."""
    buffer = np.zeros(64 + 24 * 8, dtype=np.uint8)
    start = -buffer.ctypes.data % 64
    matrix = buffer[start : start + 24 * np.dtype(dtype).itemsize].view(dtype).reshape(4, 6)
    matrix[...] = np.arange(24).reshape(4, 6) % 5
    return matrix


def address(array):
    """Where the elements of an array of any of the libraries begin, without DLPack."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    if hasattr(array, "data_ptr"):
        return array.data_ptr()
    if hasattr(array, "unsafe_buffer_pointer"):
        return array.unsafe_buffer_pointer()
    return array._array.ctypes.data  # array-api-strict's, which is NumPy's


def to_cpu(x, name, **options):
    return polynet.asarray(x, backend=name, device="cpu", **options)


def source(name, layout, dtype):
    """NumPy's array, and an array of a library on the same memory."""
    host = LAYOUTS[layout](aligned(dtype))
    return host, host if name == "numpy" else to_cpu(host, name, copy=False)


def possible(name):
    """The layouts that a library's arrays can have."""
    return [layout for layout in LAYOUTS if layout not in CANNOT.get(name, ())]


PAIRS = pytest.mark.parametrize(
    ("there", "layout"), [(name, layout) for name in SOURCES for layout in possible(name)]
)
"""The other library of a pair, whose first one is `backend`, and how its array lies there."""


# Every pair


@needs_writeable_views
@PAIRS
def test_the_memory_is_the_same_or_the_reason_is_given(backend: Backend, there, layout):
    for dtype in DTYPES:
        host, x = source(there, layout, dtype)
        reason = CANNOT.get(backend.name, {}).get(layout)
        if backend.name == "torch" and there == "jax":
            reason = "read-only"
        if reason and backend.name != there:
            with pytest.raises(ValueError, match=rf"cannot be shared .*{reason}.*copy=False"):
                to_cpu(x, backend.name, copy=False)
            continue
        y = to_cpu(x, backend.name, copy=False)
        assert backend.is_array(y)
        assert backend.device_name(y) == "cpu"
        assert y.dtype == backend.dtype(dtype)
        assert tuple(y.shape) == host.shape
        if host.size:
            assert address(y) == address(x) == address(host)
            host[...] = 3  # before anything reads `y`, since JAX may keep what it has read
        np.testing.assert_array_equal(polynet.to_numpy(y), host, strict=True)


@needs_writeable_views
@PAIRS
def test_a_copy_is_a_copy(backend: Backend, there, layout):
    for dtype in DTYPES:
        host, x = source(there, layout, dtype)
        expected = host.copy()
        y = to_cpu(x, backend.name)
        assert backend.is_array(y)
        host[...] = 3
        np.testing.assert_array_equal(polynet.to_numpy(y), expected, strict=True)


@needs_writeable_views
def test_to_numpy_of_the_same_memory(backend: Backend):
    for layout, dtype in itertools.product(possible(backend.name), DTYPES):
        host, x = source(backend.name, layout, dtype)
        y = polynet.to_numpy(x, copy=False)
        assert type(y) is np.ndarray
        assert np.array_equal(y, host) and y.dtype == dtype
        assert not host.size or address(y) == address(host)
        assert y.flags.writeable == (backend.name != "jax")


@needs_writeable_views
def test_a_write_is_seen_on_both_sides():
    for name in ("strict", "torch"):
        if name not in SOURCES:
            continue
        host = aligned("float32")
        there = to_cpu(host, name, copy=False)
        there[0, 0] = 17
        assert host[0, 0] == 17
        host[3, 5] = -2
        assert float(there[3, 5]) == -2
        polynet.to_numpy(there, copy=False)[1, 1] = 9
        assert host[1, 1] == 9


@needs_writeable_views
def test_the_memory_outlives_the_array_it_came_from(backend: Backend):
    host = aligned("float32")
    expected = host.copy()
    there = to_cpu(host, backend.name, copy=False)
    back = polynet.to_numpy(there, copy=False)
    del host, there
    np.testing.assert_array_equal(back, expected)


# What must not be written to


@needs_writeable_views
def test_read_only_memory_stays_so(backend: Backend):
    host = aligned("float32")
    host.flags.writeable = False
    if backend.name in ("torch", "jax"):
        with pytest.raises(ValueError, match=r"read-?only"):
            to_cpu(host, backend.name, copy=False)
        return
    there = to_cpu(host, backend.name, copy=False)
    with pytest.raises(ValueError, match="read-only"):
        there[0, 0] = 1


@pytest.mark.skipif("jax" not in SOURCES, reason="JAX is not installed")
def test_nobody_can_write_to_jax():
    x = polynet.asarray(np.ones(3, dtype="float32"), backend="jax")
    for there in (polynet.to_numpy(x, copy=False), to_cpu(x, "strict", copy=False)):
        with pytest.raises(ValueError, match="read-only"):
            there[0] = 2
    if "torch" in SOURCES:
        with pytest.raises(ValueError, match=r"read-only, which PyTorch.*Leave out copy=False"):
            to_cpu(x, "torch", copy=False)
        to_cpu(x, "torch")[0] = 2
    assert polynet.to_numpy(x).tolist() == [1, 1, 1]


# What is refused


def test_an_array_that_is_there_is_returned_itself(backend: Backend):
    x = polynet.asarray(aligned("float32"))
    assert polynet.asarray(x, copy=False) is x
    assert polynet.asarray(x, copy=False, dtype="float32") is x
    with pytest.raises(ValueError, match="it is float32, and int32 was asked for"):
        polynet.asarray(x, copy=False, dtype="int32")


def test_another_device_is_refused():
    x = polynet.asarray([1.0], backend="strict", device="cpu")
    with pytest.raises(ValueError, match=r"on .*device1.*: it is on .*CPU_DEVICE"):
        polynet.asarray(x, copy=False)


REFUSED = {
    "a list": (lambda: [1.0], "builtins.list"),
    "a number": (lambda: 1.0, "builtins.float"),
    "a NumPy number": (lambda: np.float32(1), "numpy.float32"),
    "swapped bytes": (lambda: np.ones(2, dtype=">f4"), "in another order .*>f4"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("share", [polynet.to_numpy, polynet.asarray])
def test_what_has_no_memory_to_share_is_refused(share, make, reason):
    with pytest.raises(ValueError, match=rf"{reason}.*Leave out copy=False") as caught:
        share(make(), copy=False)
    assert "cannot be shared with backend 'numpy'" in str(caught.value)


@pytest.mark.parametrize("copy", [None, 0, "no"])
def test_copy_is_true_or_false(copy):
    for share in (polynet.to_numpy, polynet.asarray):
        with pytest.raises(TypeError, match=r"copy is True, .* or False"):
            share(np.ones(2), copy=copy)


def test_masked_arrays_keep_their_mask():
    x = np.ma.masked_array([1.0, 2.0], [True, False])
    for options in ({"copy": True}, {"copy": False}):
        with pytest.raises(TypeError, match="lose their mask"):
            polynet.to_numpy(x, **options)
        with pytest.raises(TypeError, match="lose their mask"):
            polynet.asarray(x, backend="strict", **options)


def test_a_recorded_tensor_is_refused():
    for share in (polynet.to_numpy, polynet.asarray, np.from_dlpack):
        options = {} if share is np.from_dlpack else {"copy": False}
        with pytest.raises(RecordError, match="stop_gradient"):
            polynet.grad(lambda x, s=share, o=options: s(x, **o))(np.ones(()))


def test_the_memory_of_a_constant_tensor_is_its_array():
    found = []

    def f(x):
        found.append(polynet.to_numpy(polynet.stop_gradient(x), copy=False))
        return OPS["sum"](x * x)

    x = np.asarray([1.0, 2.0])
    polynet.grad(f)(x)
    assert found[0].tolist() == [1.0, 2.0]


@needs_writeable_views
def test_the_options_of_dlpack_reach_the_array():
    x = np.asarray([1.0, 2.0])
    x.flags.writeable = False  # which only the newer protocol gives, that the taker asks for
    tensor = polynet.namespace("numpy").asarray(x)
    assert np.shares_memory(np.from_dlpack(tensor), x)
    assert not np.shares_memory(np.from_dlpack(tensor, copy=True), x)


@pytest.mark.skipif("torch" not in SOURCES, reason="PyTorch is not installed")
def test_a_tensor_that_requires_grad_is_detached_first():
    import torch

    x = torch.ones(3, requires_grad=True)
    for name in SOURCES:
        with pytest.raises(ValueError, match=r"requires? grad.*detach\(\)"):
            to_cpu(x, name, copy=False)
    assert address(to_cpu(x.detach(), "numpy", copy=False)) == x.data_ptr()


@pytest.mark.skipif("jax" not in SOURCES, reason="JAX is not installed")
def test_jax_without_64_bits_takes_no_float64():
    import jax

    jax.config.update("jax_enable_x64", False)
    with pytest.raises(ValueError, match="float64, and the library made float32 of it"):
        to_cpu(aligned("float64"), "jax", copy=False)


@pytest.mark.skipif("torch" not in SOURCES, reason="PyTorch is not installed")
def test_negative_strides_do_not_end_the_process():
    """PyTorch 2.12's and 2.13's own from_dlpack aborts here, so this is tried in another one."""
    code = (
        "import numpy as np, polynet\n"
        "for name in ('numpy', 'strict'):\n"
        "    x = polynet.asarray(np.ones(4), backend=name, device='cpu')[::-1]\n"
        "    try:\n"
        "        polynet.asarray(x, backend='torch', device='cpu', copy=False)\n"
        "    except ValueError as error:\n"
        "        print('negative' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


# What polynet does not copy


@pytest.mark.parametrize("kind", ["float32", "int64", "bool"])
def test_data_that_is_here_is_taken_as_it_is(backend: Backend, kind):
    native = backend.device(None)
    kind = backend.index_dtype(native) if kind == "int64" else kind
    x = backend.from_host(aligned(kind), native)
    taken = Place(backend, native, "float32").take_in(x, "x")
    assert taken is x


def test_training_reads_the_users_own_arrays(backend: Backend, monkeypatch):
    """The data that the step is given lies where the user's does; what is evaluated is copied."""
    native = backend.device(None)
    x, y = (backend.from_host(aligned("float32"), native) for _ in range(2))
    before = polynet.to_numpy(x)
    trained, scored = [], []
    compile_step = type(backend).compile

    def watched_compile(self, step):
        run = compile_step(self, step)
        return lambda state, data, rows: (trained.append(data), run(state, data, rows))[1]

    def watched_loss(outputs, targets):
        if targets.shape[0] == len(before):  # neither a batch nor the trial of one sample
            scored.append(targets)
        return losses.mse(outputs, targets)

    monkeypatch.setattr(type(backend), "compile", watched_compile)
    trainer = Trainer(nn.Linear(6, 6), watched_loss, optim.SGD(0.1), seed=1)
    trainer.fit(x, y, batch_size=2, validation_data=(x, y))
    trainer.evaluate(x, y)
    trainer.predict(x)
    assert {(address(a), address(b)) for a, b in trained} == {(address(x), address(y))}
    assert len(scored) == 2
    assert address(y) not in map(address, scored), "a loss may write over what it is given"
    assert np.array_equal(polynet.to_numpy(x), before)


@pytest.mark.parametrize("batch_size", [2, 4, 256])
def test_outputs_are_never_the_data_itself(batch_size):
    x = aligned("float32")
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 6)).init(seed=0, backend="numpy")
    trainer = Trainer(net, losses.mse, optim.SGD(0.1))
    outputs = trainer.predict(x, batch_size=batch_size)
    kept = outputs.copy()
    outputs[...] = math.nan
    assert np.isfinite(x).all()
    assert np.array_equal(trainer.predict(x, batch_size=batch_size), kept)
