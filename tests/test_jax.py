"""JAX: how often a step is compiled, and 64 bits only where they are switched on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polynet
from polynet import Trainer, losses, nn, optim
from polynet.backend import get_backend
from polynet.functional import convolution
from polynet.ops import OPS
from polynet.testing.samples import SAMPLES, Sample

jax = pytest.importorskip("jax", reason="JAX is not installed")

rng = np.random.default_rng(0)
X = rng.normal(size=(256, 6))
Y = rng.integers(0, 2, size=256)


def trainer(**options: Any) -> Trainer:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 2))
    return Trainer(net, losses.cross_entropy, optim.Adam(1e-3), backend="jax", **options)


@pytest.mark.parametrize(
    ("samples", "programs"),
    [
        (256, 1),  # 32 batches of 8: two calls of 16 steps
        (200, 2),  # 25 of 8: a call of 16, and one of 9
        (203, 3),  # and a batch of 3
    ],
)
@pytest.mark.parametrize("given", ["arrays", "a source"])
def test_training_compiles_a_program_for_each_shape_once(
    samples: int, programs: int, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled() -> int:
        return sum("Finished XLA compilation of jit(run)" in m for m in caplog.messages)

    job, arrays = trainer(), (X[:samples], Y[:samples])
    data = arrays if given == "arrays" else (polynet.data.arrays(*arrays),)
    with jax.log_compiles():
        job.fit(*data, epochs=3, batch_size=8)
        assert compiled() == programs
        job.fit(*data, epochs=2, batch_size=8)
    assert compiled() == programs
    assert len(job.history.step_losses) == 5 * -(-samples // 8)


WAYS: dict[str, Any] = {
    "asarray": lambda: polynet.asarray(X, backend="jax"),
    "asarray with a dtype": lambda: polynet.asarray([1.0], backend="jax", dtype="float64"),
    "init": lambda: nn.Linear(6, 2).init(backend="jax", dtype="float64"),
    "to": lambda: nn.Linear(6, 2).init(backend="numpy", dtype="float64").to(backend="jax"),
    "Trainer": lambda: trainer(dtype="float64").fit(X, Y),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_in_float64_needs_64_bits(way: str) -> None:
    if jax.config.jax_enable_x64:
        pytest.skip("64 bits are on")
    with pytest.raises(TypeError, match=r"JAX would turn float64 into 32 bits.*jax_enable_x64"):
        WAYS[way]()


@pytest.mark.parametrize("sample", SAMPLES["convolution"], ids=str)
def test_the_convolution_of_accelerators_is_right_on_the_cpu_too(sample: Sample) -> None:
    from polynet_jax.kernels import ON_ACCELERATORS

    with_it = get_backend("jax").without_kernels()
    with_it.kernels = ON_ACCELERATORS
    arrays = [jax.numpy.asarray(a, dtype="float32") for a in sample.args]
    found = []
    for backend in (with_it, with_it.without_kernels()):
        with polynet.use_backend(backend):
            y = convolution(*arrays, **sample.options)
            w = jax.numpy.cos(jax.numpy.arange(y.size, dtype="float32")).reshape(y.shape)
            _, slopes = polynet.value_and_grad(
                lambda *a, w=w: OPS["sum"](convolution(*a, **sample.options) * w),
                tuple(range(len(arrays))),
            )(*arrays)
        found.append([y, *slopes])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
