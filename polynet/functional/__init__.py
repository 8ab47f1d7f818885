"""Functions of networks, composed from the standard's.

Each composition is the definition of what it computes, on every backend and to any order of
derivative; a backend may bring a kernel of the same name. Some are ops of their own: `erf` and
`sigmoid`, which the standard lacks, and those whose derivative is shorter than that of their
parts.
"""

from polynet.functional.attention import attention_weights, scaled_dot_product_attention
from polynet.functional.convolution import convolution
from polynet.functional.elementary import (
    dropout,
    erf,
    flatten,
    gelu,
    leaky_relu,
    linear,
    log_softmax,
    logsumexp,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from polynet.functional.normalisation import (
    batch_norm,
    batch_norm_inference,
    layer_norm,
    standardised,
)
from polynet.functional.pooling import avg_pool, max_pool
from polynet.ops.assignment import setitem
from polynet.ops.indexing import put_slice, segment_sum

__all__ = [
    "attention_weights",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "convolution",
    "dropout",
    "erf",
    "flatten",
    "gelu",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "put_slice",
    "relu",
    "scaled_dot_product_attention",
    "segment_sum",
    "setitem",
    "sigmoid",
    "softmax",
    "standardised",
    "tanh",
]
