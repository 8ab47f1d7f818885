"""Layers made of layers.

`Sequential` applies layers one after another. Any other module keeps its layers in plain lists,
tuples and dicts. Their parameters have the names that they would have in PyTorch's ModuleList and
ModuleDict:

>>> from polynet import functional, nn
>>> class Branches(nn.Module):
...     def __init__(self, size):
...         self.layers = [nn.Linear(size, size) for _ in range(2)]
...         self.heads = {"mean": nn.Linear(size, 1), "spread": nn.Linear(size, 1, bias=False)}
...     def forward(self, x):
...         for layer in self.layers:
...             x = x + functional.relu(layer(x))
...         return {name: head(x) for name, head in self.heads.items()}
>>> list(Branches(3).parameters())  # doctest: +NORMALIZE_WHITESPACE
['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias',
 'heads.mean.weight', 'heads.mean.bias', 'heads.spread.weight']
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from inspect import signature
from typing import Any, overload

from polynet.backend import Array
from polynet.integers import several
from polynet.nn.activation import ReLU
from polynet.nn.checks import signed_integers, wrong_shape
from polynet.nn.linear import Linear
from polynet.nn.module import Module
from polynet.ops import array_namespace


class Sequential(Module):
    """The layers one after another; their names are "0", "1" and so on.

    >>> from polynet import nn
    >>> nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    Sequential(
      0: Linear(4, 2)
      1: ReLU()
    )
    """

    def __init__(self, *layers: Module) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {i} is {not_a_layer(layer)}")
            setattr(self, str(i), layer)
        self._count = len(layers)

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, str(i)) for i in range(self._count))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: int) -> Module: ...

    @overload
    def __getitem__(self, i: slice) -> Sequential: ...

    def __getitem__(self, i: int | slice) -> Module:
        """A layer, or, for a slice, a Sequential of those layers, named "0", "1" and so on."""
        layers = list(self)
        if isinstance(i, slice):
            return Sequential(*layers[i])
        try:
            return layers[i]
        except IndexError:
            raise IndexError(
                f"{self.label()} has {len(layers)} layers, numbered from 0; got {i}"
            ) from None

    def forward(self, x: Array) -> Array:
        layers = list(self)
        before = None
        while layers:
            layer = layers.pop(0)
            if isinstance(x, tuple):
                _refuse_pair(layer, before)
            before = layer
            if type(layer) is Linear and layers and type(layers[0]) is ReLU:
                x = layer(x, relu=True)
                del layers[0]
            else:
                x = layer(x)
        return x


def not_a_layer(given: Any) -> str:
    """The end of an error for what was given in place of a layer: what it is, and the remedy."""
    if isinstance(given, type) and issubclass(given, Module):
        needed = [p for p in signature(given).parameters.values() if p.default is p.empty]
        prefix = "nn." * given.__module__.startswith("polynet.nn.")
        instance = f"{prefix}{given.__name__}({'…' * bool(needed)})"
        return f"the class {given.__name__} itself: give an instance, {instance}"
    if isinstance(given, list | tuple):
        return f"a {type(given).__name__}: layers are given one by one, not in a list"
    if callable(given) and hasattr(given, "__name__") and not isinstance(given, type):
        return (
            f"a function, {given.__name__}: give a layer of nn, such as nn.Tanh(), or a Module "
            "whose forward calls it"
        )
    return f"a {type(given).__name__}; expected a Module, such as nn.Linear(4, 2)"


def _refuse_pair(layer: Module, before: Module | None) -> None:
    """Raise TypeError if one of polynet's own layers, which take one array, is given a tuple."""
    if type(layer).__module__.startswith("polynet.nn.") and not isinstance(layer, Sequential):
        tuple_ = "the input is a tuple" if before is None else f"{before.label()} returned a tuple"
        raise TypeError(
            f"{layer.label()}: expected one array, but {tuple_}. Recurrent layers return a pair "
            "(outputs, state): take the outputs in a forward of your own, as the docstring of "
            "nn.RNN shows"
        )


class Identity(Module):
    """The inputs, unchanged."""

    def __init__(self) -> None:
        """Without settings."""

    def forward(self, x: Array) -> Array:
        return x


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` become one: (batch, a, b, …) becomes (batch, a·b·…).

    Negative axes count from the end. Raises ValueError for inputs that lack one of the two axes,
    and where `start_dim` comes after `end_dim`.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = signed_integers(
            "Flatten", start_dim=start_dim, end_dim=end_dim
        )

    def forward(self, x: Array) -> Array:
        axes = len(x.shape)
        start, end = (dim + axes if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < axes:
            others = f"(…) with axes from {self.start_dim} to {self.end_dim}"
            raise wrong_shape(self, "(batch, …)" if self._by_default() else others, x)
        sizes = x.shape
        shape = (*sizes[:start], math.prod(sizes[start : end + 1]), *sizes[end + 1 :])
        return array_namespace(x).reshape(x, shape)

    def _by_default(self) -> bool:
        return (self.start_dim, self.end_dim) == (1, -1)

    def settings(self) -> str:
        return "" if self._by_default() else f"{self.start_dim}, {self.end_dim}"


class Unflatten(Module):
    """Splits the axis `dim` into several, of the sizes `unflattened_size`: `Flatten` undone.

    One of the sizes may be -1, and is then computed from the others. A negative `dim` counts from
    the end. Raises ValueError for inputs that lack the axis, or whose axis has another length.

    >>> from polynet import nn
    >>> import numpy as np
    >>> nn.Unflatten(1, (3, 4, 4))(np.ones((2, 48))).shape
    (2, 3, 4, 4)
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        (self.dim,) = signed_integers("Unflatten", dim=dim)
        sizes = several(unflattened_size, least=-1)
        if not sizes or sizes.count(-1) > 1 or 0 in sizes:
            raise ValueError(
                "Unflatten: unflattened_size is a tuple of positive integers, one of which may be "
                f"-1; got {unflattened_size!r}"
            )
        self.unflattened_size = sizes

    def forward(self, x: Array) -> Array:
        axes, known = len(x.shape), math.prod(n for n in self.unflattened_size if n > 0)
        dim = self.dim + axes if self.dim < 0 else self.dim
        left = -1 in self.unflattened_size
        if not 0 <= dim < axes or (x.shape[dim] % known if left else x.shape[dim] != known):
            numbers = f"a multiple of {known}" if left else known
            raise wrong_shape(self, f"(…) with {numbers} numbers along axis {self.dim}", x)
        sizes = (x.shape[dim] // known if n == -1 else n for n in self.unflattened_size)
        return array_namespace(x).reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))

    def settings(self) -> str:
        return f"{self.dim}, {self.unflattened_size}"
