"""PyTorch on the CPU, CUDA and Apple GPUs, with fused kernels; PyTorch's autograd is not used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from array_api_compat import is_writeable_array

from polynet.backend import Backend, StaticRunner, allow_overwrite, overwriting
from polynet.errors import MissingDependency

CPU = 1
"""DLPack's number for the device type CPU."""
INSTALL = "pip install 'polynet-array[torch]'"


class TorchBackend(Backend):
    name = "torch"
    contract = 1

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependency("PyTorch", INSTALL) from error
        from polynet_torch import activation, kernels, layers, losses, recurrent
        from polynet_torch.namespace import xp

        self.xp = xp
        parts = kernels, activation, layers, losses, recurrent
        self.kernels = {name: k for part in parts for name, k in part.KERNELS.items()}
        self.steps_per_call = 16 if torch.cuda.is_available() else 4
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
        if array.requires_grad:
            raise TypeError("a PyTorch tensor that requires grad would lose its record; x.detach()")
        return np.array(array.resolve_conj().resolve_neg().cpu().numpy())

    def to_host_later(self, array: Any) -> Callable[[], np.ndarray]:
        if array.device.type != "cuda":
            return super().to_host_later(array)
        host = self._torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        host.copy_(array, non_blocking=True)
        copied = self._torch.cuda.Event()
        copied.record(self._torch.cuda.current_stream(array.device))

        def fetch() -> np.ndarray:
            copied.synchronize()
            return np.array(host.numpy())

        return fetch

    def owned(self, array: Any) -> Any:
        alone = array._base is None and array.is_contiguous()
        if alone and not array.is_inference():  # in inference mode a view has no base
            return array
        return array.clone(memory_format=self._torch.contiguous_format)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """On CUDA, capture the step as a graph and replay it; elsewhere, run a traced program.

        Both keep the state in memory of their own, which the step may write over. Autograd is off.
        """
        from polynet_torch.traced import Runner

        torch = self._torch
        traced = Runner(self, step)
        static = StaticRunner(
            self, allow_overwrite(step), capture=self._capture,
            memory=lambda a: a.untyped_storage().data_ptr(),
            required=getattr(step, "required", False), inner=("polynet_torch", "torch"),
        )  # fmt: skip

        def run(state: Any, data: Any, rows: Any) -> Any:
            device = rows.device
            with torch.no_grad():
                if device.type != "cuda":
                    return traced(state, data, rows)
                with torch.cuda.device(device):
                    return static(state, data, rows)

        # attributes that the contract asks of a runner; a function may have attributes
        run.refresh, run.replace = static.refresh, static.replace  # type: ignore[attr-defined]
        return run

    def _capture(self, run: Callable[[], None]) -> Callable[[], object]:
        """The replay of a CUDA graph, with memory of its own, of the work that `run` starts."""
        cuda = self._torch.cuda
        graph, stream = cuda.CUDAGraph(), cuda.Stream()
        # The outer context leaves the stream even if the inner one raises when it ends.
        # "thread_local" lets other threads use the device during the capture.
        with (
            cuda.stream(stream),
            cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            run()

        def replay() -> None:
            overwriting()
            graph.replay()

        return replay

    def share(self, x: Any, device: Any) -> Any:
        if self.is_array(x):
            if x.requires_grad:
                raise BufferError("it requires grad, and its record would be lost; use x.detach()")
            return x
        if x.__dlpack_device__()[0] == CPU:
            # By way of NumPy, read-only memory and negative strides are refused. PyTorch's own
            # from_dlpack checks neither, and with negative strides some versions crash the process
            # (pytorch issue 188023).
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
