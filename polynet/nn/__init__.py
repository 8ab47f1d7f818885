"""Layers and networks: modules that hold parameters and call the functions below."""

from typing import TYPE_CHECKING

from polynet.nn import init
from polynet.nn.activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from polynet.nn.attention import (
    MultiheadAttention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from polynet.nn.batch_norm import BatchNorm1d, BatchNorm2d
from polynet.nn.container import Flatten, Identity, Sequential
from polynet.nn.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from polynet.nn.described import Buffer, Context, Parameter, RandomStream, Stream
from polynet.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d
from polynet.nn.embedding import Embedding
from polynet.nn.linear import Linear
from polynet.nn.module import Module
from polynet.nn.normalisation import GroupNorm, InstanceNorm1d, InstanceNorm2d, LayerNorm, RMSNorm
from polynet.nn.padding import ZeroPad2d
from polynet.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
)
from polynet.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from polynet.nn.resampling import Upsample
from polynet.pytorch_names import named_in

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AlphaDropout",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Context",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "Mish",
    "Module",
    "MultiheadAttention",
    "PReLU",
    "Parameter",
    "RMSNorm",
    "RNNCell",
    "RandomStream",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Stream",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "Upsample",
    "ZeroPad2d",
    "init",
]

if not TYPE_CHECKING:  # or a type checker would believe that every name exists
    __getattr__ = named_in(__name__, __all__)
