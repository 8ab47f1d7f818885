"""Products in bfloat16 on CuPy's plug-in: what is rounded, and what is not.

The sources run on the host. A product there multiplies the numbers that its operands' bits mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from polynet import Trainer, functional, losses, nn, optim, use_backend, value_and_grad, vjp
from polynet.backend import get_backend, to_numpy
from polynet.functional.convolution import convolution, convolution_transpose
from polynet.ops import OPS

if shutil.which("g++") is None:
    pytest.skip("g++ is not installed, which compiles the CUDA sources", allow_module_level=True)

from plugins.cuda_on_host.cuda_on_host import CudaOnHost, widened

from polynet_cupy import launch, products

HOST = CudaOnHost()
FAST = HOST.with_precision("bfloat16")
NUMPY = get_backend("numpy")
rng = np.random.default_rng(11)
BITS, LOWEST, LARGEST = 8, -126, 3.3895313892515355e38


def nearest(x: np.ndarray) -> np.ndarray:
    """The nearest number with eight bits, or the even one of two, by arithmetic in float64."""
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = np.maximum(np.frexp(wide)[1] - 1, LOWEST)
        step = np.ldexp(1.0, exponent - (BITS - 1))
        result = np.rint(wide / step) * step
        return np.where(np.abs(result) > LARGEST, np.sign(wide) * np.inf, result).astype("float32")


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(x=arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)))
@example(x=np.asarray([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20], np.float32))
@example(x=np.asarray([3.3961775e38, 3.4028235e38, np.inf, -np.inf, np.nan], np.float32))
@example(x=np.asarray([1e-45, -1e-45, 1e-40, 0.0, -0.0], np.float32))
def test_numbers_are_rounded_to_the_nearest(x: np.ndarray) -> None:
    found = widened(products.rounded(FAST.xp, x[None, :]))[0, :]
    np.testing.assert_array_equal(found, nearest(x))
    assert np.array_equal(np.signbit(found), np.signbit(x)) or np.isnan(x).any()


def test_what_is_not_a_number_stays_so_whatever_its_bits() -> None:
    """Rounding the bits of a NaN could carry into its exponent, or turn it into an infinity."""
    x = np.asarray([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(widened(products.rounded(FAST.xp, x[None, :]))).all()


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_turned_round_stays_where_it_is(turned: bool) -> None:
    x = draw(3, 4, 5)
    x = x.mT if turned else x
    found = products.rounded(FAST.xp, x)
    assert found.strides == tuple(s // 2 for s in x.strides)
    np.testing.assert_array_equal(widened(found), nearest(x))
    assert products.rounded(FAST.xp, found) is found
    assert products.rounded(HOST.xp, x) is x


CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "matmul": (OPS["matmul"], [draw(2, 3, 4), draw(4, 5)]),
    "linear": (functional.linear, [draw(7, 4), draw(5, 4)]),
    "linear and bias": (functional.linear, [draw(7, 4), draw(5, 4), draw(5)]),
    "linear of places": (functional.linear, [draw(2, 3, 4), draw(5, 4), draw(5)]),
    "transposed convolution": (
        lambda *a: convolution_transpose(
            *a, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), dilation=(1, 2), groups=2
        ),
        [draw(2, 4, 3, 4), draw(4, 3, 3, 2), draw(6)],
    ),
    **{
        f"convolution, {name}": (
            lambda *a, o=options: convolution(*a, **o), [draw(2, 4, 6, 7), draw(*window), draw(6)],
        )
        for name, window, options in (
            ("plain", (6, 4, 3, 2),
             {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}),
            ("of groups", (6, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (1, 2)),
                                         "dilation": (1, 2), "groups": 2}),
            ("of single cells", (6, 4, 1, 1),
             {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_multiplied_is_rounded_and_nothing_else(name: str) -> None:
    """Value and gradients are those of rounded operands; a bias and its gradient are unchanged."""
    f, args = CASES[name]
    with use_backend(FAST):
        value, pullback = vjp(f, *args)
        g = draw(*value.shape)
        slopes = pullback(g)
    with use_backend(NUMPY):
        operands = [nearest(a).astype(np.float64) for a in args[:2]]
        expected, exact = vjp(f, *operands, *(a.astype(np.float64) for a in args[2:]))
        wanted = [*exact(nearest(g).astype(np.float64))[:2], *exact(g.astype(np.float64))[2:]]
    for found, right in zip([value, *slopes], [expected, *wanted], strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


def test_float64_is_left_alone() -> None:
    x, w = rng.normal(size=(7, 4)), rng.normal(size=(5, 4))
    results = []
    for backend in (FAST, HOST):
        with use_backend(backend):
            results.append(functional.linear(x, w))
    assert np.array_equal(*results)


def test_a_run_keeps_its_parameters_in_float32_and_comes_close() -> None:
    """Its losses stay close to those of the same run in float32."""
    x = draw(256, 12)
    y = (x @ draw(12, 3)).argmax(axis=1)
    runs = []
    for backend in (FAST, HOST):
        net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
        run = Trainer(net, losses.cross_entropy, optim.Adam(1e-2), backend=backend)
        run.fit(x, y, epochs=10, batch_size=32)
        runs.append(run)
    fast, full = (np.asarray(run.history.step_losses) for run in runs)
    assert (fast != full).any(), "nothing was rounded"
    np.testing.assert_allclose(fast, full, rtol=0.03)
    assert {to_numpy(p).dtype.name for p in runs[0].net.parameters().values()} == {"float32"}
    assert all(
        (to_numpy(p) != nearest(to_numpy(p))).any() for p in runs[0].net.parameters().values()
    ), "parameters were rounded"


def test_the_steps_of_an_own_loop_are_computed_so_too() -> None:
    """A compiled step has the precision of its backend, whichever backend is in use at the call."""
    x, w = draw(8, 4), draw(5, 4)

    def step(state: Any, data: Any, rows: Any) -> Any:
        y = functional.linear(data, state["w"])
        return state, OPS["sum"](y * y)

    found = [
        float(b.compile(step)({"w": w}, x, np.zeros((1, 1), np.int64))[1][0]) for b in (FAST, HOST)
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_and_its_relu_are_rounded_as_each_by_itself(bias: bool) -> None:
    args = [draw(70, 33), draw(20, 33), draw(20)][: 2 + bias]
    places = tuple(range(len(args)))
    found = []
    with use_backend(FAST):
        for f in (functional.linear_relu, lambda *a: functional.relu(functional.linear(*a))):
            loss = lambda *a, f=f: OPS["sum"](f(*a) * np.cos(np.arange(20, dtype=np.float32)))
            found.append([f(*args), *value_and_grad(loss, places)(*args)[1]])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("columns", [33, 36])
def test_columns_are_summed_and_rounded_in_one_pass(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums are those of the numbers before rounding."""
    monkeypatch.setattr(launch, "ENOUGH", 1)
    x = draw(2 * launch.CHUNK + 7, columns)
    found = np.zeros(x.shape, np.uint16)
    sums = launch.column_sum(FAST.xp, x, terms=found)
    assert np.array_equal(sums, launch.column_sum(FAST.xp, x))
    assert np.array_equal(widened(found), nearest(x))
