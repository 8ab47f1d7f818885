"""Errors go from process to process as they are, and stay short in large networks."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polynet import checkpoint, errors, nn, optim

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
GIVEN: dict[str, tuple[Any, ...]] = {
    "MissingDependency": ("metal", "pip install metal"),
    "NotFiniteError": ("the loss is nan", 7),
}


def _large(count: int = 120) -> nn.Module:
    return nn.Sequential(*[nn.Linear(1, 1) for _ in range(count)]).init(0, backend="numpy")


def _saved(path: Path) -> Path:
    checkpoint.save(path / "net.safetensors", _large())
    return path / "net.safetensors"


def _update(grads: dict[str, Any]) -> Any:
    params, adam = _large().parameters(), optim.Adam()
    return adam.update(params, grads, adam.init(params), np.zeros(1, np.int32))


NONE, OTHERS = optim.Frozen(), optim.SGD()
LONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "replace": (
        lambda _: _large().replace({"33.wieght": np.zeros((1, 1), "float32")}),
        r"mean '33\.weight'\? Expected one of: 33\.weight, [\w., ]* and 235 more\.",
    ),
    "load": (
        lambda path: checkpoint.load(_saved(path), _large(50)),
        r"Expected one of: 10.bias, [\w., ]* and 95 more\.",
    ),
    "load with a prefix": (
        lambda path: checkpoint.load(_saved(path), _large(), prefix="x33."),
        r"begin with '33\.', ['\w., ]* and 115 more",
    ),
    "load without": (
        lambda path: checkpoint.load(_saved(path), _large(), without="x33.*"),
        r"which has '33\.bias', ['\w., ]* and 235 more",
    ),
    "no parameter": (
        lambda _: optim.Groups({"x33.*": NONE}, others=OTHERS).init(_large().parameters()),
        r"there are '33\.bias', ['\w., ]* and 235 more",
    ),
    "no pattern": (
        lambda _: optim.Groups({"33.*": NONE}).init(_large().parameters()),
        r"no pattern fits '0\.weight', '0\.bias', ['\w., ]* and 233 more",
    ),
    "gradients": (lambda _: _update({}), r"names: 0\.bias, 0\.weight, [\w., ]* and 235 more"),
}


@pytest.mark.parametrize("case", LONG)
def test_of_many_names_the_nearest_are_listed(case: str, tmp_path: Path) -> None:
    action, words = LONG[case]
    with pytest.raises((KeyError, ValueError), match=words) as caught:
        action(tmp_path)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 450


@pytest.mark.parametrize("name", KINDS)
def test_every_error_can_be_pickled(name: str) -> None:
    """As a pool of processes does with what its workers raise."""
    error = KINDS[name](*GIVEN.get(name, ("what came",)))
    error.add_note("where")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert getattr(back, "name", None) == getattr(error, "name", None)


def test_the_user_s_line_is_not_that_of_a_package_which_cython_compiled() -> None:
    """Such a package names its files from its own folder, wherever it is installed."""
    inner = {}
    exec(compile("def read(): 1 / 0", "cupy/cuda/memory.pyx", "exec"), inner)
    with pytest.raises(ZeroDivisionError) as caught:
        inner["read"]()
    assert errors.users_line(caught.value, ("cupy",)).endswith('test_errors.py: inner["read"]()')
