"""NumPy on the CPU, with fused kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polynet.backend import Backend
from polynet_numpy import compiled
from polynet_numpy.capture import Captured
from polynet_numpy.kernels import KERNELS
from polynet_numpy.namespace import namespace
from polynet_numpy.replay import runner
from polynet_numpy.results import copy

_ARRAYS = (np.ndarray, np.generic, Captured)  # a union type would be made anew at every call
_OTHERS = (np.ma.MaskedArray, np.matrix)  # of which `x * y` is something else


class NumpyBackend(Backend):
    name = "numpy"
    contract = 1
    kernels = KERNELS

    def __init__(self) -> None:
        numba = compiled.version()
        self.version = np.__version__ + (f", Numba {numba}" if numba else "")
        self.xp = namespace()

    def devices(self) -> Mapping[str, Any]:
        return {"cpu": "cpu"}

    def device_of(self, array: np.ndarray) -> Any:
        return "cpu"

    def is_array(self, x: object) -> bool:
        return isinstance(x, _ARRAYS) and not isinstance(x, _OTHERS)

    def from_host(self, array: np.ndarray, device: Any) -> np.ndarray:
        return np.array(array)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def owned(self, array: Any) -> Any:
        if type(array) is Captured:
            return copy(array)
        alone = isinstance(array, np.ndarray) and array.flags.owndata and array.flags.c_contiguous
        return array if alone else np.array(array, order="C")

    def share(self, x: Any, device: Any) -> np.ndarray:
        # It never copies here, and NumPy 2.0 has neither device= nor copy=.
        return x if self.is_array(x) else np.from_dlpack(x)

    def compile(self, step: Any) -> Any:
        return runner(self, step)


load = NumpyBackend
