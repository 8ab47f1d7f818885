"""Training steps as CUDA graphs: captured once, and replayed from then on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from polynet.backend import (
    Backend,
    StaticRunner,
    allow_overwrite,
    looped,
    overwriting,
    use_backend,
)
from polynet.errors import advising_on_memory

NO_MEMORY = 2
"""CUDA's number for cudaErrorMemoryAllocation."""
INNER = ("polynet_cupy", "cupy", "cupyx", "array_api_compat")
"""Packages that are left out when a user is shown the line of an error."""
Capture = Callable[[Callable[[], None]], Callable[[], object]]


def steps(backend: Backend, step: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    """What `Backend.compile` returns: all steps of a call are one captured graph, and one launch.

    `StaticRunner` sees them as one step. Its rows have shape (steps, batch), and its loss is the
    array of all their losses. From step to step the state stays in the memory where the last step
    left it.
    """
    static = StaticRunner(
        backend,
        looped(backend, allow_overwrite(step)),
        capture=capture,
        memory=backend.xp.memory,
        required=getattr(step, "required", False),
        inner=INNER,
    )

    def run(state: Any, data: Any, rows: Any) -> tuple[Any, Any]:
        here = backend.on(backend.device_of(rows))
        with here, advising_on_memory(rows.shape[-1]), use_backend(backend):  # and its precision
            state, losses = static(state, data, rows[None, ...])
            return state, losses[0, ...]

    # The contract asks for these two attributes; mypy does not know that functions may have some.
    run.refresh, run.replace = static.refresh, static.replace  # type: ignore[attr-defined]
    return run


class Capturer:
    """Captures the work of a training step on one device as a CUDA graph.

    The work is captured on a stream that belongs to this object, and nothing ever runs on that
    stream. A graph runs on the stream that is current when the steps are asked for, so it keeps its
    place among the other work on that stream. Memory that the step allocates during the capture
    comes from a pool that belongs to this object: the graph uses these addresses whenever it runs,
    so no other work may get them. The graphs of one capturer share the pool. They run one after
    another, and none of them leaves anything there that is read later. Other streams and pools stay
    as they are, with one exception: before a capture, the idle memory of CuPy's own pool goes back
    to the device, since the steps that ran before left as much there as the graph needs.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool(self._memory)
        self._pool.set_limit(size=0)  # the limit in CuPy's settings is meant for CuPy's own pool

    def _memory(self, size: int) -> Any:
        """Memory for the pool, which must never see CUDA's own error that the device is full.

        It would then free its idle memory, and that is where captured graphs keep their numbers.
        """
        found = self._allocated(size)
        if found is None:
            self._cupy.get_default_memory_pool().free_all_blocks()
            found = self._allocated(size)
        if found is None:
            raise self._cupy.cuda.memory.OutOfMemoryError(size, self._pool.total_bytes())
        return found

    def _allocated(self, size: int) -> Any:
        """Memory of the device, or None where the device has no more."""
        cuda = self._cupy.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            if error.status != NO_MEMORY:
                raise
            return None

    def capture(self, run: Callable[[], None]) -> Callable[[], object]:
        """A function that does the work of `run`; RuntimeError where that cannot be captured.

        Other threads may use the device during the capture: CuPy captures in relaxed mode.
        """
        graph = self._graph(run)

        def replay() -> Capturer:
            overwriting()
            graph.launch()
            return self  # the closure keeps the pool, and so the memory that the graph uses

        return replay

    def _graph(self, run: Callable[[], None]) -> Any:
        stream = self._stream
        self._cupy.get_default_memory_pool().free_all_blocks()
        with self._cupy.cuda.using_allocator(self._pool.malloc), stream:
            stream.begin_capture()
            try:
                run()
            except BaseException:
                with suppress(RuntimeError):  # ending a capture that failed raises as well
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        graph.upload()
        return graph
