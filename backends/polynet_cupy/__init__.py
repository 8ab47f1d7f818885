"""CuPy on CUDA GPUs, through the generic path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import is_writeable_array

from polynet.backend import Backend
from polynet.errors import MissingDependency

INSTALL = "pip install 'polynet-array[cuda13]' (or [cuda12] for a CUDA 12 driver)"


class CupyBackend(Backend):
    name = "cupy"
    contract = 1

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise MissingDependency("CuPy", INSTALL) from error
        import array_api_compat.cupy as xp

        self.xp = xp
        self._cupy = cupy
        self.version = cupy.__version__

    def devices(self) -> Mapping[str, Any]:
        cuda = self._cupy.cuda
        return {f"cuda:{i}": cuda.Device(i) for i in range(cuda.runtime.getDeviceCount())}

    def is_array(self, x: object) -> bool:
        return isinstance(x, self._cupy.ndarray)

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        with device:
            return self._cupy.array(array)

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(self._cupy.asnumpy(array))

    def owned(self, array: Any) -> Any:
        alone = array.flags.owndata and array.flags.c_contiguous
        return array if alone else self._cupy.array(array, order="C")

    def share(self, x: Any, device: Any) -> Any:
        if not is_writeable_array(x):
            raise BufferError("its memory is read-only, which CuPy cannot express")
        return super().share(x, device)

    def synchronize(self) -> None:
        for device in self.devices().values():
            device.synchronize()


load = CupyBackend
