"""JAX's arrays on its devices; polynet computes the derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet import tree
from polynet.backend import Backend, left_alone, looped, overwriting, report_uncaptured
from polynet.errors import MissingDependency, users_line, warn

WIDE = ("float64", "int64", "uint64", "complex128")
INNER = ("polynet_jax", "jax", "jaxlib", "array_api_compat")
"""Packages whose lines are not shown to a user."""
INSTALL = "pip install 'polynet-array[jax]'"


class JaxBackend(Backend):
    name = "jax"
    contract = 1
    steps_per_call = 16

    def __init__(self) -> None:
        try:
            import jax
        except ImportError as error:
            raise MissingDependency("JAX", INSTALL) from error
        from polynet_jax.kernels import KERNELS

        self.xp = jax.numpy
        self.kernels = KERNELS
        self._jax = jax
        self.version = jax.__version__

    def devices(self) -> Mapping[str, Any]:
        found = {f"{d.platform}:{d.id}": d for d in self._jax.devices()}
        return {"cpu": found["cpu:0"]} if list(found) == ["cpu:0"] else found

    def device_of(self, array: Any) -> Any:
        if isinstance(array, self._jax.core.Tracer):
            return None  # inside jit, an array has no device yet
        (device,) = array.devices()
        return device

    def is_array(self, x: object) -> bool:
        return isinstance(x, self._jax.Array)

    def probe(self, device: Any) -> None:
        with self._jax.ensure_compile_time_eval():  # polynet's first use may be inside jit
            super().probe(device)

    def from_host(self, array: np.ndarray, device: Any) -> Any:
        if array.dtype.name in WIDE and not self._jax.config.jax_enable_x64:
            raise TypeError(
                f"JAX would turn {array.dtype} into 32 bits; give a 32-bit dtype, or allow 64 bits "
                "with jax.config.update('jax_enable_x64', True)"
            )
        # JAX may share a NumPy array's memory even where it is asked to copy.
        return self._jax.device_put(np.array(array), device)

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array)

    def owned(self, array: Any) -> Any:
        return array  # it cannot change, so sharing is safe

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The steps of a call as one program: a scan under jit, whose state is donated.

        On the CPU, a step with a convolution is a program of its own, since XLA's convolutions are
        several times slower inside a loop there. A step that reads an array's value cannot be
        compiled: from the call that shows this on, steps run one operation at a time.
        """
        jax = self._jax
        compiled: Callable[..., Any] | None = None  # chosen by the first call

        def choose(state: Any, data: Any, rows: Any) -> Callable[..., Any]:
            if jax.default_backend() == "cpu" and self._convolves(step, state, data, rows):
                return looped(self, jax.jit(step, donate_argnums=0))

            def steps(state: Any, data: Any, rows: Any) -> Any:
                return jax.lax.scan(lambda s, r: step(s, data, r), state, rows)

            return jax.jit(steps, donate_argnums=0)

        def take(state: Any, data: Any, rows: Any) -> Any:
            nonlocal compiled
            try:
                compiled = compiled or choose(state, data, rows)
                return compiled(state, data, rows)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                report_uncaptured(_why(error), required=getattr(step, "required", False))
            compiled = looped(self, step)
            return compiled(state, data, rows)

        def run(state: Any, data: Any, rows: Any) -> Any:
            try:
                with left_alone():  # JAX's arrays cannot be written to
                    return take(state, data, rows)
            finally:
                donated = (a for a in tree.leaves(state) if isinstance(a, jax.Array))
                if any(a.is_deleted() for a in donated):
                    overwriting()

        return run

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(function)`; a function that reads an array's value runs op by op instead."""
        errors = self._jax.errors
        compiled = self._jax.jit(function)

        def call(*args: Any) -> Any:
            nonlocal compiled
            try:
                return compiled(*args)
            except (errors.JAXTypeError, errors.JAXIndexError) as error:
                if compiled is function:
                    raise
                warn(
                    "a network that reads an array's value predicts one operation at a time, which "
                    f"is slower: {_why(error)}"
                )
            compiled = function
            return function(*args)

        return call

    def _convolves(self, step: Callable[..., Any], state: Any, data: Any, rows: Any) -> bool:
        return "conv_general_dilated" in str(self._jax.make_jaxpr(step)(state, data, rows[0, ...]))

    def synchronize(self) -> None:
        for array in self._jax.live_arrays():
            array.block_until_ready()


def _why(error: Exception) -> str:
    """The first line of one of JAX's errors, and the user's line that raised it."""
    return f"{str(error).splitlines()[0]} ({users_line(error, INNER)})"


load = JaxBackend
