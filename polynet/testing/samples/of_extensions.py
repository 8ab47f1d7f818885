"""Samples of complex functions, and of the extensions `linalg` and `fft`.

Some functions have several results, complex results, or results whose signs are free; others take
complex arguments, or arguments meant to be symmetric. For these the suite calls a *probe* instead:
a composition from real arrays to one real array in which nothing is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from polynet.tensor import composition
from polynet.testing.samples.sample import Sample

_rng = np.random.default_rng(20241201)


def _normal(*shape: int) -> np.ndarray:
    return np.asarray(_rng.uniform(-1.5, 1.5, size=shape))


def _square(*shape: int) -> np.ndarray:
    """Matrices far from singular: with singular values between 1 and 2, far from one another."""
    return _matrix(*shape, shape[-1])


def _matrix(*shape: int) -> np.ndarray:
    u, _, vh = np.linalg.svd(_normal(*shape), full_matrices=False)
    return np.asarray((u * np.linspace(2, 1, u.shape[-1])) @ vh)


def _probe(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The composition `call(f, xp, *arrays, **options)`, where `f` is the function of that name."""

    def definition(xp: Any, *arrays: Any, **options: Any) -> Any:
        f = xp
        for part in name.split("."):
            f = getattr(f, part)
        return call(f, xp, *arrays, **options)

    definition.__name__ = name
    return composition(definition)


def _parts(xp: Any, z: Any) -> Any:
    return xp.stack([xp.real(z), xp.imag(z)])


def _of_complex(f: Any, xp: Any, x: Any, y: Any, **options: Any) -> Any:
    z = f(x + y * 1j, **options)
    return _parts(xp, z) if xp.isdtype(z.dtype, "complex floating") else z


def _to_complex(f: Any, xp: Any, x: Any, **options: Any) -> Any:
    return _parts(xp, f(x, **options))


def _hermitian(xp: Any, x: Any) -> Any:
    return (x + xp.conj(x).mT) / 2


def _of_hermitian(f: Any, xp: Any, x: Any, **options: Any) -> Any:
    return f(_hermitian(xp, x), **options)


def _flat(xp: Any, *arrays: Any) -> Any:
    """All numbers in one real array: of complex ones the real and the imaginary parts."""
    in_real = [_parts(xp, a) if xp.isdtype(a.dtype, "complex floating") else a for a in arrays]
    return xp.concat([xp.reshape(a, (-1,)) for a in in_real], axis=0)


def _eigh(f: Any, xp: Any, x: Any) -> Any:
    w, v = f(_hermitian(xp, x))
    return _flat(xp, w, v * xp.conj(v), v[..., :1, :] * xp.conj(v))


def _eig(f: Any, xp: Any, x: Any) -> Any:
    """The same for eigenvalues in any order."""
    w, v = f(x)
    return _parts(xp, xp.matmul(v * xp.exp(w)[..., None, :], xp.conj(v).mT))


def _eigvals(f: Any, xp: Any, x: Any) -> Any:
    w = f(x)
    return _parts(xp, xp.sum(xp.stack([w, w * w, xp.exp(w)]), axis=-1))


def _qr(f: Any, xp: Any, x: Any, **options: Any) -> Any:
    q, r = f(x, **options)
    cq, cr = xp.conj(q), xp.conj(r)
    return _flat(xp, q * cq, q[..., :1, :] * cq, r * cr, r[..., :1] * cr)


def _svd(f: Any, xp: Any, x: Any, **options: Any) -> Any:
    u, s, vh = f(x, **options)
    first = u[..., :1, :]
    return _flat(xp, s, u * xp.conj(u), first * xp.conj(u), vh * xp.conj(vh), first * vh.mT)


def _slogdet(f: Any, xp: Any, x: Any) -> Any:
    return _flat(xp, *f(x))


_NAMES: dict[Callable[..., Any], str] = {
    _of_complex: "real imag conj fft.fft fft.ifft fft.fftn fft.ifftn fft.irfft fft.irfftn "
    "fft.hfft fft.fftshift fft.ifftshift",
    _to_complex: "fft.rfft fft.rfftn fft.ihfft",
    _of_hermitian: "linalg.cholesky linalg.eigvalsh",
    _eig: "linalg.eig",
    _eigh: "linalg.eigh",
    _eigvals: "linalg.eigvals",
    _qr: "linalg.qr",
    _svd: "linalg.svd",
    _slogdet: "linalg.slogdet",
}
PROBES: dict[str, Callable[..., Any]] = {
    name: _probe(name, call) for call, names in _NAMES.items() for name in names.split()
}


def _calls(
    make: Callable[..., np.ndarray], *shapes: tuple[int, ...], **options: Any
) -> list[Sample]:
    return [Sample((make(*shape),), options) for shape in shapes]


def _pairs(left: Any, right: Any, *shapes: Any, **options: Any) -> list[Sample]:
    return [Sample((left(*a), right(*b)), options) for a, b in shapes]


def _definite(*shape: int) -> np.ndarray:
    x = _square(*shape)
    return x @ x.swapaxes(-1, -2)


_SQUARES = ((3,), (2, 3), (1,))


SAMPLES: dict[str, list[Sample]] = {
    "sign": _calls(_normal, (3, 4), ()),
    **{name: _pairs(_normal, _normal, ((3, 4), (3, 4))) for name in ("real", "imag", "conj")},
    "vecdot": [
        *_pairs(_normal, _normal, ((2, 4), (2, 4)), ((4,), (3, 4)), ((2, 1, 3), (4, 3))),
        *_pairs(_normal, _normal, ((4, 2), (4, 2)), axis=-2),
    ],
    "tensordot": [
        *_pairs(_normal, _normal, ((2, 3, 4), (3, 4, 5))),
        *_pairs(_normal, _normal, ((2, 3), (4,)), axes=0),
        *_pairs(_normal, _normal, ((2, 3), (3, 4)), axes=1),
        *_pairs(_normal, _normal, ((4, 2, 3, 5), (5, 2, 6, 4)), axes=((3, 0, 1), (0, -1, 1))),
    ],
    **{
        f"linalg.{name}": _calls(_square, *_SQUARES)
        for name in ("inv", "det", "slogdet", "eigvalsh", "eigh", "eigvals", "eig")
    },
    "linalg.cholesky": [
        *_calls(_definite, (3,), (2, 3)),
        *_calls(_definite, (3,), upper=True),
    ],
    "linalg.solve": _pairs(
        *(_square, _normal),
        *(((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3, 1)), ((3,), (2, 3, 2)), ((2, 3), (3,))),
    ),
    "linalg.matrix_power": [
        Sample((_square(*s), n)) for s, n in (((3,), 3), ((2, 2), -2), ((2,), 0))
    ],
    "linalg.matrix_rank": [],  # an integer: tested by hand in tests/test_linear_algebra.py
    "linalg.pinv": _calls(_matrix, (4, 3), (3, 4), (2, 3, 3)),
    "linalg.qr": [
        *_calls(_matrix, (4, 3), (2, 3, 3), (3, 5)),
        *_calls(_matrix, (3, 3), mode="complete"),
    ],
    "linalg.svd": [
        *_calls(_matrix, (4, 3), (3, 4), (2, 3, 3), full_matrices=False),
        *_calls(_matrix, (3, 3)),
    ],
    "linalg.svdvals": _calls(_matrix, (4, 3), (2, 3, 4)),
    "linalg.vector_norm": [
        *_calls(_normal, (2, 3, 4), ()),
        *[
            Sample((_normal(2, 3, 4),), {"ord": p, "axis": axis, "keepdims": keepdims})
            for p, axis, keepdims in (
                *((2, 1, True), (1, (0, 2), False), (3, -1, False), (2.5, None, True)),
                *((math.inf, 1, False), (-math.inf, (0, 1), True), (-1, 2, False)),
            )
        ],
        *_calls(_normal, (2, 3), ord=0, axis=1),
    ],
    "linalg.matrix_norm": [
        Sample((_matrix(*shape),), {"ord": p, "keepdims": keepdims})
        for shape in ((3, 4), (2, 4, 3))
        for p, keepdims in (
            *(("fro", True), ("nuc", False), (1, False), (-1, True), (2, True), (-2, False)),
            *((math.inf, False), (-math.inf, True)),
        )
    ],
    "linalg.cross": [
        *_pairs(_normal, _normal, ((2, 3), (2, 3)), ((3,), (4, 3))),
        *_pairs(_normal, _normal, ((3, 2), (3, 2)), axis=-2),
    ],
    "linalg.outer": _pairs(_normal, _normal, ((3,), (4,))),
    **{
        f"linalg.{name}": [
            Sample((_normal(*shape),), {"offset": offset})
            for shape, offset in (((3, 3), 0), ((2, 3, 4), 1), ((4, 3), -2), ((2, 3), -1))
        ]
        for name in ("diagonal", "trace")
    },
    **{
        f"fft.{name}": [
            Sample((_normal(3, 6), *([_normal(3, 6)] * (name not in ("rfft", "ihfft")))), options)
            for options in (
                *({}, {"axis": 0, "norm": "ortho"}, {"n": 4, "norm": "forward"}),
                *({"n": 9}, {"n": 5, "axis": -2}),
            )
        ]
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
    },
    **{
        f"fft.{name}": [
            Sample((_normal(2, 3, 4), *([_normal(2, 3, 4)] * (name != "rfftn"))), options)
            for options in (
                *({}, {"axes": (0, 1), "norm": "forward"}, {"axes": (-1, 0), "norm": "ortho"}),
                *({"s": (2, 7), "axes": (1, 2)}, {"s": (5, 2), "axes": (2, 1)}),
            )
        ]
        for name in ("fftn", "ifftn", "rfftn", "irfftn")
    },
    **{
        f"fft.{name}": [
            *_pairs(_normal, _normal, ((3, 5), (3, 5))),
            *_pairs(_normal, _normal, ((3, 4), (3, 4)), axes=(1,)),
        ]
        for name in ("fftshift", "ifftshift")
    },
}
"""Samples by the name of the function."""
