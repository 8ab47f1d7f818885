"""What a plug-in's kernel returns is looked at: a gradient that is missing would be 0."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from polynet import functional, get_backend, use_backend, value_and_grad
from polynet.backend import Backend
from polynet.ops import OPS

X, W, B = np.ones((2, 3)), np.ones((4, 3)), np.ones(4)


def with_kernel(name: str, kernel: Any) -> Backend:
    backend = copy.copy(get_backend("numpy"))
    backend.kernels, backend.differentiable = {name: kernel}, None
    return backend


WRONG: dict[str, tuple[Any, str]] = {
    "the result alone": (lambda y, back: y, "a ndarray"),
    "nothing": (lambda y, back: None, "a NoneType"),
    "three things": (lambda y, back: (y, back, y), "a tuple"),
    "no pullbacks": (lambda y, back: (y, ()), "0 pullbacks"),
    "a pullback too few": (lambda y, back: (y, back[:2]), "2 pullbacks"),
    "a list of them": (lambda y, back: (y, list(back)), r"\[<function"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_is_refused(case: str) -> None:
    change, came = WRONG[case]

    def linear(xp: Any, x: Any, w: Any, b: Any) -> Any:
        back = (lambda g: g @ w, lambda g: g.T @ x, lambda g: g.sum(axis=0))
        return change(x @ w.T + b, back)

    words = (
        rf"the kernel 'linear' of backend 'numpy' returned {came}.*; expected its result and a t"
    )
    with (
        use_backend(with_kernel("linear", linear)),
        pytest.raises(TypeError, match=words),
    ):
        value_and_grad(lambda *a: OPS["sum"](functional.linear(*a)), (0, 1, 2))(X, W, B)


def test_of_plain_arrays_too() -> None:
    with (
        use_backend(with_kernel("relu", lambda xp, x: xp.where(x > 0, x, 0))),
        pytest.raises(TypeError, match="the kernel 'relu' of backend 'numpy' returned a ndarray"),
    ):
        functional.relu(X)


def test_a_pullback_that_nobody_needs_may_be_missing() -> None:
    def linear(xp: Any, x: Any, w: Any, b: Any) -> Any:
        return x @ w.T + b, (lambda g: g @ w,)

    with use_backend(with_kernel("linear", linear)):
        _, slope = value_and_grad(lambda x: OPS["sum"](functional.linear(x, W, B)))(X)
    np.testing.assert_array_equal(slope, np.full((2, 3), 4.0))
