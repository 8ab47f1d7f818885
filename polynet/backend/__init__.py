"""What a plug-in must be; finding plug-ins and their states; choosing one; moving arrays."""

from polynet.backend.contract import CONTRACT, Array, Backend, check_loss, looped
from polynet.backend.overwrite import (
    allow_overwrite,
    left_alone,
    may_overwrite,
    nothing_written,
    overwrite_count,
    overwriting,
)
from polynet.backend.registry import Status, registry
from polynet.backend.selection import (
    AUTO_ORDER,
    PRECEDENCE,
    backend_of,
    chosen_backend,
    common_backend,
    get_backend,
    refresh,
    set_backend,
    use_backend,
)
from polynet.backend.static import ArrayRefs, StaticRunner, StaticStep
from polynet.backend.transfer import asarray, to_numpy
from polynet.backend.uncaptured import (
    DifferentReplayError,
    first_error,
    report_uncaptured,
    uncaptured_reason,
)

__all__ = [
    "AUTO_ORDER",
    "CONTRACT",
    "PRECEDENCE",
    "Array",
    "ArrayRefs",
    "Backend",
    "DifferentReplayError",
    "StaticRunner",
    "StaticStep",
    "Status",
    "allow_overwrite",
    "asarray",
    "backend_of",
    "check_loss",
    "chosen_backend",
    "common_backend",
    "first_error",
    "get_backend",
    "left_alone",
    "looped",
    "may_overwrite",
    "nothing_written",
    "overwrite_count",
    "overwriting",
    "refresh",
    "registry",
    "report_uncaptured",
    "set_backend",
    "to_numpy",
    "uncaptured_reason",
    "use_backend",
]
