"""Layers and networks: modules that hold parameters and call the functions below."""

from polynet.nn import init
from polynet.nn.activation import GELU, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from polynet.nn.container import Flatten, Sequential
from polynet.nn.dropout import Dropout
from polynet.nn.linear import Linear
from polynet.nn.module import Context, Module, Parameter, RandomStream, Stream

__all__ = [
    "GELU",
    "Context",
    "Dropout",
    "Flatten",
    "LeakyReLU",
    "Linear",
    "Module",
    "Parameter",
    "RandomStream",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Stream",
    "Tanh",
    "init",
]
