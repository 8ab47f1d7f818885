"""The class of all samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One call: its arguments, of which float64 arrays are differentiable, and its options.

    `needs` is a capability, by the standard's name, that a library may lack.
    """

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    needs: str = ""

    def __str__(self) -> str:
        shapes = [getattr(a, "shape", a) for a in self.args]
        return f"{shapes} {self.options or ''}".strip()
