"""The engine on each backend: nesting, threads, shared values, what outlives a level."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import grad, stop_gradient, value_and_grad
from polynet.backend import Backend, to_numpy
from polynet.errors import MixedBackendsError, RecordError
from polynet.functional import relu, softmax
from polynet.ops import OPS, namespace
from polynet.tensor import Tensor, op
from polynet.testing.assertions import assert_close
from polynet.testing.suite.cases import dtypes, to_backend

sin, multiply, total = OPS["sin"], OPS["multiply"], OPS["sum"]


def vector(backend: Backend, *numbers: float) -> Any:
    return to_backend(np.asarray(numbers), backend, dtypes(backend)[-1])


def close(actual: Any, expected: Any, backend: Backend) -> None:
    dtype = dtypes(backend)[-1]
    size = 1e-12 if dtype == "float64" else 2e-5
    assert_close(actual, np.asarray(expected), backend, dtype=dtype, rtol=size, atol=size)


def test_a_value_used_twice_gets_both_gradients(backend: Backend) -> None:
    x = vector(backend, 1.0, 2.0)
    close(grad(lambda a: total(a * a + a))(x), [3.0, 5.0], backend)


def test_gradients_are_not_shared_memory(backend: Backend) -> None:
    x, y = vector(backend, 1.0, 2.0), vector(backend, 3.0, 4.0)
    left, right = grad(lambda a, b: total(a + b), (0, 1))(x, y)
    assert left is not right
    if backend.name in ("numpy", "torch", "cupy"):
        left += 1
        close(right, [1.0, 1.0], backend)


def test_orders_one_to_four(backend: Backend) -> None:
    x = vector(backend, 0.7)[0, ...]
    f = sin
    for expected in (np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)):
        f = grad(f)
        close(f(x), expected, backend)


def test_gradient_of_a_gradient_of_several_arrays(backend: Backend) -> None:
    x, y = vector(backend, 0.5, 1.2), vector(backend, 2.0, -1.0)

    def inner(a: Any) -> Any:
        slope = grad(lambda b: total(b * b * b * a))(y)  # 3 y² x
        return total(slope * sin(a))

    expected = (
        3
        * np.asarray([4.0, 1.0])
        * (np.sin([0.5, 1.2]) + np.asarray([0.5, 1.2]) * np.cos([0.5, 1.2]))
    )
    close(grad(inner)(x), expected, backend)


def test_perturbations_are_not_confused(backend: Backend) -> None:
    """d/dx [x · d/dy (x + y)] = 1: Siskind and Pearlmutter (2005)."""
    x = vector(backend, 2.0)[0, ...]
    close(grad(lambda a: a * grad(lambda b: a + b)(x))(x), 1.0, backend)


def test_an_inner_plain_array_meets_an_outer_tensor(backend: Backend) -> None:
    x, c = vector(backend, 2.0), vector(backend, 3.0)

    def outer(a: Any) -> Any:
        return total(grad(lambda b: total(multiply(c, a) * b * b))(c))  # 2·c·a·c

    close(grad(outer)(x), [18.0], backend)


def test_kernels_stay_out_of_higher_derivatives(backend: Backend) -> None:
    x = vector(backend, 1.5, -2.0, 0.3)
    w = vector(backend, 1.0, 2.0, 3.0)

    def inner(a: Any) -> Any:
        return total(grad(lambda b: total(relu(b) * relu(b) * a))(x) * a)  # 2 relu(x) a²

    close(grad(inner)(w), 4 * np.maximum([1.5, -2.0, 0.3], 0) * [1.0, 2.0, 3.0], backend)


def test_softmax_twice(backend: Backend) -> None:
    x = vector(backend, 0.1, 0.5, -0.3)
    p = np.exp([0.1, 0.5, -0.3]) / np.exp([0.1, 0.5, -0.3]).sum()
    hessian_row = [
        to_numpy(grad(lambda a, i=i: grad(lambda b: softmax(b)[0])(a)[i])(x)) for i in range(3)
    ]
    jacobian = np.diag(p) - np.outer(p, p)
    expected = np.asarray(
        [
            [jacobian[0, j] * (float(i == 0) - p[i]) - p[0] * jacobian[i, j] for j in range(3)]
            for i in range(3)
        ]
    )
    size = 1e-12 if dtypes(backend)[-1] == "float64" else 1e-5
    np.testing.assert_allclose(hessian_row, expected, rtol=size, atol=size)


def test_a_number_can_be_printed_while_it_is_recorded(backend: Backend) -> None:
    said = []

    def f(x: Any) -> Any:
        value = total(x * x)
        said.append(f"{value:.3f}")
        return grad(lambda y: total(y * value))(x)[0, ...]

    close(grad(f)(vector(backend, 1.5)), [3.0], backend)
    assert said == ["2.250"]


def test_a_deep_copy_is_another_array_of_the_same_gradient(backend: Backend) -> None:
    def f(p: dict[str, Any]) -> Any:
        mine = copy.deepcopy(p)
        mine["x"] *= 2
        return total(mine["x"] * p["x"])  # 2 x²

    close(grad(f)({"x": vector(backend, 1.5, -1.0)})["x"], [6.0, -4.0], backend)


def read_before_it_changes(x: Any) -> Any:
    """x · 3: the inner derivative by y of x·y, which keeps x, while x gets a new value."""

    def product(y: Any) -> Any:
        nonlocal x
        found = total(x * y)
        x += 10.0
        return found

    x = x * 1.0
    return grad(product)(x) * 3


def differentiated_by_while_it_changes(x: Any) -> Any:
    """2 · x: of y², y = x."""

    def square(y: Any) -> Any:
        nonlocal x
        x += 10.0
        return total(y * y)

    x = x * 1.0
    return grad(square)(x)


def given_back_and_changed(x: Any) -> Any:
    """2 · x: the value, the aux and the gradient are other arrays than those they came from."""
    x = x * 1.0
    value, pullback, aux = polynet.vjp(lambda y: (y, x), x, has_aux=True)
    (slope,) = pullback(x)
    value += 1.0
    aux *= 2.0
    slope[0] = 5.0
    return x * 2


@pytest.mark.parametrize(
    ("f", "value", "slope"),
    [
        (read_before_it_changes, [3.0, 6.0], [3.0, 3.0]),
        (differentiated_by_while_it_changes, [2.0, 4.0], [2.0, 2.0]),
        (given_back_and_changed, [2.0, 4.0], [2.0, 2.0]),
    ],
)
def test_what_a_record_keeps_is_not_changed_in_place(
    backend: Backend, f: Any, value: list[float], slope: list[float]
) -> None:
    """An operator in place gives a Tensor a new value, and leaves what was computed from it."""
    (total_of, found), slopes = value_and_grad(lambda x: ((y := f(x))[0] + y[1], y), has_aux=True)(
        vector(backend, 1.0, 2.0)
    )
    close(total_of, sum(value), backend)
    close(found, value, backend)
    close(slopes, slope, backend)


def test_threads_do_not_meet(backend: Backend) -> None:
    found: dict[int, Any] = {}
    barrier = threading.Barrier(4)

    def work(k: int) -> None:
        with polynet.use_backend(backend):
            x = vector(backend, float(k + 1))

            def f(a: Any) -> Any:
                barrier.wait(timeout=30)
                y = total(a * a * a)
                barrier.wait(timeout=30)
                return y

            found[k] = to_numpy(grad(f)(x))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {k: v.tolist() for k, v in found.items()} == {k: [3.0 * (k + 1) ** 2] for k in range(4)}


def test_a_thread_inside_a_derivative_records_in_it(backend: Backend) -> None:
    x = vector(backend, 2.0)

    def f(a: Any) -> Any:
        out = []
        thread = threading.Thread(target=lambda: out.append(total(a * a)))
        thread.start()
        thread.join()
        return out[0]

    close(grad(f)(x), [4.0], backend)


def test_a_tensor_that_outlives_its_level_says_so(backend: Backend) -> None:
    kept = []
    grad(lambda a: kept.append(a * 2) or total(a))(vector(backend, 1.0))
    with pytest.raises(RecordError, match="has ended"):
        kept[0] + 1


def test_aux_comes_out_plain(backend: Backend) -> None:
    x = vector(backend, 1.0, 2.0)
    (value, aux), slope = value_and_grad(lambda a: (total(a * a), {"twice": a * 2}), has_aux=True)(
        x
    )
    close(value, 5.0, backend)
    close(aux["twice"], [2.0, 4.0], backend)
    close(slope, [2.0, 4.0], backend)


def test_trees_in_trees_out(backend: Backend) -> None:
    tree = {"a": vector(backend, 1.0), "b": [vector(backend, 2.0), (vector(backend, 3.0),)]}
    slope = grad(lambda t: total(t["a"] * t["b"][0] * t["b"][1][0]))(tree)
    close(slope["a"], [6.0], backend)
    close(slope["b"][0], [3.0], backend)
    close(slope["b"][1][0], [2.0], backend)


def test_what_no_gradient_reaches_has_gradient_zero(backend: Backend) -> None:
    x = vector(backend, 1.0, 2.0)
    with pytest.warns(RuntimeWarning, match="none of the arrays"):
        close(grad(lambda a, b: total(a), 1)(x, vector(backend, 5.0)), [0.0], backend)
    close(grad(lambda a: total(stop_gradient(a) * 1.0))(x), [0.0, 0.0], backend)
    close(grad(lambda a: total(stop_gradient(a) * a))(x), [1.0, 2.0], backend)


def test_what_cannot_be_reached_is_not_recorded(backend: Backend) -> None:
    def f(a: Any) -> Any:
        xp = a.__array_namespace__()
        mask = a > 0
        assert type(mask) is Tensor
        assert mask._line is None
        assert bool(xp.any(mask)) is True
        assert (stop_gradient(a) * 2)._line is None
        assert int(xp.argmax(a)) == 1
        return total(xp.where(mask, a, 0))

    close(grad(f)(vector(backend, -1.0, 2.0)), [0.0, 1.0], backend)


@pytest.mark.parametrize("leave", [float, bool, np.asarray, to_numpy])
def test_leaving_the_record_is_refused(backend: Backend, leave: Any) -> None:
    with pytest.raises(RecordError, match="stop_gradient"):
        grad(lambda a: leave(a[0]))(vector(backend, 1.0))


def test_an_array_of_another_kind_is_refused(backend: Backend) -> None:
    class Alien:
        dtype, shape = "float32", (1,)

    with pytest.raises(MixedBackendsError, match=rf"Alien.*{backend.name}"):
        grad(lambda a: total(a * Alien()))(vector(backend, 1.0))


def test_users_op(backend: Backend) -> None:
    @op
    def cube(xp, x):
        return x**3, (lambda g: g * 3 * x**2,)

    x = vector(backend, 2.0)
    close(cube(x), [8.0], backend)
    close(grad(lambda a: total(cube(a)))(x), [12.0], backend)
    close(grad(lambda b: total(grad(lambda a: total(cube(a)))(b)))(x), [12.0], backend)


def test_a_function_without_derivative_is_refused_by_name(backend: Backend) -> None:
    if not hasattr(backend.xp, "unique_values"):  # the standard lets a library lack it
        pytest.skip("xp has no 'unique_values'")

    def f(a: Any) -> Any:
        return total(a.__array_namespace__().unique_values(a))

    with pytest.raises(RecordError, match="no derivative of 'unique_values'"):
        grad(f)(vector(backend, 1.0))


def test_the_namespace_takes_plain_arrays_alone(backend: Backend) -> None:
    xp = namespace(backend)
    x = vector(backend, 1.0, 4.0)
    close(xp.sqrt(x), [1.0, 2.0], backend)
    made = xp.zeros((2,), dtype=x.dtype, device=backend.device(None))
    close((made + x)._value, [1.0, 4.0], backend)


def test_a_long_chain(backend: Backend) -> None:
    length = 20_000 if backend.name == "numpy" else 300

    def f(a: Any) -> Any:
        for _ in range(length):
            a = a + 1.0
        return total(a)

    close(grad(f)(vector(backend, 1.0)), [1.0], backend)


@op
def _scaled_sum(xp: Any, arrays: list[Any], factor: Any, /) -> Any:
    """The sum of a list of arrays, times a factor; all gradients from one function."""
    total = arrays[0]
    for a in arrays[1:]:
        total = total + a

    def pullback(g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        back = g * factor
        to_arrays = [back for _ in arrays] if needs[0] else None
        return to_arrays, g * total if needs[1] else None

    return total * factor, pullback


def test_one_pullback_for_all_arguments(backend: Backend) -> None:
    x, y, c = vector(backend, 1.0, 2.0), vector(backend, 3.0, -1.0), vector(backend, 2.0)
    slopes = grad(lambda a, b, k: total(_scaled_sum([a, b, a], k) * a), (0, 1, 2))(x, y, c)
    for found, expected in zip(slopes, [[14.0, 14.0], [2.0, 4.0], [11.0]], strict=True):
        close(found, expected, backend)  # of Σ k·(2a + b)·a
    twice = grad(lambda a: total(grad(lambda k: total(_scaled_sum([a, y], k) * a))(c)))(x)
    close(twice, [5.0, 3.0], backend)  # of Σ (a + b)·a


def test_only_what_is_needed_is_asked_of_a_common_pullback(backend: Backend) -> None:
    asked = []

    @op
    def difference(xp: Any, x: Any, y: Any, /) -> Any:
        def pullback(g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
            asked.append(needs)
            return g if needs[0] else None, -g if needs[1] else None

        return x - y, pullback

    x, y = vector(backend, 1.0, 2.0), vector(backend, 3.0, -1.0)
    close(grad(lambda b: total(difference(x, b)))(y), [-1.0, -1.0], backend)
    close(grad(lambda a: total(difference(a, y)))(x), [1.0, 1.0], backend)
    assert asked == [(False, True), (True, False)]


@op
def _polar(xp: Any, x: Any, y: Any, /) -> Any:
    """Radius and angle: two results."""
    r, angle = xp.hypot(x, y), xp.atan2(y, x)

    def pullback(gs: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        g, h = gs
        return g * x / r - h * y / (r * r), g * y / r + h * x / (r * r)

    return (r, angle), pullback


def test_a_rule_with_several_results(backend: Backend) -> None:
    x, y = vector(backend, 3.0, 1.0), vector(backend, 4.0, 2.0)
    r, angle = _polar(x, y)
    close(r, [5.0, np.sqrt(5)], backend)
    close(angle, np.arctan2([4, 2], [3, 1]), backend)
    for pick, expected in (
        (lambda r, angle: r, ([0.6, 1 / np.sqrt(5)], [0.8, 2 / np.sqrt(5)])),
        (lambda r, angle: angle, ([-0.16, -0.4], [0.12, 0.2])),
        (lambda r, angle: r * OPS["cos"](angle), ([1.0, 1.0], [0.0, 0.0])),
    ):
        slopes = grad(lambda a, b, pick=pick: total(pick(*_polar(a, b))), (0, 1))(x, y)
        for found, wanted in zip(slopes, expected, strict=True):
            close(found, wanted, backend)


def test_a_rule_with_several_results_twice(backend: Backend) -> None:
    x, y = vector(backend, 3.0, 1.0), vector(backend, 4.0, 2.0)
    twice = grad(lambda a: total(grad(lambda b: total(_polar(a, b)[0]))(y)))(x)
    close(twice, [-12 / 125, -2 / 5**1.5], backend)  # ∂²r/∂x∂y = -xy/r³
