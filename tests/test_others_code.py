"""Functions of SciPy, array-api-extra and scikit-learn, unchanged, given Tensors.

`others_code.txt` has the calls, in sections by how they end. What is right is compared with
differences of the same call on NumPy's arrays.
"""

import ast
import math
import sys
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import array_api_compat
import numpy as np
import pytest

import polynet
from polynet import array_namespace
from polynet.backend import registry
from polynet.errors import RecordError
from polynet.testing.gradients import numerical_gradient

sklearn = pytest.importorskip("sklearn", minversion="1.9", reason="scikit-learn 1.9 is not there")
pytest.importorskip("scipy", minversion="1.17", reason="SciPy 1.17 is not there")
xpx = pytest.importorskip("array_api_extra", reason="array-api-extra is not installed")
if not sys.modules["scipy._lib._array_api_override"].SCIPY_ARRAY_API:
    pytest.skip("SciPy was imported without SCIPY_ARRAY_API=1", allow_module_level=True)

SCIPY = (
    "cluster.hierarchy cluster.vq constants differentiate fft integrate interpolate linalg ndimage "
    "optimize optimize.elementwise signal spatial spatial.distance spatial.transform special stats "
    "stats.contingency"
)
SKLEARN = "decomposition linear_model metrics metrics.pairwise preprocessing utils.extmath"
MODULES = {"np": np, "xpx": xpx}
for package, modules in (("scipy", SCIPY), ("sklearn", SKLEARN)):
    for path in modules.split():
        MODULES[path.rpartition(".")[2]] = import_module(f"{package}.{path}")
rng = np.random.default_rng(0)
SAMPLES = {
    "x": rng.normal(size=(4, 3)),
    "y": rng.normal(size=(4, 3)),
    "z": rng.normal(size=(5, 3)),
    "p": rng.uniform(0.2, 0.8, (4, 3)),
    "q": rng.uniform(0.2, 0.8, (4, 3)),
    "u": rng.normal(size=8),
    "v": rng.normal(size=8),
    "w": rng.uniform(0.2, 0.8, 8),
    "t": np.cumsum(rng.uniform(0.2, 0.8, 8)),
    "m": rng.normal(size=(3, 3)),
    "k": np.asarray([1.0, -0.5, 0.25]),
    "quat": rng.normal(size=(2, 4)),
    "rotvec": rng.normal(size=(2, 3)),
    "s": np.asarray(0.7),
}
SAMPLES["spd"] = SAMPLES["m"] @ SAMPLES["m"].T + np.eye(3)


def sections():
    """The calls by how they end, as `others_code.txt` has them."""
    found = {}
    for line in Path(__file__).with_name("others_code.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            calls = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            calls.append(line)
    return found


CALLS = sections()
RIGHT = CALLS.pop("right")
FLOAT32 = CALLS.pop("right, but in float32 on PyTorch, which makes that of numbers of Python")
NOT_EVERYWHERE = {
    "right, but for array-api-strict, which has no `full` of an array": {
        "strict": "Expected Python scalar fill_value",
    },
    "right, but for array-api-strict and PyTorch, which have no dtypes of Python": {
        "strict": "must be a dtype",
        "torch": "invalid combination of arguments",
    },
    "right, but for PyTorch, whose own function SciPy calls with Tensors": {
        "torch": "was given a polynet Tensor",
    },
}
"""By section: the backends whose library ends it with a TypeError, and its words."""
PARTLY_RIGHT = [
    (call, refused) for why, refused in NOT_EVERYWHERE.items() for call in CALLS.pop(why)
]
(NAN,) = CALLS.pop("divides 0 by 0, and overwrites the NaN")
REFUSED = {
    "converts to NumPy": (RecordError, "a NumPy array of a recorded Tensor"),
    "ends in a Python number": (RecordError, r"(float|int)\(\) of a recorded Tensor"),
    "calls a ufunc of NumPy": (TypeError, "'Tensor' does not support ufuncs"),
    "joins arrays of NumPy to those given": (TypeError, "Multiple namespaces for array inputs"),
    "uses what the standard lacks": (AttributeError, "'Tensor' object has no attribute"),
    "uses a function that has no derivative": (RecordError, "polynet has no derivative of"),
    "indexes some axes by integer arrays": (IndexError, "integer arrays index all axes"),
}
"""What each of the other sections ends with."""


@pytest.fixture(autouse=True)
def _dispatch():
    with sklearn.config_context(array_api_dispatch=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others warn of is not what is tested
        yield


def names_of(call):
    """The sample arrays that a call reads, by name."""
    read = {node.id for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Name)}
    return sorted(read & set(SAMPLES))


def outcome(call, names, arrays):
    """The call's result as one number: a sum in which no two elements weigh the same."""
    given = dict(zip(names, arrays, strict=True))
    result = eval(call, {**MODULES, **given, "xp": array_namespace(arrays[0])})
    return sum((k + 1) * weighed(a) for k, a in enumerate(as_tuple(result)))


def as_tuple(result):
    return result if isinstance(result, tuple | list) else (result,)


def weighed(y):
    xp, count = array_namespace(y), math.prod(y.shape)
    y = xp.reshape(y, (count,))
    place = xp.arange(count, dtype=xp.float64, device=array_api_compat.device(y))
    if xp.isdtype(y.dtype, "complex floating"):
        return xp.sum(xp.real(y) * xp.cos(1.7 * place)) + xp.sum(xp.imag(y) * xp.sin(1 + place))
    return xp.sum(y * xp.cos(1.7 * place))


@cache
def differences(call):
    names = names_of(call)

    def along(name):
        def f(a):
            arrays = [a if n == name else SAMPLES[n].copy() for n in names]
            return float(outcome(call, names, arrays))

        return f

    return [numerical_gradient(along(n), SAMPLES[n]) for n in names]


@pytest.fixture(params=["numpy", "strict", "torch", "jax"])
def library(request):
    """The name of each backend that is installed, with 64 bits."""
    status = registry.status(request.param)
    if not status.available:
        pytest.skip(f"{status.reason}: nox -s tests_torch has it")
    if request.param != "jax":
        yield request.param
        return
    import jax

    with jax.enable_x64(True):
        yield request.param


def gradients(call, backend):
    names = names_of(call)
    device = "cpu" if backend == "strict" else None  # SciPy makes arrays on the library's default
    arrays = [polynet.asarray(SAMPLES[n].copy(), backend=backend, device=device) for n in names]
    every = tuple(range(len(names)))
    _, found = polynet.value_and_grad(lambda *a: outcome(call, names, a), every)(*arrays)
    return [polynet.to_numpy(g) for g in found]


def require_right(call, backend, *, rtol=1e-6):
    expected = differences(call)
    assert max(np.max(np.abs(g)) for g in expected) > 1e-9  # it does depend on what it is given
    for got, g in zip(gradients(call, backend), expected, strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, g, rtol=rtol, atol=rtol / 100)


@pytest.mark.parametrize("call", RIGHT)
def test_the_derivative_is_that_of_differences(library, call):
    require_right(call, library)


@pytest.mark.parametrize("call", FLOAT32)
def test_what_has_numbers_of_python_is_right_in_their_dtype(library, call):
    require_right(call, library, rtol=1e-5 if library == "torch" else 1e-6)


@pytest.mark.parametrize(("call", "refused"), PARTLY_RIGHT)
def test_what_some_libraries_refuse_by_themselves(library, call, refused):
    if library not in refused:
        require_right(call, library)
        return
    with pytest.raises(TypeError, match=refused[library]):
        gradients(call, library)


@pytest.mark.parametrize(
    ("why", "call"), [(why, call) for why, calls in CALLS.items() for call in calls]
)
def test_what_leaves_the_namespace_is_refused(why, call):
    error, message = REFUSED[why]
    with pytest.raises(error, match=message):
        gradients(call, "numpy")


def test_a_plain_array_beside_the_recorded_one_is_moved_to_its_namespace():
    u, k = SAMPLES["u"], SAMPLES["k"]

    def f(x, y):
        return array_namespace(x).sum(MODULES["signal"].fftconvolve(x, y) ** 2)

    with pytest.raises(TypeError, match="Multiple namespaces") as raised:
        polynet.grad(lambda x: f(x, k))(u)
    (note,) = raised.value.__notes__
    assert "give them polynet.array_namespace(x).asarray(a) in place of a plain array a" in note
    found = polynet.grad(lambda x: f(x, array_namespace(x).asarray(k)))(u)
    np.testing.assert_allclose(found, numerical_gradient(lambda x: f(x, k), u), rtol=1e-6)


def test_a_nan_that_is_overwritten_afterwards_comes_back_in_the_gradient():
    assert all(np.isfinite(g).all() for g in differences(NAN))
    assert all(np.isnan(g).all() for g in gradients(NAN, "numpy"))


def test_the_table_holds_what_was_asked_for():
    assert len(RIGHT) >= 40
    refused = [call for calls in CALLS.values() for call in calls]
    every = [*RIGHT, *FLOAT32, *(call for call, _ in PARTLY_RIGHT), NAN, *refused]
    assert len(set(every)) == len(every)
