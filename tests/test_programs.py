"""Random programs: what single functions do right must also be right of their compositions.

A program is a list of steps. Each takes two earlier values and makes another of the same shape;
some are derivatives themselves, and some change an earlier value in place. A program is compared
with itself on plain arrays, with differences of it, and its second derivative along a direction
with the same one taken in other ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import polynet
from polynet import array_namespace, functional, grad, hvp, jvp, vjp
from polynet.backend import Backend, get_backend, to_numpy
from polynet.testing.assertions import supports_float64
from polynet.testing.suite.cases import to_backend

Step = Callable[[Any, Any, Any], Any]
Program = list[tuple[str, int, int]]

STEPS: dict[str, Step] = {
    "sum": lambda xp, a, b: (a + b * 0.5) / 1.5,
    "product": lambda xp, a, b: xp.sin(a * b),
    "quotient": lambda xp, a, b: a / (1.5 + xp.cos(b)),
    "power": lambda xp, a, b: (1 + a * a) ** xp.tanh(b) / 2,
    "matrices": lambda xp, a, b: xp.tanh(a @ b.mT @ a),
    "rows": lambda xp, a, b: xp.concat([xp.flip(b[1:, :], axis=1), a[:1, ...]], axis=0),
    "places": lambda xp, a, b: a[:, ::2] @ b[:, 1:].mT @ a / 4,
    "running": lambda xp, a, b: xp.roll(xp.cumulative_sum(a, axis=1), 1, axis=-1) / 3 - b,
    "mean": lambda xp, a, b: a - xp.mean(b, axis=0, keepdims=True),
    "choice": lambda xp, a, b: xp.where(functional.sigmoid(b) > 2, b, xp.exp(-a * a)),
    "softmax": lambda xp, a, b: functional.softmax(a, axis=-1) * b,
    "norm": lambda xp, a, b: functional.layer_norm(a, b[0, ...], axes=1, eps=0.5),
    "einsum": lambda xp, a, b: functional.einsum("ij,kj,kl->il", a, b, b) / 4,
    "complex": lambda xp, a, b: xp.real(functional.sigmoid(a) * (0.5 + 1j) * (b * 1j + 0.3)),
    "spectrum": lambda xp, a, b: xp.imag(xp.fft.fft(functional.gelu(a) * (b + 1j), norm="ortho")),
    "assigned": lambda xp, a, b: functional.setitem(a, (0, ...), b[1, ...] * 0.7),
    "gradient": lambda xp, a, b: grad(lambda t: total(array_namespace(t, b).sin(t * b) * t))(a),
    "forward": lambda xp, a, b: jvp(lambda t: array_namespace(t, b).tanh(t * b), (a,), (b,))[1],
    "back": lambda xp, a, b: vjp(lambda t: functional.silu(t) * b, a)[1](b)[0],
}
IN_PLACE = ("+=", "*=")
"""Change the first value by the second, and make none."""


def total(x: Any) -> Any:
    return array_namespace(x).sum(x)


def run(program: Program, *args: Any) -> Any:
    """One number, of every value that the program makes."""
    xp = array_namespace(*args)
    values = [a * 1.0 for a in args]
    for name, i, j in program:
        i, j = i % len(values), j % len(values)
        if name == "+=":
            values[i] += values[j] * 0.5
        elif name == "*=":
            values[i] *= xp.cos(values[j])
        else:
            values.append(STEPS[name](xp, values[i], values[j]))
    return sum(total(v * v * (0.1 + k) + v) for k, v in enumerate(values)) / len(values)


def inner(slopes: Any, along: Any) -> Any:
    return sum(total(g * v) for g, v in zip(slopes, along, strict=True))


def differences(f: Callable[..., float], args: list[Any], along: list[Any], h: float) -> float:
    """The change of `f` along a direction, by seven-point differences."""
    weights = {1: 45, 2: -9, 3: 1}
    steps = ((k * sign, sign * w) for k, w in weights.items() for sign in (1, -1))
    moved = ((w, [a + s * h * v for a, v in zip(args, along, strict=True)]) for s, w in steps)
    return sum(w * f(*new) for w, new in moved) / (60 * h)


PROGRAMS = st.lists(
    st.tuples(st.sampled_from([*STEPS, *IN_PLACE]), st.integers(0, 9), st.integers(0, 9)),
    min_size=3,
    max_size=8,
)
EXAMPLES = {"numpy": 60, "strict": 20, "torch": 30}
"""How many programs are tried; JAX would compile for seconds."""


def test_programs(backend: Backend) -> None:
    if backend.name not in EXAMPLES or not supports_float64(backend):
        pytest.skip(f"{backend.name} takes too long, or has no float64 here")

    @seed(0)
    @settings(max_examples=EXAMPLES[backend.name], deadline=None, database=None)
    @given(PROGRAMS, st.integers(0, 2**32 - 1))
    def holds(program: Program, numbers: int) -> None:
        rng = np.random.default_rng(numbers)
        host, v = (list(rng.uniform(-1, 1, (2, 3, 3))) for _ in range(2))
        x, along = ([to_backend(a, backend, "float64") for a in each] for each in (host, v))

        def f(*args: Any) -> Any:
            return run(program, *args)

        def slope(*args: Any) -> Any:
            return inner(grad(f, (0, 1))(*args), along)

        def slope_of_each(*args: Any) -> Any:
            """The same by one argument after the other, while the other is recorded."""
            a, b = args
            by_a, by_b = grad(lambda t: f(t, b))(a), grad(lambda t: f(a, t))(b)
            return inner((by_a, by_b), along)

        value, slopes = polynet.value_and_grad(f, (0, 1))(*x)
        np.testing.assert_allclose(float(value), float(f(*x)), rtol=1e-12)
        found, curved = float(inner(slopes, along)), hvp(f, x, along)
        with polynet.use_backend(get_backend("numpy")):
            expected = differences(lambda *a: float(f(*a)), host, v, 1e-3)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        forward = jvp(lambda *a: jvp(f, a, along)[1], x, along)[1]
        close = {"rtol": 1e-9, "atol": 1e-9 * (1 + abs(float(forward)))}
        np.testing.assert_allclose(float(inner(curved, along)), float(forward), **close)
        for way in (slope, slope_of_each):
            for a, b in zip(grad(way, (0, 1))(*x), curved, strict=True):
                np.testing.assert_allclose(to_numpy(a), to_numpy(b), **close)

    holds()
