"""Calls of the functions that layers are made of, for the samples."""

from __future__ import annotations

from typing import Any

import numpy as np

Call = tuple[tuple[Any, ...], dict[str, Any]]

_rng = np.random.default_rng(20251123)


def _spread(*shape: int) -> np.ndarray:
    """Numbers between -4.5 and 4.5, at least 0.1 from every half, where activations have kinks."""
    halves = _rng.integers(-9, 9, size=shape) * 0.5
    return np.asarray(halves + _rng.uniform(0.1, 0.4, size=shape))


def _normal(*shape: int) -> np.ndarray:
    return np.asarray(_rng.normal(size=shape))


def _distinct(*shape: int) -> np.ndarray:
    """Numbers in random order, 0.1 apart, so that a small step does not change which is largest."""
    count = int(np.prod(shape))
    return np.asarray(_rng.permutation(count).reshape(shape) * 0.1 - count / 20)


def _activation(*options: dict[str, Any]) -> list[Call]:
    """In several shapes, then with each of the options."""
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (), (0, 3))
    return [*(((_spread(*s),), {}) for s in shapes), *(((_spread(7),), o) for o in options)]


def _pooling(calls: tuple[tuple[tuple[int, ...], dict[str, Any]], ...]) -> list[Call]:
    return [((_distinct(*shape),), options) for shape, options in calls]


def _windows(x: tuple[int, ...], w: tuple[int, ...], bias: int, **options: Any) -> Call:
    biases = (_normal(bias),) if bias else ()
    return (_normal(*x), _normal(*w), *biases), options


_SOME = _rng.uniform(size=(4, 3)) > 0.4
_ADAPTIVE = (
    ((2, 2, 6, 4), {"sizes": (3, 2)}),
    ((2, 3, 5, 7), {"sizes": (2, 3)}),
    ((2, 3, 5), {"sizes": (7,)}),
    ((1, 2, 3, 4), {"sizes": (1, 1)}),
    ((2, 2, 3, 2, 4), {"sizes": (2, 1, 3)}),
)

CALLS: dict[str, list[Call]] = {
    **{
        name: _activation()
        for name in (
            "relu6 hardsigmoid hardswish tanhshrink softsign selu silu logsigmoid mish".split()
        )
    },
    "hardtanh": _activation({"min_val": -2.0, "max_val": 0.5}),
    "hardshrink": _activation({"lambd": 1.5}),
    "softshrink": _activation({"lambd": 1.5}),
    "threshold": [((_spread(3, 4),), {"threshold": 0.5, "value": 2.0})],
    "elu": _activation({"alpha": 0.3}),
    "celu": _activation({"alpha": 0.3}),
    "softplus": _activation({"beta": 3.0}, {"beta": 0.5, "threshold": 1.0}),
    "prelu": [
        ((_spread(*x), _normal(*w)), {})
        for x, w in (((3, 4), (4,)), ((3, 4), (1,)), ((2, 3, 2, 2), (3,)), ((5,), (1,)))
    ],
    "glu": [((_normal(3, 4),), {}), ((_normal(2, 6, 3),), {"axis": 1}), ((_normal(0, 2),), {})],
    "softmin": [((_normal(3, 4),), {}), ((_normal(3, 4) * 30,), {"axis": 0})],
    "convolution_transpose": [
        _windows((2, 3, 4, 5), (3, 4, 3, 2), 4, stride=(1, 1), padding=(0, 0),
                 output_padding=(0, 0), dilation=(1, 1)),
        _windows((2, 4, 3, 4), (4, 3, 2, 3), 6, stride=(2, 3), padding=(1, 2),
                 output_padding=(1, 0), dilation=(2, 1), groups=2),
        _windows((3, 2, 5), (2, 2, 3), 0, stride=(2,), padding=(0,), output_padding=(1,),
                 dilation=(3,)),
        _windows((0, 2, 5), (2, 2, 3), 2, stride=(1,), padding=(1,), output_padding=(0,),
                 dilation=(1,)),
        _windows((2, 2, 2, 3, 2), (2, 3, 2, 3, 1), 3, stride=(1, 2, 1), padding=(0, 1, 0),
                 output_padding=(0, 1, 0), dilation=(1, 1, 1)),
    ],
    "max_pool": _pooling((
        ((2, 2, 7), {"window": (3,), "stride": (2,), "padding": (1,)}),
        ((2, 2, 7, 6), {"window": (2, 3), "stride": (2, 2), "padding": (1, 1),
                        "dilation": (2, 1)}),
        ((1, 2, 6, 8), {"window": (3, 3), "stride": (2, 3), "padding": (1, 0),
                        "ceil_mode": True}),
        ((2, 2, 3, 4, 3), {"window": (2, 3, 1), "stride": (1, 2, 2), "padding": (1, 0, 0)}),
        ((1, 2, 4, 3, 5), {"window": (2, 2, 2), "stride": (2, 1, 2), "padding": (0, 1, 0),
                           "dilation": (2, 1, 1), "ceil_mode": True}),
    )),
    "avg_pool": _pooling((
        ((2, 2, 7), {"window": (3,), "stride": (2,), "padding": (1,)}),
        ((2, 2, 7, 6), {"window": (2, 3), "stride": (2, 2), "padding": (1, 1),
                        "count_include_pad": False}),
        ((1, 2, 6, 8), {"window": (3, 3), "stride": (2, 3), "padding": (1, 0),
                        "ceil_mode": True}),
        ((1, 2, 6), {"window": (3,), "stride": (2,), "padding": (1,), "ceil_mode": True,
                     "count_include_pad": False}),
        ((2, 2, 3, 4, 3), {"window": (2, 3, 1), "stride": (1, 2, 2), "padding": (1, 0, 0)}),
        ((1, 2, 4, 3, 5), {"window": (2, 2, 2), "stride": (2, 1, 2), "padding": (0, 1, 0),
                           "ceil_mode": True, "count_include_pad": False}),
    )),
    "adaptive_max_pool": _pooling(_ADAPTIVE),
    "adaptive_avg_pool": _pooling(_ADAPTIVE),
    "interpolate": [
        ((_normal(*shape),), options)
        for shape, options in (
            ((2, 3, 4), {"scale_factor": 2}),
            ((2, 2, 4, 3), {"scale_factor": (3, 1.7)}),
            ((1, 2, 5, 4), {"size": (2, 4)}),
            ((2, 3, 4), {"size": 7, "mode": "linear"}),
            ((2, 3, 4), {"size": 1, "mode": "linear", "align_corners": True}),
            ((2, 2, 4, 3), {"scale_factor": 2, "mode": "bilinear"}),
            ((1, 2, 5, 7), {"scale_factor": 0.6, "mode": "bilinear", "align_corners": False}),
            ((2, 2, 1, 3), {"size": (3, 5), "mode": "bilinear", "align_corners": True}),
            ((0, 2, 4, 3), {"scale_factor": 1.5, "mode": "bilinear"}),
        )
    ],
    "group_norm": [
        ((_normal(2, 4, 3, 2), _normal(4), _normal(4)), {"groups": 2, "eps": 1e-5}),
        ((_normal(3, 4), _normal(4)), {"groups": 1, "eps": 1e-3}),
        ((_normal(2, 3, 5),), {"groups": 3, "eps": 1e-5}),
    ],
    "rms_norm": [
        ((_normal(5, 4), _normal(4)), {"axes": 1, "eps": 1e-5}),
        ((_normal(2, 3, 4), _normal(3, 4)), {"axes": 2, "eps": 1e-3}),
        ((_normal(3, 5),), {"axes": 1, "eps": 0.1}),
    ],
    "alpha_dropout": [((_normal(4, 3), _SOME), {"keep": k}) for k in (0.5, 0.9)],
    # More of what has samples already
    "gelu": [((_spread(3, 4),), {"approximate": "tanh"})],
    "dropout": [((_normal(4, 3, 2), _SOME[..., None]), {"keep": 0.75})],
    "convolution": [
        _windows((2, 2, 3, 4, 3), (4, 1, 2, 3, 1), 4, stride=(1, 2, 1),
                 padding=((1, 1), (0, 1), (0, 0)), dilation=(1, 1, 2), groups=2),
    ],
    "batch_norm": [((_normal(2, 3, 2, 1, 3), _normal(3), _normal(3)), {"eps": 1e-2})],
}  # fmt: skip
"""Arguments and options, by the name of the function."""
