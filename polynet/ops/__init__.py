"""The functions of the standard that have derivatives, a file per chapter of the standard.

`namespace(backend)` is the differentiable namespace assembled from them.
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
