"""The order of samples: split, shuffled and cut into batches by the seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from polynet import random
from polynet.backend import Array, common_backend
from polynet.backend.transfer import on_host
from polynet.data.named import arrays_of, each, same_length
from polynet.data.place import host_array, is_device_array


def rows_of(x: Any, rows: np.ndarray, name: str) -> Any:
    """These rows of a host or device array, as an array of its kind, or of a dict of arrays."""
    return each(lambda a, of: _rows_of(a, rows, of), x, name)


def _rows_of(x: Any, rows: np.ndarray, name: str) -> Any:
    if not is_device_array(x):
        return host_array(x, name)[rows]
    return rows_of_native(x, rows)


def rows_of_native(x: Array, rows: np.ndarray) -> Array:
    """These rows of a backend's own array."""
    backend, device = common_backend([x])
    places = backend.from_host(rows.astype(backend.index_dtype(device)), device)
    return backend.xp.take(x, places, axis=0)


def split(
    x: Any, y: Any, fraction: float, *, seed: int = 0, stratify: bool = False
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """`((x, y), (x_held_out, y_held_out))`, with `fraction` of the samples held out at random.

    The samples held out are a function of the seed. With `stratify`, each class of `y` is split
    in that proportion. Each side gets at least one sample; raises ValueError where that is
    impossible.

    >>> (x, y), (x_held_out, y_held_out) = split(list(range(10)), [0, 1] * 5, 0.2, stratify=True)
    >>> sorted(y_held_out.tolist())
    [0, 1]
    """
    kept, held = split_rows(same_length(x, y), fraction, seed=seed, y=y if stratify else None)
    kept_x, held_x = (rows_of(x, rows, "x") for rows in (kept, held))
    kept_y, held_y = (rows_of(y, rows, "y") for rows in (kept, held))
    return (kept_x, kept_y), (held_x, held_y)


def split_rows(
    count: int, fraction: float, *, seed: int, y: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that stay and the rows held out; where `y` is given, each class of it is split."""
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction held out is between 0 and 1; got {fraction!r}")
    if isinstance(y, Mapping):
        raise TypeError("stratify is for one array of targets; y is a dict of several")
    groups = [np.arange(count)] if y is None else _classes(on_host(y))
    order = [
        group[random.permutation(random.key(seed, "split", i), len(group))]
        for i, group in enumerate(groups)
    ]
    cuts = _shares([len(group) for group in order], fraction)
    held = np.sort(np.concatenate([g[:cut] for g, cut in zip(order, cuts, strict=True)]))
    kept = np.sort(np.concatenate([g[cut:] for g, cut in zip(order, cuts, strict=True)]))
    if not len(held) or not len(kept):
        raise ValueError(f"{fraction} of {count} samples leaves one side empty; give more samples")
    return kept, held


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


def batches(
    count: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool = False
) -> Iterator[np.ndarray]:
    """The rows of each batch of an epoch: a function of (seed, epoch).

    The last batch may be shorter; in that case `drop_last` leaves it out.
    """
    order = random.permutation(random.key(seed, "shuffle", epoch), count)
    for i in range(count_of(count, batch_size, drop_last=drop_last)):
        yield order[i * batch_size : (i + 1) * batch_size]


def count_of(count: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches of `batch_size` samples `count` samples make."""
    return count // batch_size if drop_last else -(-count // batch_size)


def varied(targets: Any, count: int) -> np.ndarray:
    """The rows of up to `count` samples, with as many different labels as possible.

    The labels are spread from the lowest to the highest. Where `targets` is a dict of arrays, the
    first array that holds labels decides.

    >>> varied(np.asarray([7, 7, 7, 7, 2]), 3)
    array([4, 0, 1])
    """
    given = [on_host(a) for _, a in arrays_of(targets)]
    rows = np.arange(len(given[0]))
    labels = next((a for a in given if a.ndim == 1 and a.dtype.kind in "biu"), None)
    if labels is None:
        return rows[:count]
    _, first = np.unique(labels, return_index=True)
    some = first[np.linspace(0, len(first) - 1, min(count, len(first))).astype(int)]
    return np.concatenate([some, np.delete(rows, some)])[:count]


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
