"""The layer that looks vectors up in a table."""

from __future__ import annotations

from functools import partial
from typing import Any

from polynet.backend import Array
from polynet.derivative import stop_gradient
from polynet.nn import init
from polynet.nn.checks import positive, signed_integers
from polynet.nn.described import Parameter
from polynet.nn.module import Module
from polynet.ops import array_namespace
from polynet.ops.indexing import arange_along, widened


class Embedding(Module):
    """A learnt vector for each of `num_embeddings` things.

    Inputs are integers of any shape, from 0 to `num_embeddings` - 1; outputs have one more axis,
    of length `embedding_dim`. `weight` is (num_embeddings, embedding_dim), drawn from the standard
    normal distribution, as in PyTorch.

    `padding_idx` is the integer that fills up short sequences: its vector is drawn as zeros, and
    no gradient changes it. A negative one counts from the end.

    Raises TypeError for inputs that are not integers. Their values are not checked, since that
    would read from the device. A negative integer counts from the end. An integer beyond either
    end raises IndexError on NumPy and on PyTorch's CPU, fails an assertion on PyTorch's CUDA, gives
    NaN on JAX, and is taken modulo `num_embeddings` on CuPy.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        weight_init: init.Initialiser | None = None,
    ) -> None:
        shape = positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = shape
        drawn = init.normal(0.0, 1.0) if weight_init is None else weight_init
        self.padding_idx: int | None = None
        if padding_idx is not None:
            (row,) = signed_integers("Embedding", padding_idx=padding_idx)
            if not -shape[0] <= row < shape[0]:
                raise ValueError(
                    f"Embedding: padding_idx is from {-shape[0]} to {shape[0] - 1}; got {row}"
                )
            self.padding_idx = row % shape[0]
            drawn = partial(_zero_at, self.padding_idx, drawn)
        self.weight: Array = Parameter(shape, drawn)

    def forward(self, x: Array) -> Array:
        xp = array_namespace(x, self.weight)
        if not xp.isdtype(x.dtype, "integral"):
            raise TypeError(f"{self.label()}: the inputs are {x.dtype}; expected integers")
        try:
            flat = xp.reshape(x, (-1,))
            rows = xp.take(self.weight, flat, axis=0)
        except IndexError as error:
            error.add_note(
                f"{self.label()}: inputs count from 0 to {self.num_embeddings - 1}; raise "
                "num_embeddings, or give all unknown things one number"
            )
            raise
        if self.padding_idx is not None:
            count = self.num_embeddings
            numbers = arange_along(xp, widened(xp, flat, count), (count,), 0)
            # looked up as the rows are: an integer from the end may stand for padding too
            padding = xp.take(numbers == self.padding_idx, flat, axis=0)
            rows = xp.where(padding[:, None], stop_gradient(rows), rows)
        return xp.reshape(rows, (*x.shape, self.embedding_dim))

    def settings(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _zero_at(row: int, drawn: init.Initialiser, key: Any, shape: tuple[int, ...]) -> Any:
    """What `drawn` draws, with zeros in one row."""
    weight = drawn(key, shape).copy()  # it may be an array of the user's
    weight[row] = 0.0
    return weight
