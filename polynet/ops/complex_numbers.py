"""Complex numbers: real and imaginary part, conjugate, sign and absolute value.

The sweep carries back to a complex z = x + iy the gradient G = ∂f/∂x - i ∂f/∂y, so that
df = Re(G dz). With this convention, the pullback of a holomorphic w(z) multiplies by w'(z) without
a conjugate, so rules written for real numbers hold for complex ones. The functions here are not
holomorphic: they have rules of their own, and take the real part of a gradient that arrives at a
real result. The user gets the conjugate of G, ∂f/∂x + i ∂f/∂y, the direction in which f grows most,
as in PyTorch; for a real array, its real part.

Kreutz-Delgado, "The Complex Gradient Operator and the CR-Calculus" (2009).
"""

from __future__ import annotations

from polynet.tensor import in_dtype, op


def is_complex(xp, x):
    """Whether `x` holds complex numbers."""
    return xp.isdtype(x.dtype, "complex floating")


def real_only(xp, name, x):
    """Raise TypeError if `x` is complex: the derivative of `name` holds for real numbers only."""
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

    def pullback(g):  # without the component along x, which changes only |x|; 0 at x = 0
        size = xp.abs(x)
        return (g - xp.conj(y) * xp.real(g * y)) / xp.where(size == 0, 1, size) * xp.abs(y)

    return y, (pullback,)


def of_complex_abs(xp, x, y):
    """The pullback of y = |x| of complex x."""
    return lambda g: in_dtype(xp, g, y.dtype) * xp.conj(xp.sign(x))
