"""Ten classes: which digit was written? The training loop by hand, and then by a framework.

1797 digits of 8 × 8 pixels come with scikit-learn. First every step of training stands here,
written out: draw parameters, take a minibatch, find the loss and its gradient, step downhill.
Then `Trainer` does all of this; the losses are the same, step by step. At last the weights are
carried to PyTorch.

    python examples/digits.py
    python examples/digits.py --backend jax --epochs 10
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polynet
from polynet import Trainer, checkpoint, losses, metrics, nn, optim
from polynet.data import batches, split

Array = Any

NOT_INSTALLED = """\
this example needs {missing}, not installed here. To install what it needs:
  pip install 'polynet-array[examples]'
or, in a checkout of polynet:
  pip install '.[examples]'"""

WIDTH = 128
LEARNING_RATE = 1e-3
BATCH_SIZE = 32
EPOCHS = 30


class Digits(NamedTuple):
    x: np.ndarray
    """(count, 64), brightness from -1 to 1, row by row."""
    y: np.ndarray
    """(count,), the digit, 0 to 9."""


def load_digits(seed: int) -> tuple[Digits, Digits]:
    """Digits to learn from, and a fifth of them, of each class as many, for the test."""
    from sklearn.datasets import load_digits as load

    x, y = load(return_X_y=True)  # ink from 0 to 16
    train, test = split((x / 8 - 1).astype(np.float32), y, 0.2, seed=seed, stratify=True)
    return Digits(*train), Digits(*test)


def network() -> nn.Sequential:
    """64 numbers in; ten scores out, one a class, of which the largest is the answer."""
    return nn.Sequential(
        nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    )


# By hand


def train_by_hand(
    net: nn.Module, train: Digits, epochs: int, seed: int
) -> tuple[nn.Module, list[float]]:
    """`net`, which has its parameters, trained; and the loss of every step."""
    params = net.parameters()
    xp, here = place_of(params)
    x, y = here(train.x), here(train.y)
    # Adam remembers the gradients' mean and the mean of their squares, both zero at first.
    memory = [{name: 0.0 * p for name, p in params.items()} for _ in range(2)]
    seen: list[Array] = []
    for epoch in range(epochs):
        for rows in batches(len(train.y), BATCH_SIZE, seed=seed, epoch=epoch):
            some, digits = (xp.take(a, here(rows), axis=0) for a in (x, y))

            def loss(params: dict[str, Array], some: Array = some, digits: Array = digits) -> Array:
                scores = net.replace(params)(some)  # forward: from the pictures to the scores,
                return losses.cross_entropy(scores, digits)  # and how far they are off

            value, gradient = polynet.value_and_grad(loss)(params)  # backward, through all of it
            seen.append(value)
            params, memory = adam(params, gradient, memory, step=len(seen), xp=xp)
    return net.replace(params), [float(value) for value in seen]


def adam(
    params: dict[str, Array], gradient: dict[str, Array], memory: list[Any], step: int, xp: Any
) -> tuple[dict[str, Array], list[Any]]:
    """Downhill: parameters minus step size times gradient, in Adam's refinement of it.

    The mean over the last gradients is steadier than the newest. Divided by the root of their
    mean square, it has the same size in flat and in steep directions. Both means begin at zero;
    dividing by 1 - βᵗ makes up for that.
    """
    new: dict[str, Array] = {}
    means, squares = ({}, {})
    for name, g in gradient.items():
        means[name] = 0.9 * memory[0][name] + 0.1 * g
        squares[name] = 0.999 * memory[1][name] + 0.001 * (g * g)
        mean = means[name] / (1 - 0.9**step)
        square = squares[name] / (1 - 0.999**step)
        new[name] = params[name] - LEARNING_RATE * mean / (xp.sqrt(square) + 1e-8)
    return new, [means, squares]
