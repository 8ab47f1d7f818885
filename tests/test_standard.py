"""Every name of the Array API standard 2025.12, and what the namespace of Tensors does with it.

A name is an op, with a derivative; a function of the namespace itself; locally constant; an
inquiry; or it refuses recorded arrays by name, for a reason that is given here.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import polynet
from polynet.backend import get_backend
from polynet.errors import RecordError
from polynet.ops import LOCALLY_CONSTANT, namespace
from polynet.ops.differentiable import INQUIRIES, INSTEAD, SETS
from polynet.tensor import plain_value
from polynet.testing.samples import SAMPLES, Sample
from polynet.testing.samples.of_extensions import PROBES
from polynet.tree import leaves

CHAPTERS = {
    "creation": "arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid "
    "ones ones_like tril triu zeros zeros_like",
    "data types": "astype can_cast finfo iinfo isdtype result_type",
    "elementwise": "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert "
    "bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos "
    "cosh divide equal exp expm1 floor floor_divide greater greater_equal hypot imag isfinite "
    "isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and logical_not "
    "logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow "
    "real reciprocal remainder round sign signbit sin sinh sqrt square subtract tan tanh trunc",
    "indexing": "take take_along_axis",
    "linear algebra": "matmul matrix_transpose tensordot vecdot",
    "manipulation": "broadcast_arrays broadcast_shapes broadcast_to concat expand_dims flip "
    "moveaxis permute_dims repeat reshape roll squeeze stack tile unstack",
    "searching": "argmax argmin count_nonzero nonzero searchsorted where",
    "set": "isin unique_all unique_counts unique_inverse unique_values",
    "sorting": "argsort sort",
    "statistical": "cumulative_prod cumulative_sum max mean min prod std sum var",
    "utility": "all any diff",
    "inspection": "__array_namespace_info__",
    "linalg": "cholesky cross det diagonal eig eigh eigvals eigvalsh inv matmul matrix_norm "
    "matrix_power matrix_rank matrix_transpose outer pinv qr slogdet solve svd svdvals tensordot "
    "trace vecdot vector_norm",
    "fft": "fft fftfreq fftn fftshift hfft ifft ifftn ifftshift ihfft irfft irfftn rfft rfftfreq "
    "rfftn",
}
"""The functions of the standard, as its chapters list them; the last two are extensions."""

EXTENSIONS = ("linalg", "fft")

CONSTANTS = "e inf nan newaxis pi"
DTYPES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128"
)

_NUMBERS = "makes an array of Python numbers, and takes no array"
_SET = "how many values there are depends on them, and a set has no places to send gradients to"
REFUSED = {
    **dict.fromkeys("arange empty eye full linspace ones zeros".split(), _NUMBERS),
    **dict.fromkeys(sorted(SETS), _SET),
    "from_dlpack": "shares memory, which a record cannot follow",
    "fft.fftfreq": _NUMBERS,
    "fft.rfftfreq": _NUMBERS,
}
"""Names without a derivative, each with the reason."""

XP = namespace(get_backend("numpy"))
NAMES = [
    f"{chapter}.{name}" if chapter in EXTENSIONS else name
    for chapter, names in CHAPTERS.items()
    for name in names.split()
]


def found(name):
    """What the namespace has under a name, an extension's with its prefix."""
    extension, _, function = name.rpartition(".")
    return getattr(getattr(XP, extension) if extension else XP, function)


def kinds(name):
    """What the differentiable namespace does with a function of the standard."""
    function = found(name)
    return [
        kind
        for kind, holds in (
            ("op", hasattr(function, "rule")),
            ("composition", hasattr(function, "definition")),
            ("of the namespace itself", name == "asarray"),
            ("locally constant", name in LOCALLY_CONSTANT),
            ("inquiry", name in INQUIRIES),
            ("refused", name in REFUSED),
        )
        if holds
    ]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_decided_what_becomes_of_every_function(name):
    assert len(kinds(name)) == 1, f"{name} is {kinds(name) or 'forgotten'}"


def test_nothing_is_refused_or_constant_that_is_not_of_the_standard():
    assert set(REFUSED) <= set(NAMES)
    assert set(LOCALLY_CONSTANT) <= set(NAMES)
    assert set(INQUIRIES) <= set(NAMES)


@pytest.mark.parametrize("name", [*CONSTANTS.split(), *DTYPES.split()])
def test_constants_and_dtypes_are_those_of_the_library(name):
    assert found(name) is getattr(get_backend("numpy").xp, name)


def same(ours, theirs):
    for a, b in zip(leaves([ours]), leaves([theirs]), strict=True):
        a = plain_value(a)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


WHOLE = np.asarray([[3, 1, 2], [5, 4, 7]], dtype="int8")
SUMS = "sum prod cumulative_sum cumulative_prod linalg.trace"
OPTIONS = {
    **{
        name: [
            Sample((x,), {"dtype": np.dtype(dtype)} | ({"axis": 1} if "cumulative" in name else {}))
            for x in (WHOLE, WHOLE.astype("float32"))
            for dtype in ("float32", "float64", "int16")
        ]
        for name in SUMS.split()
    },
    "full_like": [
        Sample((WHOLE, fill), {"dtype": np.dtype("float32")}) for fill in (7, np.asarray(7))
    ],
    "diff": [
        Sample((x,), {"axis": 0, "n": n, "prepend": WHOLE[:1], "append": WHOLE[1:]})
        for x in (WHOLE, WHOLE.astype("float64"))
        for n in (0, 1, 2)
    ],
    "clip": [Sample((WHOLE,), {"min": 2, "max": 4}), Sample((WHOLE,), {"max": 4})],
    **{
        name: [Sample((x,)) for x in (np.asarray([1 + 2j, 0]), np.asarray([-3.0, 0], "float32"))]
        for name in "real imag conj sign abs".split()
    },
}
"""Calls with options and dtypes that the samples of derivatives lack."""
CALLED = {  # by SAMPLES, diff's options are given by position, so that they have pullbacks
    name: [
        *(() if name in PROBES or name == "diff" else SAMPLES.get(name, ())),
        *OPTIONS.get(name, ()),
    ]
    for name in NAMES
}


@pytest.mark.parametrize("name", [name for name in CALLED if CALLED[name]])
def test_values_are_those_of_the_librarys_own_function(name):
    """The suite compares one backend with another: by the same rule, right or wrong."""
    extension, _, function = name.rpartition(".")
    xp = get_backend("numpy").xp
    theirs = getattr(getattr(xp, extension) if extension else xp, function)
    for sample in CALLED[name]:
        same(found(name)(*sample.args, **sample.options), theirs(*sample.args, **sample.options))


CALLS = {
    "full": lambda xp, x: xp.full((2,), x[0]),
    "linspace": lambda xp, x: xp.linspace(x[0], 1.0, 3),
    "arange": lambda xp, x: xp.arange(x[0]),
    **{name: lambda xp, x, n=name: getattr(xp, n)(x) for name in sorted(SETS)},
}


@pytest.mark.parametrize("name", CALLS)
def test_a_recorded_array_is_refused_by_name(name):
    def f(x):
        CALLS[name](polynet.array_namespace(x), x)

    with pytest.raises(RecordError, match=f"no derivative of '{name}'.*stop_gradient"):
        polynet.grad(f)(np.asarray([1.0, 2.0]))


@pytest.mark.parametrize("name", INSTEAD)
def test_a_function_beside_the_standard_says_what_has_a_derivative(name):
    """NumPy's, or PyTorch's. And what it says is there."""
    in_numpy = any(hasattr(xp, name) for xp in (np, np.linalg))
    library = np if in_numpy else pytest.importorskip("torch")
    x = polynet.asarray([1.0, 2.0], backend="numpy" if library is np else "torch")

    def f(x):
        xp = polynet.array_namespace(x)
        getattr(xp if hasattr(library, name) else xp.linalg, name)(x)

    with pytest.raises(RecordError, match=f"no derivative of '{name}' yet; {INSTEAD[name]} has"):
        polynet.grad(f)(x)
    for path in INSTEAD[name].split(" or "):
        start, *rest = path.split(".")
        found = {"polynet": polynet, "xp": namespace("numpy")}[start]
        for part in rest:
            found = getattr(found, part)
        assert callable(found)


@pytest.mark.parametrize("name", ["cat", "clamp", "softmax"])
def test_a_function_that_the_library_lacks_says_what_to_use(name):
    use = re.escape(INSTEAD[name])
    with pytest.raises(AttributeError, match=f"'polynet_numpy.xp' has no .*'{name}'; use {use}"):
        getattr(namespace("numpy"), name)
    assert not hasattr(namespace("numpy"), name)


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_set_of_what_is_not_recorded_is_constant(name):
    x = np.asarray([[2.0, 1.0], [2.0, 3.0]])
    found, expected = [], getattr(XP.xp, name)(x)

    def f(a):
        found.append(getattr(polynet.array_namespace(a), name)(polynet.stop_gradient(a)))
        return a[0, 0]

    polynet.grad(f)(x)
    for result in (found[0], getattr(XP, name)(XP.asarray(x))):
        assert getattr(result, "_fields", None) == getattr(expected, "_fields", None)
        for ours, theirs in zip(leaves(result), leaves(expected), strict=True):
            assert type(ours) is polynet.Tensor
            np.testing.assert_array_equal(plain_value(ours), theirs)


def test_the_values_of_a_set_have_gradients_as_places():
    """What the refusal of `unique_values` says to write."""
    x = np.asarray([[2.0, 1.0], [2.0, 3.0]])

    def f(a):
        xp = polynet.array_namespace(a)
        places = xp.unique_all(polynet.stop_gradient(a)).indices
        values = xp.take(xp.reshape(a, (-1,)), places)
        return xp.sum(values**2)

    np.testing.assert_array_equal(polynet.grad(f)(x), [[4.0, 2.0], [0.0, 6.0]])


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64"])
def test_finfo_says_numbers_of_python(dtype):
    info, theirs = XP.finfo(getattr(XP, dtype)), np.finfo(dtype)
    for name in "eps max min smallest_normal".split():
        assert type(getattr(info, name)) is float
        assert getattr(info, name) == getattr(theirs, name)
    assert (info.bits, info.dtype) == (theirs.bits, theirs.dtype)
    assert repr(info) == repr(theirs)
