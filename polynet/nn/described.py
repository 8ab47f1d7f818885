"""What a layer describes, arrays and random streams, and the context that a pass adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polynet import random
from polynet.backend import Array
from polynet.nn.init import Initialiser, check


@dataclass(frozen=True, eq=False)
class Described:
    """An array described: a shape and an initialiser.

    The same one in two places is one array, named by the first.
    """

    shape: tuple[int, ...]
    init: Initialiser

    def __post_init__(self) -> None:
        check(self.init)


class Parameter(Described):
    """An array that is trained, described by a shape and an initialiser.

    The same Parameter in two places is one parameter, named by the first.
    """


@dataclass(frozen=True, eq=False)
class Buffer(Described):
    """An array that is kept beside the parameters and not trained, such as a running mean.

    It is drawn, moved, named and saved as they are. A layer may `renew` it in a training pass.
    `dtype` is the network's, or the one named; whole numbers are "int32", which every backend
    has, and int64 in a file of `checkpoint.save`, as PyTorch's.

    >>> import numpy as np
    >>> from polynet import nn
    >>> class Count(nn.Module):
    ...     def __init__(self):
    ...         self.calls = nn.Buffer((), nn.init.zeros, "int32")
    ...     def forward(self, x):
    ...         if self.training:
    ...             self.renew(calls=self.calls + 1)
    ...         return x
    >>> context = nn.Context(np, np.zeros(1, "int32"), {})
    >>> _ = Count().init(backend="numpy").bind({}, context)(np.ones(2))
    >>> int(context.buffers["calls"])
    1
    """

    dtype: str | None = None


def check_like(what: str, array: Array, now: Any) -> None:
    """Refuse an array that has not the shape and dtype of the one, or of what it was described."""
    if tuple(array.shape) != tuple(now.shape):
        raise ValueError(
            f"{what} has shape {tuple(now.shape)}; got an array of shape {tuple(array.shape)}"
        )
    if not isinstance(now, Described) and array.dtype != now.dtype:
        raise TypeError(f"{what} is {now.dtype}; got an array of {array.dtype}")


@dataclass(frozen=True, eq=False)
class RandomStream:
    """A layer's own stream of random numbers. In a training pass it is bound to its key."""


@dataclass(frozen=True)
class Stream:
    """A random stream bound to one training pass."""

    name: str
    context: Context

    def keep_mask(self, shape: tuple[int, ...], keep: float) -> Array:
        """A mask for `shape` (samples first), a function of seed, layer, call, step and sample."""
        xp, step, key = self.context.xp, self.context.step, self.context.keys[self.name]
        call = self.context.calls.get(self.name, 0)
        self.context.calls[self.name] = call + 1
        if call:
            key = xp.concat(list(random.threefry2x32(key, step * 0 + call, step * 0)))
        first = self.context.first_row(self.name, shape[0])
        return random.keep_mask(key, step, shape=shape, keep=keep, first=first)


class Context:
    """What one training pass adds to the arrays: the step and the keys of the streams.

    `xp` is the backend's namespace, `step` int32 of shape (1,); `keys` holds an int32 array of
    shape (2,) for every name in `net.streams()`. All are on the network's device. `buffers` is
    what comes out: from `bind` on those the network has, by name, as the pass renews them. A
    function that is differentiated returns them beside its value (`has_aux=True`). Where a step
    is made in parts, this pass is of `samples` samples, the step's from number `first` on.
    """

    def __init__(
        self,
        xp: Any,
        step: Array,
        keys: Mapping[str, Array],
        first: int = 0,
        samples: int = 1,
    ) -> None:
        self.xp = xp
        self.step = step
        self.keys = keys
        self.first = first
        self.samples = samples
        self.calls: dict[str, int] = {}
        self.buffers: dict[str, Array] = {}

    def first_row(self, name: str, rows: int) -> int:
        """The number, in the step, of the first of `rows`: each sample has as many, in its turn."""
        if self.first and rows % self.samples:
            raise ValueError(
                f"{name!r} drops of {rows} rows, which are not as many for each of {self.samples} "
                "samples; with accumulate, its inputs have the samples along their first axis"
            )
        return self.first * (rows // self.samples)
