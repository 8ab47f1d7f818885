"""CuPy on CUDA GPUs, with kernels of its own, and training steps as CUDA graphs.

Eager work runs on the current stream, and takes its memory from the current allocator: CuPy's own,
or the one chosen by `cupy.cuda.set_allocator`. A compiled step is captured on a separate stream
with a separate memory pool (see `graph.Capturer`), and it runs on the current stream. Products of
float32 matrices are computed in float32, unless `CupyBackend.with_precision`, or CuPy's own setting
`CUPY_TF32=1`, asks for less.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np
from array_api_compat import is_writeable_array

from polynet.backend import Backend
from polynet.errors import MissingDependency, unknown
from polynet_cupy.graph import Capturer, steps
from polynet_cupy.kernels import KERNELS
from polynet_cupy.products import PRECISIONS, library_product

INSTALL = "pip install 'polynet-array[cuda13]' (or [cuda12] for a CUDA 12 driver)"


class CupyBackend(Backend):
    name = "cupy"
    contract = 1
    kernels = KERNELS
    steps_per_call = 16

    def __init__(self) -> None:
        check_alone()
        try:
            import cupy
        except ImportError as error:
            if error.name != "cupy":  # CuPy is installed, and something that it needs is missing
                raise
            raise MissingDependency("CuPy", INSTALL) from error
        from polynet_cupy.namespace import namespace

        tf32 = int(os.environ.get("CUPY_TF32", "0")) > 0  # read once, as CuPy does
        self.xp = namespace("tf32" if tf32 else "float32")
        self._cupy = cupy
        self.version = cupy.__version__

    def with_precision(self, precision: str) -> CupyBackend:
        """The same backend, with products of float32 matrices computed in a lower precision.

        "float32" changes nothing. "tf32" rounds each number that is multiplied from 24 bits to 11,
        and "bfloat16" rounds it to 8. The products are summed in float32. Parameters, gradients,
        the optimizer's state, and all work other than products stay in float32. Products of
        float64 are not changed.

            fast = polynet.get_backend("cupy").with_precision("bfloat16")
            trainer = Trainer(net, losses.cross_entropy, optim.Adam(), backend=fast)

        Raises ValueError for another name. Micikevicius et al., "Mixed Precision
        Training" (2018).
        """
        from polynet_cupy.namespace import namespace

        if precision not in PRECISIONS:
            raise ValueError(unknown("precision", precision, PRECISIONS))
        other = self.variant("with_precision", precision)
        other.xp = namespace(precision)
        return other

    def devices(self) -> Mapping[str, Any]:
        cuda = self._cupy.cuda
        try:
            count = cuda.runtime.getDeviceCount()
        except cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(why_no_device(str(error))) from error
        return {f"cuda:{i}": cuda.Device(i) for i in range(count)}

    def is_array(self, x: object) -> bool:
        return isinstance(x, self._cupy.ndarray)

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        with device:  # CuPy copies by way of pinned memory, on the current stream
            return self._cupy.array(array, order="C")

    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(self._cupy.asnumpy(array))

    def on(self, device: Any) -> Any:
        return device

    def to_host_later(self, array: Any) -> Callable[[], np.ndarray]:
        from cupyx import empty_pinned

        with array.device:
            host = empty_pinned(array.shape, array.dtype)
            array.get(out=host, blocking=False)
            copied = self._cupy.cuda.Event(disable_timing=True)
            copied.record()
        # `host` goes back to CuPy's pool when it dies, and its next owner may write at once.
        given_back = weakref.finalize(host, copied.synchronize)
        given_back.atexit = False

        def fetch() -> np.ndarray:
            copied.synchronize()
            return np.array(host)

        return fetch

    def owned(self, array: Any) -> Any:
        alone = array.flags.owndata and array.flags.c_contiguous
        return array if alone else self._cupy.array(array, order="C")

    def share(self, x: Any, device: Any) -> Any:
        if not is_writeable_array(x):
            raise BufferError("its memory is read-only, which CuPy cannot express")
        if self.is_array(x):
            return x
        with device:  # CuPy's from_dlpack takes no device= yet
            return self._cupy.from_dlpack(x, copy=False)

    def probe(self, device: Any) -> None:
        """Compute with CuPy, with a kernel that is compiled here, and with cuBLASLt."""
        xp = self.xp
        try:
            with device:
                ones = xp.ones((2, 2), dtype=xp.float32)
                y, _ = KERNELS["relu"](xp, library_product(xp, ones, ones))
                total = float(self.to_host(xp.sum(y)))
        except (RuntimeError, ImportError, OSError) as error:
            raise RuntimeError(why_no_device(str(error))) from error
        if total != 8.0:
            raise ArithmeticError(f"a sum of 8 on {device} came out as {total}")

    def compile(self, step: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
        """The steps of a call as a CUDA graph, replayed on the current stream: see `graph`."""
        capturers: dict[int, Capturer] = {}

        def capture(run: Callable[[], None]) -> Callable[[], object]:
            device = self._cupy.cuda.runtime.getDevice()
            if device not in capturers:
                capturers[device] = Capturer(self._cupy)
            try:
                return capturers[device].capture(run)
            except BaseException:
                del capturers[device]  # this frees the memory of its pool, unless a graph uses it
                raise

        return steps(self, step, capture)

    def synchronize(self) -> None:
        for device in self.devices().values():
            device.synchronize()


def check_alone() -> None:
    """Raise RuntimeError if several distributions bring CuPy: their files overwrite each other."""
    names = {str(d.metadata["Name"]).lower().replace("_", "-") for d in metadata.distributions()}
    found = sorted(n for n in names if n == "cupy" or n.startswith("cupy-cuda"))
    if len(found) > 1:
        raise RuntimeError(
            f"{' and '.join(found)} are installed, and each brings the module cupy; uninstall all "
            f"of them, then install one: {INSTALL}"
        )


REASONS = {
    "cudaErrorInsufficientDriver": (
        "there is no NVIDIA driver, or one too old for the CUDA that CuPy was built for; "
        "`nvidia-smi` shows the driver's version and the newest CUDA that it supports"
    ),
    "cudaErrorNoDevice": (
        "the NVIDIA driver sees no GPU; CUDA_VISIBLE_DEVICES may hide it, or the container may not "
        "have been given one"
    ),
    "nvrtc": f"the CUDA toolkit lacks its compiler, NVRTC; {INSTALL} brings it",
    "CUDA headers": f"the CUDA toolkit lacks the headers that CuPy compiles with; {INSTALL}",
    "cublasLt": f"the CUDA toolkit lacks cuBLASLt; {INSTALL} brings it",
}
"""What causes an error, by a part of the words that CuPy raises it with."""


def why_no_device(words: str) -> str:
    """The words of CuPy's error, after its cause where that is known."""
    known = [reason for part, reason in REASONS.items() if part.lower() in words.lower()]
    return f"{known[0]} ({words})" if known else words


load = CupyBackend
