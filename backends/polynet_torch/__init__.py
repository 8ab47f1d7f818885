"""PyTorch's arrays on the CPU, CUDA and Apple GPUs; the derivatives are polynet's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import is_writeable_array

from polynet.backend import Backend
from polynet.errors import MissingDependency

CPU = 1
"""DLPack's number for it."""
INSTALL = "pip install 'polynet-array[torch]'"


class TorchBackend(Backend):
    name = "torch"
    contract = 1

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependency("PyTorch", INSTALL) from error
        import array_api_compat.torch as xp

        self.xp = xp
        self._torch = torch
        self.version = torch.__version__

    def devices(self) -> Mapping[str, Any]:
        torch = self._torch
        found = {f"cuda:{i}": torch.device("cuda", i) for i in range(torch.cuda.device_count())}
        if torch.backends.mps.is_available():
            found["mps"] = torch.device("mps", 0)
        return {**found, "cpu": torch.device("cpu")}

    def is_array(self, x: object) -> bool:
        return isinstance(x, self._torch.Tensor)

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        return self._torch.tensor(np.array(array, order="C"), device=device)

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array.detach().cpu().numpy())

    def owned(self, array: Any) -> Any:
        return array.clone(memory_format=self._torch.contiguous_format)

    def share(self, x: Any, device: Any) -> Any:
        if self.is_array(x):
            if x.requires_grad:
                raise BufferError("it requires grad, whose record polynet lacks; use x.detach()")
            return x
        if x.__dlpack_device__()[0] == CPU:
            # NumPy sees what PyTorch's from_dlpack does not look at: memory that is read-only, and
            # negative strides, at which some versions end the process (pytorch issue 188023).
            x = np.from_dlpack(x)
        if not is_writeable_array(x):
            raise BufferError("its memory is read-only, which PyTorch cannot express")
        return (
            self._torch.from_numpy(x) if isinstance(x, np.ndarray) else self._torch.from_dlpack(x)
        )

    def synchronize(self) -> None:
        if self._torch.cuda.is_available():
            self._torch.cuda.synchronize()


load = TorchBackend
