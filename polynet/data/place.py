"""Where a network lives, and a user's arrays on their way there: checked, cast and moved once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from polynet.backend import (
    Array,
    Backend,
    backend_of,
    chosen_backend,
    common_backend,
    get_backend,
    use_backend,
)
from polynet.backend.selection import is_claimed
from polynet.backend.transfer import dtype_name, on_host
from polynet.data.named import arrays_of, each
from polynet.errors import MixedBackendsError

HOSTS = {1, 3, 11}
"""DLPack's numbers for host memory: ordinary, and pinned for CUDA or ROCm."""


@dataclass(frozen=True)
class Place:
    """Where a network lives: a backend, one of its devices, and the dtype of its numbers."""

    backend: Backend
    device: Any
    dtype: str

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context within which this backend is chosen, and new arrays are on this device."""
        with use_backend(self.backend), self.backend.on(self.device):
            yield

    def put(self, host: np.ndarray) -> Array:
        """A NumPy array as an array of this device, to be read only; not copied where it is one."""
        if self.backend.is_array(host) and self.backend.device_of(host) == self.device:
            return host
        return self.backend.from_host(host, self.device)

    def index(self, host: np.ndarray) -> Array:
        """Integers on this device, in the dtype that it indexes with."""
        return self.put(self._index(host))

    def _index(self, host: np.ndarray) -> np.ndarray:
        dtype = self.backend.index_dtype(self.device)
        info = np.iinfo(dtype)
        if host.size and (int(host.min()) < info.min or int(host.max()) > info.max):
            raise ValueError(
                f"integers from {host.min()} to {host.max()} do not fit into {dtype}, which "
                f"{self.backend.name!r} indexes with"
            )
        return host.astype(dtype, copy=False)

    def take_in(self, x: Any, name: str) -> Any:
        """A user's array as the network takes it, or a dict of them.

        Host data (NumPy arrays, nested sequences, data frames) is moved here; its floating
        numbers are cast to the network's dtype, its integers to this device's index dtype. An array
        that is on a device already must be on this one, and floating numbers must have the
        network's dtype. An array that needs none of this is not copied: it stays the user's, and
        is only read. Raises ValueError for empty data, and for numbers that are not finite; for
        host data the message says where the first of these is.
        """
        return each(self._take_in, x, name)

    def _take_in(self, x: Any, name: str) -> Array:
        if is_device_array(x):
            return self._check_here(x, name)
        return self.put(self._prepared(x, name))

    def prepare(self, x: Any, name: str) -> Any:
        """A user's host array, or a dict of them, as `take_in` makes it, but not moved."""
        return each(self._prepared, x, name)

    def _prepared(self, x: Any, name: str) -> np.ndarray:
        host = host_array(x, name)
        check_host(host, name)
        if host.dtype.kind == "f":
            return cast(host, self.dtype, name)
        return host if host.dtype.kind == "b" else self._index(host)

    def _check_here(self, x: Array, name: str) -> Array:
        backend = backend_of(x)
        if backend.name != self.backend.name or backend.device_of(x) != self.device:
            raise MixedBackendsError(
                f"{name} is on {backend.name!r} ({backend.device_of(x)}), the network on "
                f"{self.backend.name!r} ({self.device}); move it with polynet.asarray(x, "
                "backend=…, device=…), or give a NumPy array, which is moved for you"
            )
        xp = backend.xp
        _check_size(x.shape, name)
        if xp.isdtype(x.dtype, "real floating"):
            if x.dtype != backend.dtype(self.dtype):
                raise TypeError(
                    f"{name} is {x.dtype}, the network {self.dtype}; convert it, or draw the "
                    "network with init(dtype=…)"
                )
            if not bool(xp.all(xp.isfinite(x))):
                raise ValueError(f"{name} holds NaN or infinite numbers; remove or replace them")
        return x


def place_for(
    parameters: Mapping[str, Any],
    x: Any,
    asked: str | Backend | None,
    device: str | None,
    dtype: str | None,
) -> Place:
    """The place of a network: that of its drawn parameters, else the one asked for, else of `x`."""
    drawn = [p for p in parameters.values() if hasattr(p, "dtype")]
    if drawn:
        return _where_drawn(drawn, asked, device, dtype)
    array = next((a for _, a in arrays_of(x) if is_device_array(a)), None)
    if asked is None and chosen_backend() is None and array is not None:
        backend = backend_of(array)
        native = backend.device(device) if device else backend.device_of(array)
    else:
        backend = get_backend(asked)
        native = backend.device(device)
    return Place(backend, native, dtype or "float32")


def _where_drawn(
    drawn: list[Array], asked: str | Backend | None, device: str | None, dtype: str | None
) -> Place:
    """The place of a network whose parameters are drawn; raises if another place was asked for."""
    with nullcontext() if asked is None else use_backend(asked):
        backend, native = common_backend(drawn, "the network's parameters")
    if asked is not None:
        wanted = get_backend(asked)
        if wanted.name != backend.name:
            raise MixedBackendsError(
                f"the network is on {backend.name!r}, the Trainer was given backend "
                f"{wanted.name!r}; move it with net.to(backend=…)"
            )
        backend = wanted
    if device is not None and backend.device(device) != native:
        raise MixedBackendsError(
            f"the network is on {native}, the Trainer was given device {device!r}; move it "
            "with net.to(device=…)"
        )
    own = dtype_name(drawn[0].dtype)
    if dtype is not None and dtype != own:
        raise TypeError(
            f"the network is {own}, the Trainer was given dtype {dtype!r}; leave it out, or "
            "draw the network with init(dtype=…)"
        )
    return Place(backend, native, own)


def host_array(x: Any, name: str) -> np.ndarray:
    """`x` as a NumPy array; an error for what cannot be one begins with its name."""
    try:
        return on_host(x)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    except ValueError as error:
        raise ValueError(
            f"{name} is not one array: {error} Give several arrays as a dict, by their names, "
            "and pad samples of different lengths to one"
        ) from None


def is_device_array(x: Any) -> bool:
    """Whether `x` is some backend's array other than NumPy's, which counts as host data."""
    return hasattr(x, "shape") and not isinstance(x, np.ndarray | np.generic) and is_claimed(x)


def lies_on_the_host(x: Any) -> bool:
    """Whether a backend's array is in host memory, according to DLPack."""
    return hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] in HOSTS


def _check_size(shape: tuple[int, ...], name: str) -> None:
    if not shape:
        raise ValueError(f"{name} is a single number; expected samples along the first axis")
    if 0 in shape:
        raise ValueError(
            f"{name} is empty: its shape is {tuple(shape)}; expected at least one sample"
        )


def check_host(host: np.ndarray, name: str) -> None:
    """Refuse host data that is empty, complex or not finite."""
    _check_size(host.shape, name)
    if host.dtype.kind == "c":
        raise TypeError(f"{name} is complex ({host.dtype}); expected real numbers")
    if host.dtype.kind == "f" and not (finite := np.isfinite(host)).all():
        bad = np.argwhere(~finite)
        at = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} holds {len(bad)} NaN or infinite numbers, the first at {at} "
            f"({host[at]}); remove or replace them"
        )


def cast(host: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Floating numbers in another dtype; ValueError where some are too large for it."""
    if host.dtype == dtype:
        return host
    with np.errstate(over="ignore"):
        cast = host.astype(dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} holds numbers too large for {dtype}; scale them")
    return cast
