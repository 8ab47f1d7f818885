"""Activation functions, elementwise except `glu`.

At a kink the derivative is PyTorch's. Comparisons are written so that NaN stays NaN. The branch of
a `where` that is not taken must not overflow: its gradient would be 0·∞.
"""

from __future__ import annotations

import math

from polynet.errors import unknown
from polynet.functional.dropout import SELU_ALPHA, SELU_SCALE
from polynet.functional.elementary import erf, sigmoid
from polynet.functional.linear import by_rows, linear
from polynet.ops.indexing import normalise_axis
from polynet.tensor import composition, real_composition, with_pullbacks

# Piecewise linear


@real_composition
def relu(xp, x, /):
    """max(x, 0), elementwise; at 0 the derivative is 0.

    >>> import numpy as np
    >>> relu(np.asarray([-1.0, 2.0]))
    array([0., 2.])
    """
    return xp.where(x <= 0, 0, x)


@real_composition
def linear_relu(xp, x, weight, bias=None):
    """max(x Wᵀ + b, 0): `relu` of `linear`, which a backend may compute in one kernel.

    >>> import numpy as np
    >>> linear_relu(np.asarray([[1.0, 2.0]]), np.asarray([[3.0, -4.0], [1.0, 1.0]]))
    array([[0., 3.]])
    """
    if x.ndim > 2:
        return by_rows(xp, linear_relu, x, weight, bias)
    return relu(linear(x, weight, bias))


@real_composition
def leaky_relu(xp, x, /, *, negative_slope=0.01):
    """x where x > 0, else `negative_slope`·x, elementwise."""
    return xp.where(x <= 0, x * negative_slope, x)


@real_composition
def prelu(xp, x, weight, /):
    """x where x > 0, else weight·x; `weight` has one number, or one for each channel (axis 1).

    He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    slopes = xp.reshape(weight, (*weight.shape, *(1 for _ in x.shape[2:])) if x.ndim else ())
    return xp.where(x > 0, x, _at_most_0(xp, x) * slopes)


@real_composition
def threshold(xp, x, /, *, threshold, value):
    """x where x > `threshold`, else `value`, elementwise."""
    return xp.where(x <= threshold, value, x)


@real_composition
def hardtanh(xp, x, /, *, min_val=-1.0, max_val=1.0):
    """min(max(x, min_val), max_val), elementwise; at both ends the derivative is 0.

    >>> import numpy as np
    >>> hardtanh(np.asarray([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    """
    return xp.where(x <= min_val, min_val, xp.where(x >= max_val, max_val, x))


@real_composition
def relu6(xp, x, /):
    """min(max(x, 0), 6), elementwise."""
    return hardtanh(x, min_val=0.0, max_val=6.0)


@real_composition
def hardsigmoid(xp, x, /):
    """min(max(x + 3, 0), 6) / 6, elementwise: three lines close to `sigmoid`."""
    return relu6(x + 3) / 6


@real_composition
def hardswish(xp, x, /):
    """x·hardsigmoid(x), elementwise: close to `silu`.

    Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """
    return x * hardsigmoid(x)


@real_composition
def hardshrink(xp, x, /, *, lambd=0.5):
    """x where |x| > lambd, else 0, elementwise."""
    return xp.where(xp.abs(x) <= lambd, 0, x)


@real_composition
def softshrink(xp, x, /, *, lambd=0.5):
    """sign(x)·max(|x| - lambd, 0), elementwise."""
    return xp.where(xp.abs(x) <= lambd, 0, x - xp.sign(x) * lambd)


# Smooth


@composition
def tanh(xp, x, /):
    """tanh(x), elementwise."""
    return xp.tanh(x)


@composition
def tanhshrink(xp, x, /):
    """x - tanh(x), elementwise."""
    return x - xp.tanh(x)


@real_composition
def softsign(xp, x, /):
    """x / (1 + |x|), elementwise."""
    return x / (1 + xp.abs(x))


@real_composition
def elu(xp, x, /, *, alpha=1.0):
    """x where x > 0, else alpha·(exp(x) - 1), elementwise.

    Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential
    Linear Units" (2016).
    """
    return xp.where(x > 0, x, xp.expm1(_at_most_0(xp, x)) * alpha)


@real_composition
def celu(xp, x, /, *, alpha=1.0):
    """x where x > 0, else alpha·(exp(x / alpha) - 1), elementwise: `elu` without a kink.

    Barron, "Continuously Differentiable Exponential Linear Units" (2017).
    """
    return xp.where(x > 0, x, xp.expm1(_at_most_0(xp, x) / alpha) * alpha)


@real_composition
def selu(xp, x, /):
    """1.0507·elu(x, alpha=1.6733), elementwise: it keeps mean 0 and variance 1.

    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    return elu(x, alpha=SELU_ALPHA) * SELU_SCALE


@real_composition
def gelu(xp, x, /, *, approximate="none"):
    """x·Φ(x), with Φ the distribution function of the standard normal, elementwise.

    `approximate` is "none", for the exact form with `erf`, or "tanh", for Φ(x) ≈
    (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2. Hendrycks and Gimpel, "Gaussian Error Linear Units"
    (2016).
    """
    if approximate == "none":
        return x * (erf(x * math.sqrt(0.5)) * 0.5 + 0.5)
    if approximate != "tanh":
        raise ValueError(unknown("approximate", approximate, ("none", "tanh")))
    z = hardtanh(x, min_val=-10.0, max_val=10.0)  # beyond, tanh is ±1, and z³ may overflow
    return x * (xp.tanh((z + z * z * z * 0.044715) * math.sqrt(2 / math.pi)) * 0.5 + 0.5)


@real_composition
def silu(xp, x, /):
    """x·sigmoid(x), elementwise; also called swish. Elfwing, Uchibe and Doya (2017)."""
    return x * sigmoid(x)


@real_composition
def softplus(xp, x, /, *, beta=1.0, threshold=20.0):
    """log(1 + exp(beta·x)) / beta, elementwise; x itself where beta·x > `threshold`."""
    z = x * beta
    return xp.where(z > threshold, x, _softplus(z) / beta)


@real_composition
def logsigmoid(xp, x, /):
    """log sigmoid(x), elementwise, without overflow.

    >>> import numpy as np
    >>> logsigmoid(np.asarray([-1000.0, 1000.0]))
    array([-1000.,    -0.])
    """
    return -_softplus(-x)


@real_composition
def mish(xp, x, /):
    """x·tanh(log(1 + exp(x))), elementwise. Misra, "Mish" (2019)."""
    return x * xp.tanh(_softplus(x))


@real_composition
def glu(xp, x, /, *, axis=-1):
    """a·sigmoid(b), where a and b are the halves of `x` along `axis`.

    Dauphin et al., "Language Modeling with Gated Convolutional Networks" (2017). Raises
    ValueError for an axis of odd length.
    """
    axis = normalise_axis(axis, x.ndim)
    half, odd = divmod(x.shape[axis], 2)
    if odd:
        raise ValueError(f"glu halves an axis of even length; axis {axis} of {x.shape} is not")
    halves = xp.reshape(x, (*x.shape[:axis], 2, half, *x.shape[axis + 1 :]))
    a, b = xp.unstack(halves, axis=axis)
    return a * sigmoid(b)


# Shared by several


def _at_most_0(xp, x):
    """min(x, 0), with slope 1 at 0: its exp does not overflow."""
    return xp.where(x > 0, 0, x)


@with_pullbacks(lambda xp, g, x: g * sigmoid(x))
def _softplus(xp, x, /):
    """log(1 + exp(x)), without overflow."""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))
