"""Random numbers that a layer draws in a training pass."""

from __future__ import annotations

import numpy as np
import pytest

from polynet import nn, random
from polynet.nn import Context

STEP = np.zeros(1, np.int32)


def drawn(name: str, count: int, dtype: str = "float64") -> np.ndarray:
    draw = {"uniform": random.draw_uniform, "normal": random.draw_normal}[name]
    with np.errstate(over="ignore"):
        return draw(np, random.key(0, name), STEP, shape=(count, 3), dtype=np.dtype(dtype))


def test_uniform_numbers_are_spread_evenly() -> None:
    x = drawn("uniform", 40_000).ravel()
    assert 0 <= x.min() < x.max() < 1
    assert np.array_equal(x * 2**24, np.round(x * 2**24))
    share, _ = np.histogram(x, bins=20, range=(0, 1))
    assert np.abs(share / len(x) - 0.05).max() < 0.003


def test_normal_numbers_have_the_normal_s_moments() -> None:
    x = drawn("normal", 40_000)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert np.mean(x**power) == pytest.approx(moment, abs=0.05)
    neighbours = np.corrcoef(x.T) - np.eye(3)
    assert np.abs(neighbours).max() < 0.02


def test_float32_is_float64_rounded() -> None:
    for name in ("uniform", "normal"):
        wide, narrow = drawn(name, 500), drawn(name, 500, "float32")
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)


class Noise(nn.Module):
    def __init__(self) -> None:
        self.stream = nn.RandomStream()

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.stream.normal(x.shape, x.dtype)


def test_each_call_and_each_layer_draws_others() -> None:
    net = nn.Sequential(Noise(), Noise())
    keys = {n: random.key(3, "stream", n) for n in net.streams()}
    bound = net.bind({}, Context(np, STEP, keys))
    x = np.zeros((4, 2))
    first, second, third = bound(x), bound(x), net.bind({}, Context(np, STEP, keys))(x)
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)
    assert not np.array_equal(bound[0](x), bound[1](x))


def test_outside_of_a_training_pass_nothing_is_drawn() -> None:
    with pytest.raises(AttributeError, match=r"no normal outside of a training pass: ask self\.tr"):
        Noise()(np.zeros((2, 2)))
    assert not hasattr(nn.RandomStream(), "shuffle")


def test_a_context_without_the_key_says_how_keys_are_made() -> None:
    bound = Noise().bind({}, Context(np, STEP, {}))
    with pytest.raises(KeyError, match=r"no key of the random stream stream: .*net\.streams\(\)"):
        bound(np.zeros((2, 2)))


def test_what_cannot_be_drawn_is_refused() -> None:
    key = random.key(0)
    for draw in (random.draw_uniform, random.draw_normal):
        for dtype in (np.float16, np.int32):
            with pytest.raises(TypeError, match=r"are float32 or float64; got .*: convert them"):
                draw(np, key, STEP, shape=(2,), dtype=np.dtype(dtype))
        with pytest.raises(ValueError, match=r"drawn for samples, along the first axis; got shape"):
            draw(np, key, STEP, shape=(), dtype=np.dtype("float32"))
