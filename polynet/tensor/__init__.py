"""The engine: arrays that record what happens to them, and the sweep back. It knows no formula.

Reverse-mode differentiation as in Griewank and Walther, *Evaluating Derivatives* (2008). Each
derivative being taken is a `Level`, which has a record (a tape): a list with a line for each
result. A line says from which earlier lines the result was computed, and how a gradient goes back
to them. A `Tensor` is a value, its level, and the number of its line.

Levels nest. An op unwraps the highest level among its inputs and runs its rule on the values
inside: plain arrays, or Tensors of lower levels, whose ops are recorded there in turn. Pullbacks
are array code too, so they can be differentiated, to any order.
"""

from polynet.tensor.arguments import highest_level, plain_backend, with_axis
from polynet.tensor.composition import checking, composition, real_composition
from polynet.tensor.recording import op, with_pullbacks
from polynet.tensor.rules import refuse_complex, told, told_class
from polynet.tensor.sweep import in_dtype, sweep
from polynet.tensor.values import (
    LINE,
    Level,
    Tensor,
    is_recorded,
    mixed,
    plain_value,
    without_level,
)

__all__ = [
    "LINE",
    "Level",
    "Tensor",
    "checking",
    "composition",
    "highest_level",
    "in_dtype",
    "is_recorded",
    "mixed",
    "op",
    "plain_backend",
    "plain_value",
    "real_composition",
    "refuse_complex",
    "sweep",
    "told",
    "told_class",
    "with_axis",
    "with_pullbacks",
    "without_level",
]
