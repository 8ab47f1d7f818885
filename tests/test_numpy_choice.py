"""Choosing by bits beside `np.where`: the same bits, dtype and shape, whatever is given."""

from itertools import product

import numpy as np
import pytest

from polynet_numpy import choice

RNG = np.random.default_rng(5)
SHAPE = (7, 3, 97)
assert np.prod(SHAPE) > choice.MANY


def numbers(shape, dtype="float32"):
    x = RNG.normal(size=shape).astype(dtype)
    x.flat[:4] = [np.nan, -0.0, np.inf, 0.0]
    return x


MASKS = {
    "of its shape": RNG.uniform(size=SHAPE) < 0.5,
    "of rows": RNG.uniform(size=SHAPE[1:]) < 0.5,
    "turned": (RNG.uniform(size=SHAPE[::-1]) < 0.5).T,
    "of sequences": (RNG.uniform(size=(97, 3)) < 0.5).T,
    "every second": (RNG.uniform(size=(7, 3, 194)) < 0.5)[..., ::2],
    "no mask": RNG.integers(0, 2, SHAPE),
}
CHOICES = {
    "an array": numbers(SHAPE),
    "a turned array": numbers(SHAPE[::-1]).T,
    "a row": numbers((1, 97)),
    "float64": numbers(SHAPE, "float64"),
    "integers": RNG.integers(-5, 5, SHAPE),
    "0": 0,
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.5": 1.5,
    "-inf": -np.inf,
    "nan": np.nan,
    "a number of float32": np.float32(2.5),
    "a number of float64": np.float64(0.0),
    "an array without axes": np.asarray(0.25, np.float32),
}


@pytest.mark.parametrize("mask", MASKS)
def test_choices_have_the_bits_of_where(mask):
    mask = MASKS[mask]
    for x, y in product(CHOICES.values(), repeat=2):
        expected = np.where(mask, x, y)
        out = np.full_like(expected, 7)
        choice.choose(mask, x, y, out)
        for found in (choice.where(mask, x, y), out):
            assert found.dtype == expected.dtype
            assert (found.shape, found.strides) == (expected.shape, expected.strides)
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("condition", [True, False, [[True], [False], [True]], 2])
@pytest.mark.parametrize("other", [0.0, numbers(SHAPE)], ids=["0", "an array"])
def test_a_condition_need_not_be_an_array_where_a_step_is_captured(condition, other):
    x = numbers(SHAPE)
    out = np.full_like(x, 7)
    choice.choose(condition, x, other, out)
    assert out.tobytes() == np.where(condition, x, other).tobytes()
