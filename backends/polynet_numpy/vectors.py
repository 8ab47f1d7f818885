"""A sum in LLVM's vector types, for Numba, which by itself would add one number at a time."""

from __future__ import annotations

from typing import Any

from polynet_numpy import loops


def register(numba: Any) -> None:
    """Let compiled loops call `loops.sums_by_8` of floats, adding 8 by one operation."""
    from llvmlite import ir
    from numba.core import cgutils

    types, whole = numba.types, numba.types.intp

    @numba.extending.intrinsic
    def sums(_context: Any, x: Any, start: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(context.get_value_type(x.dtype), 8)
            array = context.make_array(x)(context, builder, args[0])
            first = builder.gep(array.data, [args[1]])
            vectors = builder.bitcast(first, vector.as_pointer())

            def load(i: Any) -> Any:
                value = builder.load(builder.gep(vectors, [i]))
                value.align = x.dtype.bitwidth // 8
                return value

            zero, one = (context.get_constant(whole, i) for i in (0, 1))
            total = cgutils.alloca_once_value(builder, load(zero))
            with cgutils.for_range_slice(builder, one, args[2], one) as (i, _):
                builder.store(builder.fadd(builder.load(total), load(i)), total)
            found = builder.load(total)
            lanes = [builder.extract_element(found, ir.IntType(32)(i)) for i in range(8)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(x.dtype, 8)(x, whole, whole), generate

    @numba.extending.overload(loops.sums_by_8)
    def typed(x: Any, start: Any, count: Any) -> Any:
        def by_vectors(x: Any, start: Any, count: Any) -> Any:
            return sums(x, start, count)

        return by_vectors
