"""What a function of the namespace is called with, for any derivative to be checked there.

`PROPERTIES` has a strategy of calls for every function that can be differentiated, by name;
`FUNCTIONS` has those functions. A chapter of the standard is a module here.
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
