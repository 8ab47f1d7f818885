"""One seed, the same bits on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import Trainer, losses, nn, optim, random
from polynet.backend import Backend, to_numpy
from polynet.nn import Context
from polynet.testing.assertions import assert_close
from polynet.testing.suite.cases import dtypes


def int32(backend: Backend, numbers: list[int]) -> object:
    host = np.asarray(numbers, dtype=np.uint32).astype(np.int32)
    return backend.from_host(host, backend.device(None))


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [
        ([0, 0], [0, 0], [0x6B200159, 0x99BA4EFE]),
        ([0xFFFFFFFF, 0xFFFFFFFF], [0xFFFFFFFF, 0xFFFFFFFF], [0x1CB996FC, 0xBB002BE7]),
        ([0x13198A2E, 0x03707344], [0x243F6A88, 0x85A308D3], [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_known_answers(
    backend: Backend, key: list[int], counter: list[int], answer: list[int]
) -> None:
    """The known answers published with Random123 (Salmon et al., 2011) for 20 rounds."""
    words = random.threefry2x32(
        int32(backend, key), int32(backend, counter[:1]), int32(backend, counter[1:])
    )
    assert [int(to_numpy(w).astype(np.uint32)[0]) for w in words] == answer


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2, 3), (2, 0)])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_masks_are_those_of_numpy(backend: Backend, shape: tuple[int, ...], keep: float) -> None:
    key, step = random.key(3, "dropout"), np.asarray([7], dtype=np.int32)
    here = [backend.from_host(a, backend.device(None)) for a in (key, step)]
    mask = random.keep_mask(here[0], here[1], shape=shape, keep=keep)
    assert mask.dtype == backend.xp.bool
    with np.errstate(over="ignore"):
        expected = random.keep_mask.definition(np, key, step, shape=shape, keep=keep)
    assert np.array_equal(to_numpy(mask), expected)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 2, 3), (2, 0), (0, 3)])
def test_numbers_are_those_of_numpy(backend: Backend, shape: tuple[int, ...]) -> None:
    """Uniform ones to the last bit, normal ones to rounding."""
    key, step = random.key(3, "noise"), np.asarray([7], dtype=np.int32)
    here = [backend.from_host(a, backend.device(None)) for a in (key, step)]
    how = {"shape": shape, "first": 5}
    for dtype in dtypes(backend):
        for draw, rtol in ((random.draw_uniform, 0), (random.draw_normal, 1e-5)):
            found = draw(backend.xp, *here, dtype=backend.dtype(dtype), **how)
            with np.errstate(over="ignore"):
                expected = draw(np, key, step, dtype=np.dtype(dtype), **how)
            assert_close(found, expected, backend, dtype=dtype, rtol=rtol, atol=rtol)


class Noisy(nn.Module):
    """A layer that adds noise of both kinds in training."""

    def __init__(self) -> None:
        self.dense = nn.Linear(3, 2)
        self.stream = nn.RandomStream()

    def forward(self, x: Any) -> Any:
        if not self.training:
            return self.dense(x)
        noise = self.stream.normal(x.shape, x.dtype) + self.stream.uniform(x.shape, x.dtype)
        return self.dense(x + noise)


def test_a_step_with_noise_is_compiled_and_split(backend: Backend) -> None:
    """New numbers in each step, the same in parts, and those of NumPy."""
    x, y = np.ones((16, 3), np.float32), np.ones((16, 2), np.float32)

    def losses_of(backend: Backend | str, **how: int) -> list[float]:
        trainer = Trainer(Noisy(), losses.mse, optim.SGD(lr=0.0), backend=backend)
        return trainer.fit(x, y, epochs=6, **how).step_losses

    found = losses_of(backend, batch_size=8)
    assert len(set(found)) == len(found) == 12
    np.testing.assert_allclose(losses_of(backend, batch_size=4, accumulate=2), found, rtol=1e-5)
    np.testing.assert_allclose(losses_of("numpy", batch_size=8), found, rtol=1e-5)


@pytest.mark.polynet_part("kernels")
@pytest.mark.parametrize("kernel", ["keep_mask"])
@pytest.mark.parametrize("keep", [0.25, 1 - 2**-16, 1.0])
def test_masks_of_a_kernel_are_those_of_the_definition(
    backend: Backend, kernel: str, keep: float
) -> None:
    device = backend.device(None)
    key = backend.from_host(random.key(3, kernel), device)
    step = backend.from_host(np.asarray([2**31 - 1], dtype=np.int32), device)
    for shape, first in (((70, 33, 9), 0), ((5, 4), 12345), ((0, 3), 0), ((3, 0), 1), ((2,), 7)):
        how = {"shape": shape, "keep": keep, "first": first}
        result = backend.kernels[kernel](backend.xp, key, step, **how)
        if result is NotImplemented:
            continue
        expected = random.keep_mask.definition(backend.xp, key, step, **how)
        assert result[0].dtype == backend.xp.bool
        assert np.array_equal(to_numpy(result[0]), to_numpy(expected))


def test_a_mask_does_not_depend_on_how_the_batch_is_split(backend: Backend) -> None:
    key, step = (
        backend.from_host(a, backend.device(None))
        for a in (random.key(3, "dropout"), np.asarray([7], dtype=np.int32))
    )
    whole = to_numpy(random.keep_mask(key, step, shape=(8, 5), keep=0.5))
    parts = [
        to_numpy(random.keep_mask(key, step, shape=(4, 5), keep=0.5, first=first))
        for first in (0, 4)
    ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_a_layer_called_twice_draws_two_masks(backend: Backend) -> None:
    net = nn.Sequential(nn.Dropout(0.5))
    keys = {n: backend.from_host(random.key(0, n), backend.device(None)) for n in net.streams()}
    step = backend.from_host(np.zeros(1, dtype=np.int32), backend.device(None))
    x = backend.from_host(np.ones((4, 16), dtype=np.float32), backend.device(None))
    training = net.bind({}, Context(backend.xp, step, keys))
    first, second = to_numpy(training(x)), to_numpy(training(x))
    again = to_numpy(net.bind({}, Context(backend.xp, step, keys))(x))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)
    assert np.array_equal(to_numpy(net(x)), to_numpy(x))


def test_initial_weights_are_those_of_numpy(backend: Backend) -> None:
    drawn = nn.init.xavier_normal(), nn.init.orthogonal()
    net = nn.Sequential(nn.Linear(5, 7), *(nn.Linear(7, 7, weight_init=how) for how in drawn))
    here = net.init(seed=11, backend=backend).parameters()
    there = net.init(seed=11, backend="numpy").parameters()
    assert (
        list(here) == list(there) == [f"{i}.{kind}" for i in "012" for kind in ("weight", "bias")]
    )
    for name in here:
        assert np.array_equal(to_numpy(here[name]), there[name]), name
