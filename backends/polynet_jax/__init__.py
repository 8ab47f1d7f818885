"""JAX's arrays on its devices; polynet computes the derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polynet import tree
from polynet.backend import Backend, left_alone, looped, not_captured, overwriting
from polynet.errors import MissingDependency, asked_by, warn

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

        On the CPU, each step that has a convolution is a program of its own, since XLA's
        convolutions take several times as long there inside a loop. A step that reads an array's
        value cannot be a program: once a call shows this, its steps run one operation at a time.
        """
        jax = self._jax

        def steps(state: Any, data: Any, rows: Any) -> Any:
            return jax.lax.scan(lambda s, r: step(s, data, r), state, rows)

        together, alone = (jax.jit(f, donate_argnums=0) for f in (steps, step))
        one_by_one = looped(self, alone)
        chosen: list[Callable[..., Any]] = []

        def taken(state: Any, data: Any, rows: Any) -> Any:
            try:
                if not chosen:
                    slow = jax.default_backend() == "cpu" and self._convolves(
                        step, state, data, rows
                    )
                    chosen.append(one_by_one if slow else together)
                return chosen[0](state, data, rows)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                first, *_ = str(error).splitlines()
                not_captured(
                    f"{first} ({asked_by(error, INNER)})",
                    required=getattr(step, "required", False),
                )
            chosen[:] = [looped(self, step)]
            return chosen[0](state, data, rows)

        def run(state: Any, data: Any, rows: Any) -> Any:
            try:
                with left_alone():  # JAX's arrays cannot be written to
                    return taken(state, data, rows)
            finally:
                donated = (a for a in tree.leaves(state) if isinstance(a, jax.Array))
                if any(a.is_deleted() for a in donated):
                    overwriting()

        return run

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(function)`; a function that reads an array's value runs op by op instead."""
        errors = self._jax.errors
        chosen = [self._jax.jit(function)]

        def call(*args: Any) -> Any:
            try:
                return chosen[0](*args)
            except (errors.JAXTypeError, errors.JAXIndexError) as error:
                if chosen[0] is function:
                    raise
                first, *_ = str(error).splitlines()
                warn(
                    "a network that reads an array's value predicts one operation at a time, which "
                    f"is slower: {first} ({asked_by(error, INNER)})"
                )
            chosen[0] = function
            return function(*args)

        return call

    def _convolves(self, step: Callable[..., Any], state: Any, data: Any, rows: Any) -> bool:
        return "conv_general_dilated" in str(self._jax.make_jaxpr(step)(state, data, rows[0, ...]))

    def synchronize(self) -> None:
        for array in self._jax.live_arrays():
            array.block_until_ready()


load = JaxBackend
