"""Settings of optimizers and schedules: checking them, and writing them as text."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any


def number(what: str, value: Any, *, above_0: bool = False, most: float = math.inf) -> float:
    """A finite number from 0, or above 0, to `most`, as a float; ValueError for anything else."""
    if not isinstance(value, bool) and isinstance(value, Real):
        plain = float(value)
        if 0 <= plain <= most and math.isfinite(plain) and (plain > 0 or not above_0):
            return plain
    bounds = "above 0" if above_0 else "at least 0"
    bounds += "" if most == math.inf else f" and at most {most:g}"
    raise ValueError(f"{what} is a number, {bounds}; got {value!r}")


def set_number(thing: object, name: str, *, above_0: bool = False, most: float = math.inf) -> None:
    """Make a setting of a frozen dataclass a float; ValueError unless it is such a `number`."""
    what = f"{type(thing).__name__}: {name}"
    value = number(what, getattr(thing, name), above_0=above_0, most=most)
    object.__setattr__(thing, name, value)


def text_of(value: object) -> str:
    """A setting as text, without addresses, which may differ when a saved run is continued."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def settings_of(thing: object) -> str:
    """The class of `thing` and its settings, in the form of a dataclass's repr."""
    words = ", ".join(f"{name}={text_of(value)}" for name, value in vars(thing).items())
    return f"{type(thing).__qualname__}({words})"
