"""Losses: of any shape, with and without weights of samples and of classes, over their options.

Where a loss has kinks, outputs stand on tenths and targets halfway between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.draws import (
    Draw,
    Sample,
    Samples,
    Shape,
    away_from_zero,
    generator,
    integers,
    numbers,
    on_grid,
    sample,
    shapes,
)

counts = st.sampled_from([2, 3, 1])


def of_samples(draw: Draw, shape: Shape) -> list[np.ndarray | None]:
    """Weights of the samples, or None, or no argument."""
    choice = draw(st.sampled_from(["none", "weights", "default"]))
    if choice == "weights" and shape:
        return [numbers(draw, shape[:1], 0.2, 2.0)]
    return [None] if choice == "none" else []


def of_classes(draw: Draw, count: int, *kinds: str) -> Any:
    """Weights of classes: an array, which is differentiated by, or numbers; or None."""
    choice = draw(st.sampled_from(["none", "array", "list", *kinds]))
    weights = numbers(draw, (count,), 0.2, 2.0)
    given = {"none": None, "array": weights, "list": weights.tolist(), "number": 2.5}
    return given[choice]


def options(draw: Draw, **values: list[Any]) -> dict[str, Any]:
    """Some of the options; the others have their defaults."""
    drawn = {name: draw(st.sampled_from(["default", *some])) for name, some in values.items()}
    return {name: value for name, value in drawn.items() if value != "default"}


@st.composite
def smooth(draw: Draw, **values: list[Any]) -> Sample:
    """Outputs and targets that may be equal."""
    shape = draw(shapes(side=1))
    x, y = (on_grid(draw, shape, -20, 20) for _ in range(2))
    return sample(x, y, *of_samples(draw, shape), **options(draw, **values))


@st.composite
def bent(draw: Draw, **values: list[Any]) -> Sample:
    """Outputs and targets whose differences are at no tenth, but for some that are equal."""
    shape = draw(shapes(side=1))
    x = on_grid(draw, shape, -20, 20)
    y = on_grid(draw, shape, -20, 20, past=0.05)
    given = options(draw, **values)
    if values and given != {"beta": 0.0} and draw(st.booleans()):
        y = np.where(integers(draw, shape, 0, 1) == 0, x, y)  # on the parabola, at its ground
    return sample(x, y, *of_samples(draw, shape), **given)


@st.composite
def hinge(draw: Draw) -> Sample:
    shape = draw(shapes(side=1))
    targets = np.asarray(generator(draw).choice([-1.0, 1.0], shape))
    return sample(on_grid(draw, shape, -20, 20, past=0.05), targets, *of_samples(draw, shape))


@st.composite
def cosine_distance(draw: Draw) -> Sample:
    shape = draw(shapes(least=1, side=1))
    x, y = (away_from_zero(draw, shape) for _ in range(2))
    return sample(x, y, *of_samples(draw, shape[:-1]))


@st.composite
def divergence(draw: Draw) -> Sample:
    """Between any positive numbers, or any logarithms: its formula does not ask for sums of 1."""
    shape, log_target = draw(shapes(least=1, side=1)), draw(st.booleans())
    y = numbers(draw, shape, *((-2.0, 0.5) if log_target else (0.1, 1.0)))
    x = numbers(draw, shape, -3.0, 0.0)
    return sample(x, y, *of_samples(draw, shape), log_target=log_target)


@st.composite
def binary(draw: Draw) -> Sample:
    """Logits of 0 and targets of 0 and 1 among others."""
    shape = draw(shapes(side=1))
    x, y = on_grid(draw, shape, -30, 30), on_grid(draw, shape, 0, 11)
    weights = of_samples(draw, shape)
    if weights and shape:
        weights.append(of_classes(draw, shape[-1], "number"))
    return sample(x, y, *weights)


@st.composite
def cross_entropy(draw: Draw) -> Sample:
    """Labels, or probabilities, which are differentiated by too; of images as well."""
    batch, classes, *rest = shape = draw(shapes(least=2, most=4, side=1))
    given: list[Any] = of_samples(draw, shape)
    if given:
        given.append(of_classes(draw, classes))
    logits = on_grid(draw, shape, -30, 30)
    chosen = options(draw, label_smoothing=[0.1, 1.0])
    if draw(st.booleans()):
        chosen |= options(draw, ignore_index=[0, 1])
        return sample(logits, integers(draw, (batch, *rest), 0, classes - 1), *given, **chosen)
    chances = generator(draw).dirichlet(np.ones(classes), (batch, *rest))
    return sample(logits, np.moveaxis(chances, -1, 1), *given, **chosen)


@st.composite
def nll(draw: Draw) -> Sample:
    batch, classes, *rest = shape = draw(shapes(least=2, most=4, side=1))
    given: list[Any] = of_samples(draw, shape)
    if given:
        given.append(of_classes(draw, classes))
    labels = integers(draw, (batch, *rest), 0, classes - 1)
    x = on_grid(draw, shape, -30, 1)
    return sample(x, labels, *given, **options(draw, ignore_index=[0, 1]))


@st.composite
def multi_margin(draw: Draw) -> Sample:
    """Two scores differ by a multiple of 0.4, and no margin is one."""
    batch, classes = draw(counts), draw(counts)
    given: list[Any] = of_samples(draw, (batch,))
    if given:
        given.append(of_classes(draw, classes))
    logits = on_grid(draw, (batch, classes), -6, 7) * 4
    labels = integers(draw, (batch,), 0, classes - 1)
    return sample(logits, labels, *given, **options(draw, p=[1, 2], margin=[0.5, 2.2]))


PROPERTIES: dict[str, Samples] = {
    "mse": smooth(),
    "l1": bent(),
    "smooth_l1": bent(beta=[0.7, 0.0]),
    "huber": bent(delta=[0.7]),
    "hinge": hinge(),
    "cosine_distance": cosine_distance(),
    "kl_div": divergence(),
    "binary_cross_entropy_with_logits": binary(),
    "cross_entropy": cross_entropy(),
    "nll": nll(),
    "multi_margin": multi_margin(),
}
