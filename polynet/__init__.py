"""polynet: neural networks and gradient descent, trained on whatever array library you have."""

from importlib import import_module
from typing import Any

_HOME = {
    "Backend": "polynet.backend",
    "Context": "polynet.nn",
    "History": "polynet.history",
    "RecordError": "polynet.errors",
    "Tensor": "polynet.tensor",
    "Trainer": "polynet.train",
    "array_namespace": "polynet.ops",
    "asarray": "polynet.backend",
    "check_grad": "polynet.testing",
    "composition": "polynet.tensor",
    "get_backend": "polynet.backend",
    "grad": "polynet.derivative",
    "hessian": "polynet.derivative",
    "hvp": "polynet.derivative",
    "jacobian": "polynet.derivative",
    "jvp": "polynet.derivative",
    "namespace": "polynet.ops",
    "op": "polynet.tensor",
    "record": "polynet.view",
    "set_backend": "polynet.backend",
    "stop_gradient": "polynet.derivative",
    "to_numpy": "polynet.backend",
    "use_backend": "polynet.backend",
    "value_and_grad": "polynet.derivative",
    "vjp": "polynet.derivative",
    "with_pullbacks": "polynet.tensor",
}
_MODULES = (
    "backend",
    "callbacks",
    "checkpoint",
    "data",
    "derivative",
    "errors",
    "functional",
    "history",
    "losses",
    "metrics",
    "nn",
    "ops",
    "optim",
    "random",
    "step",
    "tensor",
    "testing",
    "train",
    "tree",
    "view",
)

__version__ = "0.1.0"
__all__ = [*_HOME, *_MODULES]  # noqa: PLE0604 (they are strings)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES or name in {"onnx", "sklearn"}:  # which `import *` leaves: extras
        value = import_module(f"polynet.{name}")
    else:
        from polynet.errors import unknown

        raise AttributeError(unknown("name in polynet:", name, __all__), name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
