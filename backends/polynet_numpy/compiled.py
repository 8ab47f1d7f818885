"""Loops that Numba compiles, where it is installed: one pass over memory instead of several.

Each is compiled for a dtype at its first call, and kept on disk for the next process. Where Numba
is missing, or cannot compile, NumPy's own way runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np


def _adam(p, g, m, v, rate, floor, beta1, beta2, rest1, rest2, decay, shrink):  # noqa: ANN001, ANN202
    for i in range(p.size):
        d = g[i] + decay * p[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * (d * d)
        p[i] = p[i] * shrink - rate * (m[i] / (math.sqrt(v[i]) + floor))


@cache
def function(name: str, dtype: Any) -> Callable[..., Any] | None:
    try:
        import numba
    except ImportError:
        return None
    return numba.njit(_adam, cache=True, nogil=True, error_model="numpy")
