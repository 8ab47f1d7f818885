"""What a derivative is asked of and cannot be: what came, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polynet
from polynet.backend import to_numpy
from polynet.errors import MixedBackendsError, RecordError
from polynet.ops import OPS

X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.arange(12) % 3
F32 = X.astype("float32")
ONE = np.ones(2)


def summed(x: Any) -> Any:
    return OPS["sum"](x)


class Foreign:
    """An array of a library that nobody has heard of."""

    dtype, shape = "float32", (2,)


kept: list[Any] = []

# name: (what is done, the error, words that its message must hold)
CASES: dict[str, tuple[Callable[[], Any], type[BaseException], list[str]]] = {
    "a mask beside a number in an index": (
        lambda: polynet.grad(lambda x: summed(x[np.ones(12, dtype=bool), 0]))(X),
        TypeError,
        ["boolean mask", "integer arrays", "nonzero"],
    ),
    "loss not a number": (
        lambda: polynet.value_and_grad(lambda x: x * 2)(ONE),
        TypeError,
        ["shape (2,)", "0-d", "sum or mean"],
    ),
    "loss nothing": (lambda: polynet.grad(lambda x: None)(ONE), TypeError, ["NoneType", "0-d"]),
    "gradient by integers": (
        lambda: polynet.grad(lambda x: summed(x))(Y),
        TypeError,
        ["cannot differentiate", "int64", "floating", "another argument"],
    ),
    "gradient by a leaf": (
        lambda: polynet.grad(lambda t: summed(t["a"]["b"]))({"a": {"b": Y}}),
        TypeError,
        ["a.b", "int64"],
    ),
    "gradient by a number": (
        lambda: polynet.grad(lambda x: x * x)(3.0),
        TypeError,
        ["argument 0", "float", "polynet.asarray"],
    ),
    "gradient by nothing": (
        lambda: polynet.grad(lambda: 1.0)(),
        TypeError,
        ["argnums", "argument 0"],
    ),
    "gradient by an integer among several": (
        lambda: polynet.grad(lambda x, y: summed(x), 1)(ONE, Y),
        TypeError,
        ["by argument 1", "int64"],
    ),
    "argnums of another kind": (
        lambda: polynet.grad(lambda x: summed(x), "x")(ONE),
        TypeError,
        ["argnums is 'x'", "(0, 1)"],
    ),
    "no argnums": (
        lambda: polynet.jacobian(lambda x: x, ())(ONE),
        TypeError,
        ["argnums is ()", "such as 0"],
    ),
    "argnums out of range": (
        lambda: polynet.jacobian(lambda x: x, -2)(ONE),
        TypeError,
        ["argument -2", "1 were given"],
    ),
    "argnums twice": (
        lambda: polynet.grad(lambda x, y: summed(x * y), (0, -2))(ONE, ONE),
        ValueError,
        ["argnums is (0, -2)", "twice"],
    ),
    "no function": (
        lambda: polynet.grad(summed(ONE))(ONE),
        TypeError,
        ["expected a function", "grad(f)(x)"],
    ),
    "aux alone": (
        lambda: polynet.vjp(lambda x: x, ONE, has_aux=True),
        TypeError,
        ["has_aux", "pair", "Tensor"],
    ),
    "an integer result": (
        lambda: polynet.jacobian(lambda x: {"a": x, "b": OPS["astype"](x, np.int64)})(ONE),
        TypeError,
        ["returned int64 in 'b'", "aux"],
    ),
    "a result that is no array": (
        lambda: polynet.vjp(lambda x: [x, 1.0], ONE),
        TypeError,
        ["returned float in '1'", "expected an array"],
    ),
    "no result": (
        lambda: polynet.jvp(lambda x: None, (ONE,), (ONE,)),
        TypeError,
        ["NoneType without arrays"],
    ),
    "the Hessian of a vector": (
        lambda: polynet.hessian(lambda x: x * x)(ONE),
        TypeError,
        ["shape (2,)", "0-d"],
    ),
    "cotangent's shape": (
        lambda: polynet.vjp(summed, ONE)[1](ONE),
        ValueError,
        ["the cotangent has shape (2,)", "expected ()"],
    ),
    "cotangent's dtype": (
        lambda: polynet.vjp(lambda x: {"y": x}, ONE)[1]({"y": ONE.astype("float32")}),
        TypeError,
        ["the cotangent 'y' is float32", "float64", "convert"],
    ),
    "cotangent's structure": (
        lambda: polynet.vjp(lambda x: {"a": x, "b": [x]}, ONE)[1]({"a": ONE, "b": ONE}),
        ValueError,
        ["the cotangent is a tree with the leaves a, b;", "a, b.0"],
    ),
    "a number as cotangent": (
        lambda: polynet.vjp(summed, ONE)[1](1.0),
        TypeError,
        ["the cotangent is a float", "polynet.asarray"],
    ),
    "a stranger's cotangent": (
        lambda: polynet.vjp(lambda x: x, ONE)[1](Foreign()),
        MixedBackendsError,
        ["Foreign", "'numpy'"],
    ),
    "tangent's shape": (
        lambda: polynet.jvp(lambda x, y: x, (ONE, ONE), (ONE, ONE[:1])),
        ValueError,
        ["the tangent '1' has shape (1,)", "(2,)"],
    ),
    "a missing tangent": (
        lambda: polynet.jvp(lambda x, y: x, (ONE, ONE), (ONE,)),
        ValueError,
        ["the tangent is a tree with the leaves 0;", "0, 1"],
    ),
    "primals not in a tuple": (
        lambda: polynet.jvp(lambda x: x, ONE, (ONE,)),
        TypeError,
        ["primals is a ndarray", "(x,)"],
    ),
    "no primals": (lambda: polynet.hvp(summed, (), ()), TypeError, ["primals is empty", "(x,)"]),
    "vector's dtype": (
        lambda: polynet.hvp(summed, (ONE,), (Y[:2],)),
        TypeError,
        ["the vector '0' is int64", "float64"],
    ),
    "order of check_grad": (
        lambda: polynet.check_grad(summed, ONE, order=0),
        ValueError,
        ["order is 0", "expected 1"],
    ),
    "check_grad in float32": (
        lambda: polynet.check_grad(lambda x: summed(x), F32),
        TypeError,
        ["float64", "float32"],
    ),
    "mixed in a loss": (
        lambda: polynet.grad(lambda x: summed(x * Foreign()))(ONE),
        MixedBackendsError,
        ["Foreign", "'numpy'", "polynet.asarray"],
    ),
    "a tree without arrays": (
        lambda: polynet.grad(lambda t: 1.0)({}),
        ValueError,
        ["at least one array"],
    ),
    "a Tensor of a derivative that has ended as the result": (
        lambda: polynet.grad(lambda x: kept.pop())(
            polynet.grad(lambda x: (kept.append(x), x)[1])(ONE[0])
        ),
        RecordError,
        ["derivative that has ended", "has_aux=True"],
    ),
    "float of a Tensor": (
        lambda: polynet.grad(lambda x: float(x[0]))(ONE),
        RecordError,
        ["float()", "stop_gradient"],
    ),
    "NumPy of a Tensor": (
        lambda: polynet.grad(lambda x: to_numpy(x))(ONE),
        RecordError,
        ["NumPy array", "stop_gradient"],
    ),
    "indexing by a list": (
        lambda: polynet.grad(lambda x: summed(x[[0, 1]]))(ONE),
        TypeError,
        ["cannot index by list", "slices"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_and_where_and_what_to_do(case: str, raises: Callable[..., None]) -> None:
    raises(*CASES[case])
