"""The layer that looks vectors up."""

from __future__ import annotations

from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import positive
from polynet.nn.described import Parameter
from polynet.nn.module import Module
from polynet.ops import array_namespace


class Embedding(Module):
    """A learnt vector for each of a number of things.

    Inputs are integers of any shape, from 0 to `num_embeddings` - 1; outputs have one axis more,
    of `embedding_dim`. `weight` is (num_embeddings, embedding_dim), drawn from the standard
    normal distribution, as PyTorch does. An integer out of range cannot be seen on every
    device.

    Raises TypeError for inputs that are not integers.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        weight_init: init.Initialiser | None = None,
    ) -> None:
        shape = positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = shape
        self.weight: Array = Parameter(shape, weight_init or init.normal(0.0, 1.0))

    def forward(self, x: Array) -> Array:
        xp = array_namespace(x, self.weight)
        if not xp.isdtype(x.dtype, "integral"):
            raise TypeError(f"{self.label()}: the inputs are {x.dtype}; expected integers")
        rows = xp.take(self.weight, xp.reshape(x, (-1,)), axis=0)
        return xp.reshape(rows, (*x.shape, self.embedding_dim))

    def settings(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
