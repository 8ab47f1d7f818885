"""What functions refuse that are called directly, on every backend before its kernels see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import composition, functional, losses, namespace, op
from polynet.backend import Backend, asarray, to_numpy

X = np.ones((2, 4, 8, 8), "float32")
WEIGHT = np.ones((4, 4, 3, 3), "float32")
WINDOWS: dict[str, tuple[tuple[np.ndarray, ...], dict[str, Any]]] = {
    "convolution": (
        (X, WEIGHT),
        {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1},
    ),
    "convolution_transpose": (
        (X, WEIGHT),
        {
            **dict.fromkeys(("stride", "padding", "dilation"), (1, 1)),
            "output_padding": (0, 0),
            "groups": 1,
        },
    ),
    "max_pool": (
        (X,),
        {"window": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)},
    ),
    "avg_pool": ((X,), {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    "pad": ((X,), {"padding": ((1, 2), (0, 1))}),
    "adaptive_max_pool": ((X,), {"sizes": (2, 2)}),
    "adaptive_avg_pool": ((X,), {"sizes": (2, 2)}),
}
"""By function: its arrays, and settings that fit them."""
WRONG: dict[str, list[Any]] = {
    **{name: [(0, 1), (-1, 1), (1.0, 1), (1,)] for name in ("stride", "dilation", "window")},
    "sizes": [(0, 1), (-1, 1), (1.0, 1), 1],
    "padding": [(-1, 1), ((-1, 1), (1, 1)), (1,), 1],
    "output_padding": [(-1, 1), (0,), 0],
    "groups": [0, -1, 1.0, 3],
}


@pytest.mark.parametrize(
    ("name", "setting"), [(name, s) for name, (_, settings) in WINDOWS.items() for s in settings]
)
def test_windows_have_settings_that_fit(backend: Backend, name: str, setting: str) -> None:
    arrays, settings = WINDOWS[name]
    given = [asarray(a, backend=backend) for a in arrays]
    function = getattr(functional, name)
    value = to_numpy(function(*given, **settings))
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    assert to_numpy(function(*given, **lists)).tolist() == value.tolist()
    for wrong in WRONG[setting]:
        with pytest.raises(ValueError, match=rf"^{name}: .*{setting}"):
            function(*given, **{**settings, setting: wrong})


@pytest.mark.parametrize("name", ["convolution", "convolution_transpose"])
@pytest.mark.parametrize(
    ("x", "weight"), [((4, 8, 8), (4, 4, 3, 3)), ((2, 3, 8, 8), (4, 4, 3, 3)), ((2, 4), (4, 4))]
)
def test_convolutions_have_the_channels_of_their_weight(name: str, x: Any, weight: Any) -> None:
    settings = WINDOWS[name][1]
    with pytest.raises(ValueError, match=rf"^{name}: x has shape .* weight .*; expected"):
        getattr(functional, name)(np.ones(x), np.ones(weight), **settings)


ALONG: dict[str, Callable[[Any, Any, Any], Any]] = {
    **{
        name: lambda xp, x, axis, name=name: getattr(xp, name)(x, axis=axis)
        for name in (
            "all any argmax argsort count_nonzero cumulative_prod cumulative_sum diff expand_dims "
            "flip max mean min prod sort std sum var"
        ).split()
    },
    **{
        name: lambda _, x, axis, name=name: getattr(functional, name)(x, axis=axis)
        for name in ("glu", "log_softmax", "logsumexp", "softmax", "softmin")
    },
    "expand_dims by position": lambda xp, x, axis: xp.expand_dims(x, axis),
    "squeeze": lambda xp, x, axis: xp.squeeze(x[:, :1], axis),
    "concat": lambda xp, x, axis: xp.concat([x, x], axis=axis),
    "stack": lambda xp, x, axis: xp.stack([x, x], axis=axis),
    "unstack": lambda xp, x, axis: xp.unstack(x, axis=axis)[0],
    "repeat": lambda xp, x, axis: xp.repeat(x, 2, axis=axis),
    "roll": lambda xp, x, axis: xp.roll(x, 1, axis=axis),
    "take": lambda xp, x, axis: xp.take(x, xp.argmax(x, axis=0), axis=axis),
    "take_along_axis": lambda xp, x, axis: xp.take_along_axis(x, xp.argsort(x), axis=axis),
    "vector_norm": lambda xp, x, axis: xp.linalg.vector_norm(x, axis=axis),
    "rfft": lambda xp, x, axis: xp.fft.rfft(x, axis=axis),
}
"""By function of an axis: a call of it."""


@pytest.mark.parametrize("name", ALONG)
def test_an_axis_is_an_integer_of_whatever_type(backend: Backend, name: str) -> None:
    """Not on every library: PyTorch refused NumPy's integers, and JAX took True for 1."""
    xp, call = namespace(backend), ALONG[name]
    x = asarray(np.linspace(0.5, 1.0, 16, dtype="float32").reshape(4, 4), backend=backend)
    wanted = to_numpy(polynet.stop_gradient(call(xp, xp.asarray(x), 1)))
    for axis in (np.int64(1), np.uint8(1), np.asarray(1)):
        assert to_numpy(call(xp, xp.asarray(x), axis)).tolist() == wanted.tolist()
    function = name.partition(" ")[0]
    for wrong in (True, np.True_, 1.0, "1", [1], (0, 1.0)):
        with pytest.raises(TypeError, match=rf"^{function}: axis is an integer, .*; got"):
            call(xp, xp.asarray(x), wrong)


@pytest.mark.parametrize("name", ["sum", "max", "var", "logsumexp"])
def test_several_axes_are_integers_of_whatever_type(backend: Backend, name: str) -> None:
    xp, call = namespace(backend), ALONG[name]
    x = xp.asarray(asarray(np.ones((2, 3, 4), "float32"), backend=backend))
    assert call(xp, x, (np.int64(0), np.int32(-1))).shape == call(xp, x, (0, -1)).shape == (3,)


def test_an_op_of_a_user_may_have_axes_by_name() -> None:
    @op
    def total(xp, x, *, axis):
        return xp.sum(x) * (axis == "time"), (lambda g: g * xp.ones_like(x),)

    assert float(total(np.ones(3), axis="time")) == 3.0


def test_padding_of_more_than_half_a_window_is_refused() -> None:
    for pool in (functional.max_pool, functional.avg_pool):
        with pytest.raises(ValueError, match=r"padding is at most half of window \(2, 2\)"):
            pool(X, window=(2, 2), stride=(1, 1), padding=(2, 0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"padding": ((1, 1),) * 5}, r"one for each .* array of 4 dimensions; got \(\(1, 1\), "),
        ({"padding": (), "mode": "edge"}, "unknown mode 'edge'. Expected one of: constant, refl"),
        (
            {"padding": ((0, 0), (0, 8)), "mode": "reflect"},
            "x has too few places along axis 3, 8, to be padded so; give it 9 or more, or less pad",
        ),
    ],
)
def test_padding_that_cannot_be_is_refused(backend: Backend, settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^pad: .*{said}"):
        functional.pad(asarray(X, backend=backend), **settings)


def test_what_is_no_array_is_told_so() -> None:
    with pytest.raises(TypeError, match="expected at least one array, got none"):
        functional.max_pool([[1.0]], window=(1,), stride=(1,), padding=(0,))


MISFITS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "diff of what is prepended": (lambda xp, x: xp.diff(axis=0, prepend=x), "argument: 'x'"),
    "diff with n by position": (
        lambda xp, x: xp.diff(x, 2),
        "prepend or append, got 2; n and axis",
    ),
    "clip of its bounds": (lambda xp, x: xp.clip(min=x, max=x), "argument: 'x'"),
    **{
        f"matrix_power by {n}": (lambda xp, x, n=n: xp.linalg.matrix_power(x, n), "an integer; got")
        for n in (1.5, 2.0, True)
    },
    "diff along None": (lambda xp, x: xp.diff(x, axis=None), "one axis, an integer; got None"),
    "stack along None": (lambda xp, x: xp.stack([x], axis=None), "one axis, an integer; got None"),
    "concat along two": (lambda xp, x: xp.concat([x], axis=(0, 1)), "one axis, an integer; got"),
    "concat of a number": (lambda xp, x: xp.concat([x, 1.0]), "concat: expected an array, got 1"),
    "tensordot by a number": (lambda xp, x: xp.tensordot(x, 2, axes=0), "expected an array, got 2"),
    "a loss without targets": (lambda xp, x: losses.mse(x, None), "mse: expected an array, got No"),
    "the sum of no segments": (
        lambda xp, x: functional.segment_sum(None, xp.argmax(x, axis=1), 2),
        "^segment_sum: expected an array, got None; polynet.asarray",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_told_so(backend: Backend, name: str) -> None:
    call, words = MISFITS[name]
    xp = namespace(backend)
    with pytest.raises(TypeError, match=words):
        call(xp, xp.asarray(asarray(np.eye(2, dtype="float32"), backend=backend)))


def test_an_error_of_a_composition_s_own_is_left_alone() -> None:
    @composition
    def wrong(xp, x, scale, /):
        return xp.sum(x.weight * scale)

    with pytest.raises(AttributeError, match="'weight'"):
        wrong(np.ones(2), 2.0)


def test_a_call_that_does_not_fit_is_told_the_signature_before_its_settings_are_looked_at() -> None:
    with pytest.raises(TypeError, match=r"^max_pool\(x, /, \*, window, .*missing .*'window'"):
        functional.max_pool(X, kernel_size=2)
    with pytest.raises(TypeError, match=r"^convolution\(x, weight, .*missing .*'weight'"):
        functional.convolution(X)
