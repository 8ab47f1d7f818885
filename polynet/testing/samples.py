"""Sample inputs for every op and every composition; one without samples fails the suite.

Inputs are float64 NumPy arrays (and labels, masks and settings), away from kinks, drawn from a
fixed seed. A backend gets them in its own dtype.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polynet import functional, losses, optim, random
from polynet.ops import EXTENSIONS, OPS
from polynet.tensor import Tensor
from polynet.testing import extensions, layers
from polynet.testing import losses as losses_of


@dataclass(frozen=True)
class Sample:
    """One call: its arguments, of which float64 arrays are differentiable, and its options."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = [getattr(a, "shape", a) for a in self.args]
        return f"{shapes} {self.options or ''}".strip()


_rng = np.random.default_rng(20240607)


def _in(low: float, high: float, *shape: int) -> np.ndarray:
    """Uniform numbers in [low, high), at least 0.05 from 0."""
    x = _rng.uniform(low, high, size=shape)
    return np.asarray(np.where(np.abs(x) < 0.05, 0.1 if high > 0 else -0.1, x))


_EVERYWHERE = (-2.0, 2.0)
_UNARY_DOMAINS: dict[str, tuple[float, float]] = {
    "sqrt": (0.3, 3.0),
    "reciprocal": (0.4, 2.0),
    "log": (0.3, 3.0),
    "log1p": (-0.6, 2.0),
    "log2": (0.3, 3.0),
    "log10": (0.3, 3.0),
    "tan": (-1.1, 1.1),
    "asin": (-0.8, 0.8),
    "acos": (-0.8, 0.8),
    "acosh": (1.3, 3.0),
    "atanh": (-0.8, 0.8),
    **dict.fromkeys(
        "negative positive abs square exp expm1 sin cos atan sinh cosh tanh asinh".split(),
        _EVERYWHERE,
    ),
    **dict.fromkeys(["erf", "sigmoid", "relu", "leaky_relu", "gelu"], (-3.0, 3.0)),
}
_BINARY_DOMAINS: dict[str, tuple[float, float]] = {
    "divide": (0.5, 2.0),
    "pow": (0.5, 2.0),
    "hypot": (0.4, 2.0),
    "atan2": (0.4, 2.0),
    "copysign": (-2.0, -0.3),
    "nextafter": (-2.0, 2.0),
    **dict.fromkeys("add subtract multiply logaddexp maximum minimum".split(), _EVERYWHERE),
}


def _unary(name: str) -> Iterator[Sample]:
    for shape in ((3, 4), (), (5,), (0, 3)):
        yield Sample((_in(*_UNARY_DOMAINS[name], *shape),))


def _binary(name: str) -> Iterator[Sample]:
    domain = _BINARY_DOMAINS[name]
    for left, right in (
        ((3, 4), (3, 4)),
        ((3, 4), (4,)),
        ((3, 1), (1, 4)),
        ((), (3,)),
        ((2, 0), (1, 1)),
    ):
        yield Sample((_in(*domain, *left), _in(*domain, *right)))
    yield Sample((_in(*domain, 3), 1.5))
    yield Sample((1.5, _in(*domain, 3)))


def _reduction(name: str) -> Iterator[Sample]:
    for options in (
        {},
        {"axis": 0},
        {"axis": -1, "keepdims": True},
        {"axis": (0, 2)},
        {"keepdims": True},
    ):
        yield Sample((_in(*_EVERYWHERE, 2, 3, 4),), options)
    yield Sample((_in(*_EVERYWHERE),))


def _along_axis(name: str) -> Iterator[Sample]:
    yield Sample((_in(*_EVERYWHERE, 3, 4),))
    yield Sample((_in(*_EVERYWHERE, 3, 4) * 30,), {"axis": 0})
    yield Sample((_in(*_EVERYWHERE, 5),))


def _running(name: str) -> Iterator[Sample]:
    yield Sample((_in(*_EVERYWHERE, 5),))
    yield Sample((_in(*_EVERYWHERE, 1),), {"include_initial": True})
    yield Sample((_in(*_EVERYWHERE, 2, 4, 3),), {"axis": 1})
    yield Sample((_in(*_EVERYWHERE, 2, 7),), {"axis": -1, "include_initial": True})
    yield Sample((_in(*_EVERYWHERE, 0, 3),), {"axis": 0})


def _triangle(name: str) -> Iterator[Sample]:
    for shape, k in (((3, 4), 0), ((2, 3, 3), 1), ((4, 2), -2)):
        yield Sample((_in(*_EVERYWHERE, *shape),), {"k": k})


_GENERATED: tuple[tuple[Any, Callable[[str], Iterator[Sample]]], ...] = (
    (_UNARY_DOMAINS, _unary),
    (_BINARY_DOMAINS, _binary),
    (("sum", "mean", "max", "min", "prod", "var", "std"), _reduction),
    (("cumulative_sum", "cumulative_prod"), _running),
    (("tril", "triu"), _triangle),
    (("softmax", "log_softmax", "logsumexp"), _along_axis),
)

SAMPLES: dict[str, list[Sample]] = {
    name: list(generate(name)) for names, generate in _GENERATED for name in names
}
"""Calls by name."""

SAMPLES["logsumexp"].append(Sample((_in(*_EVERYWHERE, 2, 3),), {"axis": 1, "keepdims": True}))
SAMPLES["leaky_relu"].append(Sample((_in(*_EVERYWHERE, 4),), {"negative_slope": 0.3}))
SAMPLES["tanh"].append(Sample((_in(*_EVERYWHERE, 2, 2, 2),)))
SAMPLES["pow"] += [Sample((_in(-2, 2, 4), 3)), Sample((_in(-2, 2, 4), 2.0))]
SAMPLES["copysign"].append(Sample((_in(0.3, 2, 3, 1), _in(-2, -0.3, 3, 4))))
SAMPLES["clip"] = [
    Sample((np.linspace(-2, 2, 12).reshape(3, 4), *bounds))
    for bounds in (
        (),
        (-1.1,),
        (None, 0.7),
        (-0.5, 0.5),
        (_in(-1.5, -1, 4), _in(1, 1.5, 3, 1)),
        (None, _in(0.3, 0.6)),
    )
]
SAMPLES["full_like"] = [
    Sample((_in(*_EVERYWHERE, 2, 3), 1.5)),
    Sample((_in(*_EVERYWHERE, 2, 3), _in(*_EVERYWHERE))),
]
SAMPLES["prod"] += [  # no factor, one 0 and several
    Sample((np.ones((2, 0)),), {"axis": 1}),
    Sample((np.asarray([[1.5, 0, -2], [0, 0.5, 0], [0, 0, 0]]),), {"axis": 1}),
]
SAMPLES["cumulative_prod"].append(Sample((np.asarray([1.5, 0, -2, 0.5, 0, 3]),)))
SAMPLES["var"].append(Sample((_in(*_EVERYWHERE, 3, 4),), {"axis": 1, "correction": 1}))
SAMPLES["std"].append(Sample((_in(*_EVERYWHERE, 3, 4),), {"axis": 0, "correction": 2}))
SAMPLES["diff"] = [
    Sample((_in(*_EVERYWHERE, 5),)),
    Sample((_in(*_EVERYWHERE, 2, 4, 3),), {"axis": 1, "n": 2}),
    Sample((_in(*_EVERYWHERE, 2, 3), _in(*_EVERYWHERE, 2, 2), _in(*_EVERYWHERE, 2, 1)), {"n": 3}),
    Sample((_in(*_EVERYWHERE, 2, 3), None, _in(*_EVERYWHERE, 1, 3)), {"axis": -2}),
    Sample((_in(*_EVERYWHERE, 2, 3),), {"axis": 0, "n": 2}),
]
SAMPLES["sort"] = [
    Sample((_in(*_EVERYWHERE, 3, 4),), o)
    for o in ({}, {"axis": 0}, {"axis": -2, "descending": True}, {"stable": False})
]
SAMPLES["meshgrid"] = [
    Sample(tuple(_in(*_EVERYWHERE, n) for n in lengths), o)
    for lengths, o in (((3, 2, 4), {}), ((2, 3), {"indexing": "ij"}), ((3,), {}))
]
SAMPLES["broadcast_arrays"] = [
    Sample((_in(*_EVERYWHERE, 3), _in(*_EVERYWHERE, 2, 1), _in(*_EVERYWHERE))),
]
SAMPLES["unstack"] = [Sample((_in(*_EVERYWHERE, 2, 3, 4),), {"axis": a}) for a in (0, 1, -1)]
SAMPLES["moveaxis"] = [
    Sample((_in(*_EVERYWHERE, 2, 3, 4), *places)) for places in ((0, -1), ((0, 2), (1, 0)))
]
SAMPLES["tile"] = [
    Sample((_in(*_EVERYWHERE, *shape), times))
    for shape, times in (((3,), (2,)), ((2, 3), (2,)), ((3,), (2, 1, 3)), ((2, 1), (0, 2)))
]
SAMPLES["repeat"] = [
    Sample((_in(*_EVERYWHERE, 2, 3), 2)),
    Sample((_in(*_EVERYWHERE, 2, 3, 2), 3), {"axis": 1}),
    Sample((_in(*_EVERYWHERE, 4, 2), np.asarray([2, 0, 1, 3])), {"axis": -2}),
    Sample((_in(*_EVERYWHERE, 3), np.asarray([1, 3, 0]))),
]
SAMPLES["remainder"] = [  # the quotient stays between 2 and 3, where floor is constant
    Sample((_in(2.2, 2.8, *left), _in(1.0, 1.05, *right)))
    for left, right in (((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2,)))
]
SAMPLES["matmul"] = [
    Sample((_in(*_EVERYWHERE, *left), _in(*_EVERYWHERE, *right)))
    for left, right in (
        ((3, 4), (4, 2)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 2)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (3, 4, 2)),
        ((0, 4), (4, 2)),
    )
]
SAMPLES["matrix_transpose"] = [Sample((_in(*_EVERYWHERE, *s),)) for s in ((3, 4), (2, 3, 4))]
SAMPLES["reshape"] = [Sample((_in(*_EVERYWHERE, 3, 4), s)) for s in ((4, 3), (-1,), (2, 1, 6))]
SAMPLES["permute_dims"] = [Sample((_in(*_EVERYWHERE, 2, 3, 4), s)) for s in ((2, 0, 1), (0, 2, 1))]
SAMPLES["expand_dims"] = [Sample((_in(*_EVERYWHERE, 2, 3),), {"axis": a}) for a in (0, 1, -1)]
SAMPLES["squeeze"] = [Sample((_in(*_EVERYWHERE, 2, 1, 3, 1), a)) for a in (1, (1, 3))]
SAMPLES["broadcast_to"] = [
    Sample((_in(*_EVERYWHERE, *a), b)) for a, b in (((3,), (2, 3)), ((2, 1), (4, 2, 3)), ((), (2,)))
]
SAMPLES["flip"] = [
    Sample((_in(*_EVERYWHERE, 2, 3),), o) for o in ({}, {"axis": 0}, {"axis": (0, 1)})
]
SAMPLES["roll"] = [
    Sample((_in(*_EVERYWHERE, 2, 5), 2), {"axis": 1}),
    Sample((_in(*_EVERYWHERE, 2, 5), 3)),
    Sample((_in(*_EVERYWHERE, 2, 5), (1, 2)), {"axis": (0, 1)}),
]
SAMPLES["concat"] = [
    Sample(([_in(*_EVERYWHERE, 2, 3), _in(*_EVERYWHERE, 1, 3)],)),
    Sample(
        ([_in(*_EVERYWHERE, 2, 1), _in(*_EVERYWHERE, 2, 3), _in(*_EVERYWHERE, 2, 0)],), {"axis": -1}
    ),
]
SAMPLES["concat"].append(
    Sample(([_in(*_EVERYWHERE, 2, 1), _in(*_EVERYWHERE, 3), _in(*_EVERYWHERE)],), {"axis": None})
)
SAMPLES["stack"] = [
    Sample(([_in(*_EVERYWHERE, 2, 3), _in(*_EVERYWHERE, 2, 3)],), {"axis": a}) for a in (0, 1, -1)
]
SAMPLES["astype"] = []  # its dtype is a backend's own object: tested by hand in test_ops.py
SAMPLES["to_device"] = []  # likewise its device: in tests/test_array_api.py
SAMPLES["getitem"] = [
    Sample((_in(*_EVERYWHERE, 4, 5), key))
    for key in (
        (1, ...),
        (slice(1, 3), slice(None)),
        (..., 2),
        (slice(0, 4, 2), slice(4, 0, -2)),
        (None, slice(None), 3),
        (-1, -2),
        (slice(2, 2), ...),
        (slice(3, None, -2), slice(1, None, 3)),
        (slice(None, None, 3), slice(None, None, -1)),
        (_in(-1, 1, 4, 5) > 0,),
        (np.asarray([True, False, False, True]),),
        (np.asarray([[3, 0, 3]]), np.asarray([[1], [-1]])),
        (-2, np.asarray([4, 4, 0])),
    )
]
SAMPLES["setitem"] = [
    Sample((_in(*_EVERYWHERE, 4, 5), key, value))
    for key, value in (
        ((1, ...), _in(*_EVERYWHERE, 5)),
        ((slice(1, 3), slice(None)), _in(*_EVERYWHERE, 2, 1)),
        ((..., -1), 2.0),
        (slice(3, None, -2), _in(*_EVERYWHERE, 2, 5)),
        ((slice(2, 2), ...), _in(*_EVERYWHERE, 5)),
        (..., _in(*_EVERYWHERE)),
        ((_in(-1, 1, 4, 5) > 0,), _in(*_EVERYWHERE)),
        (np.asarray([True, False, False, True]), _in(*_EVERYWHERE, 5)),
        (np.asarray([True, False, False, True]), _in(*_EVERYWHERE, 2, 5)),
        (np.asarray([False] * 4), _in(*_EVERYWHERE, 1, 5)),
        ((np.asarray([[3, 0, 1]]), np.asarray([[1], [-1]])), _in(*_EVERYWHERE, 2, 3)),
        ((-2, np.asarray([4, 4, 0])), _in(*_EVERYWHERE, 3)),
    )
]
SAMPLES["take"] = [
    Sample((_in(*_EVERYWHERE, 4, 5), np.asarray([2, 0, 2])), {"axis": 0}),
    Sample((_in(*_EVERYWHERE, 2, 5, 3), np.asarray([4, 1])), {"axis": 1}),
    Sample((_in(*_EVERYWHERE, 2, 5), np.asarray([0, 0, 1])), {"axis": -1}),
    Sample((_in(*_EVERYWHERE, 6), np.asarray([5]))),
    Sample((_in(*_EVERYWHERE, 3, 2), np.zeros(0, dtype=np.int64)), {"axis": 0}),
]
SAMPLES["take_along_axis"] = [
    Sample((_in(*_EVERYWHERE, 3, 4), np.asarray([[0, 0], [3, 1], [2, 2]])), {"axis": 1}),
    Sample((_in(*_EVERYWHERE, 3, 4), np.asarray([[0, 2, 1, 1]])), {"axis": 0}),
    Sample((_in(*_EVERYWHERE, 2, 3, 4), np.asarray([[[1], [0], [3]]] * 2))),
]
SAMPLES["put_slice"] = [
    Sample((_in(*_EVERYWHERE, *map(len, places)), places, shape))
    for places, shape in (
        ((range(4), range(1, 3)), (4, 5)),
        ((range(0, 5, 2), range(3, 4)), (5, 4)),
        ((range(1, 8, 3), range(2)), (9, 2)),
        ((range(2, 2), range(3)), (4, 3)),
    )
]
SAMPLES["segment_sum"] = [
    Sample((_in(*_EVERYWHERE, 5, 3), np.asarray([2, 0, 2, 5, 0]), 6)),
    Sample((_in(*_EVERYWHERE, 4), np.asarray([1, 1, 1, 0]), 2)),
    Sample((_in(*_EVERYWHERE, 3, 2, 2), np.asarray([3, 1, 3]), 4)),
    Sample((_in(*_EVERYWHERE, 0, 2), np.zeros(0, dtype=np.int64), 3)),
]
SAMPLES["where"] = [
    Sample((_in(*_EVERYWHERE, 3, 4) > 0, _in(*_EVERYWHERE, 3, 4), _in(*_EVERYWHERE, 4))),
    Sample((_in(*_EVERYWHERE, 3, 1) > 0, _in(*_EVERYWHERE, 4), 2.0)),
]
SAMPLES["linear"] = [
    Sample((_in(*_EVERYWHERE, 5, 4), _in(*_EVERYWHERE, 3, 4), _in(*_EVERYWHERE, 3))),
    Sample((_in(*_EVERYWHERE, 5, 4), _in(*_EVERYWHERE, 3, 4))),
    Sample((_in(*_EVERYWHERE, 2, 5, 4), _in(*_EVERYWHERE, 3, 4), _in(*_EVERYWHERE, 3))),
    Sample((_in(*_EVERYWHERE, 4), _in(*_EVERYWHERE, 3, 4), _in(*_EVERYWHERE, 3))),
    Sample((_in(*_EVERYWHERE, 0, 4), _in(*_EVERYWHERE, 3, 4), _in(*_EVERYWHERE, 3))),
]
SAMPLES["linear_relu"] = SAMPLES["linear"]
SAMPLES["dropout"] = [
    Sample((_in(*_EVERYWHERE, 6, 5), _in(*_EVERYWHERE, 6, 5) > 0), {"keep": k}) for k in (0.5, 0.9)
]
SAMPLES["einsum"] = [
    Sample((equation, *(_in(*_EVERYWHERE, *shape) for shape in shapes)))
    for equation, *shapes in (
        ("ij,jk->ik", (3, 4), (4, 2)),
        ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)),
        ("bi,oij,bj->bo", (2, 3), (4, 3, 2), (2, 2)),
        ("...ij,...j", (2, 1, 3, 4), (5, 4)),
        ("iij->ji", (3, 3, 2)),
        ("i,j,k->kij", (2,), (3,), (4,)),
        ("ij->", (2, 3)),
        ("ij,ij->i", (1, 4), (3, 1)),
        ("ij,jk", (3, 0), (0, 2)),
    )
]
SAMPLES["convolution"] = [
    Sample(
        (_in(*_EVERYWHERE, *x), _in(*_EVERYWHERE, *w), *([_in(*_EVERYWHERE, w[0])] * bias)), options
    )
    for x, w, bias, options in (
        (
            (2, 3, 5, 6),
            (4, 3, 3, 2),
            True,
            {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)},
        ),
        (
            (2, 4, 6, 7),
            (6, 2, 2, 3),
            True,
            {"stride": (2, 3), "padding": ((1, 1), (0, 2)), "dilation": (2, 1), "groups": 2},
        ),
        ((3, 2, 8), (2, 2, 3), False, {"stride": (2,), "padding": ((1, 0),), "dilation": (3,)}),
        (
            (1, 3, 4, 4),
            (3, 1, 4, 4),
            False,
            {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 3},
        ),
    )
]
_WINDOWS = (
    ((2, 3, 6, 4), {"window": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    ((2, 2, 7, 5), {"window": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    ((1, 2, 3, 3), {"window": (3, 3), "stride": (1, 1), "padding": (0, 0)}),
)
for _name in ("max_pool", "avg_pool"):
    SAMPLES[_name] = [Sample((_in(*_EVERYWHERE, *shape),), options) for shape, options in _WINDOWS]
SAMPLES["layer_norm"] = [
    Sample(
        (_in(*_EVERYWHERE, 5, 4), _in(0.5, 2, 4), _in(*_EVERYWHERE, 4)), {"axes": 1, "eps": 1e-5}
    ),
    Sample((_in(*_EVERYWHERE, 2, 3, 4), _in(0.5, 2, 3, 4)), {"axes": 2, "eps": 1e-3}),
    Sample((_in(*_EVERYWHERE, 3, 5),), {"axes": 1, "eps": 1e-5}),
]
SAMPLES["standardised"] = [
    Sample((_in(*_EVERYWHERE, *shape),), {"axis": axis, "eps": 1e-5})
    for shape, axis in (((3, 5), (-1,)), ((4, 2, 3), (0, 2)))
]
SAMPLES["batch_norm"] = [
    Sample(
        (_in(*_EVERYWHERE, *shape), *(_in(0.5, 2, shape[1]) for _ in range(arrays))), {"eps": eps}
    )
    for shape, arrays, eps in (
        ((6, 3), 2, 1e-5),
        ((2, 3, 4), 0, 1e-3),
        ((3, 2, 2, 4), 1, 0.1),
        ((3, 2, 2, 4), 2, 1e-2),
    )
]
SAMPLES["batch_norm_inference"] = [
    Sample((x, *(_in(0.5, 2, x.shape[1]) for _ in range(2)), *affine), sample.options)
    for sample in SAMPLES["batch_norm"]
    for x, *affine in (sample.args,)
]
_HEADS = [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 2)]  # of queries, keys and values
_LOOK = np.asarray([[True, False, True, True, False, True]] * 4)
for _name, _count in (("scaled_dot_product_attention", 3), ("attention_weights", 2)):
    SAMPLES[_name] = [
        Sample((*(_in(*_EVERYWHERE, *s) for s in _HEADS[:_count]), *mask), options)
        for mask, options in (
            ((), {}),
            ((), {"is_causal": True}),
            ((_LOOK,), {}),
            ((_in(*_EVERYWHERE, 4, 6),), {"is_causal": True}),
        )
    ]
SAMPLES["scaled_dot_product_attention"] += [  # as wide values as keys, which kernels prefer
    Sample(tuple(_in(*_EVERYWHERE, 2, 2, n, 3) for n in (4, m, m)), {"is_causal": causal})
    for m, causal in ((5, False), (4, True))
]
for _name, _gates, _parts, _how in (
    ("rnn", 1, 1, {"activation": "tanh"}),
    ("rnn", 1, 1, {"activation": "relu"}),
    ("lstm", 4, 2, {}),
    ("gru", 3, 1, {}),
):
    _shapes = [(2, 3)] * _parts + [(_gates * 3, 4), (_gates * 3, 3)] + [(_gates * 3,)] * 2
    _given = [_in(-1, 1, *s) for s in ((5, 2, 4), *_shapes)]
    SAMPLES.setdefault(_name, []).extend(
        [
            Sample(tuple(_given), {**_how, "reverse": True}),
            Sample((_given[0], *[None] * _parts, *_given[1 + _parts : 3 + _parts]), _how),
            *(
                Sample((*_given, np.asarray([3, 5])), {**_how, "reverse": reverse})
                for reverse in (False, True)
            ),
        ]
    )
SAMPLES |= {
    name: [Sample(args, options) for args, options in calls]
    for name, calls in (extensions.CALLS | losses_of.CALLS).items()
}
for _name, _calls in layers.CALLS.items():
    SAMPLES.setdefault(_name, []).extend(Sample(args, options) for args, options in _calls)


def functions() -> dict[str, Callable[..., Any]]:
    """Every op and every composition that must have samples, by name."""
    found = dict(OPS)
    for extension, ops in EXTENSIONS.items():
        own = {f"{extension}.{name}": f for name, f in ops.items() if f is not OPS.get(name)}
        found.update(own)
    found.update(extensions.PROBES)
    for module in (functional, losses):
        for name, f in vars(module).items():
            if hasattr(f, "rule") or hasattr(f, "definition"):
                found.setdefault(name, f)
    return found


def compositions() -> list[str]:
    """The functions that a backend may have a kernel for, with the arguments that follow `xp`.

    >>> [line for line in compositions() if line.startswith("relu(")]
    ['relu(x, /)']
    """
    found = {**vars(optim), **vars(random), **functions()}
    own = {n: f for n, f in found.items() if n not in OPS and "." not in n}
    return sorted(f"{n}{inspect.signature(f)}" for n, f in own.items() if hasattr(f, "definition"))


def is_differentiable(argument: Any) -> bool:
    """Whether gradients go to an argument of a sample."""
    kinds = ("float64", "complex128")
    return isinstance(argument, np.ndarray | Tensor) and str(argument.dtype) in kinds
