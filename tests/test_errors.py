"""Errors go from process to process as they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from polynet import errors

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
GIVEN: dict[str, tuple[Any, ...]] = {
    "MissingDependency": ("metal", "pip install metal"),
    "NotFiniteError": ("the loss is nan", 7),
}


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
