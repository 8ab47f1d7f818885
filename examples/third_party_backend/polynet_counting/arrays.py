"""An array library: NumPy's numbers, in arrays that count every operation.

Counting in the namespace alone would miss operators: `x * y` on NumPy's own arrays does not call
the namespace. So there is a thin class around NumPy's arrays.
"""

import operator
import time
from types import ModuleType

import array_api_compat.numpy as compat
import numpy as np

from polynet_counting.profiles import count


class Array:
    """An array to read and compute with; it can be mixed only with Python's numbers."""

    __array_ufunc__ = None  # a NumPy array on the left leaves the operation to this class
    __hash__ = None
    device = "cpu"

    def __init__(self, value):
        self.value = np.asarray(value)

    dtype = property(lambda self: self.value.dtype)
    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    T = property(lambda self: Array(self.value.T))
    mT = property(lambda self: Array(self.value.mT))  # noqa: N815 (the standard's name)

    def __array_namespace__(self, *, api_version=None):
        return xp

    def __array__(self, *args, **options):
        raise TypeError("an array that counts becomes NumPy's by polynet.to_numpy only")

    def __len__(self):
        return len(self.value)

    def __repr__(self):
        return f"counting {self.value!r}"


def counted(name, function):
    """A function of our arrays, made from one of NumPy's arrays, which counts its calls."""

    def call(*args, **options):
        args, options = opened(args), {key: opened(x) for key, x in options.items()}
        start = time.perf_counter()
        result = function(*args, **options)
        seconds = time.perf_counter() - start
        count(name, list(within([*args, *options.values()])), list(within(result)), seconds)
        return closed(result)

    return call


def within(x):
    """NumPy's arrays and scalars in `x`, also those inside lists and tuples."""
    if isinstance(x, np.ndarray | np.generic):
        yield x
    elif isinstance(x, list | tuple):
        for member in x:
            yield from within(member)


def opened(x):
    """`x` with each of our arrays replaced by NumPy's array inside it."""
    if isinstance(x, list | tuple):
        return type(x)(map(opened, x))
    return x.value if isinstance(x, Array) else x


def closed(x):
    """`x` with each of NumPy's arrays wrapped in one of ours."""
    if isinstance(x, list | tuple):
        members = map(closed, x)
        return type(x)(*members) if hasattr(x, "_fields") else type(x)(members)
    return Array(x) if isinstance(x, np.ndarray | np.generic) else x


# The operators, each counted as the function of the standard that it stands for

BINARY = """
    add add, sub subtract, mul multiply, truediv divide, floordiv floor_divide, mod remainder,
    pow pow, matmul matmul, and bitwise_and, or bitwise_or, xor bitwise_xor,
    lshift bitwise_left_shift, rshift bitwise_right_shift"""
OTHERS = """
    eq equal, ne not_equal, lt less, le less_equal, gt greater, ge greater_equal,
    neg negative, pos positive, abs abs, invert bitwise_invert"""


def pairs(text):
    return [pair.split() for pair in text.split(",")]


def method(name, standard, *, reflected=False):
    """The method behind an operator; for other classes, such as Tensor, their own is used."""
    call = counted(standard, getattr(operator, f"__{name}__"))

    def operate(self, *others):
        if not all(isinstance(x, Array | bool | int | float | complex) for x in others):
            return NotImplemented
        return call(*others, self) if reflected else call(self, *others)

    return operate


for name, standard in pairs(BINARY) + pairs(OTHERS):
    setattr(Array, f"__{name}__", method(name, standard))
for name, standard in pairs(BINARY):
    setattr(Array, f"__r{name}__", method(name, standard, reflected=True))
for convert in (bool, int, float, complex, operator.index):
    setattr(Array, f"__{convert.__name__}__", lambda self, convert=convert: convert(self.value))
Array.__getitem__ = counted("getitem", operator.getitem)


class Namespace:
    """The Array API namespace of these arrays: NumPy's, with every function counted."""

    def __init__(self, module, prefix=""):
        self._module, self._prefix = module, prefix

    def __getattr__(self, name):
        found = getattr(self._module, name)
        if isinstance(found, ModuleType):  # linalg, fft
            found = Namespace(found, f"{name}.")
        elif callable(found) and not isinstance(found, type):  # a type: float32, finfo
            found = counted(self._prefix + name, found)
        setattr(self, name, found)  # so that it is made once
        return found


xp = Namespace(compat)
