"""PyTorch's kernels of layers beside the definitions, and what they decline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from torch_kernels import drawn, kernel

from polynet import functional, use_backend, value_and_grad, vjp
from polynet.backend import get_backend
from polynet.ops import OPS

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.fx.experimental.proxy_tensor import make_fx


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("adaptive_avg_pool", [(2, 3, 7)], {"sizes": (3,)}),
        ("adaptive_avg_pool", [(2, 3, 7, 4)], {"sizes": (3, 2)}),
        ("adaptive_avg_pool", [(2, 3, 7, 4)], {"sizes": (1, 1)}),
        ("adaptive_avg_pool", [(2, 3, 5, 4, 3)], {"sizes": (2, 3, 7)}),
        ("adaptive_avg_pool", [(2, 3, 6)], {"sizes": (3,)}),
        ("adaptive_max_pool", [(2, 3, 7)], {"sizes": (9,)}),
        ("adaptive_max_pool", [(2, 3, 6, 4)], {"sizes": (3, 1)}),
        ("adaptive_max_pool", [(2, 3, 6, 4, 2)], {"sizes": (3, 2, 2)}),
        ("adaptive_max_pool", [(2, 3, 7, 4)], {"sizes": (3, 2)}),
        ("adaptive_max_pool", [(2, 3, 5, 4, 3)], {"sizes": (2, 3, 1)}),
        ("max_pool", [(2, 3, 7)], {"window": (3,), "stride": (2,), "padding": (1,)}),
        (
            "max_pool",
            [(3, 2, 8)],
            {"window": (2,), "stride": (1,), "padding": (0,), "dilation": (3,), "ceil_mode": True},
        ),
        ("pad", [(2, 3, 4)], {"padding": ((2, 3), (0, 1)), "value": -1.5}),
        ("pad", [(2, 3, 4)], {"padding": ((2, 3),), "mode": "reflect"}),
        ("pad", [(2, 3, 4, 5)], {"padding": ((0, 3), (4, 2)), "mode": "reflect"}),
        ("pad", [(2, 3, 4)], {"padding": ((5, 0),), "mode": "replicate"}),
        ("pad", [(2, 3, 4, 5)], {"padding": ((1, 0), (2, 7)), "mode": "replicate"}),
        (
            "convolution",
            [(2, 4, 5, 6), (6, 2, 2, 3), (6,)],
            {"stride": (1, 2), "padding": ((0, 1), (2, 1)), "dilation": (1, 1), "groups": 2},
        ),
        ("group_norm", [(2, 4, 3, 2)], {"groups": 2, "eps": 0.1}),
        ("group_norm", [(3, 6, 2, 5), (6,), (6,)], {"groups": 1, "eps": 0.1}),
        ("batch_norm_inference", [(2, 3, 4, 2), (3,), (3,)], {"eps": 0.1}),
        ("batch_norm_inference", [(5, 3, 2, 2), *[(3,)] * 4], {"eps": 0.1}),
    ],
)
def test_layers_are_their_definitions(name: str, shapes: Any, options: Any) -> None:
    """For numbers of which several are equal, in any order of memory."""
    x, *others = (a.detach().mul(2).round() for a in drawn(*shapes))
    lying = x.transpose(0, -1).contiguous().transpose(0, -1)
    for given in (x, lying):
        args = [given, *(a.abs() + 0.5 for a in others)]
        assert kernel(name)(None, *args, **options) is not NotImplemented
        found = []
        for backend in (get_backend("torch"), get_backend("torch").without_kernels()):
            with use_backend(backend):
                value, pullback = vjp(lambda *a: getattr(functional, name)(*a, **options), *args)
                weights = torch.arange(value.numel(), dtype=value.dtype).reshape(value.shape)
                found.append([value, *pullback(torch.sin(weights))])
        for actual, expected in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_the_lstm_is_its_definition(reverse: bool, bias: bool, state: bool) -> None:
    """In any order of memory; the bits of a traced step are those of the step itself."""
    x, h, c, *weights = (
        a.detach().to(torch.float32)
        for a in drawn((5, 4, 3), (4, 6), (4, 6), (24, 3), (24, 6), (24,), (24,))
    )
    states, weights = [h, c] if state else [], weights if bias else weights[:2]

    def layer(x: Any, *given: Any) -> Any:
        start = given[:2] if state else (None, None)
        weights = given[2:] if state else given
        return functional.lstm(x, *start, *weights, reverse=reverse)

    lying = x.transpose(0, 1).contiguous().transpose(0, 1)
    start = states or [None, None]
    assert kernel("lstm")(None, lying, *start, *weights) is not NotImplemented
    found = []
    for backend in (get_backend("torch"), get_backend("torch").without_kernels()):
        with use_backend(backend):
            values, pullback = vjp(layer, lying, *states, *weights)
            found.append([*values, *pullback(tuple(torch.cos(v) for v in values))])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_lstm_leaves_other_sequences_to_its_definition() -> None:
    x, *weights = (a.detach() for a in drawn((5, 4, 3), (24, 3), (24, 6)))
    short = [a.to(torch.float32) for a in (x, *weights)]
    lengths = torch.asarray([5, 2, 3, 1])
    for args in (
        (x, None, None, *weights),
        (*short[:1], None, None, *short[1:], None, None, lengths),
    ):
        assert kernel("lstm")(None, *args) is NotImplemented
    fits = short[0], None, None, *short[1:]
    assert kernel("lstm")(None, *fits) is not NotImplemented
    torch._C._set_mkldnn_enabled(False)  # as torch.backends.mkldnn.flags(enabled=False) does
    try:
        assert kernel("lstm")(None, *fits) is NotImplemented
    finally:
        torch._C._set_mkldnn_enabled(True)


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("lstm", [(5, 4, 2), (4, 6), (4, 6), (24, 3), (24, 6)], {}),
        ("lstm", [(5, 4, 3), (4, 6), (4, 6), (18, 3), (18, 6)], {}),
        ("lstm", [(5, 4, 3), (4, 6), (4, 6), (24, 3), (24, 6), (6,), (24,)], {}),
        ("batch_norm", [(4, 3, 2), (2,), (3,)], {"eps": 0.1}),
        ("batch_norm", [(4, 3, 2), (3,), (1,)], {"eps": 0.1}),
        ("scaled_dot_product_attention", [(1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 3, 8)], {}),
        ("scaled_dot_product_attention", [(1, 2, 4, 8), (1, 2, 4, 8), (1, 1, 4, 8)], {}),
        (
            "max_pool",
            [(2, 3, 4, 1)],
            {"window": (1, 2), "stride": (1, 1), "padding": (0, 1), "dilation": (1, 2)},
        ),
        (
            "max_pool",
            [(2, 3, 1)],
            {"window": (2,), "stride": (1,), "padding": (1,), "dilation": (2,)},
        ),
    ],
)
def test_shapes_that_do_not_fit_reach_no_kernel(name: str, shapes: Any, options: Any) -> None:
    """PyTorch's operations below its public functions do not check them, and read other memory."""
    args = [a.detach().to(torch.float32) for a in drawn(*shapes)]
    assert kernel(name)(None, *args, **options) is NotImplemented


def test_the_largest_of_a_sequence_is_nan_where_there_is_one() -> None:
    x = torch.asarray([[[1.0, math.nan, 3.0, -math.inf, -math.inf, -math.inf]]])
    y = functional.max_pool(x, window=(2,), stride=(2,), padding=(0,))
    torch.testing.assert_close(
        y, torch.asarray([[[math.nan, 3.0, -math.inf]]]), rtol=0, atol=0, equal_nan=True
    )


def test_the_indices_of_the_largest_are_found_once_where_a_step_is_traced() -> None:
    def step(x: Any) -> Any:
        pool = lambda x: functional.max_pool(x, window=(2,), stride=(2,), padding=(0,))
        return value_and_grad(lambda x: OPS["sum"](pool(x)))(x)

    x = torch.ones(2, 3, 8)
    calls = [str(node.target) for node in make_fx(step)(x).graph.nodes]
    assert calls.count("aten.max_pool2d_with_indices.default") == 1


def test_other_arrays_are_padded_by_the_definition() -> None:
    """PyTorch's own takes sequences and images; integers keep their dtype."""
    pad, x = kernel("pad"), torch.arange(6).reshape(1, 2, 3)
    for a, settings in (
        (x, {"padding": ((1, 0),)}),
        (x[0].double(), {"padding": ((1, 0),), "mode": "reflect"}),
        (x.double(), {"padding": ((1, 0),) * 3, "mode": "replicate"}),
        (x.half(), {"padding": ((1, 0),), "mode": "replicate"}),
    ):
        assert pad(None, a, **settings) is NotImplemented
        assert functional.pad(a, **settings).dtype == a.dtype


@pytest.mark.parametrize("function", [functional.max_pool, functional.avg_pool])
def test_volumes_of_16_bits_are_pooled(function: Any) -> None:
    x = torch.ones(1, 1, 4, 4, 4, dtype=torch.bfloat16)
    y = function(x, window=(2, 2, 2), stride=(2, 2, 2), padding=(0, 0, 0))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, x[:, :, :2, :2, :2])


def test_the_lstm_leaves_no_record_where_pytorch_keeps_none() -> None:
    """PyTorch's LSTM needs gradients enabled, to keep what its backward pass reads."""
    x, *weights = (
        a.detach().to(torch.float32).requires_grad_() for a in drawn((5, 4, 3), (24, 3), (24, 6))
    )
    with torch.no_grad():
        values, _ = kernel("lstm")(None, x, None, None, *weights)
    assert not any(v.requires_grad for v in values)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_layers_of_other_numbers_are_their_definitions(dtype: Any) -> None:
    """PyTorch's own refuse them, or cut the means of int64 off."""
    x = (torch.arange(18).reshape(1, 2, 3, 3) % 5).to(dtype)
    one, none = (1, 1), ((0, 0), (0, 0))
    window = {"window": (2, 2), "stride": one, "padding": (0, 0)}
    found = [functional.avg_pool(x, **window), functional.adaptive_avg_pool(x, sizes=one)]
    if dtype != torch.bool:
        how = {"stride": one, "padding": none, "dilation": one}
        found.append(functional.convolution(x, x[:, :, :2, :2], **how))
    if not dtype.is_complex:
        found += [functional.max_pool(x, **window)]
        found += [functional.scaled_dot_product_attention(x, x, x)]
    assert all(torch.isfinite(y).all() for y in found)
    wide = x.to(torch.complex64 if dtype.is_complex else torch.float32)
    torch.testing.assert_close(found[1], wide.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_query_that_is_no_number_attends_to_nothing(number: float, is_causal: bool) -> None:
    """PyTorch's own attention makes 0 of it, and what follows would not see that it was spoilt."""
    query, key, value = torch.randn(3, 1, 2, 3, 4).abs()
    query[0, 1, 2, 0] = number

    def total(q: Any) -> Any:
        y = functional.scaled_dot_product_attention(q, key, value, is_causal=is_causal)
        return OPS["sum"](y), y

    (_, y), slope = value_and_grad(total, has_aux=True)(query)
    for found in (y, slope):
        assert found[0, 1, 2].isnan().all()
        assert found.isnan().sum() == 4
