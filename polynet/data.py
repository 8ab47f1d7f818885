"""A user's data on its way in: checked once, cast and moved once, split and shuffled by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from polynet import random
from polynet.backend import Array, Backend, backend_of, common_backend
from polynet.backend.selection import is_claimed
from polynet.backend.transfer import on_host
from polynet.errors import MixedBackendsError


@dataclass(frozen=True)
class Place:
    """Where a network lives: a backend, one of its devices, and the dtype of its numbers."""

    backend: Backend
    device: Any
    dtype: str

    def put(self, host: np.ndarray) -> Array:
        """A NumPy array as one of this device, to be read: itself, where it is one already."""
        if self.backend.is_array(host) and self.backend.device_of(host) == self.device:
            return host
        return self.backend.from_host(host, self.device)

    def index(self, host: np.ndarray) -> Array:
        """Integers as this device indexes with."""
        dtype = self.backend.index_dtype(self.device)
        info = np.iinfo(dtype)
        if host.size and (int(host.min()) < info.min or int(host.max()) > info.max):
            raise ValueError(
                f"integers from {host.min()} to {host.max()} do not fit into {dtype}, which "
                f"{self.backend.name!r} indexes with"
            )
        return self.put(host.astype(dtype, copy=False))

    def take_in(self, x: Any, name: str) -> Array:
        """A user's array as the network takes it.

        Host data (NumPy arrays, nested sequences, data frames) is moved here; its floating
        numbers become the network's dtype, its integers this device's. An array that is on a
        device already must be on this one, and floating numbers must have the network's dtype.
        What is here as it should be, is not copied: it is the user's, and only read.
        Raises for empty data, and for numbers that are not finite, naming the first.
        """
        if is_device_array(x):
            return self._check_here(x, name)
        host = on_host(x)
        check_host(host, name)
        if host.dtype.kind == "f":
            return self.put(cast(host, self.dtype, name))
        if host.dtype.kind == "b":
            return self.put(host)
        return self.index(host)

    def _check_here(self, x: Array, name: str) -> Array:
        found = backend_of(x)
        if found.name != self.backend.name or found.device_of(x) != self.device:
            raise MixedBackendsError(
                f"{name} is on {found.name!r} ({found.device_of(x)}), the network on "
                f"{self.backend.name!r} ({self.device}); move it with polynet.asarray(x, "
                "backend=…, device=…), or give a NumPy array, which is moved for you"
            )
        xp = found.xp
        _check_size(x.shape, name)
        if xp.isdtype(x.dtype, "real floating"):
            if x.dtype != found.dtype(self.dtype):
                raise TypeError(
                    f"{name} is {x.dtype}, the network {self.dtype}; convert it, or draw the "
                    "network with init(dtype=…)"
                )
            if not bool(xp.all(xp.isfinite(x))):
                raise ValueError(f"{name} holds NaN or infinite numbers; remove or replace them")
        return x


def is_device_array(x: Any) -> bool:
    """Whether `x` is some backend's array other than NumPy's, which counts as host data."""
    return not isinstance(x, np.ndarray | np.generic) and is_claimed(x)


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
    if host.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(host))
        if len(bad):
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


def same_length(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> int:
    """The number of samples in both. Raises ValueError where they differ."""
    counts = [a.shape[0] if hasattr(a, "shape") else len(a) for a in (x, y)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{names[0]} has {counts[0]} samples, {names[1]} {counts[1]}; they must have as many"
        )
    return counts[0]


def rows_of(x: Any, rows: np.ndarray) -> Any:
    """The rows of a host or device array, in its kind."""
    if not is_device_array(x):
        return on_host(x)[rows]
    backend, device = common_backend([x])
    return backend.xp.take(x, Place(backend, device, "float32").index(rows), axis=0)


def split(
    x: Any, y: Any, fraction: float, *, seed: int = 0, stratify: bool = False
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """`((x, y), (x_held_out, y_held_out))`, with `fraction` of the samples held out at random.

    The samples held out are a function of the seed. With `stratify` each class of `y` is split
    in that proportion. At least one sample stays on each side; raises ValueError where that is
    impossible.

    >>> (x, y), (x_held_out, y_held_out) = split(list(range(10)), [0, 1] * 5, 0.2, stratify=True)
    >>> sorted(y_held_out.tolist())
    [0, 1]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out is between 0 and 1; got {fraction!r}")
    count = same_length(x, y)
    groups = _classes(on_host(y)) if stratify else [np.arange(count)]
    order = [
        group[random.permutation(random.key(seed, "split", i), len(group))]
        for i, group in enumerate(groups)
    ]
    cuts = _shares([len(group) for group in order], fraction)
    held = np.sort(np.concatenate([g[:cut] for g, cut in zip(order, cuts, strict=True)]))
    kept = np.sort(np.concatenate([g[cut:] for g, cut in zip(order, cuts, strict=True)]))
    if not len(held) or not len(kept):
        raise ValueError(f"{fraction} of {count} samples leaves one side empty; give more samples")
    return (rows_of(x, kept), rows_of(y, kept)), (rows_of(x, held), rows_of(y, held))


def _shares(sizes: list[int], fraction: float) -> list[int]:
    """How many of each group are held out: together `fraction` of all, by largest remainders."""
    shares = [int(size * fraction) for size in sizes]
    remainders = [size * fraction - share for size, share in zip(sizes, shares, strict=True)]
    missing = round(sum(sizes) * fraction) - sum(shares)
    for i in sorted(range(len(sizes)), key=lambda i: -remainders[i])[:missing]:
        shares[i] += 1
    return shares


def _classes(y: np.ndarray) -> list[np.ndarray]:
    """The rows of each class; a two-dimensional `y` counts each distinct row as a class."""
    _, labels = np.unique(y.reshape(len(y), -1), axis=0, return_inverse=True)
    labels = labels.reshape(-1)
    return [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]


def batches(count: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The rows of each batch of an epoch: a function of (seed, epoch). The last may be shorter."""
    order = random.permutation(random.key(seed, "shuffle", epoch), count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def chunks(rows: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Up to `size` consecutive batches of equal length."""
    chunk: list[np.ndarray] = []
    for r in rows:
        if chunk and (len(chunk) == size or len(r) != len(chunk[0])):
            yield chunk
            chunk = []
        chunk.append(r)
    if chunk:
        yield chunk
