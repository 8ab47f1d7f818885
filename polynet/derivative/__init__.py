"""Derivatives of functions of arrays, or of trees of them, on any backend and to any order.

Every derivative runs the function once on recorded arrays (`run.py`) and sweeps the record back.
`gradients.py` sweeps once, from one number. `products.py` sweeps from an array, and computes
forward derivatives by two sweeps. `matrices.py` sweeps from every element of the result.
"""

from polynet.derivative.gradients import differentiated, grad, stop_gradient, value_and_grad
from polynet.derivative.matrices import hessian, jacobian
from polynet.derivative.products import hvp, jvp, vjp

__all__ = [
    "differentiated",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
