"""Tools that show that a backend is right: the conformance suite, gradient checks, assertions.

    pytest --pyargs polynet.testing --polynet-backend NAME

pytest imports this package in every project, for its plug-in; so the rest is imported on use.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "assert_close": "assertions",
    "check_grad": "gradients",
    "numerical_gradient": "gradients",
    "tolerance": "assertions",
}
__all__ = ["assert_close", "check_grad", "numerical_gradient", "tolerance"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polynet.testing' has no attribute {name!r}")
    return getattr(import_module(f"polynet.testing.{_HOME[name]}"), name)
