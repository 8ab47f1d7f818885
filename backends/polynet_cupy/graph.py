"""Training steps as CUDA graphs: recorded once, replayed from then on."""

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
"""Packages whose lines no user looks for."""
Capture = Callable[[Callable[[], None]], Callable[[], object]]


def steps(backend: Backend, step: Callable[..., Any], capture: Capture) -> Callable[..., Any]:
    """What `Backend.compile` returns: all steps of a call are one recording, and one launch.

    To the `StaticRunner` they are one step, whose rows are (steps, batch), and whose loss is all
    their losses. Between them the state stays in the memory where each step left it.
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

    # attributes, as the contract says; a function may have some
    run.refresh, run.replace = static.refresh, static.replace  # type: ignore[attr-defined]
    return run


class Recorder:
    """Records what a training step starts on one device, as a CUDA graph.

    Work is recorded on a stream of this object's own, on which nothing ever runs: a graph runs on
    the stream that is current where the steps are asked for, so in the order of whatever else is
    started there. What the step allocates while it is recorded comes from a memory pool of this
    object's own, since the graph uses these addresses whenever it runs: no other work may get
    them. The graphs of one recorder share the pool; they run one after another, and leave nothing
    there that is read later. Streams and pools that are anybody else's are left as they are, but
    for what CuPy's own pool has lying idle: that goes back to the device, since the steps that ran
    before the recording left as much there as the graph needs.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool(self._memory)
        self._pool.set_limit(size=0)  # CuPy's own setting of a limit is for its own pool

    def _memory(self, size: int) -> Any:
        """Memory for the pool, which must never hear that the device has no more.

        It would free what lies idle in it, and there graphs that were recorded have their numbers.
        """
        cuda = self._cupy.cuda
        for last in (False, True):
            try:
                return cuda.MemoryPointer(cuda.Memory(size), 0)
            except cuda.runtime.CUDARuntimeError as error:
                if error.status != NO_MEMORY:
                    raise
                if last:
                    total = self._pool.total_bytes()
                    raise cuda.memory.OutOfMemoryError(size, total) from error
                self._cupy.get_default_memory_pool().free_all_blocks()
        raise AssertionError

    def record(self, run: Callable[[], None]) -> Callable[[], object]:
        """What `run` starts, as a function that does it; RuntimeError where it cannot be recorded.

        Other threads may go on using the device meanwhile: CuPy captures in relaxed mode.
        """
        graph = self._graph(run)

        def replay() -> Recorder:
            overwriting()
            graph.launch()
            return self  # which keeps the memory that the graph uses

        return replay

    def _graph(self, run: Callable[[], None]) -> Any:
        stream = self._stream
        self._cupy.get_default_memory_pool().free_all_blocks()
        with self._cupy.cuda.using_allocator(self._pool.malloc), stream:
            stream.begin_capture()
            try:
                run()
            except BaseException:
                with suppress(RuntimeError):  # ending a recording that failed fails, too
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        graph.upload()
        return graph
