"""Checks of settings."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def number(
    what: str, value: Any, *, above: float = -1.0, least: float = 0.0, most: float = math.inf
) -> float:
    """A finite number in the bounds given, as a float; raise ValueError for anything else."""
    if not isinstance(value, bool) and isinstance(value, Real):
        plain = float(value)
        if above < plain and least <= plain <= most and math.isfinite(plain):
            return plain
    bounds = "above 0" if above == 0 else f"at least {least:g}"
    bounds += "" if most == math.inf else f" and at most {most:g}"
    raise ValueError(f"{what} is a number, {bounds}; got {value!r}")
