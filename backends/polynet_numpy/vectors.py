"""Sums and maxima in LLVM's vector types, for Numba, which by itself takes one number at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polynet_numpy import loops

WIDTH = 8


def register(numba: Any) -> None:
    """Let compiled loops call, for floats, `loops.sums_by_8` and `loops.largest_by_8`."""

    def larger(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", b, a), b, a)

    _register(numba, loops.sums_by_8, lambda builder, a, b: builder.fadd(a, b))
    _register(numba, loops.largest_by_8, larger)


def _register(numba: Any, name: Any, combine: Callable[[Any, Any, Any], Any]) -> None:
    """Let compiled loops call `name(x, start, count)`; vectors of 8 numbers are combined."""
    from llvmlite import ir
    from numba.core import cgutils

    types, whole = numba.types, numba.types.intp

    @numba.extending.intrinsic
    def by_8(_context: Any, x: Any, start: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(context.get_value_type(x.dtype), WIDTH)
            array = context.make_array(x)(context, builder, args[0])
            first = builder.gep(array.data, [args[1]])
            vectors = builder.bitcast(first, vector.as_pointer())

            def load(i: Any) -> Any:
                value = builder.load(builder.gep(vectors, [i]))
                value.align = x.dtype.bitwidth // 8
                return value

            zero, one = (context.get_constant(whole, i) for i in (0, 1))
            so_far = cgutils.alloca_once_value(builder, load(zero))
            with cgutils.for_range_slice(builder, one, args[2], one) as (i, _):
                builder.store(combine(builder, builder.load(so_far), load(i)), so_far)
            found = builder.load(so_far)
            lanes = [builder.extract_element(found, ir.IntType(32)(i)) for i in range(WIDTH)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(x.dtype, WIDTH)(x, whole, whole), generate

    @numba.extending.overload(name)
    def typed(x: Any, start: Any, count: Any) -> Any:
        def call(x: Any, start: Any, count: Any) -> Any:
            return by_8(x, start, count)

        return call
