"""The networks that are timed, each for polynet, PyTorch and JAX, with the same parameter names.

Array libraries are imported inside functions only, so that a process loads no library but its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network for each library, and the shape of its data."""

    batch: int
    sample: tuple[int, ...]
    build: Callable[[Any], Any]
    """From `polynet.nn` or `torch.nn` to the network."""
    jax: Callable[[Arrays, Any], Any]
    """The network as a function in JAX, from parameters and a batch to the logits."""
    classes: int = 10
    words: int = 0
    """If not 0, samples are integers below this, which stand for words; else real numbers."""
    widths: tuple[int, ...] = ()
    """The widths of the layers of a dense network."""
    steps: int = 4
    """How many steps a pass over the data has."""
    jax_layout: Callable[[np.ndarray], np.ndarray] = lambda p: p
    """From a parameter of polynet to the layout that the function `jax` wants."""


# Dense


def dense(name: str) -> Network:
    """Linear layers with ReLU between; the name gives widths: "784-256-128-10, batch 32"."""
    sizes, batch = name.split(", batch ")
    widths = tuple(map(int, sizes.split("-")))
    work = int(batch) * sum(i * o for i, o in pairwise(widths))
    return Network(
        batch=int(batch),
        sample=widths[:1],
        build=partial(dense_layers, widths),
        jax=dense_by_jax,
        classes=widths[-1],
        widths=widths,
        steps=16 if work < 5e7 else 4,
        jax_layout=np.transpose,  # (in, out), as is usual in JAX
    )


def dense_layers(widths: tuple[int, ...], lib: Any) -> Any:
    pairs = [(lib.Linear(i, o), lib.ReLU()) for i, o in pairwise(widths)]
    return lib.Sequential(*[layer for pair in pairs for layer in pair][:-1])


def dense_by_jax(p: Arrays, x: Any) -> Any:
    from jax.nn import relu

    names = sorted({int(name.partition(".")[0]) for name in p})
    for name in names:
        x = x @ p[f"{name}.weight"] + p[f"{name}.bias"]
        x = relu(x) if name != names[-1] else x
    return x


# Convolutions


def lenet(lib: Any) -> Any:
    """LeNet-5 (LeCun et al., 1998) with ReLU and max pooling."""
    return lib.Sequential(
        *(lib.Conv2d(1, 6, 5, padding=2), lib.ReLU(), lib.MaxPool2d(2)),
        *(lib.Conv2d(6, 16, 5), lib.ReLU(), lib.MaxPool2d(2), lib.Flatten()),
        *(lib.Linear(400, 120), lib.ReLU(), lib.Linear(120, 84), lib.ReLU()),
        lib.Linear(84, 10),
    )


def conv_by_jax(x: Any, weight: Any, stride: int, padding: int) -> Any:
    from jax import lax

    ends = [(padding, padding)] * 2
    names = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(x, weight, (stride, stride), ends, dimension_numbers=names)


def lenet_by_jax(p: Arrays, x: Any) -> Any:
    from jax import lax
    from jax.nn import relu

    for name, padding in (("0", 2), ("3", 0)):
        x = conv_by_jax(x, p[f"{name}.weight"], 1, padding) + p[f"{name}.bias"][:, None, None]
        x = lax.reduce_window(relu(x), -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    for name in ("7", "9", "11"):
        x = x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        x = relu(x) if name != "11" else x
    return x


Stages = tuple[tuple[int, int, int], ...]
"""Channels in and out, and stride, of each residual block."""
STAGES: Stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))


def resnet(lib: Any, stages: Stages = STAGES) -> Any:
    """Residual blocks (He et al., 2016), with batch normalisation."""

    def conv(i: int, o: int, size: int, stride: int) -> list[Any]:
        layer = lib.Conv2d(i, o, size, stride=stride, padding=size // 2, bias=False)
        return [layer, lib.BatchNorm2d(o)]

    class Block(lib.Module):
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.inner = lib.Sequential(*conv(i, o, 3, stride), lib.ReLU(), *conv(o, o, 3, 1))
            self.outer = lib.Identity() if stride == 1 else lib.Sequential(*conv(i, o, 1, stride))
            self.relu = lib.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(self.inner(x) + self.outer(x))

    return lib.Sequential(
        *(*conv(3, stages[0][0], 3, 1), lib.ReLU(), *(Block(*stage) for stage in stages)),
        *(lib.AdaptiveAvgPool2d(1), lib.Flatten(), lib.Linear(stages[-1][1], 10)),
    )


def resnet_by_jax(p: Arrays, x: Any, stages: Stages = STAGES) -> Any:
    """The same network, but without the running statistics that polynet and PyTorch keep."""
    from jax.nn import relu, standardize

    def conv(x: Any, name: str, norm: str, size: int, stride: int) -> Any:
        x = conv_by_jax(x, p[f"{name}.weight"], stride, size // 2)
        x = standardize(x, axis=(0, 2, 3), epsilon=1e-5)
        return x * p[f"{norm}.weight"][:, None, None] + p[f"{norm}.bias"][:, None, None]

    x = relu(conv(x, "0", "1", 3, 1))
    for i, (_, _, stride) in enumerate(stages, 3):
        inner = relu(conv(x, f"{i}.inner.0", f"{i}.inner.1", 3, stride))
        inner = conv(inner, f"{i}.inner.3", f"{i}.inner.4", 3, 1)
        outer = x if stride == 1 else conv(x, f"{i}.outer.0", f"{i}.outer.1", 1, stride)
        x = relu(inner + outer)
    last = len(stages) + 5
    return x.mean(axis=(2, 3)) @ p[f"{last}.weight"].T + p[f"{last}.bias"]


# Sequences


def mean_of(lib: Any) -> Callable[[Any], Any]:
    """The mean over places."""
    if lib.__name__ == "torch.nn":
        return lambda x: x.mean(dim=1)
    from polynet import array_namespace

    return lambda x: array_namespace(x).mean(x, axis=1)


WIDTH, HEADS, LENGTH, BLOCKS = 128, 4, 64, 2


def transformer(lib: Any, width: int = WIDTH, heads: int = HEADS, blocks: int = BLOCKS) -> Any:
    """Encoder layers (Vaswani et al., 2017), the mean over places, and a Linear layer."""
    mean = mean_of(lib)

    def layer() -> Any:
        options = {"batch_first": True, "norm_first": True}
        return lib.TransformerEncoderLayer(width, heads, 4 * width, 0.0, **options)

    class Encoder(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = lib.Sequential(*(layer() for _ in range(blocks)))
            self.out = lib.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            return self.out(mean(self.blocks(x)))

    return Encoder()


def transformer_by_jax(p: Arrays, x: Any, heads: int = HEADS, blocks: int = BLOCKS) -> Any:
    from jax import nn
    from jax import numpy as jnp

    def linear(x: Any, name: str) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        x = nn.standardize(x, axis=-1, epsilon=1e-5)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    for block in (f"blocks.{i}" for i in range(blocks)):
        weight, bias = (p[f"{block}.self_attn.in_proj_{kind}"] for kind in ("weight", "bias"))
        qkv = norm(x, f"{block}.norm1") @ weight.T + bias
        q, k, v = (a.reshape(*x.shape[:2], heads, -1) for a in jnp.split(qkv, 3, axis=-1))
        seen = nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + linear(seen, f"{block}.self_attn.out_proj")
        hidden = nn.relu(linear(norm(x, f"{block}.norm2"), f"{block}.linear1"))
        x = x + linear(hidden, f"{block}.linear2")
    return linear(x.mean(axis=1), "out")


def embedding(lib: Any) -> Any:
    """The mean of the vectors of the words, then two Linear layers."""
    mean = mean_of(lib)

    class Words(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = lib.Embedding(10_000, 64)
            self.dense = lib.Sequential(lib.Linear(64, 128), lib.ReLU(), lib.Linear(128, 10))

        def forward(self, x: Any) -> Any:
            return self.dense(mean(self.words(x)))

    return Words()


def embedding_by_jax(p: Arrays, x: Any) -> Any:
    from jax.nn import relu

    x = p["words.weight"][x].mean(axis=1)
    x = relu(x @ p["dense.0.weight"].T + p["dense.0.bias"])
    return x @ p["dense.2.weight"].T + p["dense.2.bias"]


NETWORKS = {
    **{
        name: dense(name)
        for widths, batches in (
            ("784-256-128-10", (32, 128, 512)),
            ("784-1024-1024-10", (32, 128, 512)),
            ("32-64-64-2", (32, 512)),
        )
        for name in (f"{widths}, batch {batch}" for batch in batches)
    },
    "LeNet, batch 64": Network(64, (1, 28, 28), lenet, lenet_by_jax),
    "ResNet, batch 32": Network(32, (3, 32, 32), resnet, resnet_by_jax),
    "transformer, batch 16": Network(16, (LENGTH, WIDTH), transformer, transformer_by_jax),
    "embedding, batch 64": Network(64, (32,), embedding, embedding_by_jax, words=10_000),
}


def network(name: str) -> Network:
    """The network of this name in NETWORKS, or else the dense network that the name describes."""
    return NETWORKS[name] if name in NETWORKS else dense(name)
