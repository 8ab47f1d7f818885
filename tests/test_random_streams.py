"""Random numbers that a layer draws in a training pass."""

from __future__ import annotations

import numpy as np
import pytest

from polynet import Trainer, losses, nn, optim, random
from polynet.backend import Array, Backend, to_numpy
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


def test_the_numbers_of_a_second_call_are_pinned() -> None:
    """Written down once, as those of the first: saved runs go on with them."""
    net = Noise()
    context = Context(np, STEP + 5, {"stream": random.key(3, "stream", "0.stream")})
    bound = net.bind({}, context)
    _, second, third = (bound(np.zeros((1, 2))) for _ in range(3))
    np.testing.assert_allclose(second, [[-0.0896400621462214, -1.158864955744785]], rtol=1e-12)
    np.testing.assert_allclose(third, [[2.6185492849884606, 0.059288392184340365]], rtol=1e-12)


def test_a_network_by_itself_draws_nothing() -> None:
    with pytest.raises(AttributeError, match=r"no normal where its network is called by itself"):
        Noise()(np.zeros((2, 2)))
    assert not hasattr(nn.RandomStream(), "shuffle")


class Noisy(nn.Module):
    """A network that is validated as it is trained, as a diffusion's: on noise."""

    def __init__(self) -> None:
        self.inner = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), Noise())
        self.weight = nn.Parameter((2,), nn.init.constant(1.0))

    def forward(self, x: Array) -> Array:
        return self.weight * self.inner(x) + self.inner(x) * 0


def test_a_trainer_s_validation_and_predictions_draw_the_same_every_time(backend: Backend) -> None:
    x = np.ones((11, 2), "float32")
    trainer = Trainer(Noisy(), losses.mse, optim.SGD(0.0), seed=3, backend=backend)
    history = trainer.fit(x, x, epochs=3, batch_size=4, validation_data=(x[:7], x[:7]))
    drawn = trainer.predict(x)
    assert history["val_loss"] == [history["val_loss"][0]] * 3
    assert history["val_loss"][0] == pytest.approx(((drawn[:7] - 1) ** 2).mean(), rel=1e-6)
    np.testing.assert_array_equal(trainer.predict(x, batch_size=3), drawn)
    key = random.key(3, "stream", "inner.2.stream")
    expected = random.draw_normal(np, key, STEP, shape=(11, 2), dtype=np.dtype("float32"))
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    assert trainer.evaluate(x, x, batch_size=11) == trainer.evaluate(x, x, batch_size=11)
    assert trainer.net.state_dict()["inner.0.num_batches_tracked"] == 18  # of training alone


def test_a_context_that_does_not_train_has_layers_that_predict() -> None:
    net = Noisy().init(backend="numpy")
    keys = {n: random.key(0, "stream", n) for n in net.streams()}
    context = Context(np, STEP, keys, training=False)
    bound, x = net.bind(net.state_dict(), context), np.full((5, 2), 7, "float32")
    assert not bound.training
    assert not bound.replace({"weight": np.zeros(2, "float32")})(x).any()
    np.testing.assert_allclose(bound.inner[0](x), x, rtol=1e-4)
    np.testing.assert_array_equal(bound.inner[1](x), x)
    assert context.buffers == net.buffers()
    with pytest.raises(RuntimeError, match="only a training pass renews buffers"):
        bound.inner[0].renew(running_mean=x[0])


def test_positions_go_beyond_those_of_32_bits(backend: Backend) -> None:
    """As where large samples are predicted: the 29,000th picture of 224 by 224 by 3, say."""
    key, step = (backend.from_host(a, backend.device(None)) for a in (random.key(0), STEP))

    def drawn(rows: int, first: int) -> np.ndarray:
        dtype = backend.xp.float32
        found = random.draw_uniform(
            backend.xp, key, step, shape=(rows, 8), dtype=dtype, first=first
        )
        return to_numpy(found)

    both = drawn(2, 2**29 - 1)  # of four blocks each: the second one's begin at 2**31
    np.testing.assert_array_equal(both[1:], drawn(1, 2**29))
    np.testing.assert_array_equal(drawn(1, 0), drawn(1, 2**30))


def test_a_context_without_the_key_says_how_keys_are_made() -> None:
    bound = Noise().bind({}, Context(np, STEP, {}))
    with pytest.raises(KeyError, match=r"no key for the random stream stream: .*net\.streams\(\)"):
        bound(np.zeros((2, 2)))


def test_what_cannot_be_drawn_is_refused() -> None:
    key = random.key(0)
    for draw in (random.draw_uniform, random.draw_normal):
        for dtype in (np.float16, np.int32):
            with pytest.raises(
                TypeError, match=r"are float32 or float64; got .*: draw one of these"
            ):
                draw(np, key, STEP, shape=(2,), dtype=np.dtype(dtype))
        with pytest.raises(ValueError, match=r"drawn for samples, along the first axis; got shape"):
            draw(np, key, STEP, shape=(), dtype=np.dtype("float32"))
