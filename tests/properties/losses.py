"""Losses: any shape, with and without weights of samples and of classes, and all their options.

If a loss has kinks, outputs are multiples of 0.1 and targets are halfway between multiples.
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
    """The sample weights of a call: an array, or None, or no argument."""
    choice = draw(st.sampled_from(["none", "weights", "default"]))
    if choice == "weights" and shape:
        return [numbers(draw, shape[:1], 0.2, 2.0)]
    return [None] if choice == "none" else []


def of_classes(draw: Draw, count: int, *kinds: str) -> Any:
    """The class weights of a call: an array (the tests differentiate by it), a list, or None."""
    choice = draw(st.sampled_from(["none", "array", "list", *kinds]))
    weights = numbers(draw, (count,), 0.2, 2.0)
    given = {"none": None, "array": weights, "list": weights.tolist(), "number": 2.5}
    return given[choice]


def options(draw: Draw, **values: list[Any]) -> dict[str, Any]:
    """Values for some of the options; the others keep their defaults."""
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
    """Outputs and targets whose differences are no multiple of 0.1, except some that are 0."""
    shape = draw(shapes(side=1))
    x = on_grid(draw, shape, -20, 20)
    y = on_grid(draw, shape, -20, 20, past=0.05)
    given = options(draw, **values)
    if values and given != {"beta": 0.0} and draw(st.booleans()):
        y = np.where(integers(draw, shape, 0, 1) == 0, x, y)  # at 0 these losses are smooth
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
    """Any positive targets, or any logarithms: the formula does not need sums of 1."""
    shape, log_target = draw(shapes(least=1, side=1)), draw(st.booleans())
    y = numbers(draw, shape, *((-2.0, 0.5) if log_target else (0.1, 1.0)))
    x = numbers(draw, shape, -3.0, 0.0)
    return sample(x, y, *of_samples(draw, shape), log_target=log_target)


@st.composite
def binary(draw: Draw) -> Sample:
    """Logits and targets, of which some logits are 0 and some targets are 0 or 1."""
    shape = draw(shapes(side=1))
    x, y = on_grid(draw, shape, -30, 30), on_grid(draw, shape, 0, 11)
    weights = of_samples(draw, shape)
    if weights and shape:
        weights.append(of_classes(draw, shape[-1], "number"))
    return sample(x, y, *weights)


@st.composite
def cross_entropy(draw: Draw) -> Sample:
    """Targets are labels or probabilities (the tests differentiate by those), also of images."""
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
    """Scores differ by multiples of 0.4, and no margin is such a multiple, so no kink is hit."""
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
