"""Saving a network's parameters, and loading them on any backend.

The file is safetensors: names as in `net.parameters()`, which are PyTorch's, contiguous
arrays, nothing that can run. It is written beside its place and moved there whole, so that a
reader never meets half a file.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from polynet.backend import Backend, asarray, common_backend, to_numpy
from polynet.errors import unknown
from polynet.nn import Module, Parameter

M = TypeVar("M", bound=Module)


def save(path: str | os.PathLike[str], net: Module) -> None:
    """Write the parameters of `net` to `path`, replacing what is there in one move.

    `safetensors.torch.load_file(path)` gives a `state_dict` that the same network in PyTorch
    loads.
    """
    target = Path(path)
    arrays = {n: np.asarray(to_numpy(p), order="C") for n, p in net.drawn_parameters().items()}
    content = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # so that the new name outlives a power cut too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(
    path: str | os.PathLike[str],
    net: M,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
) -> M:
    """`net` with the parameters in `path`.

    They go to the backend given, else to that of `net` if it is drawn, else to the one chosen,
    else to numpy.

    Raises ValueError for a file that is torn or no safetensors file, KeyError where its names
    are not those of `net`, and ValueError for another shape.
    """
    try:
        arrays = safetensors.numpy.load(Path(path).read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} holds arrays of {error}, a dtype that NumPy lacks") from error
    described = net.parameters()
    for name in sorted(set(arrays) ^ set(described)):
        if name in arrays:
            raise KeyError(f"{path}: {unknown('parameter', name, described)}")
        raise KeyError(f"{path} lacks the parameter {name!r}")
    for name, parameter in described.items():
        if arrays[name].shape != tuple(parameter.shape):
            raise ValueError(
                f"{path}: {name!r} has shape {arrays[name].shape}, the network's "
                f"{tuple(parameter.shape)}"
            )
    drawn = [p for p in described.values() if not isinstance(p, Parameter)]
    if backend is None and drawn:
        backend = common_backend(drawn, "the network's parameters")[0]
    return net.bind({n: asarray(arrays[n], backend=backend, device=device) for n in described})
