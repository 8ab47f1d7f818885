"""Random calls of the namespace's functions, at which any derivative can be checked.

`PROPERTIES` maps the name of every differentiable function to a strategy that draws calls of it.
`FUNCTIONS` maps the names to the functions. Each module here is one chapter of them.
"""

from __future__ import annotations

from polynet.testing.suite.cases import by_name
from properties import (
    activation,
    elementwise,
    fourier,
    indexing,
    linear_algebra,
    losses,
    manipulation,
    networks,
    operators,
    statistical,
    windows,
)

CHAPTERS = (
    activation,
    elementwise,
    fourier,
    indexing,
    linear_algebra,
    losses,
    manipulation,
    networks,
    operators,
    statistical,
    windows,
)

PROPERTIES = {name: calls for chapter in CHAPTERS for name, calls in chapter.PROPERTIES.items()}
FUNCTIONS = by_name()
for chapter in (elementwise, fourier, manipulation, operators):
    FUNCTIONS |= chapter.FUNCTIONS
