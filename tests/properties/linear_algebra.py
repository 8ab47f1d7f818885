"""Products, decompositions, inverses and norms, of stacks of matrices that may be empty.

The singular values or eigenvalues of a matrix are far from 0 and from one another. Only then do
the singular vectors or eigenvectors have a derivative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.draws import (
    Draw,
    Sample,
    Samples,
    Shape,
    away_from_zero,
    axes,
    broadcastable,
    complex_numbers,
    generator,
    lesser,
    numbers,
    real_or_complex,
    sample,
    shapes,
)

stacks = st.sampled_from([(), (2,), (3, 1), (), (1,), (0,), (2, 0)])
lengths = st.sampled_from([2, 3, 1, 0])
sides = st.sampled_from([3, 2, 4, 1])


def matrix(draw: Draw, shape: Shape, *, of_complex: bool = False) -> np.ndarray:
    """Matrices whose singular values are about 1, 2, …"""
    rng = generator(draw)
    x = rng.normal(size=shape) + (1j * rng.normal(size=shape) if of_complex else 0)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    s = np.arange(s.shape[-1], 0, -1) + rng.uniform(-0.2, 0.2, s.shape)
    return np.asarray((u * s[..., None, :]) @ vh)


@st.composite
def square(draw: Draw) -> Sample:
    n = draw(sides)
    return sample(matrix(draw, (*draw(stacks), n, n), of_complex=draw(st.booleans())))


@st.composite
def oblong(draw: Draw) -> Sample:
    shape = *draw(stacks), draw(sides), draw(sides)
    return sample(matrix(draw, shape, of_complex=draw(st.booleans())))


def separate(draw: Draw, n: int, stack: Shape) -> np.ndarray:
    """Eigenvalues of about 1, 2, …"""
    return np.asarray(np.arange(1, n + 1) + generator(draw).uniform(-0.2, 0.2, (*stack, n)))


@st.composite
def diagonalisable(draw: Draw) -> Sample:
    """Matrices whose eigenvectors are far from dependent on one another."""
    n, stack, of_complex = draw(sides), draw(stacks), draw(st.booleans())
    v = matrix(draw, (*stack, n, n), of_complex=of_complex)
    w = separate(draw, n, stack) * (np.exp(1j * numbers(draw, (n,))) if of_complex else 1)
    return sample(np.asarray((v * w[..., None, :]) @ np.linalg.inv(v)))


@st.composite
def svd(draw: Draw) -> Sample:
    """`full_matrices` only for square matrices: other ones do not determine all of U and Vh."""
    (x,) = draw(oblong()).args
    return sample(x, full_matrices=x.shape[-2] == x.shape[-1] and draw(st.booleans()))


@st.composite
def hermitian(draw: Draw, **options: Any) -> Sample:
    n, stack = draw(sides), draw(stacks)
    q, _ = np.linalg.qr(matrix(draw, (*stack, n, n), of_complex=draw(st.booleans())))
    x = (q * separate(draw, n, stack)[..., None, :]) @ np.conj(np.swapaxes(q, -1, -2))
    return sample(np.asarray(x), **{name: draw(value) for name, value in options.items()})


@st.composite
def qr(draw: Draw) -> Sample:
    """The first columns are independent, and the mode is one in which x determines all of Q."""
    m, n, stack = draw(sides), draw(sides), draw(stacks)
    k, of_complex = min(m, n), draw(st.booleans())
    first = matrix(draw, (*stack, m, k), of_complex=of_complex)
    make = complex_numbers if of_complex else numbers
    x = np.concatenate([first, make(draw, (*stack, m, n - k))], axis=-1)
    return sample(x, mode=draw(st.sampled_from(["reduced", "complete"] if m <= n else ["reduced"])))


@st.composite
def solve(draw: Draw) -> Sample:
    """The stacks of x and y broadcast, or y is one vector."""
    n, of_complex = draw(sides), draw(st.booleans())
    make = complex_numbers if of_complex else numbers
    if draw(st.booleans()):
        x = matrix(draw, (*draw(stacks), n, n), of_complex=of_complex)
        return sample(x, make(draw, (n,)))
    left, right = draw(broadcastable(2, most=2))
    x = matrix(draw, (*left, n, n), of_complex=of_complex)
    return sample(x, make(draw, (*right, n, draw(st.integers(0, 3)))))


@st.composite
def matrix_power(draw: Draw) -> Sample:
    (x,) = draw(square()).args
    return sample(x, draw(st.integers(-2, 5)))


@st.composite
def vector_norm(draw: Draw) -> Sample:
    """Numbers with different absolute values: if two are equal, max and min have a kink."""
    shape = draw(shapes(side=1))
    x = away_from_zero(draw, shape)
    if draw(st.booleans()):
        x = np.asarray(x * np.exp(1j * numbers(draw, shape)))
    p = draw(st.sampled_from([1, 2, 3, 2.5, 0, -1, -2, math.inf, -math.inf]))
    return sample(x, ord=p, axis=axes(draw, len(shape)), keepdims=draw(st.booleans()))


@st.composite
def matrix_norm(draw: Draw) -> Sample:
    """For norms of row or column sums: positive numbers, so that no two of the sums are equal."""
    stack, m, n = draw(stacks), draw(sides), draw(sides)
    p = draw(st.sampled_from(["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf]))
    if p in ("fro", "nuc", 2, -2):
        x = matrix(draw, (*stack, m, n), of_complex=draw(st.booleans()))
    else:
        rows, columns = np.arange(1, m + 1)[:, None], np.arange(1, n + 1)
        x = (rows + 0.4 * columns) * away_from_zero(draw, (*stack, m, n), 0.95, 1.0)
    return sample(x, ord=p, keepdims=draw(st.booleans()))


@st.composite
def matmul(draw: Draw) -> Sample:
    """Vectors, matrices, and stacks that broadcast."""
    m, n, p = draw(st.tuples(lengths, lengths, lengths))
    left, right = draw(broadcastable(2, most=2))
    left, right = draw(
        st.sampled_from(
            [((*left, m, n), (*right, n, p))] * 2
            + [((n,), (*right, n, p)), ((*left, m, n), (n,)), ((n,), (n,))]
        )
    )
    return sample(real_or_complex(draw, left), real_or_complex(draw, right))


@st.composite
def vecdot(draw: Draw) -> Sample:
    n = draw(lengths)
    left, right = draw(broadcastable(2, most=2))
    axis = draw(st.integers(-1 - min(len(left), len(right)), -1))
    left, right = ((*s[: len(s) + axis + 1], n, *s[len(s) + axis + 1 :]) for s in (left, right))
    return sample(real_or_complex(draw, left), real_or_complex(draw, right), axis=axis)


@st.composite
def tensordot(draw: Draw) -> Sample:
    """Sum over the last axes of x and the first of y, or over any axes in any order."""
    shape = draw(shapes(least=2) | shapes())
    if draw(st.integers(0, 2)) == 0:
        count = draw(st.integers(0, len(shape)))
        other = (*shape[len(shape) - count :], *draw(shapes(most=1)))
        return sample(real_or_complex(draw, shape), real_or_complex(draw, other), axes=count)
    summed = draw(st.permutations(range(len(shape))))[: draw(st.sampled_from([2, 1, 3, 0]))]
    partners = [*(shape[a] for a in summed), *draw(shapes(most=1))]
    order = draw(st.permutations(range(len(partners))))
    other = tuple(partners[k] for k in order)
    back = [draw(st.sampled_from([0, len(order)])) for _ in summed]
    places = tuple(order.index(k) - n for k, n in enumerate(back))
    x, y = real_or_complex(draw, shape), real_or_complex(draw, other)
    return sample(x, y, axes=(tuple(summed), places))


@st.composite
def einsum(draw: Draw) -> Sample:
    """One to three arrays with any letters, some of size 1, some repeated, some with "..."."""
    sizes = {letter: draw(lengths) for letter in "abcd"}
    wide = draw(shapes(most=2))
    terms, arrays, dotted = [], [], False
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("abcd"), max_size=3))
        own = {a: draw(st.sampled_from([sizes[a], sizes[a], 1])) for a in letters}
        at = draw(st.sampled_from([None, None, *range(len(letters) + 1)]))
        shape = [own[a] for a in letters]
        if at is not None:
            shape[at:at], letters[at:at] = lesser(draw, wide), ["..."]
            dotted = True
        terms.append("".join(letters))
        arrays.append(real_or_complex(draw, tuple(shape)))
    equation = ",".join(terms)
    if draw(st.booleans()):
        once = dict.fromkeys(a for a in equation if a.isalpha())
        kept = [a for a in draw(st.permutations(list(once))) if draw(st.booleans())]
        kept[len(kept) // 2 : len(kept) // 2] = ["..."] if dotted else []
        equation += " -> " + "".join(kept)
    return sample(equation, *arrays)


@st.composite
def cross(draw: Draw) -> Sample:
    left, right = draw(broadcastable(2, most=2))
    axis = draw(st.integers(-1 - min(len(left), len(right)), -1))
    left, right = ((*s[: len(s) + axis + 1], 3, *s[len(s) + axis + 1 :]) for s in (left, right))
    return sample(real_or_complex(draw, left), real_or_complex(draw, right), axis=axis)


@st.composite
def outer(draw: Draw) -> Sample:
    m, n = draw(lengths), draw(lengths)
    return sample(real_or_complex(draw, (m,)), real_or_complex(draw, (n,)))


@st.composite
def with_offset(draw: Draw) -> Sample:
    x = real_or_complex(draw, draw(shapes(least=2, side=1)))
    return sample(x, offset=draw(st.integers(1 - x.shape[-2], x.shape[-1] - 1)))


PROPERTIES: dict[str, Samples] = {
    "matmul": matmul(),
    "vecdot": vecdot(),
    "tensordot": tensordot(),
    "einsum": einsum(),
    **dict.fromkeys("linalg.det linalg.inv linalg.slogdet".split(), square()),
    "linalg.solve": solve(),
    "linalg.matrix_power": matrix_power(),
    **dict.fromkeys("linalg.pinv linalg.svdvals".split(), oblong()),
    "linalg.svd": svd(),
    "linalg.qr": qr(),
    "linalg.cholesky": hermitian(upper=st.booleans()),
    **dict.fromkeys("linalg.eigh linalg.eigvalsh".split(), hermitian()),
    **dict.fromkeys("linalg.eig linalg.eigvals".split(), diagonalisable()),
    "linalg.vector_norm": vector_norm(),
    "linalg.matrix_norm": matrix_norm(),
    "linalg.cross": cross(),
    "linalg.outer": outer(),
    **dict.fromkeys("linalg.diagonal linalg.trace".split(), with_offset()),
}
