"""A backend whose arrays are ONNX graphs: ndonnx traces what is computed with them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import ndonnx
import numpy as np
from spox.opset.ai.onnx import v21 as operators

from polynet.backend import Backend
from polynet.onnx.kernels import KERNELS


class _Namespace(ModuleType):
    """ndonnx with ONNX's plain MatMul; its own matmul checks in every run for empty matrices."""

    def __getattr__(self, name: str) -> Any:
        return getattr(ndonnx, name)

    def matmul(self, x1: Any, x2: Any, /) -> Any:
        return ndonnx.asarray(operators.matmul(x1.unwrap_spox(), x2.unwrap_spox()))


class Graphs(Backend):
    """The backend on which `export` runs a network; it is not a plug-in."""

    name = "onnx"
    contract = 1
    version = ndonnx.__version__
    xp = _Namespace("ndonnx")
    kernels = KERNELS

    def devices(self) -> Mapping[str, Any]:
        return {"cpu": "cpu"}

    def is_array(self, x: object) -> bool:
        return isinstance(x, ndonnx.Array)

    def from_host(self, array: np.ndarray, device: Any) -> Any:  # noqa: ARG002 (graphs are nowhere)
        return ndonnx.asarray(np.array(array))

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array.unwrap_numpy())
