"""Layers and networks: modules that hold parameters and call the functions below."""

from polynet.nn import init
from polynet.nn.activation import GELU, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from polynet.nn.attention import MultiheadAttention, TransformerEncoderLayer
from polynet.nn.batch_norm import BatchNorm1d, BatchNorm2d
from polynet.nn.container import Flatten, Identity, Sequential
from polynet.nn.convolution import Conv1d, Conv2d
from polynet.nn.described import Buffer, Context, Parameter, RandomStream, Stream
from polynet.nn.dropout import Dropout
from polynet.nn.embedding import Embedding
from polynet.nn.linear import Linear
from polynet.nn.module import Module
from polynet.nn.normalisation import LayerNorm
from polynet.nn.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "GELU",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Context",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Module",
    "MultiheadAttention",
    "Parameter",
    "RandomStream",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Stream",
    "Tanh",
    "TransformerEncoderLayer",
    "init",
]
