"""Samples of the functions that layers are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from polynet.testing.samples.sample import Sample

_rng = np.random.default_rng(20251124)  # with it, the sums of `linear_relu` are at least 0.1 from 0


def _spread(*shape: int) -> np.ndarray:
    """Numbers between -4.5 and 4.5, at least 0.1 from every half, where activations have kinks."""
    halves = _rng.integers(-9, 9, size=shape) * 0.5
    return np.asarray(halves + _rng.uniform(0.1, 0.4, size=shape))


def _normal(*shape: int) -> np.ndarray:
    return np.asarray(_rng.normal(size=shape))


def _positive(*shape: int) -> np.ndarray:
    return np.asarray(_rng.uniform(0.5, 2, size=shape))


def _distinct(*shape: int) -> np.ndarray:
    """Numbers in random order, 0.1 apart, so that a small step does not change which is largest."""
    count = int(np.prod(shape))
    return np.asarray(_rng.permutation(count).reshape(shape) * 0.1 - count / 20)


def _activation(*options: dict[str, Any]) -> list[Sample]:
    """In several shapes, then with each of the options."""
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (), (0, 3))
    return [*(Sample((_spread(*s),)) for s in shapes), *(Sample((_spread(7),), o) for o in options)]


def _pooling(calls: tuple[tuple[tuple[int, ...], dict[str, Any]], ...]) -> list[Sample]:
    return [Sample((_distinct(*shape),), options) for shape, options in calls]


def _windows(x: tuple[int, ...], w: tuple[int, ...], bias: int, **options: Any) -> Sample:
    biases = (_normal(bias),) if bias else ()
    return Sample((_normal(*x), _normal(*w), *biases), options)


def _batch(*cases: tuple[tuple[int, ...], int, float]) -> list[Sample]:
    """Batches of a shape, with a weight and a bias, a weight alone or neither, and an eps."""
    return [
        Sample((_normal(*shape), *(_positive(shape[1]) for _ in range(count))), {"eps": eps})
        for shape, count, eps in cases
    ]


def _attention(*shapes: tuple[int, ...]) -> list[Sample]:
    """Queries, keys and perhaps values of these shapes, without a mask and with each kind."""
    may_look = np.asarray([[True, False, True, True, False, True]] * 4)
    return [
        Sample((*(_normal(*shape) for shape in shapes), *mask), options)
        for mask, options in (
            ((), {}),
            ((), {"is_causal": True}),
            ((may_look,), {}),
            ((_normal(4, 6),), {"is_causal": True}),
        )
    ]


def _recurrent(gates: int, states: int, **options: Any) -> list[Sample]:
    """Both directions, without states and biases, and sequences of different lengths."""
    shapes = [(5, 2, 4), *[(2, 3)] * states, (gates * 3, 4), (gates * 3, 3), *[(gates * 3,)] * 2]
    x, *others = (_normal(*shape) * 0.5 for shape in shapes)
    return [
        Sample((x, *others), {**options, "reverse": True}),
        Sample((x, *[None] * states, *others[states : states + 2]), options),
        *(
            Sample((x, *others, np.asarray([3, 5])), {**options, "reverse": reverse})
            for reverse in (False, True)
        ),
    ]


_SOME = _rng.uniform(size=(4, 3)) > 0.4
_POOLED = (
    ((2, 3, 6, 4), {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    ((2, 2, 7, 5), {"window": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    ((1, 2, 3, 3), {"window": (3, 3), "stride": (1, 1), "padding": (0, 0)}),
)
_ADAPTIVE = (
    ((2, 2, 6, 4), {"sizes": (3, 2)}),
    ((2, 3, 5, 7), {"sizes": (2, 3)}),
    ((2, 3, 5), {"sizes": (7,)}),
    ((1, 2, 3, 4), {"sizes": (1, 1)}),
    ((2, 2, 3, 2, 4), {"sizes": (2, 1, 3)}),
)

_LINEAR = [
    Sample((_normal(*x), _normal(3, 4), *([_normal(3)] * bias)))
    for x, bias in (
        ((5, 4), True),
        ((5, 4), False),
        ((2, 5, 4), True),
        ((4,), True),
        ((0, 4), True),
    )
]
_HEADS = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)  # of queries, keys and values
_BATCHES = _batch(
    ((6, 3), 2, 1e-5), ((2, 3, 4), 0, 1e-3), ((3, 2, 2, 4), 1, 0.1), ((3, 2, 2, 4), 2, 1e-2)
)

SAMPLES: dict[str, list[Sample]] = {
    "linear": _LINEAR,
    "linear_relu": _LINEAR,
    **{
        name: _activation()
        for name in (
            "relu6 hardsigmoid hardswish tanhshrink softsign selu silu logsigmoid mish".split()
        )
    },
    "hardtanh": _activation({"min_val": -2.0, "max_val": 0.5}),
    "hardshrink": _activation({"lambd": 1.5}),
    "softshrink": _activation({"lambd": 1.5}),
    "threshold": [Sample((_spread(3, 4),), {"threshold": 0.5, "value": 2.0})],
    "elu": _activation({"alpha": 0.3}),
    "celu": _activation({"alpha": 0.3}),
    "softplus": _activation({"beta": 3.0}, {"beta": 0.5, "threshold": 1.0}),
    "prelu": [
        Sample((_spread(*x), _normal(*w)))
        for x, w in (((3, 4), (4,)), ((3, 4), (1,)), ((2, 3, 2, 2), (3,)), ((5,), (1,)))
    ],
    "glu": [
        Sample((_normal(3, 4),)),
        Sample((_normal(2, 6, 3),), {"axis": 1}),
        Sample((_normal(0, 2),)),
    ],
    "softmin": [Sample((_normal(3, 4),)), Sample((_normal(3, 4) * 30,), {"axis": 0})],
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
        *_POOLED,
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
        *_POOLED,
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
    "pad": [
        Sample((_normal(*shape),), {"padding": padding, **options})
        for shape, padding, options in (
            ((2, 3), ((1, 0), (0, 2)), {}),
            ((2, 0, 3), ((1, 2),), {"value": -1.5}),
            ((3, 2), (), {"value": 2.0}),
            ((2, 1, 4), ((1, 3),), {"mode": "reflect"}),
            ((1, 2, 3, 4), ((2, 0), (1, 3)), {"mode": "reflect"}),
            ((2, 1, 1), ((3, 2),), {"mode": "replicate"}),
            ((1, 2, 3, 2), ((1, 0), (0, 4)), {"mode": "replicate"}),
            ((2, 3, 2), ((1, 0), (2, 1), (1, 1)), {"mode": "replicate"}),
        )
    ],
    "adaptive_max_pool": _pooling(_ADAPTIVE),
    "adaptive_avg_pool": _pooling(_ADAPTIVE),
    "interpolate": [
        Sample((_normal(*shape),), options)
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
        Sample((_normal(2, 4, 3, 2), _normal(4), _normal(4)), {"groups": 2, "eps": 1e-5}),
        Sample((_normal(3, 4), _normal(4)), {"groups": 1, "eps": 1e-3}),
        Sample((_normal(2, 3, 5),), {"groups": 3, "eps": 1e-5}),
    ],
    "rms_norm": [
        Sample((_normal(5, 4), _normal(4)), {"axes": 1, "eps": 1e-5}),
        Sample((_normal(2, 3, 4), _normal(3, 4)), {"axes": 2, "eps": 1e-3}),
        Sample((_normal(3, 5),), {"axes": 1, "eps": 0.1}),
    ],
    "layer_norm": [
        Sample((_normal(5, 4), _positive(4), _normal(4)), {"axes": 1, "eps": 1e-5}),
        Sample((_normal(2, 3, 4), _positive(3, 4)), {"axes": 2, "eps": 1e-3}),
        Sample((_normal(3, 5),), {"axes": 1, "eps": 1e-5}),
    ],
    "standardised": [
        Sample((_normal(*shape),), {"axis": axis, "eps": 1e-5})
        for shape, axis in (((3, 5), (-1,)), ((4, 2, 3), (0, 2)))
    ],
    "batch_norm": [*_BATCHES, *_batch(((2, 3, 2, 1, 3), 2, 1e-2))],
    "batch_norm_inference": [
        Sample((x, _positive(x.shape[1]), _positive(x.shape[1]), *affine), sample.options)
        for sample in _BATCHES for x, *affine in (sample.args,)
    ],
    "dropout": [
        *(Sample((_normal(6, 5), _normal(6, 5) > 0), {"keep": k}) for k in (0.5, 0.9)),
        Sample((_normal(4, 3, 2), _SOME[..., None]), {"keep": 0.75}),
    ],
    "alpha_dropout": [Sample((_normal(4, 3), _SOME), {"keep": k}) for k in (0.5, 0.9)],
    "convolution": [
        _windows((2, 3, 5, 6), (4, 3, 3, 2), 4, stride=(1, 1), padding=((0, 0), (0, 0)),
                 dilation=(1, 1)),
        _windows((2, 4, 6, 7), (6, 2, 2, 3), 6, stride=(2, 3), padding=((1, 1), (0, 2)),
                 dilation=(2, 1), groups=2),
        _windows((3, 2, 8), (2, 2, 3), 0, stride=(2,), padding=((1, 0),), dilation=(3,)),
        _windows((1, 3, 4, 4), (3, 1, 4, 4), 0, stride=(1, 1), padding=((0, 0), (0, 0)),
                 dilation=(1, 1), groups=3),
        _windows((2, 2, 3, 4, 3), (4, 1, 2, 3, 1), 4, stride=(1, 2, 1),
                 padding=((1, 1), (0, 1), (0, 0)), dilation=(1, 1, 2), groups=2),
    ],
    "attention_weights": _attention(*_HEADS[:2]),
    "scaled_dot_product_attention": [
        *_attention(*_HEADS),
        *(  # values as wide as keys, which kernels prefer
            Sample(tuple(_normal(2, 2, n, 3) for n in (4, m, m)), {"is_causal": causal})
            for m, causal in ((5, False), (4, True))
        ),
    ],
    "rnn": [*_recurrent(1, 1, activation="tanh"), *_recurrent(1, 1, activation="relu")],
    "lstm": _recurrent(4, 2),
    "gru": _recurrent(3, 1),
}  # fmt: skip
"""Samples by the name of the function."""
