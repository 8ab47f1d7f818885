"""Samples of the ops, and of functions that are as simple."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polynet.testing.samples.sample import Sample

_rng = np.random.default_rng(20240607)


def _in(low: float, high: float, *shape: int) -> np.ndarray:
    """Uniform numbers in [low, high), at least 0.05 from 0."""
    x = _rng.uniform(low, high, size=shape)
    return np.asarray(np.where(np.abs(x) < 0.05, 0.1 if high > 0 else -0.1, x))


def _wide(*shape: int) -> np.ndarray:
    """Numbers of both signs, from everywhere in the domain of most functions."""
    return _in(*_WIDE, *shape)


_WIDE = (-2.0, 2.0)
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
        _WIDE,
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
    **dict.fromkeys("add subtract multiply logaddexp maximum minimum".split(), _WIDE),
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
        yield Sample((_wide(2, 3, 4),), options)
    yield Sample((_wide(),))


def _along_axis(name: str) -> Iterator[Sample]:
    yield Sample((_wide(3, 4),))
    yield Sample((_wide(3, 4) * 30,), {"axis": 0})
    yield Sample((_wide(5),))


def _running(name: str) -> Iterator[Sample]:
    yield Sample((_wide(5),))
    yield Sample((_wide(1),), {"include_initial": True})
    yield Sample((_wide(2, 4, 3),), {"axis": 1})
    yield Sample((_wide(2, 7),), {"axis": -1, "include_initial": True})
    yield Sample((_wide(0, 3),), {"axis": 0})


def _triangle(name: str) -> Iterator[Sample]:
    for shape, k in (((3, 4), 0), ((2, 3, 3), 1), ((4, 2), -2)):
        yield Sample((_wide(*shape),), {"k": k})


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
"""Samples by the name of the function."""

SAMPLES["logsumexp"].append(Sample((_wide(2, 3),), {"axis": 1, "keepdims": True}))
SAMPLES["leaky_relu"].append(Sample((_wide(4),), {"negative_slope": 0.3}))
SAMPLES["tanh"].append(Sample((_wide(2, 2, 2),)))
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
    Sample((_wide(2, 3), 1.5)),
    Sample((_wide(2, 3), _wide())),
]
SAMPLES["prod"] += [  # no factor, one 0 and several
    Sample((np.ones((2, 0)),), {"axis": 1}),
    Sample((np.asarray([[1.5, 0, -2], [0, 0.5, 0], [0, 0, 0]]),), {"axis": 1}),
]
SAMPLES["cumulative_prod"].append(Sample((np.asarray([1.5, 0, -2, 0.5, 0, 3]),)))
SAMPLES["var"].append(Sample((_wide(3, 4),), {"axis": 1, "correction": 1}))
SAMPLES["std"].append(Sample((_wide(3, 4),), {"axis": 0, "correction": 2}))
SAMPLES["diff"] = [
    Sample((_wide(5),)),
    Sample((_wide(2, 4, 3),), {"axis": 1, "n": 2}),
    Sample((_wide(2, 3), _wide(2, 2), _wide(2, 1)), {"n": 3}),
    Sample((_wide(2, 3), None, _wide(1, 3)), {"axis": -2}),
    Sample((_wide(2, 3),), {"axis": 0, "n": 2}),
]
SAMPLES["sort"] = [
    Sample((_wide(3, 4),), o)
    for o in ({}, {"axis": 0}, {"axis": -2, "descending": True}, {"stable": False})
]
SAMPLES["meshgrid"] = [
    Sample(tuple(_wide(n) for n in lengths), o)
    for lengths, o in (((3, 2, 4), {}), ((2, 3), {"indexing": "ij"}), ((3,), {}))
]
SAMPLES["broadcast_arrays"] = [
    Sample((_wide(3), _wide(2, 1), _wide())),
]
SAMPLES["unstack"] = [Sample((_wide(2, 3, 4),), {"axis": a}) for a in (0, 1, -1)]
SAMPLES["moveaxis"] = [Sample((_wide(2, 3, 4), *places)) for places in ((0, -1), ((0, 2), (1, 0)))]
SAMPLES["tile"] = [
    Sample((_wide(*shape), times))
    for shape, times in (((3,), (2,)), ((2, 3), (2,)), ((3,), (2, 1, 3)), ((2, 1), (0, 2)))
]
SAMPLES["repeat"] = [
    Sample((_wide(2, 3), 2)),
    Sample((_wide(2, 3, 2), 3), {"axis": 1}),
    Sample((_wide(4, 2), np.asarray([2, 0, 1, 3])), {"axis": -2}, "data-dependent shapes"),
    Sample((_wide(3), np.asarray([1, 3, 0])), needs="data-dependent shapes"),
]
SAMPLES["remainder"] = [  # the quotient stays between 2 and 3, where floor is constant
    Sample((_in(2.2, 2.8, *left), _in(1.0, 1.05, *right)))
    for left, right in (((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2,)))
]
SAMPLES["matmul"] = [
    Sample((_wide(*left), _wide(*right)))
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
SAMPLES["matrix_transpose"] = [Sample((_wide(*s),)) for s in ((3, 4), (2, 3, 4))]
SAMPLES["reshape"] = [Sample((_wide(3, 4), s)) for s in ((4, 3), (-1,), (2, 1, 6))]
SAMPLES["permute_dims"] = [Sample((_wide(2, 3, 4), s)) for s in ((2, 0, 1), (0, 2, 1))]
SAMPLES["expand_dims"] = [Sample((_wide(2, 3),), {"axis": a}) for a in (0, 1, -1)]
SAMPLES["squeeze"] = [Sample((_wide(2, 1, 3, 1), a)) for a in (1, (1, 3))]
SAMPLES["broadcast_to"] = [
    Sample((_wide(*a), b)) for a, b in (((3,), (2, 3)), ((2, 1), (4, 2, 3)), ((), (2,)))
]
SAMPLES["flip"] = [Sample((_wide(2, 3),), o) for o in ({}, {"axis": 0}, {"axis": (0, 1)})]
SAMPLES["roll"] = [
    Sample((_wide(2, 5), 2), {"axis": 1}),
    Sample((_wide(2, 5), 3)),
    Sample((_wide(2, 5), (1, 2)), {"axis": (0, 1)}),
]
SAMPLES["concat"] = [
    Sample(([_wide(2, 3), _wide(1, 3)],)),
    Sample(([_wide(2, 1), _wide(2, 3), _wide(2, 0)],), {"axis": -1}),
]
SAMPLES["concat"].append(Sample(([_wide(2, 1), _wide(3), _wide()],), {"axis": None}))
SAMPLES["stack"] = [Sample(([_wide(2, 3), _wide(2, 3)],), {"axis": a}) for a in (0, 1, -1)]
SAMPLES["astype"] = []  # its dtype is a backend's own object: tested by hand in test_ops.py
SAMPLES["to_device"] = []  # likewise its device: in tests/test_array_api.py


def _for_mask(key: Any) -> str:
    """What a library must be capable of to index by `key`."""
    keys = key if isinstance(key, tuple) else (key,)
    mask = any(isinstance(k, np.ndarray) and k.dtype == bool for k in keys)
    return "boolean indexing" if mask else ""


SAMPLES["getitem"] = [
    Sample((_wide(4, 5), key), needs=_for_mask(key))
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
        (slice(None, -1, -2), ...),
    )
]
SAMPLES["setitem"] = [
    Sample((_wide(4, 5), key, value), needs=_for_mask(key) if np.ndim(value) > 1 else "")
    for key, value in (  # by a mask, a number or a row is put in by `where`
        ((1, ...), _wide(5)),
        ((slice(1, 3), slice(None)), _wide(2, 1)),
        ((..., -1), 2.0),
        (slice(3, None, -2), _wide(2, 5)),
        ((slice(2, 2), ...), _wide(5)),
        (..., _wide()),
        ((_in(-1, 1, 4, 5) > 0,), _wide()),
        (np.asarray([True, False, False, True]), _wide(5)),
        (np.asarray([True, False, False, True]), _wide(2, 5)),
        (np.asarray([False] * 4), _wide(1, 5)),
        ((np.asarray([[3, 0, 1]]), np.asarray([[1], [-1]])), _wide(2, 3)),
        ((-2, np.asarray([4, 4, 0])), _wide(3)),
    )
]
SAMPLES["take"] = [
    Sample((_wide(4, 5), np.asarray([2, 0, 2])), {"axis": 0}),
    Sample((_wide(2, 5, 3), np.asarray([4, 1])), {"axis": 1}),
    Sample((_wide(2, 5), np.asarray([0, 0, 1])), {"axis": -1}),
    Sample((_wide(6), np.asarray([5]))),
    Sample((_wide(3, 2), np.zeros(0, dtype=np.int64)), {"axis": 0}),
]
SAMPLES["take_along_axis"] = [
    Sample((_wide(3, 4), np.asarray([[0, 0], [3, 1], [2, 2]])), {"axis": 1}),
    Sample((_wide(3, 4), np.asarray([[0, 2, 1, 1]])), {"axis": 0}),
    Sample((_wide(2, 3, 4), np.asarray([[[1], [0], [3]]] * 2))),
]
SAMPLES["put_slice"] = [
    Sample((_wide(*map(len, places)), places, shape))
    for places, shape in (
        ((range(4), range(1, 3)), (4, 5)),
        ((range(0, 5, 2), range(3, 4)), (5, 4)),
        ((range(1, 8, 3), range(2)), (9, 2)),
        ((range(2, 2), range(3)), (4, 3)),
    )
]
SAMPLES["segment_sum"] = [
    Sample((_wide(5, 3), np.asarray([2, 0, 2, 5, 0]), 6)),
    Sample((_wide(4), np.asarray([1, 1, 1, 0]), 2)),
    Sample((_wide(3, 2, 2), np.asarray([3, 1, 3]), 4)),
    Sample((_wide(0, 2), np.zeros(0, dtype=np.int64), 3)),
]
SAMPLES["where"] = [
    Sample((_wide(3, 4) > 0, _wide(3, 4), _wide(4))),
    Sample((_wide(3, 1) > 0, _wide(4), 2.0)),
]
SAMPLES["einsum"] = [
    Sample((equation, *(_wide(*shape) for shape in shapes)))
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
SAMPLES["gelu"].append(Sample((_in(-3.0, 3.0, 3, 4),), {"approximate": "tanh"}))
