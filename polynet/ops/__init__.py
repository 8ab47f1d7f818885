"""The functions of the standard that have derivatives, a file per chapter of the standard.

`namespace(backend)` is the differentiable namespace assembled from them. A helper called `_of_f`
is the pullback of f, and one called `_to_x` is the pullback to its argument x.
"""

from polynet.ops import operators as _operators  # noqa: F401  (gives Tensor its operators)
from polynet.ops.differentiable import (
    EXTENSIONS,
    LOCALLY_CONSTANT,
    OPS,
    Namespace,
    array_namespace,
    namespace,
)

__all__ = ["EXTENSIONS", "LOCALLY_CONSTANT", "OPS", "Namespace", "array_namespace", "namespace"]
