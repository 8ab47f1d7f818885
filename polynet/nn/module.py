"""Modules: a network as a tree of layers, which hold described or drawn arrays.

Building a network only describes it: its parameters are `Parameter`s, each with a shape and an
initialiser. `init` returns a copy in which they are arrays, drawn on the host and put on a device.
A network is a value, which does not change: every training step makes another network, with new
arrays for its parameters. While a derivative is taken, the copy holds Tensors, so a layer's
`forward` reads like its formula. A training pass also needs random numbers, and renews buffers.
These are bound to the copy as its `Context`, so that no layer has to pass them on by hand.

Three words for a parameter are used here and below. Its *attribute* is its name in its layer
("weight"). A *path* leads to it from the network ("0.weight"); a shared parameter has several
paths. Its *name* is the first of its paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from polynet.backend import Array, Backend, asarray, common_backend, get_backend, use_backend
from polynet.derivative import stop_gradient
from polynet.errors import unknown
from polynet.nn.context import Context, RandomStream, Stream
from polynet.nn.described import Buffer, Described, Parameter, check_dtype, check_like
from polynet.pytorch_names import OF_A_MODULE, instead
from polynet.tensor import Tensor, told, told_class
from polynet.tree import leaves

_OWN = frozenset({"_described", "_names", "_path", "_context"})
"""The attributes that Module itself keeps in an instance."""


class Module:
    """A layer, or a network of layers.

    A subclass's `__init__` sets attributes: `Parameter`s, `Buffer`s, other modules (also in lists,
    tuples and dicts), and plain settings. Its `forward` computes the output from `self` and the
    inputs. It takes functions of several arrays from `polynet.array_namespace(x, self.weight)`,
    called with all of those arrays: in training the weight is recorded, while integers or other
    data are not.

    >>> from polynet import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self, size):
    ...         self.factor = nn.Parameter((size,), nn.init.ones)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> import numpy as np
    >>> Scale(2).init(seed=0, backend="numpy")(np.asarray([1.0, 2.0], dtype="float32"))
    array([1., 2.], dtype=float32)
    """

    _described: Mapping[str, Described | RandomStream] = {}
    _names: Mapping[str, str] = {}  # by attribute, in the network that was bound
    _path: str | None = None  # in that network; None before the parameters are drawn
    _context: Context | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls) and cls.__module__.startswith("polynet."):
            told_class(cls)

    def forward(self, *inputs: Any, **options: Any) -> Array:
        """The output for the inputs; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward(self, x)")

    def __call__(self, *inputs: Any, **options: Any) -> Array:
        if self._path is None and any(isinstance(t, Described) for t in self._described.values()):
            self.state_dict()  # raises an error, for the layer has no parameters yet
        if self._path == "" and not self.training:
            arrays = [a for a in leaves(options) if hasattr(a, "shape")]
            self._check_place([*leaves(inputs), *arrays])
        return self.forward(*inputs, **options)

    def _check_place(self, inputs: list[Array]) -> None:
        """Raise MixedBackendsError for plain inputs that are not where the parameters are."""
        arrays = (getattr(m, a) for _, m, a, t in self._places() if isinstance(t, Described))
        first = next(arrays, None)
        if first is None or type(first) is Tensor:
            return
        for x in inputs:
            if type(x) is not Tensor:
                common_backend((first, x), f"the parameters of {type(self).__name__} and its input")

    @property
    def training(self) -> bool:
        """Whether this network is the copy that a training pass works with."""
        return self._context is not None and self._context.training

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RESERVED:
            raise AttributeError(f"{type(self).__name__}: Module has a {name!r}; rename it")
        if self._path is not None:
            raise AttributeError(
                f"{self.label()} cannot set {name!r}: a network that has its parameters does not "
                "change itself; net.replace({name: array}) gives another one. For another layer, "
                "make the network anew, and give it the layers to keep: new.body = trained.body"
            )
        if isinstance(value, list | tuple | dict) and any(
            isinstance(leaf, Described) for leaf in leaves(value)
        ):
            raise TypeError(
                f"{type(self).__name__}: {name!r} holds Parameters in a {type(value).__name__}; "
                "set each as an attribute of its own, or put them into modules"
            )
        described = {n: thing for n, thing in self._described.items() if n != name}
        if isinstance(value, Described | RandomStream):
            described[name] = value
        self.__dict__["_described"] = described
        object.__setattr__(self, name, value)

    def label(self) -> str:
        """The name of this layer in errors: its path, kind and settings."""
        path = f"layer {self._path!r}, " if self._path else ""
        return f"{path}{type(self).__name__}({self.settings()})"

    def settings(self) -> str:
        """The layer's settings as text, which `repr` and errors show."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  {name}: {child!r}".replace("\n", "\n  ") for name, child in self._children()]
        settings = self.settings()
        if lines and settings:
            lines.insert(0, f"  {settings}")
        inside = "\n" + "\n".join(lines) + "\n" if lines else settings
        return f"{type(self).__name__}({inside})"

    # Walking

    def _children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if name not in _OWN:
                yield from _modules(name, value)

    def modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each with its path, in order of declaration."""
        yield path, self
        for name, child in self._children():
            yield from child.modules(_joined(path, name))

    def _places(self) -> Iterator[tuple[str, Module, str, Described | RandomStream]]:
        """Every description (of an array or a stream), after its path, its module and attribute."""
        for path, module in self.modules():
            for attribute, thing in module._described.items():
                yield _joined(path, attribute), module, attribute, thing

    def _names_by_path(self) -> dict[str, str]:
        """The name of the array or stream at each path."""
        if self._path == "":
            return {path: module._names[a] for path, module, a, _ in self._places()}
        first: dict[int, str] = {}  # the first path of each array, description or stream
        return {
            path: first.setdefault(id(getattr(m, a) if isinstance(d, Described) else d), path)
            for path, m, a, d in self._places()
        }

    def _first_places(self) -> Iterator[tuple[str, Module, str, Described | RandomStream]]:
        """The first place of every array and stream; the path of that place is its name."""
        names = self._names_by_path()
        return (place for place in self._places() if names[place[0]] == place[0])

    # Parameters and buffers

    @told
    def init(
        self,
        seed: int = 0,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """This network with its parameters and buffers drawn.

        The same seed gives the same bits on every backend; each parameter has a random stream of
        its own, named by its path. Parameters that are arrays already stay as they are. The
        backend is the one given, else the one chosen, else numpy. The default device is the
        backend's first. `dtype` is "float32" or "float64"; by default that of the parameters that
        are arrays already, as in a Trainer, else "float32".
        """
        dtype = self._own_dtype() if dtype is None else dtype
        check_dtype("init", dtype)
        target = get_backend(backend)
        native = target.device(device)
        paths = [path for path, *_ in self._places()]
        if len(set(paths)) < len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise ValueError(
                f"two different parameters, buffers or streams have the name {twice!r}; rename one"
            )
        drawn = self._arrays(Described)
        for name, thing in drawn.items():
            if isinstance(thing, Described):
                drawn[name] = target.from_host(thing.draw(seed, name, dtype), native)
        if drawn:
            with use_backend(target):  # which made these arrays, even if others take such arrays
                common_backend(drawn.values(), "the network's parameters")
        return self.bind(drawn)

    def _own_dtype(self) -> str:
        """The dtype in which parameters are drawn beside those that are arrays."""
        drawn = (p for p in self.parameters().values() if not isinstance(p, Described))
        first = next(drawn, None)
        return "float64" if str(getattr(first, "dtype", None)).endswith("float64") else "float32"

    def parameters(self) -> dict[str, Array]:
        """The parameters by name, in order of declaration; a shared one appears once.

        They are the arrays themselves: copy one before you change it.
        """
        return self._arrays(Parameter)

    def buffers(self) -> dict[str, Array]:
        """The buffers by name, likewise: arrays that the network keeps and that are not trained."""
        return self._arrays(Buffer)

    def _arrays(self, kind: type[Described]) -> dict[str, Array]:
        """The arrays of one kind by name, or their descriptions where they are not drawn yet."""
        return {
            path: getattr(module, attribute)
            for path, module, attribute, thing in self._first_places()
            if isinstance(thing, kind)
        }

    def aliases(self) -> dict[str, str]:
        """The paths of shared parameters and buffers other than their names, each with the name."""
        arrays = self._arrays(Described)
        names = self._names_by_path().items()
        return {path: name for path, name in names if path != name and name in arrays}

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by name: all that a checkpoint of the network holds.

        Raises RuntimeError before they are drawn.
        """
        arrays = self._arrays(Described)
        if any(isinstance(a, Described) for a in arrays.values()):
            raise RuntimeError(
                f"{type(self).__name__} has no parameters yet: draw them with net.init(seed=0), "
                "or train it with a Trainer and use trainer.net"
            )
        return arrays

    def replace(self, arrays: Mapping[str, Array]) -> Self:
        """This network with other arrays for all or some of its parameters and buffers, by name.

        Where the others are only described, they still are, for `init` or a Trainer to draw.
        Names, shapes and dtypes are checked, since the arrays may come from elsewhere. Within a
        training pass the copy trains too (dropout drops), and its buffers are those of the pass;
        `bind` gives a copy that predicts there.

        Raises KeyError for a name that the network does not have, ValueError for another shape,
        TypeError for another dtype. Within a training pass, ValueError also for another buffer.
        """
        now = self._arrays(Described)
        for name, array in arrays.items():
            if name not in now:
                raise KeyError(unknown("parameter", name, now))
            check_like(f"parameter {name!r}", array, now[name])
        if self._context is None:
            return self.bind({**now, **arrays})
        by_own_name = {}  # which is that in the whole network, as in the context
        for path, module, attribute, thing in self._first_places():
            if path not in now:
                continue
            array = arrays.get(path, now[path])
            if self.training and isinstance(thing, Buffer) and array is not now[path]:
                raise ValueError(
                    f"{self.label()}: buffer {path!r} belongs to a training pass: only its own "
                    "layer may change it, with `renew`"
                )
            by_own_name[module._names[attribute]] = array
        return self._bound(by_own_name, self._context, None, self._path or "")

    def bind(self, arrays: Mapping[str, Array], context: Context | None = None) -> Self:
        """A copy of this network for one pass, with these arrays and this context.

        It is for functions that are differentiated, and for every step. So nothing is checked, and
        the arrays may be recorded. For weights from elsewhere, use `replace`.

        `arrays` has every parameter; a buffer that it lacks stays as it is. With a training context
        the copy trains (dropout drops), and renews the buffers in `context.buffers`. Without one
        it predicts, also within a pass: `self.teacher.bind(self.teacher.state_dict())(x)`.
        """
        return self._bound(arrays, context, None if self._path == "" else self._names_by_path(), "")

    def renew(self, **buffers: Array) -> None:
        """Hand new values of this layer's buffers to the training pass, by attribute.

        From here on, the layer reads the new values in this pass, where it is used again. After
        the step they are the network's. No gradient goes through them.

        Raises RuntimeError outside training; KeyError, ValueError and TypeError as `replace`.
        """
        if self._context is None or not self.training:
            raise RuntimeError(
                f"{self.label()}: only a training pass renews buffers; check `if self.training:`"
            )
        names = [a for a, thing in self._described.items() if isinstance(thing, Buffer)]
        for attribute, array in buffers.items():
            if attribute not in names:
                raise KeyError(f"{self.label()}: {unknown('buffer', attribute, names)}")
            check_like(f"{self.label()}: buffer {attribute!r}", array, getattr(self, attribute))
            self._context.buffers[self._names[attribute]] = stop_gradient(array)

    if not TYPE_CHECKING:  # or a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """A buffer, in a training pass: the newest one that the pass knows."""
            if self.training and self._context is not None and name in self._names:
                return self._context.buffers[self._names[name]]
            if hasattr(type(self), name):  # a property that failed: its own error says why
                return object.__getattribute__(self, name)
            why = instead(name, OF_A_MODULE)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{why}")

    def _bound(
        self,
        arrays: Mapping[str, Array],
        context: Context | None,
        names: Mapping[str, str] | None,
        path: str,
    ) -> Self:
        """The copy of this module, at `path`.

        `names`, by path, are the names of a network of its own; with None, all keep their names.
        """
        copy = object.__new__(type(self))
        inside = copy.__dict__
        inside.update(self.__dict__)
        for attribute, value in self.__dict__.items():
            if isinstance(value, _HOLDERS) and attribute not in _OWN:
                inside[attribute] = _rebuilt(
                    value,
                    _joined(path, attribute),
                    lambda m, p: m._bound(arrays, context, names, p),
                )
        if names is not None:
            inside["_names"] = {a: names[_joined(path, a)] for a in self._described}
        for attribute, name in copy._names.items():
            thing = self._described[attribute]
            if isinstance(thing, Parameter):
                inside[attribute] = arrays[name]
            elif isinstance(thing, Buffer):
                inside[attribute] = arrays.get(name, getattr(self, attribute))
                if context is not None:
                    context.buffers.setdefault(name, inside[attribute])
                    if context.training:
                        del inside[attribute]  # `__getattr__` reads it from the pass instead
            elif context is not None:
                inside[attribute] = Stream(name, context)
        undrawn = self._path is None and (
            any(isinstance(value, Described) for value in inside.values())
            or any(child._path is None for _, child in copy._children())
        )
        inside["_path"] = None if undrawn else path
        inside["_context"] = context
        return copy

    def streams(self) -> tuple[str, ...]:
        """The names of the random streams."""
        return tuple(
            path for path, _, _, thing in self._first_places() if isinstance(thing, RandomStream)
        )

    @told
    def to(
        self,
        *,
        backend: str | Backend | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """This network with copies of its arrays on another backend or device, or in another dtype.

        `dtype` is "float32" or "float64"; a buffer that is described with a dtype keeps its own.

        >>> from polynet import nn
        >>> net = nn.Linear(2, 1).init(backend="numpy").to(dtype="float64")
        >>> net.weight.dtype
        dtype('float64')
        """
        if dtype is not None:
            check_dtype("to", dtype)
        arrays = self.state_dict()
        if backend is None:
            backend, here = common_backend(arrays.values(), "the network's parameters")
            names = (name for name, native in backend.devices().items() if native == here)
            device = device or next(names, None)
        fixed = {n for n, *_, thing in self._first_places() if getattr(thing, "dtype", None)}
        return self.bind(
            {
                n: asarray(a, backend=backend, device=device, dtype=None if n in fixed else dtype)
                for n, a in arrays.items()
            }
        )

    # For people

    def summary(self) -> str:
        """A table of the layers and the number of their parameters.

        >>> from polynet import nn
        >>> print(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).summary())
        layer  kind          parameters
        0      Linear(4, 2)          10
        1      ReLU()                 0
        total                        10
        """
        rows, total, seen = [("layer", "kind", "parameters")], 0, set()
        for path, module in self.modules():
            parameters = {id(t): t for t in module._described.values() if isinstance(t, Parameter)}
            count = sum(math.prod(t.shape) for i, t in parameters.items() if i not in seen)
            seen |= set(parameters)
            total += count
            if parameters or not list(module._children()):
                kind = f"{type(module).__name__}({module.settings()})"
                rows.append((path or "(itself)", kind, f"{count:,}"))
        rows.append(("total", "", f"{total:,}"))
        first, second, third = (max(len(row[i]) for row in rows) for i in range(3))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c:>{third}}" for a, b, c in rows)


_HOLDERS = (Module, list, tuple, dict)
"""Types that may hold layers. A constant, since `isinstance` with a union would build it anew."""
_RESERVED = frozenset(name for name in vars(Module) if not name.startswith("_"))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _modules(name: str, value: Any) -> Iterator[tuple[str, Module]]:
    """The modules in an attribute: itself, or those in its lists, tuples and dicts."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _modules(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _modules(f"{name}.{key}", item)


def _rebuilt(value: Any, path: str, rebuild: Callable[[Module, str], Module]) -> Any:
    """An attribute with every module in it rebuilt."""
    if isinstance(value, Module):
        return rebuild(value, path)
    if type(value) in (list, tuple):
        return type(value)(_rebuilt(v, f"{path}.{i}", rebuild) for i, v in enumerate(value))
    if type(value) is dict:
        return {k: _rebuilt(v, f"{path}.{k}", rebuild) for k, v in value.items()}
    if any(True for _ in _modules(path, value)):
        raise TypeError(
            f"{path!r} holds layers in a {type(value).__name__}; use a plain list, tuple or dict"
        )
    return value
