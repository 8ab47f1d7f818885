"""Ops of a user's own: what is wrong with a rule is said, and no gradient is lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Backend, RecordError, array_namespace, functional, grad, op, with_pullbacks

X = np.asarray([2.0, 3.0])


def total(f: Callable[..., Any]) -> Callable[..., Any]:
    def sum_of(*args: Any) -> Any:
        y = f(*args)
        return array_namespace(y).sum(y)

    return sum_of


@op
def too_few(xp, x, y):
    return x * y, (lambda g: g * y,)


@op
def too_few_by_position(xp, x, y, /):
    return x * y, (lambda g: g * y,)


@op
def no_comma(xp, x):
    return x * 2, (lambda g: g * 2)


@op
def none_at_all(xp, x):
    return x * 2


@op
def a_number(xp, x):
    return x * 2, (lambda g: 2.0,)


@op
def nothing(xp, x):
    return x * 2, (lambda g: None,)


@op
def several(xp, x):
    return (x, x * 2), (lambda g: g,)


@op
def by_keyword(xp, x, *, k):
    return x * k, (lambda g: g * k,)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "fewer pullbacks than arrays": (
        lambda: grad(total(too_few), (0, 1))(X, X),
        r"op too_few returned 1 pullbacks for 2 arguments; a rule is.*one for each array",
    ),
    "fewer, of arrays by position alone": (
        lambda: grad(total(too_few_by_position), (0, 1))(X, X),
        r"op too_few_by_position returned 1 pullbacks for 2 arguments",
    ),
    "a tuple of one without its comma": (
        lambda: grad(total(no_comma))(X),
        r"op no_comma.*has a comma: \(lambda g: …,\)",
    ),
    "a result alone": (
        lambda: none_at_all(X),
        r"op none_at_all returned a ndarray; a rule is rule\(xp, \*arrays",
    ),
    "a pullback that gives a number": (
        lambda: grad(total(a_number))(X),
        r"a pullback of op a_number returned a float; expected the gradient, an array",
    ),
    "a pullback that gives None": (
        lambda: grad(total(nothing))(X),
        r"op nothing returned a NoneType.*give None in place of the pullback",
    ),
    "a pullback for each of several results": (
        lambda: several(X),
        r"op several returned several results and a tuple.*pullback\(gs, needs\)",
    ),
    "a recorded array by keyword": (
        lambda: grad(lambda k: total(by_keyword)(X) if k is None else by_keyword(X, k=k))(X[0]),
        r"op by_keyword was given a recorded array by keyword, as k",
    ),
    "a rule without its namespace": (
        lambda: op(lambda x: x),
        r"op <lambda>\(x\): a rule is rule\(xp, \*arrays",
    ),
    "a formula with fewer pullbacks": (
        lambda: with_pullbacks(lambda xp, g, x, y: g * y)(lambda xp, x, y: x * y),
        r"takes x, y by position, and has 1 pullbacks; expected one for each",
    ),
    "a pullback that takes what there is not": (
        lambda: with_pullbacks(lambda xp, g, z: g * z)(lambda xp, x: x * x),
        r"take \['z'\] after the namespace and the gradient; expected the same of all, of out, x",
    ),
    "pullbacks that take different things": (
        lambda: with_pullbacks(lambda xp, g, y: g * y, lambda xp, g, x: g * x)(lambda xp, x, y: x),
        r"take \['y'\] and \['x'\] after the namespace.*expected the same of all, of out, x, y",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_rule_is_said(name: str) -> None:
    do, words = WRONG[name]
    with pytest.raises(TypeError, match=words):
        do()


@op
def with_more(xp, x):
    return x * 2, lambda g, *_: (g * 2,)


@op
def summed(xp, arrays):
    return sum(arrays), (lambda g: (g,) * len(arrays),)


@op
def no_gradient(xp, x):
    return x * 2, None


@op
def too_long(xp, x):
    return x * 2, (lambda g: array_namespace(g).concat([g, g]),)


def test_a_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"returned shape \(4,\) for an input of shape \(2,\)"):
        grad(total(too_long))(X)


def test_what_serves_is_not_refused() -> None:
    assert np.array_equal(grad(total(no_gradient))(X), [0.0, 0.0])
    assert np.array_equal(grad(total(with_more))(X), [2.0, 2.0])
    assert np.array_equal(grad(lambda x: total(summed)([x, x]))(X), [2.0, 2.0])
    assert np.array_equal(grad(lambda x: total(too_few)(x, np.float64(3.0)))(X), [3.0, 3.0])
    with pytest.raises(TypeError, match="1 pullbacks for 2 arguments"):
        grad(lambda k: total(too_few)(X, k * 1.0))(X[0])


@with_pullbacks(lambda xp, g, k: g * k)
def rounded(xp, x, /, *, k=2.0):
    return xp.round(x) * k


def test_the_formula_beside_its_pullbacks_is_never_differentiated() -> None:
    """Nor by an outer derivative; and a pullback gets an option that was not given."""
    for options, k in (({}, 2.0), ({"k": 3.0}, 3.0)):
        square = lambda x, o=options: rounded(x, **o) ** 2
        x = np.asarray(1.4)
        assert float(grad(square)(x)) == 2 * k * k
        assert float(grad(grad(square))(x)) == 2 * k * k


def test_numbers_need_no_pullback() -> None:
    assert np.array_equal(too_few(X, 3.0), 3 * X)
    assert np.array_equal(grad(lambda x: total(too_few)(x, 3.0))(X), [3.0, 3.0])


@pytest.mark.parametrize(
    ("name", "option", "at"), [("elu", "alpha", 2.0), ("leaky_relu", "negative_slope", 0.1)]
)
def test_a_number_of_a_composition_may_be_recorded(name: str, option: str, at: float) -> None:
    """Also where nothing else is: the definition runs, and no kernel."""
    x = np.asarray([-1.0, 2.0, -0.5])
    f = getattr(functional, name)

    def value(k: Any) -> Any:
        return total(lambda a: f(a, **{option: k}))(x)

    k, step = np.asarray(at), 1e-6
    by_differences = (value(float(k) + step) - value(float(k) - step)) / (2 * step)
    assert float(grad(value)(k)) == pytest.approx(by_differences, rel=1e-6)


@pytest.mark.parametrize("function", ["sin", "maximum", "matmul"])
def test_numpys_functions_are_not_those_of_a_gradient(function: str) -> None:
    def f(x: Any) -> Any:
        return getattr(np, function)(*[x] * (1 if function == "sin" else 2))

    with pytest.raises(TypeError, match="__array_ufunc__=None") as raised:
        grad(f)(X)
    assert any("xp = polynet.array_namespace(x)" in note for note in raised.value.__notes__)


def test_what_a_library_converts_to_numpy_is_told_of_scipys_variable() -> None:
    with pytest.raises(RecordError, match="a NumPy array of a recorded Tensor") as raised:
        grad(lambda x: np.asarray(x).sum())(X)
    (note,) = raised.value.__notes__
    assert "SCIPY_ARRAY_API was 1 when SciPy was imported" in note


def test_an_array_of_numpy_takes_up_no_gradient_in_place() -> None:
    def f(x: Any) -> Any:
        y = np.zeros(2)
        y += x
        return array_namespace(y).sum(y)

    with pytest.raises(TypeError, match="__array_ufunc__=None") as raised:
        grad(f)(X)
    assert any("y = y + x in place of y += x" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("function", ["exp", "add", "where"])
def test_a_namespace_from_outside_knows_no_gradient(backend: Backend, function: str) -> None:
    """As where a layer asks for it first, and differentiates further down; it says so once."""
    outside, x = backend.xp, backend.from_host(X.astype("float32"), backend.device(None))

    def f(y: Any) -> Any:
        args = {"exp": (y,), "add": (x, y), "where": (x > 0, x, y)}[function]
        return array_namespace(y).sum(getattr(outside, function)(*args))

    with pytest.raises((TypeError, RecordError)) as raised:
        grad(lambda y: grad(f)(y)[0])(x)
    said = "\n".join((str(raised.value), *getattr(raised.value, "__notes__", ())))
    assert said.count("polynet.array_namespace(x)") == 1


def test_a_network_is_differentiated_by_its_parameters() -> None:
    net = polynet.nn.Linear(2, 1).init(0, backend="numpy")
    with pytest.raises(TypeError, match=r"argument 0, a Linear; differentiate by its parameters"):
        grad(lambda n: total(n)(X))(net)


@pytest.mark.parametrize("derivative", [polynet.value_and_grad, grad])
def test_a_value_of_none_of_the_arrays_is_warned_of(derivative: Any) -> None:
    """At the user's line; a constant that was computed of them is none of it."""
    net = polynet.nn.Linear(2, 1).init(0, backend="numpy")
    with pytest.warns(
        RuntimeWarning, match=r"none of the arrays.*net\.bind\(parameters\)"
    ) as found:
        derivative(lambda p: total(net)(X.astype("float32")))(net.parameters())
    assert found[0].filename == __file__
    assert not np.any(grad(total(lambda x: array_namespace(x).floor(x)))(X))
