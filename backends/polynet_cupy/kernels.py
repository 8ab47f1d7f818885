"""The kernels that CuPy uses in place of the definitions in `polynet`.

A kernel writes only to arrays that it made in the same call, before it returns them. One exception:
the optimizer of a compiled step may write over the state that belongs to the step. A kernel reads
nothing on the host, so it can be captured. All kernels are deterministic: sums have one order, and
no kernel uses atomics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polynet_cupy import optimizers
from polynet_cupy.attention import attention_weights, scaled_dot_product_attention
from polynet_cupy.convolution import convolution, convolution_transpose
from polynet_cupy.indexing import keep_mask, put_slice, segment_sum
from polynet_cupy.normalisation import batch_norm, layer_norm
from polynet_cupy.products import linear, linear_relu
from polynet_cupy.rows import cross_entropy, dropout, gelu, log_softmax, relu, softmax
from polynet_cupy.windows import avg_pool, max_pool

KERNELS: Mapping[str, Callable[..., Any]] = {
    **optimizers.KERNELS,
    **{
        kernel.__name__: kernel
        for kernel in (
            attention_weights, avg_pool, batch_norm, convolution, convolution_transpose,
            cross_entropy, dropout, gelu, keep_mask, layer_norm, linear, linear_relu, log_softmax,
            max_pool, put_slice, relu, scaled_dot_product_attention, segment_sum, softmax,
        )
    },
}  # fmt: skip
