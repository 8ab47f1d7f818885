"""Functions of networks, composed from the standard's.

Each composition is the definition of what it computes, on every backend and to any order of
derivative; a backend may bring a kernel of the same name. Where the derivative of the whole is
shorter than that of its parts, as for `softmax`, the definition is an op of its own.
"""

from typing import TYPE_CHECKING

from polynet.functional.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    linear_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    silu,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from polynet.functional.attention import attention_weights, scaled_dot_product_attention
from polynet.functional.convolution import convolution, convolution_transpose
from polynet.functional.dropout import alpha_dropout, dropout
from polynet.functional.einsum import einsum
from polynet.functional.elementary import erf, sigmoid
from polynet.functional.linear import linear
from polynet.functional.normalisation import (
    batch_norm,
    batch_norm_inference,
    group_norm,
    layer_norm,
    rms_norm,
    standardised,
)
from polynet.functional.padding import pad
from polynet.functional.pooling import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool
from polynet.functional.probabilities import log_softmax, logsumexp, softmax, softmin
from polynet.functional.recurrent import gru, lstm, rnn
from polynet.functional.resampling import interpolate
from polynet.ops.assignment import setitem
from polynet.ops.indexing import put_slice, segment_sum
from polynet.pytorch_names import named_in

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "alpha_dropout",
    "attention_weights",
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "celu",
    "convolution",
    "convolution_transpose",
    "dropout",
    "einsum",
    "elu",
    "erf",
    "gelu",
    "glu",
    "group_norm",
    "gru",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "interpolate",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_relu",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "lstm",
    "max_pool",
    "mish",
    "pad",
    "prelu",
    "put_slice",
    "relu",
    "relu6",
    "rms_norm",
    "rnn",
    "scaled_dot_product_attention",
    "segment_sum",
    "selu",
    "setitem",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "standardised",
    "tanh",
    "tanhshrink",
    "threshold",
]

if not TYPE_CHECKING:  # or a type checker would believe that every name exists
    __getattr__ = named_in(__name__, __all__)
