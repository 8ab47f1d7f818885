"""A whole array library, and the plug-in for it: NumPy's numbers in arrays of its own.

It tests the way in. polynet knows nothing of it but its entry points; its arrays are nobody
else's, cannot be written to, are on one of two devices, and reach NumPy by `to_host` only. Its
dtypes can be compared with one another only, as those of some libraries.
"""

import operator

import array_api_compat.numpy as numpy
import numpy as np

from polynet.backend import Backend

DEVICES = {"loop:0": "loop:0", "loop:1": "loop:1"}
BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
COMPARISONS = "eq ne lt le gt ge".split()
UNARY = "neg pos abs invert".split()
CONVERSIONS = {t.__name__: t for t in (bool, int, float, complex, operator.index)}


class DType:
    """A dtype of NumPy's by its name, which raises where it is compared with what is no dtype."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)

    def __eq__(self, other):
        if not isinstance(other, DType):
            raise TypeError(f"{self} is compared with {other!r}, which is no dtype")
        return self.dtype == other.dtype

    def __hash__(self):
        return hash(self.dtype)

    def __repr__(self):
        return self.dtype.name


class Array:
    """An array that mixes with numbers and its own kind, on its own device."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, value, device):
        self.value = np.asarray(value)
        self.device = device

    dtype = property(lambda self: DType(self.value.dtype))
    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    T = property(lambda self: Array(self.value.T, self.device))
    mT = property(lambda self: Array(self.value.mT, self.device))

    def __array_namespace__(self, *, api_version=None):
        return xp

    def __array__(self, *args, **kwargs):
        raise TypeError("a loopback array does not become a NumPy array by itself")

    def __getitem__(self, key):
        return on_device(operator.getitem, self, key)

    def __len__(self):
        return len(self.value)

    def __repr__(self):
        return f"loopback.Array({self.value.tolist()}, {self.dtype}, {self.device!r})"


def on_device(function, *args, **options):
    """Call a function of NumPy on what is inside the arrays; its results stay on their device."""
    given = list(arrays_in([args, list(options.values())]))
    devices = {a.device for a in given} | {options.pop("device", None)} - {None}
    if len(devices) > 1:
        raise ValueError(f"arrays of several devices met: {', '.join(sorted(devices))}")
    device = next(iter(devices), "loop:0")
    result = function(*opened(args), **{name: opened(x) for name, x in options.items()})
    return closed(result, device)


def arrays_in(x):
    if isinstance(x, Array):
        yield x
    elif isinstance(x, list | tuple):
        for member in x:
            yield from arrays_in(member)


def opened(x):
    """`x` with NumPy's arrays and dtypes in place of ours."""
    if isinstance(x, list | tuple):
        return type(x)(map(opened, x))
    if isinstance(x, DType):
        return x.dtype
    return x.value if isinstance(x, Array) else x


def closed(x, device):
    """`x` with arrays and dtypes of ours in place of NumPy's."""
    if isinstance(x, np.dtype):
        return DType(x)
    if isinstance(x, list | tuple):
        members = [closed(member, device) for member in x]
        return type(x)(*members) if hasattr(x, "_fields") else type(x)(members)
    return Array(x, device) if isinstance(x, np.ndarray | np.generic) else x


def operation(name, *, reflected=False):
    function = getattr(operator, f"__{name}__")

    def method(self, *others):
        if not all(isinstance(x, Array | bool | int | float | complex) for x in others):
            return NotImplemented
        return on_device(function, *([*others, self] if reflected else [self, *others]))

    return method


for name in [*BINARY, *COMPARISONS, *UNARY]:
    setattr(Array, f"__{name}__", operation(name))
for name in BINARY:
    setattr(Array, f"__r{name}__", operation(name, reflected=True))
for name, convert in CONVERSIONS.items():
    setattr(Array, f"__{name}__", lambda self, convert=convert: convert(self.value))


class Info:
    """What the standard lets one ask of a library: NumPy's dtypes on our devices."""

    numpy = numpy.__array_namespace_info__()

    def capabilities(self):
        return self.numpy.capabilities()

    def default_device(self):
        return "loop:0"

    def devices(self):
        return list(DEVICES.values())

    def default_dtypes(self, *, device=None):
        return {kind: DType(dtype) for kind, dtype in self.numpy.default_dtypes().items()}

    def dtypes(self, *, device=None, kind=None):
        return {name: DType(dtype) for name, dtype in self.numpy.dtypes(kind=kind).items()}


class Namespace:
    """NumPy's Array API namespace, of our arrays."""

    __array_namespace_info__ = Info

    def __getattr__(self, name):
        found = getattr(numpy, name)
        if isinstance(found, type) and issubclass(found, np.generic):
            return DType(found)
        if not callable(found) or isinstance(found, type):
            return found
        return lambda *args, **options: on_device(found, *args, **options)


xp = Namespace()


class LoopbackBackend(Backend):
    name = "loopback"
    contract = 1
    version = np.__version__
    xp = xp

    def devices(self):
        return DEVICES

    def is_array(self, x):
        return isinstance(x, Array)

    def from_host(self, array, device):
        return Array(np.array(array), device)

    def to_host(self, array):
        return np.array(array.value)


load = LoopbackBackend
