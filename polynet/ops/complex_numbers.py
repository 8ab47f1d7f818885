"""Complex numbers: real and imaginary part, conjugate, sign and absolute value.

What is carried back to a complex z = x + iy is G = ∂f/∂x - i ∂f/∂y, so that df = Re(G dz). Then a
holomorphic w(z) multiplies by w'(z), with no conjugate, and real rules serve complex numbers as
they are. The functions here are not holomorphic: they have rules of their own, and take the real
part of a gradient that arrives at a real result. The user gets the conjugate of G, the direction
in which f grows most: ∂f/∂x + i ∂f/∂y, as in PyTorch; for a real array, its real part.

Kreutz-Delgado, "The Complex Gradient Operator and the CR-Calculus" (2009).
"""

from __future__ import annotations

from polynet.tensor import op


def is_complex(xp, x):
    """Whether `x` holds complex numbers."""
    return xp.isdtype(x.dtype, "complex floating")


def in_dtype(xp, g, dtype):
    """A gradient in the dtype of its array: only its real part, where the array is real."""
    if g.dtype == dtype:
        return g
    if is_complex(xp, g) and not xp.isdtype(dtype, "complex floating"):
        g = xp.real(g)
    return xp.astype(g, dtype, copy=False)


def real_only(xp, name, x):
    """Refuse, by name, a derivative that holds for real numbers only."""
    if is_complex(xp, x):
        raise TypeError(
            f"polynet has no derivative of {name} for complex numbers, and got {x.dtype}; take it "
            "of polynet.stop_gradient(x), or write an op for it (polynet.op)"
        )


@op
def real(xp, x, /):
    y = xp.real(x)
    dtype, part = x.dtype, y.dtype
    return y, (lambda g: in_dtype(xp, in_dtype(xp, g, part), dtype),)


@op
def imag(xp, x, /):
    y = xp.imag(x)
    dtype, part = x.dtype, y.dtype
    if dtype == part:  # of real numbers: 0
        return y, None
    return y, (lambda g: in_dtype(xp, in_dtype(xp, g, part), dtype) * -1j,)


@op
def conj(xp, x, /):
    return xp.conj(x), (lambda g: xp.conj(g),)


@op
def sign(xp, x, /):  # x / |x|; locally constant where x is real
    y = xp.sign(x)
    if not is_complex(xp, x):
        return y, None

    def pullback(g):  # what changes |x| is taken out; 0 at x = 0
        size = xp.abs(x)
        return (g - xp.conj(y) * xp.real(g * y)) / xp.where(size == 0, 1, size) * xp.abs(y)

    return y, (pullback,)


def of_complex_abs(xp, x, y):
    """The pullback of y = |x| of complex x."""
    return lambda g: in_dtype(xp, g, y.dtype) * xp.conj(xp.sign(x))
