"""Networks as ONNX files, which other programs run: in C++, in a browser, on a phone.

The network's own code runs on the arrays of ndonnx, as on those of any other library of the
standard. These arrays are ONNX graphs, so the network's outputs are the graph for the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from polynet.backend import to_numpy, use_backend
from polynet.data import inputs
from polynet.data.named import each
from polynet.data.place import place_for
from polynet.errors import MissingDependency
from polynet.files import check_folder, replace_file
from polynet.nn import Module
from polynet.scores import applied
from polynet.step import call
from polynet.tree import paths

try:
    import ndonnx
    import onnx
    from onnx.numpy_helper import from_array

    from polynet.onnx.graphs import Graphs
    from polynet.onnx.samples import merged
except ImportError as error:
    raise MissingDependency("ndonnx", "pip install 'polynet-array[onnx]'") from error

__all__ = ["export"]

COUNTS = (2, 3, 5)
"""The numbers of samples for which a network is traced, to find what depends on the number."""
MOST = 2**31 - 1
"""The most bytes in an ONNX file: the limit of protobuf."""


def export(net: Module, x: Any, path: str | os.PathLike[str]) -> None:
    """Write the network's prediction to `path` as an ONNX graph, for any number of samples.

    `x` holds one or more samples, as `predict` takes them: an array (samples, …), or a dict of
    arrays by the names of the network's inputs; only their shapes and dtypes count. In the file,
    the input is called "x", or has the names in the dict; the output is called "y", or has the
    names in the dict that the network returns. Floating inputs have the network's dtype. The
    parameters have their names in `net.state_dict()`.

    In float32, layers for which ONNX has an operator, such as Conv, Gemm and LSTM, become that
    operator. All others, and all layers in float64, become the elementary operations of their
    formulas.

    Raises MissingDependency without ndonnx: `pip install 'polynet-array[onnx]'`; ValueError if the
    network's operations depend on the number of samples, if two arrays have the same name, and if
    the arrays exceed the 2 GiB that a file can hold; FileNotFoundError if its folder is missing;
    and whatever the network itself raises for `x`, or because it reads the numbers in an array.

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import onnxruntime
    >>> from polynet import nn
    >>> from polynet.onnx import export
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).init(seed=0)
    >>> x = np.ones((10, 4), np.float32)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"
    >>> export(net, x[:1], path)
    >>> (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    >>> bool(np.allclose(y, net(x), atol=1e-6))
    True

    ONNX, Open Neural Network Exchange, opset 21: https://onnx.ai/onnx/operators.
    """
    if not isinstance(net, Module):
        raise TypeError(
            f"export: net is a {type(net).__name__}; expected a polynet.nn.Module with its "
            "parameters, such as trainer.net"
        )
    check_folder(path)
    place = place_for(net.parameters(), x, None, None, None)
    with place.active():
        some = inputs(place, x, seed=0).first(1)[0]
        applied(lambda given, _: call(net, given), some)  # raises the network's own errors
    weights = {name: to_numpy(array) for name, array in net.state_dict().items()}
    _check_size(sum(array.nbytes for array in weights.values()))
    kinds = each(lambda a, _: to_numpy(a), some)
    model = merged([_traced(net, weights, kinds, count) for count in COUNTS], COUNTS)
    _complete(model, net, weights)
    replace_file(path, [model.SerializeToString()])


def _traced(net: Module, weights: dict[str, np.ndarray], x: Any, count: int) -> onnx.ModelProto:
    """The graph of the prediction for `count` samples, in which the weights are inputs."""

    def argument(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return ndonnx.argument(shape=shape, dtype=ndonnx.from_numpy_dtype(dtype))

    arrays = {name: argument(a.shape, a.dtype) for name, a in weights.items()}
    given = each(lambda a, _: argument((count, *a.shape[1:]), a.dtype), x)
    with use_backend(Graphs()):
        try:
            outputs = call(net.bind(arrays), given)
        except Exception as error:
            error.add_note(
                "The error arose while export ran the network on arrays of ndonnx. They have "
                "shapes and dtypes but no numbers, and only the methods of the array API standard."
            )
            raise
    ins, outs = _by_name(given, "x"), _by_name(outputs, "y")
    _check_names(ins, outs, arrays)
    return ndonnx.build({**ins, **arrays}, outs)


def _by_name(x: Any, alone: str) -> dict[str, Any]:
    """Arrays by their names in a graph: those in a dict, joined by dots, or `alone`."""
    return {".".join(map(str, path)) or alone: array for path, array in paths(x)}


def _check_names(*groups: Iterable[str]) -> None:
    """Raise ValueError for a name that is in two groups."""
    seen: set[str] = set()
    for name in (name for group in groups for name in group):
        if name in seen:
            raise ValueError(
                f"export: two of the network's inputs, outputs and parameters are called {name!r}; "
                "in an ONNX file each has a name of its own: rename one"
            )
        seen.add(name)


def _check_size(count: int) -> None:
    if count > MOST:
        raise ValueError(
            f"export: the network's arrays take {count:,} bytes; an ONNX file holds at most "
            f"{MOST:,}. Export its parts, each to a file"
        )


def _complete(model: onnx.ModelProto, net: Module, weights: dict[str, np.ndarray]) -> None:
    """Turn the weights, which were inputs, into constants of the graph, and name the graph."""
    graph, used = model.graph, set(_names_read(model.graph))
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:], model.metadata_props[:]
    graph.input.extend(kept)
    graph.initializer.extend(from_array(a, name) for name, a in weights.items() if name in used)
    graph.name, model.producer_name = type(net).__name__, "polynet"
    onnx.checker.check_model(model)


def _names_read(graph: Any) -> Iterator[str]:
    """The names of everything that a graph reads, and that the graphs within it read."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _names_read(attribute.g)
