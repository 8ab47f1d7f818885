"""array-api-strict: NumPy's numbers, and an error for everything outside of the standard.

It simulates several devices, so mistakes with devices show on a CPU. The backend's default device
is not the namespace's: an array made without `device=` is on the wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polynet.backend import Backend
from polynet.errors import MissingDependency

INSTALL = "pip install 'polynet-array[strict]'"


class StrictBackend(Backend):
    name = "strict"
    contract = 1

    def __init__(self) -> None:
        try:
            import array_api_strict
        except ImportError as error:
            raise MissingDependency("array-api-strict", INSTALL) from error
        self.xp = array_api_strict
        self.version = array_api_strict.__version__
        array_api_strict.set_array_api_strict_flags(api_version="2025.12")

    def devices(self) -> Mapping[str, Any]:
        device = self.xp.Device
        return {"device1": device("device1"), "cpu": device("CPU_DEVICE")}

    def is_array(self, x: object) -> bool:
        return type(x).__module__.partition(".")[0] == "array_api_strict" and hasattr(x, "dtype")

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        return self.xp.asarray(np.array(array), device=device, copy=True)

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array.to_device(self.xp.Device("CPU_DEVICE")))


load = StrictBackend
