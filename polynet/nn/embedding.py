"""The layer that looks vectors up in a table."""

from __future__ import annotations

from polynet.backend import Array
from polynet.nn import init
from polynet.nn.checks import positive
from polynet.nn.described import Parameter
from polynet.nn.module import Module
from polynet.ops import array_namespace


class Embedding(Module):
    """A learnt vector for each of `num_embeddings` things.

    Inputs are integers of any shape, from 0 to `num_embeddings` - 1; outputs have one more axis,
    of length `embedding_dim`. `weight` is (num_embeddings, embedding_dim), drawn from the standard
    normal distribution, as in PyTorch.

    Raises TypeError for inputs that are not integers. Their values are not checked, since that
    would read from the device. A negative integer counts from the end. An integer beyond either
    end raises IndexError on NumPy and on PyTorch's CPU, fails an assertion on PyTorch's CUDA, gives
    NaN on JAX, and is taken modulo `num_embeddings` on CuPy.
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
        drawn = init.normal(0.0, 1.0) if weight_init is None else weight_init
        self.weight: Array = Parameter(shape, drawn)

    def forward(self, x: Array) -> Array:
        xp = array_namespace(x, self.weight)
        if not xp.isdtype(x.dtype, "integral"):
            raise TypeError(f"{self.label()}: the inputs are {x.dtype}; expected integers")
        try:
            rows = xp.take(self.weight, xp.reshape(x, (-1,)), axis=0)
        except IndexError as error:
            error.add_note(
                f"{self.label()}: inputs count from 0 to {self.num_embeddings - 1}; raise "
                "num_embeddings, or give all unknown things one number"
            )
            raise
        return xp.reshape(rows, (*x.shape, self.embedding_dim))

    def settings(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
