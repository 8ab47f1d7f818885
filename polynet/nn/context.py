"""What one pass adds to a layer: random streams, the step, and buffers that are renewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polynet import random
from polynet.backend import Array


@dataclass(frozen=True, eq=False)
class RandomStream:
    """A layer's own stream of random numbers: in a pass that has a `Context` it is a `Stream`.

    Training passes have a Context, and so do a Trainer's evaluations and predictions, in which a
    stream draws the same numbers every time. A network that is called by itself has no seed to
    draw from.

    >>> import numpy as np
    >>> from polynet import nn
    >>> class Noise(nn.Module):
    ...     def __init__(self, std):
    ...         self.std = std
    ...         self.stream = nn.RandomStream()
    ...     def forward(self, x):
    ...         if not self.training:
    ...             return x
    ...         return x + self.std * self.stream.normal(x.shape, x.dtype)
    """

    def __getattr__(self, name: str) -> Any:
        if name in vars(Stream):
            raise AttributeError(
                f"a RandomStream has no {name} where its network is called by itself, without a "
                "seed. A Trainer's passes have a seed. Without a Trainer, call "
                "net.bind(net.state_dict(), nn.Context(xp, step, keys, training=False))(x), or ask "
                "self.training first"
            )
        raise AttributeError(f"a RandomStream has no {name!r}")


@dataclass(frozen=True)
class Stream:
    """A random stream bound to one pass.

    The first axis of a `shape` counts samples. The numbers drawn are a function of the seed, the
    layer, the call, the step and the sample's position. So they are the same on every backend, and
    however a step is split. Where a Trainer evaluates or predicts, the step is 0. Python's and
    NumPy's own random numbers do not work in a layer: a step that is captured or compiled draws
    them once, and never again.
    """

    name: str
    context: Context

    def keep_mask(self, shape: tuple[int, ...], keep: float) -> Array:
        """Booleans that are true with probability `keep`, in steps of 2**-16."""
        return random.keep_mask(self._key(), self.context.step, **self._place(shape), keep=keep)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Numbers in [0, 1), multiples of 2**-24, float32 or float64, on the network's device."""
        xp, step, place = self.context.xp, self.context.step, self._place(shape)
        return random.draw_uniform(xp, self._key(), step, **place, dtype=dtype)

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Standard normal numbers, float32 or float64, on the network's device."""
        xp, step, place = self.context.xp, self.context.step, self._place(shape)
        return random.draw_normal(xp, self._key(), step, **place, dtype=dtype)

    def _key(self) -> Array:
        """A key of its own for each call."""
        xp, step = self.context.xp, self.context.step
        if self.name not in self.context.keys:
            raise KeyError(
                f"the context has no key for the random stream {self.name}: give it the keys "
                '{n: random.key(seed, "stream", n) for n in net.streams()}, on its device'
            )
        key, call = self.context.keys[self.name], self.context.calls.get(self.name, 0)
        self.context.calls[self.name] = call + 1
        if not call:
            return key
        return xp.concat(random.threefry2x32(key, step * 0 + call, step * 0))

    def _place(self, shape: tuple[int, ...]) -> dict[str, Any]:
        shape = tuple(shape)
        first = self.context.first_row(self.name, shape[0]) if shape else 0
        return {"shape": shape, "first": first}


class Context:
    """What one pass needs beside the arrays: the step and the keys of the random streams.

    `xp` is the backend's namespace, `step` is int32 of shape (1,), and `keys` holds an int32 array
    of shape (2,) for every name in `net.streams()`. All are on the network's device. `buffers` is
    the output: `bind` fills it with the network's buffers by name, and the pass renews them. A
    function that is differentiated returns them beside its value (`has_aux=True`). Where a step
    is made in parts, this pass has `samples` samples of the step, from number `first` on. With
    `training=False`, the layers predict, and the streams draw all the same.
    """

    def __init__(
        self,
        xp: Any,
        step: Array,
        keys: Mapping[str, Array],
        first: int = 0,
        samples: int = 1,
        *,
        training: bool = True,
    ) -> None:
        self.xp = xp
        self.step = step
        self.keys = keys
        self.first = first
        self.samples = samples
        self.training = training
        self.calls: dict[str, int] = {}
        self.buffers: dict[str, Array] = {}

    def __repr__(self) -> str:
        names = f"keys={list(self.keys)}, buffers={list(self.buffers)}"
        return f"Context({names}, first={self.first}, samples={self.samples})"

    def first_row(self, name: str, rows: int) -> int:
        """The number of the first of `rows` in the step, where every sample has equally many."""
        if rows % self.samples and (not self.training or self.first):
            raise ValueError(
                f"{name!r} draws for {rows} rows, which do not divide evenly among {self.samples} "
                "samples; where a step is made in parts, samples are along the first axis of inputs"
            )
        return self.first * (rows // self.samples)
