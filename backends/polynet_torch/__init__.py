"""PyTorch's arrays on the CPU, CUDA and Apple GPUs; the derivatives are polynet's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from polynet.backend import Backend
from polynet.errors import MissingDependency

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

        from polynet_torch.kernels import KERNELS

        self.xp = xp
        self.kernels = KERNELS
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

    def synchronize(self) -> None:
        if self._torch.cuda.is_available():
            self._torch.cuda.synchronize()


load = TorchBackend
