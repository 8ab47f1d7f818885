"""Which functions of networks take complex numbers, and which are of real ones and say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polynet import functional, grad, jvp, losses, nn, use_backend
from polynet.backend import Backend, backend_of, get_backend, to_numpy
from polynet.ops import OPS
from polynet.testing.samples import SAMPLES, Sample
from polynet.testing.suite.cases import one_result, to_backend

TAKE = """
    adaptive_avg_pool alpha_dropout avg_pool batch_norm_inference convolution convolution_transpose
    dropout einsum gru interpolate linear lstm pad put_slice rnn segment_sum setitem tanh
    tanhshrink
""".split()
"""What compares nothing: its value at a complex number is that of the same formula."""

REFUSE = (
    """
    adaptive_max_pool attention_weights batch_norm celu elu erf gelu glu group_norm hardshrink
    hardsigmoid hardswish hardtanh layer_norm leaky_relu linear_relu log_softmax logsigmoid
    logsumexp max_pool mish prelu relu relu6 rms_norm scaled_dot_product_attention selu sigmoid silu
    softmax softmin softplus softshrink softsign standardised threshold
""".split()
    + list(losses.__all__)
)
"""What compares numbers, or takes their size or their variance, and every loss."""

FUNCTIONS = {
    name: one_result(getattr(house, name))
    for house in (functional, losses)
    for name in house.__all__
}


def test_every_function_is_listed() -> None:
    assert sorted([*TAKE, *REFUSE]) == sorted(FUNCTIONS)


def of_complex(sample: Sample, imaginary: float = 0.0) -> list[Any]:
    """The arguments, whose floating numbers are complex; the first array's have that part."""
    args, parts = [], [imaginary]
    for a in sample.args:
        floating = isinstance(a, np.ndarray) and a.dtype.kind == "f"
        args.append(a + 1j * (parts.pop() if parts else 0.0) if floating else a)
    return args


def in_complex64(a: Any) -> Any:
    """What every backend has."""
    return a.astype("complex64") if getattr(a, "dtype", None) == "complex128" else a


@pytest.mark.parametrize("name", REFUSE)
def test_refused(backend: Backend, name: str) -> None:
    sample = SAMPLES[name][0]
    args = to_backend([in_complex64(a) for a in of_complex(sample, 1.0)], backend, "float32")
    said = rf"^{name} takes real numbers, and got \S*complex64.*xp\.imag\(x\)$"
    with pytest.raises(TypeError, match=said):
        FUNCTIONS[name](*args, **sample.options)

    def objective(x: Any) -> Any:
        return FUNCTIONS[name](x, *args[1:], **sample.options)

    with pytest.raises(TypeError, match=said):
        grad(objective)(args[0])
    with pytest.raises(TypeError, match=said):
        grad(lambda x: OPS["sum"](grad(objective)(x)))(args[0])


def test_no_kernel_meets_them() -> None:
    plain = get_backend("numpy").without_kernels()
    plain.kernels = {"relu": lambda xp, x: (xp.abs(x), (lambda g: g,))}
    with use_backend(plain):
        assert backend_of(np.ones(2)) is plain
        for take in (functional.relu, nn.ReLU(), grad(functional.relu)):
            assert float(take(np.asarray(2.0))) in (1.0, 2.0)
            with pytest.raises(TypeError, match="relu takes real numbers, and got complex64"):
                take(np.asarray(1j, dtype="complex64"))


@pytest.mark.parametrize("name", TAKE)
def test_taken(name: str) -> None:
    """f(x + ih) is f(x) + ih f'(x): a derivative without differences, where f is analytic.

    Squire and Trapp, "Using Complex Variables to Estimate Derivatives of Real Functions" (1998).
    """
    for sample in SAMPLES[name][:3]:
        first = next(i for i, a in enumerate(sample.args) if getattr(a, "dtype", None) == "float64")

        def f(x: Any, first: int = first, sample: Sample = sample) -> Any:
            args = (*sample.args[:first], x, *sample.args[first + 1 :])
            return FUNCTIONS[name](*args, **sample.options)

        x = sample.args[first]
        value, slope = jvp(f, (x,), (np.ones_like(x),))
        y = FUNCTIONS[name](*of_complex(sample, 1e-20), **sample.options)
        assert y.dtype == "complex128"
        np.testing.assert_allclose(y.real, to_numpy(value), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(y.imag * 1e20, to_numpy(slope), rtol=1e-9, atol=1e-12)


NUMBERS: dict[str, Any] = {"a list": [1.0, 2.0], "a number": 1.0}


@pytest.mark.parametrize("given", NUMBERS)
def test_what_is_no_array_is_refused_by_name(given: str) -> None:
    """Beside an array, which says where it is computed; recorded or not."""
    kind = type(NUMBERS[given]).__name__
    for call in (losses.mse, lambda x, y: grad(lambda a: losses.mse(x, a))(y)):
        with pytest.raises(TypeError, match=f"mse takes an array, and got a {kind}: polynet.as"):
            call(NUMBERS[given], np.ones(2))
